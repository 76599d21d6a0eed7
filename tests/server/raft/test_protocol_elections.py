"""Schedules of the protocol about who asks, votes and is heard: 13, 15, against the real roles."""

from __future__ import annotations

from chronik_server.raft.errors import OutcomeUnknownError
from chronik_server.raft.follower import FollowerRole
from chronik_server.raft.messages import (
    AppendEntries,
    Beat,
    BeatAck,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from chronik_server.raft.pacing import ElectionPacer
from chronik_server.testing.node import role_of
from chronik_server.testing.world import SETTINGS, World
from chronik_store.testing.cluster_log import batch
from tests.server.raft.alone import STALLED, Alone, ask, entries_of

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


def test_13_s3_a_word_to_take_over_is_of_its_own_term_only():
    """It was late: who gave it has been deposed since, and leads anew."""
    with Alone(hard=(4, "")) as alone:
        alone.feed("n2", entries_of(6, 0, 0))
        alone.feed("n2", TimeoutNow(4))

        assert isinstance(alone.group.state, FollowerRole)
        assert 6 == alone.group.term
        assert [] == alone.sent(RequestVote)


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


def test_13_s4_a_leader_whose_own_disk_hangs_lets_another_lead():
    """Two had it on disk, and nobody was answered for as long as the third one's hung: it beat."""
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.run(1)
        leader.committer._schedule = lambda _step: None
        waiting = world.propose(leader, b"x")
        world.until(lambda: world.leader() not in {None, leader}, 8)

        assert isinstance(waiting.exception(), OutcomeUnknownError)
        world.commit(b"y")
        world.kill(leader.name)
        world.boot(leader.name)
        world.until(world.converged)
        world.check_logs()
        assert world.violations == []


def test_13_s4_a_leader_stays_while_no_quorum_is_ahead_of_its_disk():
    with World(3) as world:
        world.boot_all()
        leader = world.elect()
        world.run(1)
        term = leader.group.term
        for name in world.names:
            world.nodes[name].committer._schedule = lambda _step: None
        world.propose(leader, b"x")
        world.run(10)

        assert (leader, term) == (world.leader(), leader.group.term)


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
        assert 1 == world.judge.elections
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
