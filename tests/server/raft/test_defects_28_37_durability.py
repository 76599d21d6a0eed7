"""Defects 28 to 37 of raftos, absent from our roles: storage, process and transport."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import suppress

import pytest

from chronik_server.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshot,
    RequestVote,
    RequestVoteResponse,
    decode,
    encode,
)
from chronik_server.raft.raftos_skeleton import RoleTimer
from chronik_server.testing.node import role_of
from chronik_server.testing.virtual_loop import VirtualLoop
from chronik_server.testing.world import World
from chronik_store.format.manifest_file import LogBase
from chronik_store.replica import Snapshot
from chronik_store.testing.cluster_log import batch, record_entry, run_of, stepped
from chronik_store.testing.disk_faults import crash_at
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk
from tests.server.raft.alone import STALLED, Alone, ask, entries_of


def test_28_no_vote_leaves_before_it_is_durable():
    """Figure 2: updated on stable storage before responding."""
    with Alone(network=STALLED) as alone:
        alone.feed("n2", ask(5, "n2"))
        alone.run(0.2)

        assert (5, "n2") == alone.replica.hard_state
        assert [] == alone.sent(RequestVoteResponse)


def test_28_no_vote_is_asked_for_before_the_own_is_durable():
    with Alone(network=STALLED) as alone:
        alone.group.campaign()
        alone.run(0.2)

        assert [] == alone.sent(RequestVote)


def test_28_no_entry_is_acknowledged_before_it_is_durable():
    with Alone(hard=(1, ""), network=STALLED) as alone:
        alone.feed("n2", entries_of(1, 0, 0, run_of([1])))

        assert [] == alone.sent(AppendEntriesResponse)


def test_28_a_beat_is_answered_by_a_slow_disk_with_what_it_has():
    """A reply waits for exactly the frames that it speaks of."""
    with Alone(hard=(1, ""), network=STALLED) as alone:
        alone.feed("n2", entries_of(1, 0, 0, run_of([1, 1])))
        alone.feed("n2", entries_of(1, 2, 1))

        assert [(True, 0)] == [
            (m.success, m.match_index) for m in alone.sent(AppendEntriesResponse)
        ]


def test_28_a_leader_counts_itself_only_when_its_own_disk_has_the_entry():
    """10.2.1 of the thesis: written in parallel, counted when durable."""
    with Alone(2) as alone:
        alone.lead()
        alone.acknowledge("n2", 1)
        alone.world.network.disk_delays = (1e9,)
        future = alone.node.consensus.propose([batch(b"x")])
        alone.run()
        last = alone.replica.last_index
        assert last == alone.sent(AppendEntries)[-1].entries[-1].header.index, "sent in parallel"
        alone.acknowledge("n2", last)

        assert role_of(alone.node).commit_index < last, "nor does it tell the others so"
        assert not future.done()


@pytest.mark.parametrize("call", range(1, 9))
@pytest.mark.parametrize("mode", ["lost", "kept", "torn", "any"])
def test_29_term_and_vote_change_together_or_not_at_all(call, mode):
    disk = SimulatedDisk(seed=call)
    _, replica, committer = stepped(disk)
    replica.save_hard_state(7, "n2")
    committer.flush()
    disk.hook = crash_at(disk.calls + call)
    with suppress(CrashError):
        replica.save_hard_state(8, "n3")
        committer.flush()

    found = stepped(disk.crash(mode))[1].hard_state
    assert found in [(7, "n2"), (8, "n3")]


@pytest.mark.parametrize("call", range(1, 9))
def test_30_a_crash_inside_a_truncation_loses_nothing_before_it(call):
    disk = SimulatedDisk(seed=call)
    _, replica, committer = stepped(disk)
    replica.append_entries(0, 0, run_of([1, 1, 1, 1]))
    committer.flush()
    disk.hook = crash_at(disk.calls + call)
    with suppress(CrashError):
        replica.truncate_suffix(3)
        committer.flush()

    _, replica, _ = stepped(disk.crash("any"))
    assert replica.last_index in (2, 4)
    assert 2 == len([replica.term(i) for i in (1, 2)])


def test_31_a_write_that_broke_off_is_cut_not_a_failure_to_start():
    disk = SimulatedDisk(seed=3)
    _, replica, committer = stepped(disk)
    replica.append_entries(0, 0, run_of([1]))
    committer.flush()
    replica.append_entries(1, 1, run_of([1, 1], first=2, offset=1))
    disk.hook = crash_at(disk.calls + 2)
    with suppress(CrashError):
        committer.flush()

    _, replica, _ = stepped(disk.crash("torn"))
    assert (True, False) == (1 <= replica.last_index <= 3, replica.suspect)


@pytest.mark.parametrize("value", [b"\n", b"\n" * 10, bytes(range(256)), b"", b"\x00" * 2000])
def test_32_any_bytes_and_any_number_are_kept(value):
    disk = SimulatedDisk(seed=1)
    _, replica, committer = stepped(disk)
    entries = [record_entry(10, n + 1, n, value) for n in range(10)]
    replica.append_entries(0, 0, entries)
    committer.flush()

    _, replica, _ = stepped(disk.crash("lost"))
    found = []
    while len(found) < 10:
        found += replica.entries(len(found) + 1, 1 << 20)
    assert [e.encode() for e in entries] == [e.encode() for e in found]


def test_33_appending_reads_nothing_back_and_memory_is_bounded():
    disk = SimulatedDisk(seed=1)
    _, replica, committer = stepped(disk, tail_bytes=10_000)
    before = disk.calls_by_operation["read_at"]
    for n in range(300):
        replica.append_entries(n, 1 if n else 0, run_of([1], first=n + 1, offset=n))
        committer.flush()

    assert before == disk.calls_by_operation["read_at"]
    assert replica.tail_first_index > 200


def test_34_what_was_shown_as_committed_is_known_after_a_restart():
    with Alone(terms=[1]) as alone:
        for n in range(1, 9):
            message = entries_of(1, n, 1, run_of([1], first=n + 1, offset=n), commit=n)
            alone.feed("n2", message)
        alone.restart()
        shown: list[int] = []
        alone.node.consensus.on_commit(shown.append)
        known = alone.replica.commit_index
        alone.feed("n2", entries_of(1, 9, 1, commit=9))

        assert known >= 7, "each frame carries the commit index known when written"
        assert [9] == shown


def test_35_two_groups_and_two_nodes_in_one_process_do_not_share_a_leader():
    with World(3, seed=1) as first, World(["a", "b", "c"], seed=2) as second:
        asyncio.set_event_loop(first.loop)
        first.boot_all()
        one = first.elect()
        asyncio.set_event_loop(second.loop)
        second.boot_all()
        two = second.elect()

        assert {one.name} == {n.group.leader for n in first.nodes.values()}
        assert {two.name} == {n.group.leader for n in second.nodes.values()}
        one.group.set_leader(None)
        assert two.name == two.group.leader


def test_36_an_entry_larger_than_any_datagram_is_replicated():
    with World(3) as world:
        world.boot_all()
        world.elect()
        done = world.commit(bytes(300_000))
        world.run(1)

        assert {done.index} == {n.replica.commit_index for n in world.nodes.values()}


def test_36_a_message_is_what_it_was_on_the_other_side():
    message = entries_of(3, 0, 0, run_of([1, 2]), commit=1)
    header, parts = encode(message)
    again = decode(header, b"".join(parts))

    assert [e.encode() for e in message.entries] == [bytes(e.encode()) for e in again.entries]


@pytest.fixture
def loop():
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    yield loop
    loop.close()
    asyncio.set_event_loop(None)


def test_37_a_timer_stopped_in_its_own_callback_is_stopped(loop):
    fired = []
    timer = RoleTimer(1.0, lambda: (fired.append(1), timer.stop()))
    timer.start()
    loop.run_for(5)

    assert [1] == fired


def test_37_a_timer_reset_in_its_own_callback_runs_once_not_twice(loop):
    fired = []
    timer = RoleTimer(1.0, lambda: (fired.append(loop.time()), timer.reset()))
    timer.start()
    loop.run_for(5.5)
    timer.stop()

    assert [1.0, 2.0, 3.0, 4.0, 5.0] == fired


def test_37_a_timer_may_be_stopped_before_it_was_started(loop):
    RoleTimer(1.0, lambda: None).stop()


def test_28_a_snapshot_is_acknowledged_when_it_is_durable():
    """The leader counts this node for everything up to its base from then on."""
    with Alone(terms=[1]) as alone:
        base = LogBase(50, 1, 40, 0)
        manifest = dataclasses.replace(alone.node.core.manifest, next=base)
        snapshot = Snapshot(base, manifest, 53, (), None, 0)
        alone.feed("n2", entries_of(2, 1, 1))  # the term is durable before
        alone.forget()
        alone.world.network.disk_delays = (1e9,)
        alone.feed("n2", InstallSnapshot(2, "n2", 7, snapshot))
        assert [] == alone.sent(AppendEntriesResponse)

        alone.node.committer.flush()
        alone.run()
        assert [(True, 50)] == [
            (m.success, m.match_index) for m in alone.sent(AppendEntriesResponse)
        ]
