"""Many appenders, one write and one sync; the lead is never lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from chronik_store.errors import LogClosedError, LogPoisonedError
from chronik_store.testing.disk_faults import Gate
from chronik_store.testing.simulated_disk import SimulatedDisk
from tests.store.tasks import Task, join, start

Opens = Callable[..., Any]


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
