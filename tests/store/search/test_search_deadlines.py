"""An answer within its deadline: what is slow is left out and named, and nobody waits longer."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest

from chronik_store.clock import SystemClock
from chronik_store.model import SearchResult, StoredRecord
from tests.store.search.partition import Partition, offsets


def test_without_time_only_what_is_open_already_is_searched(partition: Partition) -> None:
    nothing = partition.search("disk", deadline_seconds=0.0)
    assert ((0, 4), (4, 8), (8, 12)) == nothing.coverage[0].missing
    assert {"deadline", "not indexed yet: deadline"} == set(nothing.coverage[0].reasons)
    assert [] == partition.opened

    partition.search("disk")
    again = partition.search("disk", deadline_seconds=0.0)
    # The batch that offset 8 is in begins at 6, so the tail holds a little of the bundle too.
    assert ((6, 12),) == again.coverage[0].searched
    assert [11, 10, 9, 8, 7, 6] == offsets(again)


def test_a_bundle_that_another_thread_fetches_is_waited_for_until_the_deadline(
    partition: Partition,
) -> None:
    ref = partition.bundles[0]
    fetching, go_on = threading.Event(), threading.Event()

    def slow(position: int, length: int) -> bytes:
        fetching.set()
        assert go_on.wait(30)
        return ref.read_range(position, length)

    partition.bundles[0] = dataclasses.replace(ref, read_range=slow)
    first: list[SearchResult] = []
    searching = threading.Thread(target=lambda: first.append(partition.search("disk")))
    searching.start()
    assert fetching.wait(10)

    second = partition.search("disk", deadline_seconds=0.3)

    assert searching.is_alive()
    assert {(0, 4)} <= set(second.coverage[0].missing)
    assert any("still being fetched" in reason for reason in second.coverage[0].reasons)
    go_on.set()
    searching.join(30)
    assert first[0].complete


def test_whoever_has_a_bundle_fetched_waits_no_longer_than_others(partition: Partition) -> None:
    """It waited for all of the bundle, however slow the bucket; what it gave up goes on."""
    ref = partition.bundles[0]
    go_on = threading.Event()

    def slow(position: int, length: int) -> bytes:
        assert go_on.wait(30)
        return ref.read_range(position, length)

    partition.bundles[0] = dataclasses.replace(ref, read_range=slow)
    given_up = partition.search("disk", deadline_seconds=0.3)

    assert given_up.elapsed_seconds < 10
    assert {(0, 4)} <= set(given_up.coverage[0].missing)
    assert any("still being fetched" in reason for reason in given_up.coverage[0].reasons)
    go_on.set()
    assert partition.search("disk").complete
    assert partition.opened.count(0) == 1


def test_no_deadline_waits_for_all(partition: Partition) -> None:
    assert partition.search("disk", deadline_seconds=None).complete


class _LateClock(SystemClock):
    """Ahead of the machine's by `seconds`."""

    seconds = 0.0

    def monotonic(self) -> float:  # type: ignore[override]
        return time.monotonic() + self.seconds


def test_records_that_are_slow_to_come_are_not_read_behind_the_deadline(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of up to `limit` was waited for, 30 s of a bucket that hangs."""
    clock, fetch = _LateClock(), partition.fetch

    def slow(offset: int) -> StoredRecord:
        clock.seconds += 20.0 if offset < 10 else 0.0
        return fetch(offset)

    partition.clock = clock
    monkeypatch.setattr(partition, "fetch", slow)
    result = partition.search("disk", deadline_seconds=30.0)

    (part,) = result.coverage
    assert ([11, 10, 9, 8], 4, False) == (offsets(result), result.total, result.total_is_exact)
    assert (((8, 12),), {"deadline"}) == (part.searched, set(part.reasons))
    clock.seconds = 0.0
    assert [11, 10] == offsets(partition.search("disk", start=10, deadline_seconds=0.0))
