"""Searching one log, as far as its deadline goes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from chronik_store.bucket_log import open_bucket
from chronik_store.clock import SystemEntropy
from chronik_store.config import LogConfig
from chronik_store.environment import Environment
from chronik_store.errors import UnavailableError
from chronik_store.log_store import LogStore
from chronik_store.objectstore.retry import RetryingObjectStore
from chronik_store.partition_log import PartitionLog


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


class Down:
    """A bucket that has no bundles for anybody."""

    url = "memory://down"

    def close(self) -> None:
        """It is not even there."""

    def __getattr__(self, _name: str) -> Any:
        def refuse(*_arguments: Any, **_options: Any) -> Any:
            raise UnavailableError("connection refused")

        return refuse


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
