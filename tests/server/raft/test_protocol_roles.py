"""Schedules of the protocol about who may do what: 9, 12, 13, 15, against the real roles."""

from __future__ import annotations

import asyncio

import pytest

from chronik_server.raft.candidate import CandidateRole
from chronik_server.raft.follower import FollowerRole
from chronik_server.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Beat,
    BeatAck,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from chronik_server.raft.pacing import ElectionPacer
from chronik_store.errors import BackpressureError, ConfigError
from chronik_store.format.control import Members
from chronik_store.log_status import SUSPECT, status_of
from tests.server.raft.alone import STALLED, Alone, ask, entries_of, success
from tests.server.raft.world import SETTINGS, Node, World, role_of
from tests.store.cluster_log import batch, control_entry, run_of

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

        change(world, leader, "n1 n2 n3 n4")

        world.until(world.converged)
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


def test_12_s2_no_change_before_an_entry_of_its_own_term_is_committed():
    with Alone(4, terms=[1]) as alone:
        alone.lead()

        with pytest.raises(BackpressureError, match="not committed"):
            alone.node.consensus.change_members(Members(("n1", "n2", "n3"), ()))


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


def test_12_the_log_names_the_members_from_the_first_term_on():
    with World(3) as world:
        world.boot_all()
        world.elect()
        world.until(lambda: all(n.replica.members for n in world.nodes.values()))

        assert {world.first_members} == {n.replica.members[1] for n in world.nodes.values()}


# --- 13 -------------------------------------------------------------------------------------------


def test_13_s1_a_pre_vote_raises_no_term():
    with Alone(hard=(4, "n1")) as alone:
        alone.feed("n2", PreVote(90, 5, 5))

        assert (4, "n1") == alone.replica.hard_state
        assert [True] == [m.granted for m in alone.sent(PreVoteResponse)]


def test_13_a_pre_vote_is_given_by_the_log_so_that_an_old_lone_candidate_blocks_nobody():
    """Who is behind in term and ahead in log gets the pre-vote, and then a term above both."""
    with Alone(hard=(9, "n1")) as alone:
        alone.feed("n2", PreVote(4, 5, 4))
        assert [True] == [m.granted for m in alone.sent(PreVoteResponse)]

    with Alone(terms=[4]) as alone:
        alone.run(0.65)
        alone.feed("n2", PreVoteResponse(9, True, False, 0, 0))
        assert (10, "n1") == alone.replica.hard_state


def test_13_s2_an_isolated_node_comes_back_without_deposing_anybody():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.run(1)
        term = leader.group.term
        other = next(name for name in world.names if name != leader.name)
        world.isolate(other)
        world.run(5)
        world.heal()
        world.run(2)

        assert (term, leader.name) == (world.elect().group.term, world.elect().name)


def test_13_votes_and_pre_votes_are_refused_while_the_leader_is_heard():
    with Alone(hard=(4, "")) as alone:
        alone.feed("n2", entries_of(4, 0, 0))
        alone.feed("n3", PreVote(4, 9, 9))
        alone.feed("n3", ask(5, "n3", 9, 9))

        assert [False] == [m.granted for m in alone.sent(PreVoteResponse)]
        assert [] == alone.sent(RequestVoteResponse)
        assert (4, "") == alone.replica.hard_state


def test_13_a_connection_that_is_lost_and_does_not_come_back_is_silence():
    """Decision 0019: who refused for the leader's sake does so no more; sooner than by beats."""
    with Alone(hard=(4, "")) as alone:
        alone.feed("n2", entries_of(4, 0, 0))
        alone.node.raft.peer_down("n2")
        alone.feed("n3", PreVote(4, 9, 9))
        assert [False] == [m.granted for m in alone.sent(PreVoteResponse)]

        alone.forget()
        alone.run(SETTINGS.lost_seconds + 0.001)
        alone.feed("n3", PreVote(4, 9, 9))
        assert [True] == [m.granted for m in alone.sent(PreVoteResponse)]
        alone.run(SETTINGS.lost_seconds + 0.001)
        assert {"n2", "n3"} == {peer for _, peer, m in alone.world.log if isinstance(m, PreVote)}
        assert (4, "") == alone.replica.hard_state


def test_13_a_killed_leader_is_replaced_before_any_beat_is_missed():
    with World(3) as world:
        world.boot_all()
        dead = world.elect()
        world.run(1)
        world.crash(dead.name)
        began = world.loop.time()
        world.until(lambda: (found := world.leader()) is not None and found is not dead)

        assert world.loop.time() - began < SETTINGS.election_seconds_min


def test_13_a_connection_that_comes_back_costs_no_election():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.run(1)
        term = leader.group.term
        others = [node for node in world.nodes.values() if node is not leader]
        for _ in range(5):
            for node in others:
                node.raft.peer_down(leader.name)
            world.run(SETTINGS.lost_seconds / 2)
            for node in others:
                node.raft.peer_up(leader.name, leader.boot_id)
            world.run(0.2)

        assert (leader.name, term) == (world.elect().name, leader.group.term)


def test_13_a_follower_that_alone_lost_its_connection_disturbs_nobody():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.run(1)
        term = leader.group.term
        lonely = next(node for node in world.nodes.values() if node is not leader)
        world.network.cut = {(leader.name, lonely.name), (lonely.name, leader.name)}
        lonely.raft.peer_down(leader.name)
        world.keep_log = True
        world.run(5)

        assert [m for _, _, m in world.log if isinstance(m, PreVote)]
        assert (leader.name, term) == (world.elect().name, leader.group.term)


