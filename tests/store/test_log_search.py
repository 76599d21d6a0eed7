"""Searching one log, as far as its deadline goes."""

from __future__ import annotations

import dataclasses
import gc
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chronik_store.bucket_log import open_bucket
from chronik_store.clock import SystemEntropy
from chronik_store.config import _BOUNDS, LogConfig
from chronik_store.environment import Environment
from chronik_store.errors import UnavailableError
from chronik_store.log_store import LogStore
from chronik_store.model import Record
from chronik_store.objectstore.retry import RetryingObjectStore
from chronik_store.partition_log import PartitionLog
from chronik_store.repair import apply_repair
from chronik_store.restore import restore


class Clock:
    """Nothing takes time but sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time_us(self) -> int:
        return int(self.now * 1e6)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Before:
    """A bucket that does something before it gives the first byte of a bundle."""

    def __init__(self, store: Any, act: Callable[[], None]) -> None:
        self._store = store
        self._acts = [act]

    def get_range(self, key: str, start: int, length: int) -> Any:
        if key.startswith("indexes/") and self._acts:
            self._acts.pop()()
        return self._store.get_range(key, start, length)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Down:
    """A bucket that has no bundles for anybody."""

    url = "memory://down"

    def close(self) -> None:
        """It is not even there."""

    def __getattr__(self, _name: str) -> Any:
        def refuse(*_arguments: Any, **_options: Any) -> Any:
            raise UnavailableError("connection refused")

        return refuse


CONFIG = LogConfig(pipeline_enabled=False)


def publish(log: PartitionLog) -> None:
    log.seal()
    assert log.run_pipeline_once().errors == ()


@pytest.mark.parametrize("cursors", [0, 5])
@pytest.mark.parametrize("require_complete", [False, True])
def test_an_answer_is_of_one_log_though_a_restore_takes_its_place_meanwhile(
    tmp_path: Path, cursors: int, require_complete: bool
) -> None:
    """Offsets of the old log's bundles were read from the new one, or raised an IndexError."""
    url = f"file://{tmp_path}/bucket"
    with PartitionLog.open(tmp_path / "d", topic="t", object_store=url, config=CONFIG) as log:
        for number in range(10):
            log.append(b"apple %d" % number)
        publish(log)

    def restore_and_go_on() -> None:
        restore(url, str(tmp_path / "new"), until_offset=5, config=CONFIG)
        with PartitionLog.open(tmp_path / "new", topic="t", config=CONFIG) as log:
            for number in range(10):
                log.append(b"pear %d" % number)
                for cursor in range(cursors):
                    log.cursor(f"c{cursor}").commit(number)
            publish(log)
        assert reader.watermarks.end == 15

    with open_bucket(url, topic="t", config=CONFIG) as reader:
        search = reader._search
        search._bucket.store = Before(search._bucket.store, restore_and_go_on)
        found = reader.search("apple", limit=20, require_complete=require_complete)

    assert [b"apple %d" % number for number in (4, 3, 2, 1, 0)] == [
        hit.record.value for hit in found
    ]
    assert (found.total, found.complete) == (5, True)
    assert found.coverage[0].searched == ((0, 15),)


def test_a_search_that_another_log_takes_the_place_of_its_own_under_again_and_again_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PartitionLog.open(tmp_path, topic="t", config=CONFIG) as log:
        log.append(b"hello")
        monkeypatch.setattr(log._search, "_is_there", lambda _look: False)
        with pytest.raises(UnavailableError, match="search again"):
            log.search("hello")


