"""A node whose disk is full takes no records, and is a member all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chronik_server.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    RequestVoteResponse,
)
from chronik_server.testing.world import SETTINGS, World
from chronik_store.disk_guard import DiskGuard
from chronik_store.errors import BackpressureError, DiskFullError
from chronik_store.format.control import Noop
from chronik_store.testing.cluster_log import batch, control_entry, run_of
from tests.server.raft.alone import Alone, ask, entries_of

RESERVE_BYTES = 64 << 10


class Guard:
    """A disk with room, or without."""

    has_space = False

    has_last_space = False

    def has_room(self, _size_bytes: int) -> bool:
        return self.has_space

    def has_last_room(self, _size_bytes: int) -> bool:
        return self.has_last_space

    def admit(self, _size_bytes: int) -> None:
        if not self.has_space:
            raise DiskFullError("full", durability="not_durable")


def fill(node: Any) -> Guard:
    guard = node.replica._core.guard = Guard()
    return guard


def leave_reserve(node: Any, *, and_bytes: int) -> None:
    """A disk as it is: this much is free above what is kept."""
    node.disk.capacity_bytes = node.disk.used_bytes + RESERVE_BYTES + and_bytes
    node.replica._core.guard = DiskGuard(
        node.disk,
        node.env.clock,
        "/data",
        reserve_bytes=RESERVE_BYTES,
        throttle_bytes=RESERVE_BYTES,
    )


def full_peers(leader: Any) -> set[str]:
    """Whom it takes for full."""
    return {each.peer for each in leader.consensus.status().peers if each.is_full}


def test_a_full_follower_takes_no_records_until_there_is_room() -> None:
    with Alone(terms=[1], hard=(1, "")) as alone:
        guard = fill(alone.node)
        alone.feed("n2", entries_of(1, 1, 1, run_of([1, 1], first=2, offset=1), commit=3))
        assert (1, 1) == (alone.replica.last_index, alone.replica.commit_index)
        alone.feed("n2", entries_of(1, 1, 1, commit=3))
        refusal, answer = alone.sent(AppendEntriesResponse)
        assert (True, 1, True) == (refusal.success, refusal.match_index, refusal.is_full)
        assert refusal == answer  # as to a beat

        guard.has_space = True
        alone.forget()
        alone.feed("n2", entries_of(1, 1, 1, run_of([1, 1], first=2, offset=1), commit=3))
        (answer,) = alone.sent(AppendEntriesResponse)
        assert (True, 3) == (answer.success, answer.match_index)
        assert 3 == alone.replica.commit_index


def test_20_what_two_full_followers_were_sent_does_not_stand_in_the_way_of_commands() -> None:
    """Two disks are full at once, records are on their way to both: they go into the last room, the
    leader takes no more, and the command that frees the disks is committed behind them.
    """
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        followers = [node for node in world.nodes.values() if node is not leader]
        for node in followers:
            fill(node).has_last_space = True
        sent = world.propose(leader, b"nobody knew")
        world.until(sent.done)
        world.until(lambda: not leader.group.state._has_room())
        with pytest.raises(DiskFullError):
            world.propose(leader, b"now it does")
        command = leader.consensus.propose([Noop()])
        world.until(command.done)
        assert command.result().index == sent.result().index + 1


def test_20_commands_do_not_queue_for_room_behind_records() -> None:
    with World(3, settings=replace(SETTINGS, queue_bytes=1000)) as world:
        world.boot_all()
        leader = world.elect()
        for node in world.nodes.values():
            if node is not leader:
                fill(node)
        pending = world.propose(leader, bytes(900))
        with pytest.raises((BackpressureError, DiskFullError)):
            world.propose(leader, bytes(900))
        command = leader.consensus.propose([Noop()])
        assert not command.done()
        for each in (pending, command):
            each.cancel()


def test_a_full_follower_votes_and_takes_commands() -> None:
    """What frees the disk again, and who leads, is written into the room that is kept."""
    with Alone(terms=[1], hard=(1, "")) as alone:
        fill(alone.node)
        alone.feed("n3", ask(2, "n3", 1, 1))
        (vote,) = alone.sent(RequestVoteResponse)
        assert vote.vote_granted
        noop = control_entry(2, 2, 1, Noop())
        alone.feed("n3", entries_of(2, 1, 1, [noop], leader="n3"))
        (answer,) = alone.sent(AppendEntriesResponse)
        assert (True, 2) == (answer.success, answer.match_index)


def test_a_full_follower_still_truncates() -> None:
    """A suffix that the leader does not have goes, even if what replaces it has no room yet."""
    with Alone(terms=[1, 1], hard=(1, "")) as alone:
        fill(alone.node)
        alone.feed("n2", entries_of(2, 2, 2, (), leader="n2"))
        (answer,) = alone.sent(AppendEntriesResponse)
        assert not answer.success
        assert 1 == answer.hint_term


def test_a_full_follower_says_so_and_takes_it_back() -> None:
    with Alone(terms=[1], hard=(1, "")) as alone:
        guard = fill(alone.node)
        alone.feed("n2", entries_of(1, 1, 1, run_of([1], first=2, offset=1)))
        alone.feed("n2", entries_of(1, 1, 1))
        guard.has_space = True
        alone.feed("n2", entries_of(1, 1, 1))

        assert [True, True, False] == [m.is_full for m in alone.sent(AppendEntriesResponse)]


def test_20_a_command_says_nothing_of_room() -> None:
    """It is taken on a full disk, too."""
    with Alone(terms=[1], hard=(1, "")) as alone:
        guard = fill(alone.node)
        alone.feed("n2", entries_of(1, 1, 1, run_of([1], first=2, offset=1)))
        alone.feed("n2", entries_of(1, 1, 1, [control_entry(1, 2, 1, Noop())]))
        guard.has_space = True
        alone.feed("n2", entries_of(1, 2, 1, [control_entry(1, 3, 1, Noop())]))

        answers = alone.sent(AppendEntriesResponse)
        assert [(1, True), (2, True), (3, False)] == [(m.match_index, m.is_full) for m in answers]


def test_20_commands_do_not_open_full_disks_to_records() -> None:
    """Of three disks two are full, and commands go on: they are committed for as long as the room
    lasts that is kept for them.
    """
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        for node in world.nodes.values():
            if node is not leader:
                leave_reserve(node, and_bytes=10_000)
        pending: list[Any] = []
        refused = 0
        for _ in range(60):
            try:
                pending.append(world.propose(leader, bytes(1000)))
            except DiskFullError:
                refused += 1
            pending.append(leader.consensus.propose([Noop()]))
            world.run(0.3)
        command = leader.consensus.propose([Noop()])
        world.until(command.done)
        assert refused > 40
        for each in pending:
            each.cancel()


def test_a_full_follower_says_so_from_its_first_answer_on() -> None:
    with Alone(terms=[1], hard=(1, "")) as alone:
        fill(alone.node)
        alone.feed("n2", entries_of(1, 1, 1))
        (answer,) = alone.sent(AppendEntriesResponse)
        assert answer.is_full


def test_a_follower_with_room_has_nothing_to_say_of_it(caplog: pytest.LogCaptureFixture) -> None:
    with Alone(terms=[1], hard=(1, "")) as alone:
        alone.feed("n2", entries_of(1, 1, 1))
        alone.feed("n2", entries_of(1, 1, 1, run_of([1], first=2, offset=1)))
        assert [False, False] == [m.is_full for m in alone.sent(AppendEntriesResponse)]
        assert [] == caplog.messages


def test_20_a_leader_knows_that_a_follower_behind_is_full_after_its_restart() -> None:
    """It is asked by entries, all of which it refuses."""
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        behind, other = [node for node in world.nodes.values() if node is not leader]
        fill(behind)
        for number in range(5):
            world.commit(b"%d" % number)
        world.until(lambda: full_peers(leader) == {behind.name})

        world.kill(behind.name)
        behind = world.boot(behind.name)
        assert {behind.name} == full_peers(leader)  # its disk is no other for its restart
        behind.group.state.is_full = False  # as if it had filled up after the first answer
        guard = fill(behind)
        world.run(1)
        assert {behind.name} == full_peers(leader)

        fill(other).has_last_space = True
        pending = world.propose(leader, b"nobody knew of the other")
        world.until(lambda: full_peers(leader) == {behind.name, other.name})
        with pytest.raises(DiskFullError):
            world.propose(leader, b"refused")
        read = leader.consensus.read_barrier()
        world.until(read.done, 1)

        guard.has_space = True
        world.until(lambda: pending.done() and full_peers(leader) == {other.name})
        world.commit(b"two of three take it")


def test_20_a_full_follower_is_sent_one_message_a_beat() -> None:
    """What it refuses does not invite the next window, and it is not asked again at once."""
    with Alone(terms=[1], hard=(1, "")) as alone:
        term = alone.lead()
        progress = alone.group.state.replication.peers["n2"]

        def answer(match: int, prev: int, *, is_full: bool) -> None:
            message = AppendEntriesResponse(term, True, match, 1, prev, 0, 0, False, is_full)
            alone.feed("n2", message, settle=False)

        first = alone.replica.last_index
        answer(first - 1, first - 1, is_full=True)  # to the beat that looked for the place
        pending = [alone.node.consensus.propose([batch(bytes(900))]) for _ in range(5)]
        alone.run()
        alone.forget()
        alone.group.state.heartbeat()
        (asked,) = alone.sent(AppendEntries, to="n2")
        assert asked.entries
        for _ in range(3):  # refused, and said three times
            answer(asked.prev_log_index, asked.prev_log_index, is_full=True)
        alone.run(0.01)
        assert [asked] == alone.sent(AppendEntries, to="n2")
        assert "probe" == progress.mode

        alone.forget()
        answer(asked.entries[-1].header.index, asked.prev_log_index, is_full=True)
        assert "replicate" == progress.mode
        assert len(alone.sent(AppendEntries, to="n2")) > 1  # a window
        for each in pending:
            each.cancel()


def test_a_full_follower_does_not_take_over() -> None:
    """It could not take a single record; the old leader goes on after its time."""
    with World(3) as world:
        world.boot_all()
        old = world.elect()
        full = next(node for node in world.nodes.values() if node is not old)
        guard = fill(full)
        term = old.group.term
        future = old.consensus.transfer(full.name)
        with pytest.raises(TimeoutError):
            world.loop.run_until_complete(future)
        assert (term, old.name) == (full.group.term, full.group.leader)

        guard.has_space = True
        world.loop.run_until_complete(old.consensus.transfer(full.name))
        assert full.name == world.until(lambda: (n := world.leader()) and n.name)


def test_a_leader_knows_who_is_full() -> None:
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        full = next(node for node in world.nodes.values() if node is not leader)
        guard = fill(full)
        assert set() == full_peers(leader)
        world.commit(b"no room for it there")
        world.until(lambda: full_peers(leader) == {full.name})

        guard.has_space = True
        world.until(lambda: full_peers(leader) == set())


def test_a_group_goes_on_without_its_full_member_which_comes_back() -> None:
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.commit(b"before")
        full = next(node for node in world.nodes.values() if node is not leader)
        guard = fill(full)
        terms = {node.group.term for node in world.nodes.values()}
        for number in range(20):
            world.commit(b"during %d" % number)
        world.keep_log = True
        world.run(5.0)
        again = [m for _, to, m in world.log if to == full.name and type(m) is AppendEntries]
        beats = 5.0 / world.settings.heartbeat_seconds
        assert 0 < len(again) <= beats + 2, "what is refused comes again with beats only"
        last = leader.replica.last_index
        assert full.replica.last_index < last
        assert terms == {node.group.term for node in world.nodes.values()}
        assert leader.group.leader == full.group.leader == leader.name

        guard.has_space = True
        world.until(lambda: full.replica.commit_index == last)


def test_13_records_are_refused_while_no_majority_takes_them_and_commands_pass() -> None:
    with Alone(terms=[1], hard=(1, "")) as alone:
        term = alone.lead()
        pending: list[Any] = []

        def answer(peer: str, *, is_full: bool) -> None:
            last = alone.replica.last_index
            answer = AppendEntriesResponse(term, True, last, 1, last, 0, 0, False, is_full)
            alone.feed(peer, answer)

        def append() -> None:
            pending.append(alone.node.consensus.propose([batch(b"x")]))

        answer("n2", is_full=False)
        assert alone.node.consensus.is_ready
        answer("n2", is_full=True)
        append()  # two of three take it
        alone.run()
        answer("n3", is_full=True)
        with pytest.raises(DiskFullError) as refused:
            append()
        assert refused.value.durability == "not_durable"
        pending.append(alone.node.consensus.propose([Noop()]))
        answer("n2", is_full=True)
        answer("n3", is_full=True)
        for peer in ("n2", "n3"):
            alone.node.raft.liveness._peers[peer].is_up = True
        assert not alone.group.state.is_idle()  # beats ask whether there is room again
        answer("n3", is_full=False)
        append()
        for each in pending:
            each.cancel()  # nobody waits for them
