"""Verify takes its time, and the pipeline goes on meanwhile: that is no damage."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

import chronik_store as chronik
from chronik_store.log_store import LogStore
from chronik_store.partition_log import PartitionLog
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.verify import verify_log
from tests.store.test_verify import URL, filled, open_store


class Watched:
    """An object store; `then` is called once, before the first call of one kind."""

    def __init__(self, store: Any, kind: str, then: Callable[[], None]) -> None:
        self._store = store
        self._kind = kind
        self._then: Callable[[], None] | None = then

    def __getattr__(self, name: str) -> Any:
        then = self._then
        if name == self._kind and then is not None:
            self._then = None
            then()
        return getattr(self._store, name)


def of(store: LogStore) -> tuple[PartitionLog, Any]:
    log = store.partition("t")
    return log, log._core


def seal(log: PartitionLog) -> None:
    log.append([b"more"])
    log.seal()


@pytest.mark.parametrize("deep", [False, True])
def test_what_retention_deletes_is_not_missing(deep: bool) -> None:
    with open_store(filled(), garbage_seconds=0.0) as store:
        log, core = of(store)

        def collect() -> None:
            log.drop_before(log.watermarks.sealed)
            for _ in range(3):
                assert log.run_pipeline_once().errors == ()

        bucket = Watched(store._bucket.store, "head", collect)
        report = verify_log(core, core.env, bucket, deep=deep)
        assert store._bucket.store.list("segments/") == []
        assert report.findings == ()


def test_nor_for_a_reader_of_the_bucket() -> None:
    disk = filled()
    with open_store(disk, garbage_seconds=0.0) as store:
        log, core = of(store)
        with chronik.open_bucket(URL, topic="t", env=core.env) as reader:
            log.drop_before(log.watermarks.sealed)
            for _ in range(3):
                assert log.run_pipeline_once().errors == ()
            assert reader.verify().findings == ()


def test_what_is_lost_is_still_found() -> None:
    with open_store(filled()) as store:
        _, core = of(store)
        bucket = store._bucket.store
        [gone, *_] = [each.key for each in bucket.list("segments/")]
        bucket.delete([gone])
        report = verify_log(core, core.env, bucket, deep=False)
        assert [(each.severity, each.where) for each in report.findings] == [("corruption", gone)]


def test_an_upload_under_way_is_no_object_that_nothing_names(disk: SimulatedDisk) -> None:
    """Whoever believes the note deletes a segment."""
    with open_store(disk) as store:
        log, core = of(store)

        def upload() -> None:
            seal(log)
            disk.hook = fail_next("link", errno.EIO, path_end=".cbor")
            report = log.run_pipeline_once()
            assert (report.uploaded, report.published) == (1, 0)

        bucket = Watched(store._bucket.store, "list", upload)
        assert verify_log(core, core.env, bucket, deep=False).findings == ()


def test_entries_that_move_to_the_bucket_meanwhile_are_not_lost(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(disk) as store:
        log, core = of(store)
        files = core.wal.files

        def moved() -> Any:
            monkeypatch.undo()
            seal(log)
            first_index = core.wal.first_index
            assert log.run_pipeline_once().errors == ()
            assert core.wal.first_index > first_index
            return files()

        monkeypatch.setattr(core.wal, "files", moved)
        assert log.verify().findings == ()


def test_what_stands_behind_files_that_are_pruned_meanwhile_is_looked_at(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(disk) as store:
        log, core = of(store)
        seal(log)
        log.append([b"kept"])
        last_index, read = core.wal.last_index, core.wal.read

        def pruned(*arguments: int) -> Any:
            monkeypatch.undo()
            first_index = core.wal.first_index
            assert log.run_pipeline_once().errors == ()
            assert first_index < core.wal.first_index <= last_index
            return read(*arguments)

        monkeypatch.setattr(core.wal, "read", pruned)
        report = log.verify()
        assert report.findings == ()
        assert report.entries_checked == last_index - core.wal.first_index + 1


@pytest.fixture(name="disk")
def disk_fixture() -> SimulatedDisk:
    return filled()