def test_the_tail_of_a_log_that_a_restore_has_replaced_is_given_up(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket"
    config = dataclasses.replace(CONFIG, indexing_enabled=False)
    with PartitionLog.open(tmp_path / "d", topic="t", object_store=url, config=config) as log:
        log.append([b"apple", b"apple"])
        publish(log)
    with open_bucket(url, topic="t", config=config) as reader:
        assert reader.search("apple").total == 2
        [old] = reader._search._tails.values()
        restore(url, str(tmp_path / "new"), config=config)
        with PartitionLog.open(tmp_path / "new", topic="t", config=config) as log:
            log.append(b"apple pear")
            publish(log)
        assert reader.search("apple").total == 3
        [new] = reader._search._tails.values()
        assert (old.document_count, new.document_count) == (0, 3)
        assert len(os.listdir(f"{reader._search._scratch._temporary}/tail/t/0")) == 1


def test_a_log_that_has_taken_back_what_it_had_shown_is_indexed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PartitionLog.open(tmp_path, topic="t", config=CONFIG) as log:
        log.append(b"apple")
        assert log.search("apple").total == 1
        [old] = log._search._tails.values()
        monkeypatch.setattr(log._search, "_rewinds", lambda: 1)
        assert log.search("apple").total == 1
        [new] = log._search._tails.values()
        assert (old.document_count, new.document_count) == (0, 1)


def test_the_tail_of_a_search_that_comes_late_is_given_up_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had looked before a restore, and indexed after the first search of the new log."""
    with PartitionLog.open(tmp_path, topic="t", config=CONFIG) as log:
        log.append(b"apple")
        plan = log._search._plan

        def late(*arguments: Any) -> Any:
            monkeypatch.setattr(log._search, "_plan", plan)
            monkeypatch.setattr(log._search, "_rewinds", lambda: 1)
            assert log.search("apple").total == 1
            return plan(*arguments)

        monkeypatch.setattr(log._search, "_plan", late)
        assert log.search("apple").total == 1
        assert log.search("apple").total == 1
        assert [(log.status().log_id, 1)] == [*log._search._tails]
        assert len(os.listdir(log._search._scratch.tail("t", 0))) == 1


@pytest.mark.parametrize("from_bucket", [False, True])
def test_a_reader_gives_up_what_bundles_have_taken_over(tmp_path: Path, from_bucket: bool) -> None:
    """Its tail index grew with all that it ever searched, until new records found no room."""
    path, url = tmp_path / "d", f"file://{tmp_path}/bucket"
    unindexed = dataclasses.replace(CONFIG, indexing_enabled=False)
    with PartitionLog.open(path, topic="t", object_store=url, config=unindexed) as log:
        log.append([b"apple"] * 5)
        publish(log)
    with (
        open_bucket(url, topic="t", config=CONFIG)
        if from_bucket
        else PartitionLog.open(path, topic="t", config=CONFIG, read_only=True) as reader
    ):

        def held(total: int) -> tuple[tuple[int, int], ...]:
            assert reader.search("apple").total == total
            [tail] = reader._search._tails.values()
            return tail.covered()

        assert held(5) == ((0, 5),)
        with PartitionLog.open(path, topic="t", object_store=url, config=CONFIG) as log:
            publish(log)  # the bundle of what there is
        with PartitionLog.open(path, topic="t", object_store=url, config=unindexed) as log:
            log.append([b"apple"] * 2)
            publish(log)
        assert held(7) == ((5, 7),)
        with PartitionLog.open(path, topic="t", object_store=url, config=CONFIG) as log:
            publish(log)
        assert held(7) == ()


@pytest.mark.parametrize("deadline_seconds", [0.0, 1.0, 5.0])
def test_in_an_outage_a_search_keeps_to_its_deadline(
    tmp_path: Path, deadline_seconds: float
) -> None:
    with PartitionLog.open(tmp_path, topic="t") as log:
        log.append(b"hello")
        log.seal()
        assert log.run_pipeline_once().errors == ()
        search, clock = log._search, Clock()
        search._env = dataclasses.replace(search._env, clock=clock)
        search._bucket.store = RetryingObjectStore(Down(), clock=clock, entropy=SystemEntropy())
        found = log.search("hello", deadline_seconds=deadline_seconds)

    assert clock.now <= deadline_seconds
    # In half a deadline at least the records themselves are there, for the tail index.
    assert [hit.record.value for hit in found.hits] == ([b"hello"] if deadline_seconds else [])


def test_a_deadline_is_for_all_partitions_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes all of its time leaves the others theirs, and nobody waits N times as long."""
    clock, given = Clock(), list[float]()
    search = PartitionLog.search

    def slow(log: PartitionLog, query: str, *, deadline_seconds: float, **options: Any) -> Any:
        given.append(deadline_seconds)
        clock.now += deadline_seconds if len(given) == 1 else 1.0
        return search(log, query, deadline_seconds=deadline_seconds, **options)

    monkeypatch.setattr(PartitionLog, "search", slow)
    config = LogConfig(pipeline_enabled=False, search_deadline_seconds=12)
    with LogStore.open(tmp_path / "d", config=config, env=Environment(clock=clock)) as store:
        store.create_topic("t", partitions=4)
        store.search("t", "needle")
        assert given == [3.0, 3.0, 4.0, 7.0]  # what one did not need goes to those behind it
        given.clear()
        store.search("t", "needle", deadline_seconds=2)
        assert given == [0.5, 0.5, 0.25, 0.0]
        for wrong in (-1, "1"):
            with pytest.raises((TypeError, ValueError), match="seconds"):
                store.search("t", "needle", deadline_seconds=wrong)


@pytest.mark.parametrize(("search_cache_bytes", "kept"), [(0, False), (1 << 20, True)])
def test_what_stays_unpacked_is_a_setting_of_writers_and_of_readers(
    tmp_path: Path, search_cache_bytes: int, kept: bool
) -> None:
    config = LogConfig(pipeline_enabled=False, search_cache_bytes=search_cache_bytes)
    url = f"file://{tmp_path}/bucket"
    with PartitionLog.open(tmp_path / "d", topic="t", object_store=url, config=config) as log:
        log.append(b"hello")
        log.seal()
        assert log.run_pipeline_once().errors == ()
        with open_bucket(url, topic="t", config=config) as reader:
            for each in (log, reader):
                assert each.search("hello").total == 1
                assert bool(each._search._bundles.open_bytes) == kept


def test_beside_a_repair_a_reader_finds_what_stands_there_now(tmp_path: Path) -> None:
    """Its tail index kept the records that `repair` had given up, and their offsets had others."""
    with PartitionLog.open(tmp_path, topic="t", config=CONFIG) as log:
        for number in range(10):
            log.append(b"apple %d " % number + bytes(300))
    with PartitionLog.open(tmp_path, topic="t", config=CONFIG, read_only=True) as reader:
        assert reader.search("apple").total == 10
        [wal] = [path for path in (tmp_path / "wal/t/0").iterdir() if b"apple" in path.read_bytes()]
        data = bytearray(wal.read_bytes())
        data[data.index(b"apple 5")] ^= 1
        with wal.open("r+b") as file:
            file.write(data)
        assert [each.end_offset for each in apply_repair(tmp_path, config=CONFIG)] == [5]
        with PartitionLog.open(tmp_path, topic="t", config=CONFIG) as log:
            for number in range(10):
                log.append(b"pear %d" % number)
            assert log.search("pear").total == 10
        assert reader.search("apple").total == 5
        assert reader.search("pear").total == 10


@pytest.mark.parametrize("end", ["least", "most"])
def test_either_bound_of_the_memory_for_the_tail_finds_records(tmp_path: Path, end: str) -> None:
    """What a setting may be, tantivy takes."""
    bounds = {name: {"least": low, "most": high} for name, low, high in _BOUNDS}
    memory_bytes = int(bounds["tail_index_bytes"][end])
    config = LogConfig(tail_index_bytes=memory_bytes, pipeline_enabled=False)

    with PartitionLog.open(tmp_path, topic="t", config=config) as log:
        log.append(b"a word")

        assert log.search("word", require_complete=True).total == 1


def test_an_answer_holds_no_more_records_than_there_is_room_for(tmp_path: Path) -> None:
    """One request for a million hits of a megabyte took all the memory of a server."""
    config = LogConfig(search_answer_bytes=2_000, pipeline_enabled=False)
    record = Record(b"disk " + b"x" * 600, key=b"k" * 300, headers=[("h", b"y" * 94)])

    with PartitionLog.open(tmp_path, topic="t", config=config) as log:
        log.append([record] * 5)

        found = log.search("disk", limit=5)
        assert [4, 3] == [hit.offset for hit in found]
        assert ((0, 3),) == found.coverage[0].missing
        assert "ask with a smaller limit" in found.coverage[0].reasons[0]
        assert not found.total_is_exact
        with pytest.raises(UnavailableError, match="smaller limit"):
            log.search("disk", require_complete=True)

        found = log.search("disk", limit=2, require_complete=True)
        assert [4, 3] == [hit.offset for hit in found]
        assert 5 == found.total


def test_of_many_partitions_nothing_is_held_that_cannot_be_among_the_best(
    tmp_path: Path,
) -> None:
    """It held every partition's answer until the last had answered, to throw all but one away."""
    with LogStore.open(tmp_path, config=LogConfig(pipeline_enabled=False)) as store:
        store.create_topic("t", partitions=8)
        for partition in range(8):
            log = store.partition("t", partition)
            log.append([Record(b"disk " + bytes(1 << 20), timestamp_us=partition)] * 4)
        store.search("t", "disk", limit=0)
        gc.collect()
        tracemalloc.start()
        try:
            found = store.search("t", "disk", limit=4)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert [(hit.partition, hit.offset) for hit in found] == [(7, n) for n in (3, 2, 1, 0)]
    assert found.total == 32
    assert [each.partition for each in found.coverage] == list(range(8))
    assert peak_bytes < 16 << 20