def test_13_s3_the_target_of_a_transfer_is_refused_by_nobody():
    with Alone(hard=(4, "")) as alone:
        alone.feed("n2", entries_of(4, 0, 0))
        alone.feed("n3", ask(5, "n3", 9, 9, transfer=True))

        assert [True] == [m.vote_granted for m in alone.sent(RequestVoteResponse)]


def test_13_s3_the_target_starts_at_once_and_says_why():
    with Alone(hard=(4, "")) as alone:
        alone.feed("n2", entries_of(4, 0, 0))
        alone.feed("n2", TimeoutNow(4))

        assert {True} == {m.transfer for m in alone.sent(RequestVote)}
        assert [] == alone.sent(PreVote)


def test_13_only_the_leader_hands_over():
    with Alone(hard=(4, "")) as alone:
        alone.feed("n2", entries_of(4, 0, 0))
        alone.feed("n3", TimeoutNow(4))

        assert isinstance(alone.group.state, FollowerRole)


def test_13_s4_followers_with_a_slow_disk_do_not_depose_a_healthy_leader():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.run(1)
        term = leader.group.term
        world.network.disk_delays = (5.0,)
        leader.consensus.propose([batch(b"x")])
        world.run(4)

        assert (leader.name, term) == (world.elect().name, leader.group.term)


def test_13_s4_a_slow_disk_of_a_follower_is_not_taken_for_loss():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.run(1)
        world.network.disk_delays = (3.0,)
        leader.consensus.propose([batch(bytes(500))])
        world.keep_log = True
        world.run(2)

        sent = [m for _, _, m in world.log if isinstance(m, AppendEntries) and m.entries]
        assert 2 == len(sent), "once to each follower"


def test_13_a_leader_that_nobody_answers_steps_down():
    with Alone() as alone:
        alone.lead()
        alone.run(1.5)

        assert not alone.leads


def test_13_s5_a_learner_never_starts_an_election():
    with World(["n2", "n3"], learners=["n1"]) as world:
        learner = world.boot("n1")
        world.keep_log = True
        world.run(5)

        assert 0 == learner.group.term
        assert [] == [m for _, _, m in world.log if isinstance(m, PreVote)]


def test_13_a_node_whose_disk_owes_the_last_term_raises_no_other():
    with Alone(network=STALLED) as alone:
        alone.group.campaign()
        alone.run(5)

        assert 1 == alone.group.term


# --- 15 -------------------------------------------------------------------------------------------


def test_15_an_idle_group_sends_nothing_and_elects_nobody():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.commit(b"x")
        world.run(2)
        world.keep_log = True
        world.run(20)

        assert {Beat, BeatAck} == {type(m) for _, _, m in world.log}
        assert 1 == world.stats["elections"]
        assert not role_of(leader).heartbeat_timer.is_active


def test_15_an_idle_group_notices_that_its_leader_is_gone():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.run(5)
        world.crash(leader.name)
        gone_at = world.loop.time()
        new = world.elect()

        assert new.name != leader.name
        assert world.loop.time() - gone_at < 2 * world.settings.election_seconds_max


def test_15_a_leader_that_withdrew_its_claim_holds_nobody_back():
    """Its node beats on, but says no more that it leads."""
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.run(2)
        leader.consensus.stop()
        new = world.until(lambda: (n := world.leader()) and n.name != leader.name and n)

        assert new.group.term > leader.group.term


def test_15_an_idle_leader_without_a_quorum_steps_down():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.run(2)
        world.isolate(leader.name)
        world.until(lambda: not leader.consensus.is_ready, 3)


def test_15_a_follower_of_a_higher_term_is_heard_by_an_idle_leader():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.run(2)
        other = next(n for n in world.nodes.values() if n is not leader)
        other.group.storage.update({"term": 50, "voted_for": None})
        world.until(lambda: (n := world.leader()) and n.group.term > 50)

        assert world.commit(b"x")
        assert [] == world.violations


def test_15_a_table_that_does_not_fit_is_asked_for_whole():
    with Alone() as alone:
        live = alone.node.raft.liveness
        live.on_beat("n2", Beat("b", 1, 5, 0, (("events/0", 3),)))
        assert alone.world.loop.time() == live.confirmed_at("n2", "events/0", 3)
        live.on_beat("n2", Beat("b", 2, 9, 7, ()))  # what changed from 5 to 7 never came

        assert [5, 5] == [m.held_version for m in alone.sent(BeatAck, "n2")]
        live.on_beat("n2", Beat("b", 3, 9, 5, (("events/0", 0),)))
        assert float("-inf") == live.confirmed_at("n2", "events/0", 3)


def test_15_a_node_that_started_anew_leads_nothing_until_it_says_so():
    with Alone() as alone:
        live = alone.node.raft.liveness
        live.on_beat("n2", Beat("b", 1, 5, 0, (("events/0", 3),)))
        live.on_beat("n2", Beat("other", 1, 1, 0, ()))

        assert float("-inf") == live.confirmed_at("n2", "events/0", 3)


def test_15_elections_are_paced():
    now = [0.0]
    pacer = ElectionPacer(10, lambda: now[0])
    assert 10 == sum(pacer.admit() for _ in range(100))
    now[0] = 0.5
    assert 5 == sum(pacer.admit() for _ in range(100))
