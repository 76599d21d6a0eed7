"""Schedules of the protocol about who counts and who belongs: 9 and 12, against the real roles."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chronik_server.raft.candidate import CandidateRole
from chronik_server.raft.consensus import Role
from chronik_server.raft.durable_state import HardState
from chronik_server.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
)
from chronik_server.raft_partition import RaftPartition
from chronik_server.testing.node import Node, role_of
from chronik_server.testing.world import World
from chronik_store.errors import BackpressureError, ConfigError
from chronik_store.format.control import Members
from chronik_store.log_status import CUT, SUSPECT, status_of
from chronik_store.testing.cluster_log import control_entry, run_of
from tests.server.raft.alone import STALLED, Alone, ask, entries_of, success

# --- 9 --------------------------------------------------------------------------------------------


def suspect(world: World, *names: str) -> None:
    """These nodes may have lost acknowledged entries."""
    for name in names:
        node = world.nodes[name]
        node.replica.set_suspect(True)
        node.committer.flush()


def test_9_a_suspect_node_neither_votes_nor_asks_for_votes():
    with Alone(terms=[1]) as alone:
        suspect(alone.world, "n1")
        alone.feed("n2", ask(5, "n2", 9, 9))
        alone.run(3)
        alone.feed("n2", PreVoteResponse(5, True, False, 1, 1))

        assert [False] == [m.vote_granted for m in alone.sent(RequestVoteResponse)]
        assert [] == alone.sent(RequestVote)


@pytest.mark.parametrize("campaigns", [False, True])
@pytest.mark.parametrize("is_suspect", [False, True])
def test_9_a_suspect_node_grants_no_pre_vote_not_even_as_the_candidate_of_a_roll_call(
    is_suspect, campaigns
):
    """Its vote is not to be had, and an election that counts on it deposes for nothing."""
    with Alone(terms=[1]) as alone:
        if is_suspect:
            suspect(alone.world, "n1")
        if campaigns:
            alone.group.campaign(amnesty=is_suspect)
            alone.run()
        alone.feed("n2", PreVote(9, 9, 9))

        assert campaigns is isinstance(alone.group.state, CandidateRole)
        assert [not is_suspect] == [m.granted for m in alone.sent(PreVoteResponse)]


def test_9_a_suspect_node_does_not_count_in_a_quorum():
    with Alone() as alone:
        term = alone.lead()
        match = AppendEntriesResponse(term, True, 1, 1, 1, 0, 0, is_suspect=True)
        alone.feed("n2", match)
        assert 0 == alone.replica.commit_index

        alone.feed("n2", success(term, 1))
        assert 1 == alone.replica.commit_index


def test_9_s3_suspicion_survives_another_crash_and_ends_when_all_is_caught_up():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.commit(b"x")
        sick = next(name for name in world.names if name != leader.name)
        suspect(world, sick)
        world.isolate(sick)
        world.crash(sick, "lost")
        assert world.boot(sick).replica.suspect
        assert SUSPECT in "".join(status_of(world.nodes[sick].core).notes), "an operator sees it"
        world.heal()

        world.until(lambda: not world.nodes[sick].replica.suspect)
        assert SUSPECT not in "".join(status_of(world.nodes[sick].core).notes)
        world.crash(sick, "lost")
        assert not world.boot(sick).replica.suspect
        assert [] == world.violations


def test_9_trust_needs_a_leader_that_has_committed_in_its_own_term():
    with Alone(terms=[1]) as alone:
        suspect(alone.world, "n1")
        alone.feed("n2", entries_of(2, 1, 1))  # trusted_index 0: it has not
        assert alone.replica.suspect

        boot = alone.node.boot_id
        alone.feed("n2", AppendEntries(2, "n2", 1, 1, 1, 1, "an earlier start", 1, ()))
        assert alone.replica.suspect, "a late message to a former self"
        alone.feed("n2", AppendEntries(2, "n2", 1, 1, 1, 1, boot, 1, ()))
        assert not alone.replica.suspect


def test_9_trust_needs_a_leader_that_others_have_confirmed_since():
    """The suspect node has lost what it knew of terms, and would believe a deposed leader."""
    with Alone() as alone:
        term = alone.lead()
        alone.node.raft.peer_up("n2", "boot 2")
        alone.acknowledge("n3", 1)
        sick = AppendEntriesResponse(term, True, 1, 1, 1, 0, 0, is_suspect=True)
        alone.feed("n2", sick)
        alone.forget()
        alone.run(0.15)
        assert {0} == {m.trusted_index for m in alone.sent(AppendEntries, "n2")}

        alone.feed("n3", success(term, 1, role_of(alone.node).request_id))
        alone.forget()
        alone.run(0.15)
        last = alone.sent(AppendEntries, "n2")[-1]
        assert (True, "boot 2") == (last.trusted_index >= 1, last.trusted_boot)


def test_9_s4_all_voters_suspect_the_longest_log_leads_after_a_roll_call():
    with World(3, seed=4) as world:
        world.boot_all()
        world.commit(b"x")
        world.run(1)
        world.isolate(*world.names)
        world.network.cut = {(a, b) for a in world.names for b in world.names if a != b}
        longest = world.nodes["n2"]
        term = longest.group.term
        longest.replica.append_entries(
            longest.replica.last_index,
            longest.replica.last_term,
            run_of([term], first=longest.replica.last_index + 1, offset=1),
        )
        world.run(0.1)
        for name in world.names:
            suspect(world, name)
        for name in world.names:
            world.crash(name, "kept")
        world.heal()
        for name in world.names:
            world.boot(name)
        first = world.elect()

        assert "n2" == first.name
        world.until(lambda: not any(n.replica.suspect for n in world.nodes.values()))
        assert 2 == world.commit(b"y").base_offset
        assert [] == world.violations


def test_9_s4_who_leads_by_a_roll_call_says_what_that_may_have_cost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with World(3, seed=4) as world:
        world.boot_all()
        world.commit(b"x")
        for name in world.names:
            suspect(world, name)
            world.crash(name, "kept")
            world.boot(name)
        leader = world.elect()

        (told,) = [each for each in caplog.records if each.levelname == "ERROR"]
        assert "no voter is sure of its copy; " in told.message
        assert "/0 goes on at offset 1: whatever was acknowledged behind" in told.message
        notes = {name: status_of(node.core).notes for name, node in world.nodes.items()}
        assert [leader.name] == [name for name in notes if CUT in "".join(notes[name])]
        assert any(note.startswith(CUT) for note in notes[leader.name])


def test_9_s4_who_is_whole_ignores_an_election_of_suspects():
    with Alone(hard=(4, "")) as alone:
        alone.feed("n2", ask(9, "n2", 9, 9, amnesty=True))

        assert (4, "") == alone.replica.hard_state


def test_9_s4_not_all_voters_present_no_roll_call_elects():
    with World(3) as world:
        world.boot_all()
        world.commit(b"x")
        suspect(world, *world.names)
        for name in world.names:
            world.crash(name, "kept")
        for name in ("n1", "n2"):
            world.boot(name)
        world.run(10)

        assert world.leader() is None


def test_9_s5_a_new_boot_id_takes_back_what_the_peer_had_acknowledged():
    with Alone(terms=[1] * 20) as alone:
        alone.lead()
        alone.acknowledge("n2", 14)
        alone.node.raft.peer_up("n2", "another start")
        progress = role_of(alone.node).replication.peers["n2"]
        assert 0 == progress.match_index
        term = alone.group.term
        prev = progress.next_index - 1
        alone.feed("n2", AppendEntriesResponse(term, False, 0, 9, prev, 8, 0, False))
        assert 8 == alone.sent(AppendEntries, "n2")[-1].entries[0].header.index


# --- 12 -------------------------------------------------------------------------------------------


def change(world: World, node: Node, voters: str, learners: str = "") -> None:
    future = node.consensus.change_members(Members(tuple(voters.split()), tuple(learners.split())))
    world.loop.run_until_complete(asyncio.wait_for(future, 5))


def shown(node: Node) -> str:
    """Its role as `status`, the metrics and `chronik -s` tell it."""
    nothing: Any = None
    part = RaftPartition(
        "events", 0, nothing, nothing, node.consensus,
        address_of=nothing, staleness_seconds=nothing, on_full=nothing, bundles=nothing,
    )  # fmt: skip
    return part.role().role


def test_12_members_grow_by_learners_that_become_voters():
    with World(["n1", "n2", "n3"], learners=["n4"]) as world:
        world.first_members = Members(("n1", "n2", "n3"), ())
        for name in ("n1", "n2", "n3"):
            world.boot(name)
        leader = world.elect()
        world.commit(b"x")
        change(world, leader, "n1 n2 n3", "n4")
        late = world.boot("n4")
        world.until(lambda: late.replica.last_index == leader.replica.last_index)
        assert "learner" == shown(late)

        change(world, leader, "n1 n2 n3 n4")

        world.until(world.converged)
        assert ("follower", "leader") == (shown(late), shown(leader))
        assert {("n1", "n2", "n3", "n4")} == {n.group.voters for n in world.nodes.values()}
        assert [] == world.violations


def test_12_s1_one_voter_at_a_time_and_one_change_at_a_time():
    with World(["n1", "n2", "n3"], learners=["n4", "n5"]) as world:
        for name in world.names:
            world.boot(name)
        leader = world.elect()
        world.run(1)

        with pytest.raises(ConfigError, match="at once"):
            leader.consensus.change_members(Members(("n1", "n2", "n3", "n4", "n5"), ()))
        with pytest.raises(ConfigError, match="learner"):
            leader.consensus.change_members(Members(("n1", "n2", "n3", "n9"), ()))
        leader.consensus.change_members(Members(("n1", "n2", "n3", "n4"), ("n5",)))
        with pytest.raises(BackpressureError, match="pending"):
            leader.consensus.change_members(Members(("n1", "n2", "n3"), ("n5",)))


def test_12_a_learner_that_has_not_caught_up_becomes_no_voter():
    with World(["n1", "n2", "n3"], learners=["n4"]) as world:
        for name in ("n1", "n2", "n3"):
            world.boot(name)
        leader = world.elect()
        world.run(1)

        with pytest.raises(ConfigError, match="caught up"):
            leader.consensus.change_members(Members(("n1", "n2", "n3", "n4"), ()))
        world.boot("n4")
        world.until(world.converged)
        world.run(1)
        change(world, leader, "n1 n2 n3 n4")


def test_12_s2_no_change_before_an_entry_of_its_own_term_is_committed():
    with Alone(4, hard=(1, "")) as alone:
        four = control_entry(1, 1, 0, Members(("n1", "n2", "n3", "n4"), ()))
        alone.feed("n2", entries_of(1, 0, 0, [four], commit=1))
        alone.lead()
        assert 1 == alone.replica.members[0] == alone.replica.commit_index

        three = Members(("n1", "n2", "n3"), ())
        with pytest.raises(BackpressureError, match="not committed"):
            alone.node.consensus.change_members(three)
        for peer in ("n2", "n3"):
            alone.acknowledge(peer, 2)
        alone.node.consensus.change_members(three).cancel()
        assert three.voters == alone.group.voters


def test_12_s1_a_change_counts_from_the_append_and_its_truncation_takes_it_back():
    with Alone(hard=(1, "")) as alone:
        four = Members(("n1", "n2", "n3", "n4"), ())
        alone.feed("n2", entries_of(1, 0, 0, [control_entry(1, 1, 0, four)]))
        assert four.voters == alone.group.voters

        alone.feed("n3", entries_of(2, 0, 0, run_of([2]), leader="n3"))
        assert ("n1", "n2", "n3") == alone.group.voters


def test_12_a_leader_that_removed_itself_leads_until_that_is_committed():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.run(1)
        rest = [name for name in world.names if name != leader.name]
        change(world, leader, " ".join(rest))

        world.until(lambda: (n := world.leader()) and n.name in rest)
        assert not isinstance(leader.group.state, CandidateRole)
        world.commit(b"x")
        assert [] == world.violations


@pytest.mark.parametrize(("voters", "down"), [(2, 0), (4, 1)])
@pytest.mark.parametrize("restarts", [False, True])
def test_12_one_that_goes_is_elected_while_others_lack_the_entry_that_drops_it(
    voters: int, down: int, *, restarts: bool
) -> None:
    """Thesis 4.2.2: the log of nobody else is as long, and of four, one of whom is down, three are
    needed by those who lack the entry. Nobody ever led again.
    """
    with World(voters) as world:
        world.boot_all()
        leader = world.elect()
        world.commit(b"a")
        world.run(1)
        rest = [name for name in world.names if name != leader.name]
        world.isolate(leader.name)
        leader.consensus.change_members(Members(tuple(rest), ())).add_done_callback(
            lambda outcome: outcome.exception()
        )
        world.until(lambda: leader.replica.durable_index == leader.replica.last_index)
        for name in rest[:down]:
            world.crash(name)
        world.until(lambda: leader.consensus.role is not Role.LEADER)
        if restarts:
            world.kill(leader.name)
            leader = world.boot(leader.name)
        assert leader.name not in leader.group.voters
        world.heal()

        world.until(lambda: (n := world.leader()) and n.name in rest and n.consensus.is_ready)
        world.commit(b"b")
        world.run(2)
        assert leader.consensus.role is Role.FOLLOWER
        assert {tuple(rest)} == {world.nodes[name].group.voters for name in rest[down:]}
        assert [] == world.violations


def test_12_one_that_goes_does_not_elect_itself() -> None:
    """Its own vote counts no more: alone it is no majority of the others."""
    with Alone(2, hard=(1, "")) as alone:
        alone.feed("n2", entries_of(1, 0, 0, [control_entry(1, 1, 0, Members(("n2",), ()))]))
        assert alone.group.may_ask()
        alone.group.campaign()
        alone.feed("n3", RequestVoteResponse(alone.group.term, vote_granted=True))
        assert Role.CANDIDATE is alone.group.role
        alone.feed("n2", RequestVoteResponse(alone.group.term, vote_granted=True))
        assert Role.LEADER is alone.group.role


def test_12_one_that_is_known_to_have_gone_asks_for_no_votes() -> None:
    with Alone(2, hard=(1, "")) as alone:
        entries = [control_entry(1, 1, 0, Members(("n2",), ("n1",)))]
        alone.feed("n2", entries_of(1, 0, 0, entries))
        assert alone.group.may_ask()
        alone.feed("n2", entries_of(1, 1, 1, [], commit=1))
        assert 1 == alone.replica.commit_index
        assert not alone.group.may_ask()


def test_12_the_log_names_the_members_from_the_first_term_on():
    with World(3) as world:
        world.boot_all()
        world.elect()
        world.until(lambda: all(n.replica.members for n in world.nodes.values()))

        assert {world.first_members} == {n.replica.members[1] for n in world.nodes.values()}


def test_9_of_two_voters_the_whole_one_tells_the_suspect_one_that_it_is_whole():
    """Its word is half of the voters: a later term would have needed its vote."""
    with World(2, seed=1) as world:
        world.boot_all()
        world.elect()
        world.commit(b"a")
        leader = world.elect()
        (sick,) = set(world.names) - {leader.name}
        world.kill(sick)
        world.boot(sick)
        suspect(world, sick)
        world.until(lambda: not world.nodes[sick].replica.suspect)
        assert leader is world.leader()
        world.commit(b"b")


@pytest.mark.parametrize(("voters", "half"), [(3, 2), (4, 2), (5, 3)])
def test_9_less_than_half_is_not_enough(voters: int, half: int) -> None:
    with Alone(voters, terms=[1], hard=(1, "")) as alone:
        term = alone.lead()
        names = [name for name in alone.group.voters if name != "n1"]
        for name in names:
            alone.acknowledge(name, alone.replica.last_index)
        state, last = alone.group.state, alone.replica.last_index
        sick = AppendEntriesResponse(term, True, last, 1, last, 0, 0, is_suspect=True)
        alone.feed(names[0], sick)
        peer = state.replication.peers[names[0]]
        state.request_id = peer.trust_round
        for confirmed, name in enumerate(names[1:], start=1):  # this leader included
            assert bool(state.trusted_index(peer)) == (confirmed >= half)
            state.replication.peers[name].request_id = peer.trust_round
        assert state.trusted_index(peer)


def test_15_a_leader_that_is_gone_was_heard_all_the_same() -> None:
    """How stale an answer may be is known while nobody leads, and after the term has moved on."""
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.commit(b"x")
        world.run(2.0)  # idle: beats of the nodes are all that is heard
        left = next(node for node in world.nodes.values() if node is not leader)
        assert world.loop.time() - left.group.leader_heard_at() < 0.3
        at = world.loop.time()
        for node in list(world.nodes.values()):
            if node is not left:
                world.kill(node.name)
        world.until(lambda: left.group.leader is None)
        world.run(3.0)
        assert at - 0.3 <= left.group.leader_heard_at() <= at + 0.1
        left.group._enter_term(left.group.term + 1)
        assert at - 0.3 <= left.group.leader_heard_at() <= at + 0.1


def test_4_a_group_made_anew_shows_no_vote_that_its_disk_owes() -> None:
    with Alone(terms=[1], hard=(1, ""), network=STALLED) as alone:
        ticket = alone.replica.save_hard_state(9, "n2")
        assert ticket > alone.replica.synced_ticket
        assert ticket <= HardState(alone.replica).ticket
