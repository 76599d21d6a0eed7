"""Many appenders, one write and one sync; the lead is never lost."""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from chronik_store.errors import LogClosedError, LogPoisonedError
from chronik_store.testing.disk_faults import Gate
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.wal import group_commit
from tests.store.tasks import Task, at_each_step

Opens = Callable[..., Any]


def start(*calls: Callable[[], Any]) -> list[threading.Thread]:
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a wakeup was lost"


def test_a_lone_appender_makes_one_write_and_one_sync_and_no_thread(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk)
    before = threading.active_count()
    calls = dict(disk.calls_by_operation)

    owner.append(b"x")

    made = {name: count - calls.get(name, 0) for name, count in disk.calls_by_operation.items()}
    assert {name: count for name, count in made.items() if count} == {"write_at": 1, "sync_data": 1}
    assert threading.active_count() == before


def test_appenders_that_come_during_a_sync_share_the_next_one(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk)
    gate = Gate("sync_data")
    disk.hook = gate
    first = start(lambda: owner.append(b"first"))
    assert gate.arrived.wait(5)
    syncs = disk.calls_by_operation["sync_data"]

    others = start(*(lambda: owner.append(b"other") for _ in range(20)))
    while owner.wal.last_index < 21:
        pass
    gate.open()
    join(first + others)

    assert owner.wal.durable.index == 22
    assert disk.calls_by_operation["sync_data"] == syncs + 1


def test_many_threads_append_and_none_waits_for_ever(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk, settings={"file_bytes": 20_000, "group_bytes": 2000})

    def appends(name: int) -> Callable[[], None]:
        def run() -> None:
            for number in range(40):
                owner.append(b"%d-%d" % (name, number))

        return run

    join(start(*(appends(name) for name in range(16))))

    assert owner.wal.durable.index == 16 * 40 + 1
    live = owner.live()
    for name in range(16):
        mine = [data for data in live.values() if data.startswith(b"%d-" % name)]
        assert mine == [b"%d-%d" % (name, number) for number in range(40)]


def test_nowait_appends_and_waiting_ones_mix(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk, settings={"group_bytes": 1000})

    def nowait() -> None:
        for number in range(300):
            owner.stage(b"n%d" % number)
            owner.services.committer.notify(owner.wal)

    def waiting() -> None:
        for number in range(100):
            owner.append(b"w%d" % number)

    join(start(nowait, nowait, waiting, waiting))
    owner.wal.lead(owner.wal.last_seq)

    assert owner.wal.durable.index == 801


def test_what_is_staged_while_a_leader_writes_is_committed_without_another_call(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk)
    gate = Gate("sync_data")
    disk.hook = gate
    leader = start(lambda: owner.append(b"first"))
    assert gate.arrived.wait(5)

    seq = owner.stage(b"nobody waits for this one")
    assert not owner.wal.commit_group(), "another thread leads"
    gate.open()
    join(leader)

    done = threading.Event()
    owner.wal.on_synced = done.set
    if owner.wal.synced_seq < seq:
        assert done.wait(5)
    assert owner.wal.synced_seq >= seq


def test_durable_moves_under_the_lock_before_lead_returns(open_wal: Opens) -> None:
    owner = open_wal(commits=False)
    seen: list[int] = []
    owner.wal.on_durable = lambda: seen.append(owner.wal.durable.index)

    for _ in range(3):
        owner.append(b"x")
        assert seen[-1] == owner.wal.durable.index

    assert seen == [2, 3, 4]


def test_the_owner_may_append_from_on_synced(open_wal: Opens) -> None:
    owner = open_wal()
    left = [3]

    def again() -> None:
        if left[0]:
            left[0] -= 1
            owner.append(b"from the callback")

    owner.wal.on_synced = again
    owner.append(b"first")

    assert owner.wal.durable.index == 5


def test_on_synced_calls_do_not_overlap_and_the_last_sees_all(open_wal: Opens) -> None:
    owner = open_wal()
    inside = threading.Lock()
    overlaps, seen = [], []

    def look() -> None:
        if not inside.acquire(blocking=False):
            overlaps.append(1)
            return
        seen.append(owner.wal.durable.index)
        inside.release()

    owner.wal.on_synced = look

    def appends() -> None:
        for _ in range(50):
            owner.append(b"x")

    join(start(*(appends for _ in range(6))))

    assert not overlaps
    assert seen == sorted(seen)
    assert seen[-1] == 301


def test_an_error_in_the_owners_callback_does_not_stop_the_log(open_wal: Opens) -> None:
    owner = open_wal()

    def broken() -> None:
        raise RuntimeError("the owner's defect")

    owner.wal.on_synced = broken
    owner.append(b"x")
    owner.append(b"y")

    assert owner.wal.durable.index == 3


def test_close_waits_for_the_group_in_flight_and_its_waiters(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk)
    gate = Gate("sync_data")
    disk.hook = gate
    appenders = start(*(lambda: owner.append(b"x") for _ in range(5)))
    assert gate.arrived.wait(5)
    while owner.wal.last_index < 5:
        pass
    closer = start(owner.wal.close)
    gate.open()
    join(appenders + closer)

    with pytest.raises(LogClosedError):
        owner.append(b"too late")
    assert open_wal(disk.another_process()).copy.entries.keys() == set(range(1, 6))


def test_no_group_is_begun_once_close_has_waited_for_those_under_way(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    """Of a close that Ctrl-C met while it waited for a leader, the next leader wrote on: into a
    directory that may be another process's by then.
    """
    owner = open_wal(disk)
    wal, gate = owner.wal, Gate("sync_data")
    disk.hook = gate
    leader = Task(lambda: owner.append(b"first"))
    assert gate.arrived.wait(5)
    heir = Task(lambda: owner.append(b"second"))
    while not wal._commit._waiters:
        pass
    ending = Task(wal._hands.end)
    while not wal._hands.ended:
        pass
    gate.open()
    leader.outcome()
    ending.outcome()
    with pytest.raises(LogPoisonedError):
        heir.outcome()
    assert wal.durable.index == 2


def test_leading_for_what_is_not_staged_is_a_mistake(open_wal: Opens) -> None:
    owner = open_wal()
    with pytest.raises(ValueError, match="staged"):
        owner.wal.lead(owner.wal.last_seq + 1)


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
