"""A bucket alone becomes a data directory again, once, and its old owner is fenced."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from chronik_store import LogConfig, LogStore
from chronik_store.environment import Environment
from chronik_store.errors import (
    ChronikError,
    ConfigError,
    CorruptionError,
    FencedError,
    UnavailableError,
)
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import Record
from chronik_store.objectstore.layout import parse_manifest_key
from chronik_store.objectstore.local import LocalObjectStore
from chronik_store.restore import restore
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.disk_faults import crash_at, fail_next
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk
from tests.depth import share

CONFIG = LogConfig(
    pipeline_enabled=False,
    indexing_enabled=False,
    segment_bytes=2000,
    cache_disk_bytes=0,
    disk_reserve_bytes=0,
    disk_throttle_bytes=0,
    garbage_seconds=0.0,
)
URL = "file:///bucket"


def env_of(disk: SimulatedDisk) -> Environment:
    return Environment(fs=disk, threads=MortalThreads())


def open_store(disk: SimulatedDisk, path: str = "/old", *, read_only: bool = False) -> LogStore:
    return LogStore.open(
        path, object_store=URL, config=CONFIG, env=env_of(disk), read_only=read_only
    )


def value(number: int) -> bytes:
    return b"%06d" % number + b"v" * 400


def drain(log: Any) -> None:
    for _ in range(20):
        report = log.run_pipeline_once()
        assert report.errors == ()
        if report.idle:
            return
    raise AssertionError("never idle")


def fill(disk: SimulatedDisk, count: int = 20, partitions: int = 1) -> None:
    """A store with `count` tiered records in each partition."""
    with open_store(disk) as store:
        store.create_topic("t", partitions=partitions)
        for partition in range(partitions):
            log = store.partition("t", partition)
            for number in range(count):
                log.append([value(number)])
            log.seal()
            drain(log)


def values(log: Any, start: int | None = None) -> list[bytes]:
    return [record.value for record in log.scan(start)]


def test_everything_in_the_bucket_is_there_again_and_the_log_goes_on() -> None:
    disk = SimulatedDisk()
    fill(disk, partitions=3)
    report = restore(URL, "/new", config=CONFIG, env=env_of(disk))
    assert [(each.topic, each.partition, each.end_offset) for each in report.logs] == [
        ("t", 0, 20),
        ("t", 1, 20),
        ("t", 2, 20),
    ]
    with open_store(disk, "/new") as store:
        assert store.topics()[0].partitions == 3
        for partition in range(3):
            log = store.partition("t", partition)
            assert values(log) == [value(number) for number in range(20)]
            for number in range(20, 30):
                log.append([value(number)])
            log.seal()
            drain(log)
            assert log.verify(bucket=True, deep=True).findings == ()
            assert values(log) == [value(number) for number in range(30)]
    with open_store(disk, "/new") as store:
        assert values(store.partition("t")) == [value(number) for number in range(30)]


def test_the_old_owner_is_fenced_and_keeps_what_it_has() -> None:
    disk = SimulatedDisk()
    fill(disk)
    with open_store(disk) as old:
        log = old.partition("t")
        log.append([b"not in the bucket"])
        restore(URL, "/new", config=CONFIG, env=env_of(disk))
        objects = disk.paths("/bucket")
        log.seal()
        report = log.run_pipeline_once()
        assert "taken over" in report.errors[0] or "claimed" in report.errors[0]
        assert disk.paths("/bucket") == objects
        assert log.run_pipeline_once().idle
        assert values(log)[-1] == b"not in the bucket"
        assert log.status().fenced


def test_what_was_sealed_and_not_tiered_is_reported_as_missing() -> None:
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        log.append([value(0)])
        log.seal()
        drain(log)
        log.append([value(1)])
        log.seal()
        log.cursor("reader").commit(2)
    report = restore(URL, "/new", config=CONFIG, env=env_of(disk))
    assert report.logs[0].end_offset == 1


def test_a_cursor_past_the_end_is_moved_back_and_named() -> None:
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        for number in range(4):
            log.append([value(number)])
        log.cursor("reader").commit(3)
        log.cursor("early").commit(1)
        log.seal()
        drain(log)
    report = restore(URL, "/new", until_offset=2, config=CONFIG, env=env_of(disk))
    assert report.logs[0].cursors_moved == ("reader",)
    with open_store(disk, "/new") as store:
        log = store.partition("t")
        assert log.cursor("reader").offset == 2
        assert log.cursor("early").offset == 1


@pytest.mark.parametrize("cut", [0, 1, 4, 5, 7, 10, 19, 20, 99])
def test_a_cut_by_offset_keeps_exactly_what_is_below(cut: int) -> None:
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        for first in range(0, 20, 2):
            log.append([value(first), value(first + 1)])
        log.seal()
        drain(log)
    objects = disk.paths("/bucket/segments")
    report = restore(URL, "/new", until_offset=cut, config=CONFIG, env=env_of(disk))
    end = min(cut, 20)
    assert report.logs[0].end_offset == end
    assert report.logs[0].cut_offsets == 20 - end
    with open_store(disk, "/new") as store:
        log = store.partition("t")
        assert values(log) == [value(number) for number in range(end)]
        log.append([b"after"])
        log.seal()
        drain(log)
        assert values(log) == [*(value(number) for number in range(end)), b"after"]
        findings = log.verify(bucket=True, deep=True).findings
        assert [each for each in findings if each.severity != "note"] == []
    with open_store(disk, "/new") as store:
        assert len(values(store.partition("t"))) == end + 1
    assert set(objects) <= set(disk.paths("/bucket/segments"))


def test_a_cut_by_time_keeps_what_was_appended_until_then() -> None:
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        for number in range(12):
            log.append([Record(value(number), timestamp_us=1000 + number)])
        log.seal()
        drain(log)
    restore(URL, "/new", until_us=1006, config=CONFIG, env=env_of(disk))
    with open_store(disk, "/new") as store:
        log = store.partition("t")
        assert values(log) == [value(number) for number in range(7)]
        assert [record.timestamp_us for record in log.scan()] == list(range(1000, 1007))


def test_keys_headers_and_times_survive_a_cut_inside_a_batch() -> None:
    disk = SimulatedDisk()
    records = [
        Record(b"v%d" % n, key=None if n % 2 else b"k%d" % n, headers=[("h", b"%d" % n)])
        for n in range(6)
    ]
    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        log.append(records)
        log.seal()
        drain(log)
        before = list(log.scan())
    restore(URL, "/new", until_offset=4, config=CONFIG, env=env_of(disk))
    with open_store(disk, "/new") as store:
        assert list(store.partition("t").scan()) == before[:4]


def test_a_producer_goes_on_where_the_buckets_data_ends() -> None:
    disk = SimulatedDisk()

    def batch(sequence: int) -> RecordBatch:
        return RecordBatch.build([value(sequence)], producer_id=7, base_sequence=sequence)

    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        for sequence in range(5):
            log.append(batch(sequence))
        log.seal()
        drain(log)
        log.append(batch(5))  # in the old directory only
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    with open_store(disk, "/new") as store:
        log = store.partition("t")
        assert log.append(batch(4)).duplicate
        assert not log.append(batch(5)).duplicate
        assert log.watermarks.end == 6


def test_a_log_whose_start_is_past_its_tiered_end_starts_there() -> None:
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        for number in range(3):
            log.append([value(number)])
        log.seal()
        drain(log)
        for number in range(3, 6):
            log.append([value(number)])
        log.drop_before(5)
        drain(log)
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    with open_store(disk, "/new") as store:
        log = store.partition("t")
        assert log.watermarks.start == log.watermarks.end == 5
        assert log.append([b"next"]).base_offset == 5


def test_a_partition_that_never_reached_the_bucket_is_there_and_empty() -> None:
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t", partitions=3)
        log = store.partition("t", 2)
        log.append([value(0)])
        log.seal()
        drain(log)
    report = restore(URL, "/new", config=CONFIG, env=env_of(disk))
    assert [each.old_log_id is None for each in report.logs] == [True, True, False]
    with open_store(disk, "/new") as store:
        assert [len(values(store.partition("t", number))) for number in range(3)] == [0, 0, 1]
        store.partition("t", 0).append([b"x"])


def test_a_restored_log_can_be_restored_again() -> None:
    disk = SimulatedDisk()
    fill(disk, 6)
    for round_number in range(3):
        path = f"/new{round_number}"
        restore(URL, path, config=CONFIG, env=env_of(disk))
        with open_store(disk, path) as store:
            log = store.partition("t")
            log.append([value(6 + round_number)])
            log.seal()
            drain(log)
            assert values(log) == [value(number) for number in range(7 + round_number)]


def test_a_directory_that_is_in_use_is_left_alone() -> None:
    disk = SimulatedDisk()
    fill(disk)
    files = disk.paths("/")
    with pytest.raises(ConfigError, match="data directory already"):
        restore(URL, "/old", config=CONFIG, env=env_of(disk))
    assert disk.paths("/") == files


def test_a_prefix_without_a_store_is_refused() -> None:
    disk = SimulatedDisk()
    env = env_of(disk)
    with pytest.raises(UnavailableError, match="there is no bucket file:///nothing"):
        restore("file:///nothing", "/new", config=CONFIG, env=env)
    assert not env.fs.exists("/nothing")
    env.fs.make_directories("/nothing")
    with pytest.raises(ConfigError, match="holds no Chronik store"):
        restore("file:///nothing", "/new", config=CONFIG, env=env)
    assert not env.fs.exists("/new")


def test_a_deleted_topic_does_not_come_back() -> None:
    disk = SimulatedDisk()
    fill(disk, 6)
    with open_store(disk) as store:
        store.delete_topic("t")
        store.create_topic("t")
        log = store.partition("t")
        log.append([b"namesake"])
        log.seal()
        drain(log)
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    with open_store(disk, "/new") as store:
        assert values(store.partition("t")) == [b"namesake"]


def test_progress_is_told() -> None:
    disk = SimulatedDisk()
    fill(disk, 3, partitions=2)
    told: list[tuple[str, int, int]] = []
    restore(URL, "/new", config=CONFIG, env=env_of(disk), progress=lambda *each: told.append(each))
    assert told == [("partitions", 0, 2), ("partitions", 1, 2), ("partitions", 2, 2)]


# --- crashes, rivals ----------------------------------------------------------------------------


def prepared() -> SimulatedDisk:
    disk = SimulatedDisk(seed=3)
    fill(disk, 9, partitions=2)
    return disk


def claims(disk: SimulatedDisk) -> int:
    """Manifests that name a successor."""
    from chronik_store.format.manifest_file import decode_manifest_object

    paths = disk.paths("/bucket/manifests")
    return sum(decode_manifest_object(disk.peek(path)).successor is not None for path in paths)


def restore_calls() -> tuple[int, int]:
    disk = prepared().kill()
    restore(URL, "/new", until_offset=7, config=CONFIG, env=env_of(disk))
    return 1, disk.calls


@pytest.mark.parametrize(
    "stride", [17, pytest.param(share(4, every=1), marks=pytest.mark.slow, id="every call")]
)
def test_a_crash_at_any_call_is_finished_by_the_next_run(stride: int) -> None:
    first, last = restore_calls()
    for call in range(first, last, stride):
        disk = prepared().kill()
        disk.hook = crash_at(call)
        with suppress(CrashError, ChronikError):
            restore(URL, "/new", until_offset=7, config=CONFIG, env=env_of(disk))
        disk = disk.crash("any")
        if not disk.exists("/new/STORE"):
            with pytest.raises((CorruptionError, ConfigError)):
                open_store(disk, "/new", read_only=True)
        if disk.exists("/new/RESTORE") or not disk.exists("/new/STORE"):
            restore(URL, "/new", until_offset=7, config=CONFIG, env=env_of(disk))
        with open_store(disk, "/new") as store:
            for partition in range(2):
                log = store.partition("t", partition)
                assert values(log) == [value(number) for number in range(7)], f"call {call}"
                log.append([b"after"])
                drain(log)
                assert all(each.severity == "note" for each in log.verify(bucket=True).findings)
        assert claims(disk) == 2, f"call {call}"


def test_a_restore_that_was_complete_does_not_touch_what_was_appended_since() -> None:
    disk = prepared().kill()
    disk.hook = fail_next("remove", 5, path_end="/RESTORE")
    with pytest.raises(ChronikError):
        restore(URL, "/new", config=CONFIG, env=env_of(disk))
    disk = disk.kill()
    with open_store(disk, "/new") as store:
        store.partition("t").append([b"since"])
    assert restore(URL, "/new", config=CONFIG, env=env_of(disk)).was_complete
    assert not disk.exists("/new/RESTORE")
    with open_store(disk, "/new") as store:
        assert values(store.partition("t"))[-1] == b"since"


def test_an_unfinished_restore_is_not_opened_and_not_mistaken() -> None:
    disk = prepared().kill()
    disk.hook = crash_at(restore_calls()[1] // 2)
    with suppress(CrashError, ChronikError):
        restore(URL, "/new", until_offset=7, config=CONFIG, env=env_of(disk))
    disk = disk.crash("kept")
    with pytest.raises(CorruptionError, match="chronik restore"):
        open_store(disk, "/new")
    with pytest.raises(ConfigError, match="unfinished restore"):
        restore(URL, "/new", until_offset=8, config=CONFIG, env=env_of(disk))


def test_of_two_restores_the_later_claim_wins_and_the_other_is_told() -> None:
    disk = prepared().kill()
    disk.hook = crash_at(restore_calls()[1] * 2 // 3)
    with suppress(CrashError, ChronikError):
        restore(URL, "/new", until_offset=7, config=CONFIG, env=env_of(disk))
    disk = disk.crash("kept")
    assert claims(disk) >= 1
    restore(URL, "/other", config=CONFIG, env=env_of(disk))
    with pytest.raises(FencedError, match="taken over"):
        restore(URL, "/new", until_offset=7, config=CONFIG, env=env_of(disk))
    with open_store(disk, "/other") as store:
        # It goes on from the log that was in force: the first restore's, with its cut.
        assert values(store.partition("t")) == [value(number) for number in range(7)]


def test_an_owner_that_publishes_meanwhile_is_read_again(tmp_path: Path) -> None:
    disk = SimulatedDisk()
    fill(disk, 6)
    old = open_store(disk)
    log = old.partition("t")
    put = LocalObjectStore.put_if_absent
    raced = []

    def racing(self: Any, key: str, data: Any) -> Any:
        if parse_manifest_key(key) is not None and not raced:
            raced.append(key)
            log.append([value(6)])
            log.seal()
            drain(log)
        return put(self, key, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalObjectStore, "put_if_absent", racing)
        report = restore(URL, "/new", config=CONFIG, env=env_of(disk))
    assert raced
    assert report.logs[0].end_offset == 7
    old.close()
