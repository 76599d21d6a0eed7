"""Searching one log, as far as its deadline goes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from chronik_store.clock import SystemEntropy
from chronik_store.errors import UnavailableError
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
