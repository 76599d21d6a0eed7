"""The memory tail and the budget that all tails of a store share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chronik_store.format.entry import EntryHeader
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.threads import SystemThreads
from chronik_store.wal.tail import MemoryTail, TailBudget

Opens = Callable[..., Any]


def fill(tail: MemoryTail, count: int, size: int = 100) -> None:
    for _ in range(count):
        index = tail.next_index
        tail.append(EntryHeader(2, 1, index, 0, 0, 0, size, 0), bytes(size))


def test_it_reads_what_it_holds_within_the_bytes_asked_for() -> None:
    tail = MemoryTail()
    fill(tail, 10)

    assert [e.header.index for e in tail.read(3, 9, 350)] == [3, 4]
    assert [e.header.index for e in tail.read(3, 9, 1)] == [3]
    assert len(tail.read(1, 10, 1 << 20)) == 10


def test_truncation_and_eviction_meet_in_the_middle() -> None:
    tail = MemoryTail()
    fill(tail, 10)
    tail.evict(0, 4)
    assert (tail.first_index, tail.next_index) == (4, 11)
    tail.truncate(6)
    assert (tail.first_index, tail.next_index) == (4, 6)
    tail.truncate(2)
    assert (tail.first_index, tail.next_index) == (2, 2)
    assert tail.bytes_held == 0
    fill(tail, 1)
    assert tail.read(2, 2, 1)[0].header.index == 2


class Log:
    """A tail with an owner that evicts all that it is asked to, but `stuck` bytes."""

    def __init__(self, stuck: int = 0) -> None:
        self.held = 0
        self.stuck = stuck
        self.patience = 1000

    def shrink_tail(self, goal_bytes: int) -> int:
        self.patience -= 1
        assert self.patience >= 0, "asked again and again"
        self.held = max(goal_bytes, min(self.stuck, self.held))
        return self.held


def test_the_log_that_was_used_least_recently_gives_way() -> None:
    budget = TailBudget(SystemThreads(), 1000)
    logs = [Log() for _ in range(3)]
    for log in logs:
        log.held = 300
        budget.report(log, 300)

    logs[0].held = 600
    budget.report(logs[0], 600)

    assert [log.held for log in logs] == [600, 100, 300]
    assert budget.total_bytes == 1000


def test_one_log_alone_stays_within_the_budget() -> None:
    budget = TailBudget(SystemThreads(), 1000)
    log = Log()
    log.held = 5000
    budget.report(log, 5000)

    assert log.held == 1000


def test_what_is_in_flight_everywhere_is_let_be() -> None:
    budget = TailBudget(SystemThreads(), 10)
    logs = [Log(stuck=500) for _ in range(3)]
    for log in logs:
        log.held = 500
        budget.report(log, 500)

    assert [log.held for log in logs] == [500, 500, 500]
    for log in logs:
        budget.forget(log)
    assert budget.total_bytes == 0


def test_a_log_that_holds_nothing_does_not_wait_for_what_others_have_in_flight() -> None:
    budget = TailBudget(SystemThreads(), 10)
    logs = [Log(stuck=500) for _ in range(2)]
    for log in logs:
        log.held = 500
        budget.report(log, 500)
    for log in logs:
        log.patience = 1

    budget.report(Log(), 0)  # another's report took its entries, right behind its own group

    assert budget.total_bytes == 1000


def test_entries_that_are_not_durable_stay_in_memory(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk, tail_bytes=0)
    owner.append(b"durable")
    owner.stage(b"staged")

    assert owner.wal.shrink_tail(0) > 0
    assert owner.wal.tail_first_index == 2
    assert owner.live() == {1: b"durable", 2: b"staged"}
