"""Ctrl-C, and errors of those who are told: the lead goes on, and nobody waits for ever."""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from chronik_store.errors import LogPoisonedError
from chronik_store.testing.disk_faults import Gate
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.wal import group_commit
from tests.store.tasks import Task, at_each_step, join, start

Opens = Callable[..., Any]


class TestInterrupted:
    """Ctrl-C may strike a thread that waits or one that leads."""

    def test_a_leader_that_is_interrupted_poisons_the_log(
        self, disk: SimulatedDisk, open_wal: Opens
    ) -> None:
        owner = open_wal(disk)

        def interrupt(_number: int, operation: str, _path: str) -> None:
            if operation == "sync_data":
                raise KeyboardInterrupt

        disk.hook = interrupt
        with pytest.raises(KeyboardInterrupt):
            owner.append(b"x")
        disk.hook = None

        with pytest.raises(LogPoisonedError):
            owner.append(b"y")

    def test_a_waiter_that_is_interrupted_passes_the_lead_on(
        self, disk: SimulatedDisk, open_wal: Opens, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        owner = open_wal(disk)
        gate = Gate("sync_data")
        disk.hook = gate
        first = start(lambda: owner.append(b"first"))
        assert gate.arrived.wait(5)
        commit = owner.wal._commit
        follow, interrupted = commit._follow, []

        def interrupt_one(waiter: Any) -> bool:
            waiter.event.wait()
            if waiter.leads and not interrupted:
                interrupted.append(waiter)
                commit._leave(waiter)
                raise KeyboardInterrupt
            return bool(follow(waiter))

        monkeypatch.setattr(commit, "_follow", interrupt_one)
        errors: list[BaseException] = []

        def append() -> None:
            try:
                owner.append(b"other")
            except KeyboardInterrupt as error:
                errors.append(error)

        others = start(*(append for _ in range(5)))
        while owner.wal.last_index < 6:
            pass
        gate.open()
        join(first + others)

        assert len(errors) == 1
        assert owner.wal.durable.index == 7


def test_an_interrupted_leader_takes_nobodys_wake_up_with_it(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk)
    wal, gate, interrupted = owner.wal, Gate("sync_data"), []

    def lead() -> None:
        try:
            owner.append(b"leader")
        except KeyboardInterrupt:
            interrupted.append(wal.durable.index)

    def on_synced() -> None:
        if wal.synced_seq == wal.last_seq:
            raise KeyboardInterrupt

    disk.hook = gate
    threads = start(lambda: owner.append(b"first"))
    assert gate.arrived.wait(5)
    wal.on_synced = on_synced
    for number, call in enumerate((lead, lambda: owner.append(b"follower")), 1):
        threads += start(call)
        while len(wal._commit._waiters) < number:
            pass
    gate.open()
    join(threads)

    assert interrupted == [4]
    assert isinstance(wal.poisoned, KeyboardInterrupt)


def test_who_is_called_back_amid_the_groups_of_one_append_may_append(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    """It waited for the thread that it ran in, which kept the lead for its second group."""
    owner = open_wal(disk, settings={"group_bytes": 3000})
    more = [b"from the callback"]

    def on_synced() -> None:
        while more:
            owner.append(more.pop())

    owner.wal.on_synced = on_synced
    owner.stage(b"a" * 2000)
    Task(lambda: owner.append(b"b" * 2000)).outcome()

    assert owner.wal.durable.index == 4


def test_ctrl_c_at_any_step_of_a_leader_leaves_nobody_waiting(open_wal: Opens) -> None:
    """Of those whose frames were in the group, one was told, and the others waited for ever."""
    for ctrl_c in at_each_step(group_commit):
        disk = SimulatedDisk()
        owner = open_wal(disk)
        seq = owner.stage(b"x")
        disk.hook = come = OthersCome(owner.wal, seq)
        with ctrl_c:
            owner.wal.lead(seq)
        disk.hook = None
        for task in come.tasks:
            with suppress(LogPoisonedError):
                task.outcome()
        Task(owner.wal.close).outcome()


@pytest.mark.parametrize("cause", [KeyboardInterrupt(), OSError(errno.EIO, "")])
def test_ctrl_c_while_those_who_wait_are_told_leaves_nobody_waiting(
    disk: SimulatedDisk, open_wal: Opens, cause: BaseException
) -> None:
    """As a terminal and a parent that passes it on interrupt twice, or as the disk fails just then:
    nobody was told any more, and `close` waited for those who waited.
    """
    owner = open_wal(disk)
    seq = owner.stage(b"x")
    come = OthersCome(owner.wal, seq)

    def fails(number: int, operation: str, path: str) -> None:
        come(number, operation, path)
        if operation == "sync_data":
            sys.setprofile(interrupts)
            raise cause

    def interrupts(frame: Any, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code is threading.Event.set.__code__:
            raise KeyboardInterrupt  # with which the interpreter takes the profile function away

    disk.hook = fails
    failures: list[BaseException] = []
    owner.wal.on_failed = failures.append
    with pytest.raises(KeyboardInterrupt):
        owner.wal.lead(seq)
    for task in come.tasks:
        with pytest.raises(LogPoisonedError):
            task.outcome()
    assert cause is failures[-1]


class OthersCome:
    """While the group is on its way to the disk, three more wait for it."""

    def __init__(self, wal: Any, seq: int) -> None:
        self.wal, self.seq, self.tasks = wal, seq, list[Task]()

    def __call__(self, _number: int, operation: str, _path: str) -> None:
        if operation == "sync_data" and not self.tasks:
            self.tasks += [Task(lambda: self.wal.lead(self.seq)) for _ in range(3)]
            while len(self.wal._commit._waiters) < 3:
                pass


@pytest.mark.parametrize("others", [1, 0], ids=["to a waiter", "to the committer"])
def test_an_interrupted_heir_passes_the_lead_on(
    disk: SimulatedDisk, open_wal: Opens, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """What the heir has staged is in nobody's hands when nobody else waits."""
    owner = open_wal(disk)
    wal, gate, interrupted = owner.wal, Gate("sync_data"), []

    def follow(waiter: Any) -> bool:
        """Ctrl-C in the moment in which the lead has come to this thread."""
        monkeypatch.undo()
        waiter.event.wait()
        assert waiter.leads
        raise KeyboardInterrupt

    def heir() -> None:
        try:
            owner.append(b"heir")
        except KeyboardInterrupt:
            interrupted.append(wal.poisoned)

    disk.hook = gate
    leader = start(lambda: owner.append(b"leader"))
    assert gate.arrived.wait(5)
    monkeypatch.setattr(wal._commit, "_follow", follow)
    waiting = start(heir)
    while len(wal._commit._waiters) < 1:
        pass
    waiting += start(*(lambda: owner.append(b"second") for _ in range(others)))
    while len(wal._commit._waiters) < 1 + others:
        pass
    gate.open()
    join(leader + waiting)

    assert interrupted == [None]
    for _ in range(500):
        if wal.durable.index == 3 + others:
            break
        time.sleep(0.01)
    assert wal.durable.index == 3 + others


def test_a_filler_that_cannot_be_told_costs_no_acknowledgement(
    disk: SimulatedDisk, open_wal: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = open_wal(disk, settings={"fill_bytes_min": 4096, "fill_bytes_max": 8192})

    def refuse(_target: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(owner.services.filler, "notify", refuse)
    synced: list[int] = []
    owner.wal.on_synced = lambda: synced.append(owner.wal.durable.index)

    owner.append(b"x")
    owner.append(b"y")

    assert synced == [2, 3]
    assert owner.wal.poisoned is None
