"""Directed schedules of protocol section 4: `durable` and `committed`, on virtual time."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable

import pytest

from chronik_store import LogStore
from chronik_store.environment import Environment
from chronik_store.errors import LogPoisonedError
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.virtual_time import Machine, Simulation
from chronik_store.testing.worlds.store_world import buckets_of
from tests.crash.harness import CONFIG, MODES, URL, Life
from tests.simulation.replica_log import Author, ReplicaLog


def on_a_machine(story: Callable[[Simulation, Machine], None]) -> None:
    with Simulation(seed=4) as simulation, buckets_of(lambda _env: None):
        node = simulation.machine("node")
        simulation.run(lambda: story(simulation, node))


def test_4_s1_a_sync_in_flight_makes_nothing_durable_that_was_cut() -> None:
    """Known bug 15: 11 to 20 written, sync in flight; cut to 11, write 11' to 15'; it returns."""

    def story(simulation: Simulation, node: Machine) -> None:
        log = node.call(lambda: ReplicaLog(node.environment))
        replica = log.replica
        first = Author(log.end, 1)
        first_ten = [first.records([b"old"]) for _ in range(10)]
        ticket = node.call(lambda: replica.append_entries(0, 0, first_ten)).ticket
        node.call(lambda: log.core.wal.lead(ticket))
        gate = simulation.gate("sync_data", after=True)
        ten_more = [first.records([b"old"]) for _ in range(10)]
        node.call(lambda: replica.append_entries(10, 1, ten_more))
        assert gate.wait_for_call(5)

        def replace() -> int:
            author = Author(log.core.wal._table.last(), 2)
            author.index, author.offset = 10, 10
            return replica.append_entries(
                10, 1, [author.records([b"new"]) for _ in range(5)]
            ).ticket

        ticket = node.call(replace)
        synced: list[bool] = []
        replica.when_synced(ticket, lambda: synced.append(True))
        assert (15, 10) == (replica.last_index, replica.durable_index)
        image = node.disk.crashed("lost")  # the old sync has taken effect by now
        next_group = simulation.gate("write_at")
        gate.open()
        assert next_group.wait_for_call(5)
        assert (15, 10, []) == (replica.last_index, replica.durable_index, synced)
        next_group.open()
        simulation.sleep(1)
        assert synced == [True]
        assert replica.durable_index == 15
        recovered = ReplicaLog(Environment(fs=image, threads=MortalThreads()))
        last = recovered.replica.last_index
        assert last in range(10, 21)
        assert {1} == {recovered.replica.term(index) for index in range(1, last + 1)}
        recovered.close()
        node.crash("lost")
        node.restart()
        again = node.call(lambda: ReplicaLog(node.environment))
        assert 15 == again.replica.last_index
        assert [1] * 10 + [2] * 5 == [again.replica.term(index) for index in range(1, 16)]

    on_a_machine(story)


@pytest.mark.parametrize("mode", ["lost", "torn", "any"])
def test_4_s2_what_a_killed_process_left_in_the_page_cache_is_not_durable_by_itself(
    life: Life, mode: str
) -> None:
    """kill -9 between write and sync, reopen, show it to a reader, power cut: still there."""
    life.append(3)
    unsure = life.ledger.offer(2)
    held: list[str] = []

    def die_before_the_sync(_number: int, operation: str, path: str) -> None:
        if operation == "sync_data" and path.endswith((".log", ".log.tmp")):
            held.append(path)
            life.plug.dead = True
        if held:
            life.plug.passes(operation, path)

    life.disk.hook = die_before_the_sync
    with contextlib.suppress(BaseException):
        life.log.append(unsure)
    assert held
    second = life.fails("kill")
    second.open()
    shown = [record.value for record in second.log.scan()]
    assert unsure[0] in shown  # the page cache had it, and now the disk has
    second.ledger.saw_all(0, shown)
    second.plug.dead = True
    third = second.fails(mode)
    third.is_sound()


@pytest.mark.parametrize("mode", MODES)
def test_4_s2_after_a_failed_sync_reopening_does_not_build_on_ghosts(life: Life, mode: str) -> None:
    """EIO: the pages count as clean, a new sync would succeed and write nothing (known bug 43)."""
    life.append(3)
    unsure = life.ledger.offer(2)
    fails, me = fail_next("sync_data", errno.EIO), threading.get_ident()

    def fails_for_the_group(number: int, operation: str, path: str) -> None:
        if threading.get_ident() == me:  # and not for the filler, which may be at its zeros
            fails(number, operation, path)

    life.disk.hook = fails_for_the_group
    with pytest.raises(LogPoisonedError) as caught:
        life.log.append(unsure)
    assert "unknown" == caught.value.durability
    with pytest.raises(LogPoisonedError) as caught:
        life.log.append(b"refused")
    assert "not_durable" == caught.value.durability
    life.disk.hook = None
    with contextlib.suppress(LogPoisonedError):
        life.store.close()
    life.open()  # the same machine: it still reads what the disk does not have
    life.ledger.check(life.log)
    life.append()
    life.plug.dead = True
    life.fails(mode).is_sound()


def test_4_s3_the_commit_that_came_before_the_own_sync_moves_with_it() -> None:
    """Both followers have 10, the own disk has 8: nobody calls again when it has 10."""

    def story(simulation: Simulation, node: Machine) -> None:
        log = node.call(lambda: ReplicaLog(node.environment))
        author = Author(log.end, 1)
        eight = [author.records([b"v"]) for _ in range(8)]
        ticket = node.call(lambda: log.replica.append_entries(0, 0, eight)).ticket
        node.call(lambda: log.core.wal.lead(ticket))
        gate = simulation.gate("sync_data")
        two = [author.records([b"w"]) for _ in range(2)]
        node.call(lambda: log.replica.append_entries(8, 1, two))
        assert gate.wait_for_call(5)
        log.replica.advance_commit(10)
        assert 8 == log.replica.commit_index
        assert 8 == log.log.watermarks.committed
        gate.open()
        simulation.sleep(1)
        assert 10 == log.replica.commit_index
        assert [b"v"] * 8 + [b"w"] * 2 == [record.value for record in log.log.scan()]

    on_a_machine(story)


def test_4_recovery_needs_no_space_but_the_reserve(life: Life) -> None:
    """A full disk, a tail that must be copied: the log opens, reads, and refuses appends."""
    for _ in range(4):
        life.append(2)
    life.plug.dead = True
    after = life.fails("kill")
    used = sum(len(after.disk.peek(path)) for path in after.disk.paths())
    after.disk.capacity_bytes = used + 64 * 1024
    after.config = CONFIG.replace(disk_reserve_bytes=48 * 1024)
    after.open()
    after.ledger.check(after.log)
    after.store.close()


def test_4_a_writer_reads_its_own_write_from_the_callback_on(life: Life) -> None:
    seen: list[bytes] = []

    def look(future: object) -> None:
        result = future.result()  # type: ignore[attr-defined]
        seen.append(life.log.read(result.base_offset).records[0].value)

    future = life.log.append_nowait(b"mine")
    future.add_done_callback(look)
    future.result(10)
    life.store.close()
    assert seen == [b"mine"]


def test_4_a_reader_beside_sees_only_what_marks_swear_to(life: Life) -> None:
    """A second process must not show what a power cut may take back."""
    life.append(2)
    beside = life.disk.another_process()
    life.knows(beside)
    env = Environment(fs=beside, threads=MortalThreads())
    with LogStore.open("/data", object_store=URL, env=env, read_only=True) as store:
        log = store.partition("t")
        for _ in range(20):
            life.append()
            shown = [record.value for record in log.scan()]
            image = Life(0)
            image.disk = life.disk.crashed("lost")
            image.bucket = life.bucket
            image.open()
            durable = [record.value for record in image.log.scan()]
            assert shown == durable[: len(shown)]
            image.store.close()
        assert len(shown) >= 20  # all but the last group, whose frame nothing swears to yet
