"""A follower of a group that falls idle knows what is committed, whatever was lost on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from chronik_server.raft.leader import LeaderRole
from chronik_server.raft.messages import AppendEntries, AppendEntriesResponse, Message
from chronik_server.testing.node import Node
from chronik_server.testing.world import World
from chronik_store.testing.cluster_log import batch
from tests.server.raft.alone import Alone, success

Drop = Callable[[str, str, Message], bool]


def settled(world: World) -> tuple[Node, Node]:
    """A leader and a follower of an idle group."""
    world.boot_all()
    leader = world.elect()
    world.commit(b"first")
    world.run(2)
    assert world.converged()
    return leader, next(node for node in world.nodes.values() if node is not leader)


def notices(leader: Node, victim: Node) -> Drop:
    """Entries arrive, what is told without any does not."""
    return lambda sender, peer, message: (
        (sender, peer) == (leader.name, victim.name)
        and isinstance(message, AppendEntries)
        and not message.entries
    )


def answers(leader: Node, victim: Node) -> Drop:
    """What the follower says arrives nowhere."""
    return lambda sender, peer, message: (
        (sender, peer) == (victim.name, leader.name) and isinstance(message, AppendEntriesResponse)
    )


def test_15_a_notice_that_was_lost_with_its_connection_comes_again() -> None:
    with World(3) as world:
        leader, victim = settled(world)
        world.network.drop = notices(leader, victim)
        world.until(world.propose(leader, b"second").done)
        world.run(0.02)
        for one, other in ((leader, victim), (victim, leader)):
            one.raft.peer_down(other.name)
        world.network.drop = None
        for one, other in ((leader, victim), (victim, leader)):
            one.raft.peer_up(other.name, other.boot_id)
        world.until(world.converged, 2 * world.settings.heartbeat_seconds)


@pytest.mark.parametrize("lost", [notices, answers])
def test_15_a_notice_that_was_lost_on_its_way_comes_again(
    lost: Callable[[Node, Node], Drop],
) -> None:
    """Nobody notices anything: no connection breaks, the nodes' own beats arrive."""
    with World(3) as world:
        leader, victim = settled(world)
        world.network.drop = lost(leader, victim)
        world.until(world.propose(leader, b"second").done)
        world.run(3)
        world.network.drop = None
        world.until(world.converged, 2 * world.settings.heartbeat_seconds)
        world.run(2 * world.settings.heartbeat_seconds)
        world.keep_log = True
        world.run(20)
        assert not any(isinstance(message, AppendEntries) for _, _, message in world.log)


def test_15_one_notice_is_enough_where_none_is_lost() -> None:
    with World(3) as world:
        leader, _ = settled(world)
        world.keep_log = True
        world.until(world.propose(leader, b"second").done)
        world.run(20)
        sent = Counter(peer for _, peer, m in world.log if isinstance(m, AppendEntries))
        assert dict.fromkeys(leader.group.peers, 2) == sent  # the entry, and the notice


def quiet(alone: Alone) -> tuple[LeaderRole, int]:
    """It leads, and n2 and n3 have shown to know all that is committed; the last index."""
    term = alone.lead()
    role = alone.group.state
    for peer in ("n2", "n3"):
        known = alone.node.raft.liveness._peers[peer]
        known.is_up, known.acked_at = True, float("inf")  # their nodes answer beats
    for _ in range(2):  # the NOOP, and behind it the members
        for peer in ("n2", "n3"):
            alone.feed(peer, success(term, alone.replica.last_index, role.request_id))
        alone.run(0.02)
    for peer in ("n2", "n3"):
        alone.feed(peer, success(term, alone.replica.last_index, role.request_id))
    assert role.is_idle()
    return role, alone.replica.last_index


def test_15_an_answer_to_what_was_sent_before_a_commit_shows_nothing() -> None:
    with Alone(terms=[1], hard=(1, "")) as alone:
        role, last = quiet(alone)
        alone.node.consensus.propose([batch(b"x")])
        alone.run()
        term, before = role.group.term, role.request_id
        for peer in ("n2", "n3", "n2"):  # to the entry; n2's second one to a beat before the commit
            alone.feed(peer, success(term, last + 1, before), settle=False)
        assert last + 1 == role.commit_index
        assert not role.is_idle()
        alone.run()
        (notice,) = [m for m in alone.sent(AppendEntries, to="n3") if m.commit_index == last + 1]
        assert () == notice.entries
        alone.feed("n2", success(term, last + 1, notice.request_id))
        assert not role.is_idle()
        alone.feed("n3", success(term, last + 1, notice.request_id))
        assert role.is_idle()


def test_15_an_answer_short_of_the_commit_shows_no_more_than_it_reaches() -> None:
    """What looks for the place where the logs agree tells of commits up to there only."""
    with Alone(terms=[1], hard=(1, "")) as alone:
        role, last = quiet(alone)
        term, before = role.group.term, role.request_id
        alone.node.consensus.propose([batch(b"x")])
        alone.run()
        alone.feed("n2", success(term, last + 1, before))
        now = role.request_id
        assert now > before
        alone.feed("n2", success(term, last + 1, now))
        alone.feed("n3", success(term, last, now))
        alone.feed("n3", success(term, last + 1, before))  # the entry itself, sent long ago
        assert not role.is_idle()
        alone.feed("n3", success(term, last + 1, now))
        assert role.is_idle()


def test_15_who_has_started_anew_has_shown_nothing() -> None:
    with Alone(terms=[1], hard=(1, "")) as alone:
        role, last = quiet(alone)
        alone.node.raft.peer_up("n2", "another boot")
        assert not role.is_idle()
        alone.feed("n2", success(role.group.term, last, role.commit_round - 1))
        assert last == role.replication.peers["n2"].match_index
        assert not role.is_idle()
        alone.feed("n2", success(role.group.term, last, role.commit_round))
        assert role.is_idle()
