"""Defects 1 to 13 of raftos, absent from our roles: elections and terms. Paper: Raft, extended."""

from __future__ import annotations

import pytest

from chronik_server.raft.candidate import CandidateRole
from chronik_server.raft.follower import FollowerRole
from chronik_server.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
)
from chronik_server.testing.world import World
from chronik_store.testing.cluster_log import batch, run_of
from tests.server.raft.alone import STALLED, Alone, ask, conflict, entries_of


def granted(alone: Alone, to: str) -> list[bool]:
    return [m.vote_granted for m in alone.sent(RequestVoteResponse, to)]


def test_01_a_vote_survives_a_restart():
    """Figure 2: votedFor is persistent."""
    with Alone(hard=(4, "")) as alone:
        alone.feed("n2", ask(5, "n2"))
        assert [True] == granted(alone, "n2")

        alone.restart()
        alone.feed("n3", ask(5, "n3"))

        assert [False] == granted(alone, "n3")
        assert (5, "n2") == alone.replica.hard_state


def test_02_a_candidate_that_steps_down_keeps_its_vote():
    """Figure 2: one vote per term, whatever the role."""
    with Alone(hard=(4, "")) as alone:
        alone.campaign()
        alone.group.to_follower()

        alone.feed("n3", ask(5, "n3"))

        assert [False] == granted(alone, "n3")


def test_03_a_new_term_brings_a_new_vote():
    """5.1, figure 2: votedFor belongs to the current term."""
    with Alone(hard=(4, "")) as alone:
        alone.feed("n2", ask(5, "n2"))
        alone.feed("n3", ask(9, "n3", 10, 9))

        assert [True] == granted(alone, "n3")
        assert (9, "n3") == alone.replica.hard_state


def test_03_a_new_term_takes_the_vote_back_whoever_records_it():
    """raftos records a term without a word of the vote; it would have been given already."""
    with Alone(hard=(4, "n2")) as alone:
        alone.group.storage.update({"term": 5})

        assert (5, "") == alone.replica.hard_state


def test_04_votes_of_an_older_term_do_not_count():
    """5.2: votes of a majority in the same term."""
    with Alone(5, hard=(4, "")) as alone:
        alone.campaign()
        alone.group.to_follower()
        alone.campaign()
        for voter in ("n2", "n3", "n4", "n5"):
            alone.feed(voter, RequestVoteResponse(5, vote_granted=True))

        assert (6, False) == (alone.group.term, alone.leads)


def test_05_a_voter_counts_once_however_often_it_answers():
    """5.2: at most one vote per server."""
    with Alone(5) as alone:
        alone.campaign()
        for _ in range(5):
            alone.feed("n2", RequestVoteResponse(1, vote_granted=True))
        assert not alone.leads

        alone.feed("n3", RequestVoteResponse(1, vote_granted=True))
        assert alone.leads


def test_05_who_is_no_voter_has_no_vote():
    """6: the configuration says who votes."""
    with Alone(3) as alone:
        alone.campaign()
        alone.feed("stranger", RequestVoteResponse(1, vote_granted=True))

        assert not alone.leads


@pytest.mark.parametrize(("size", "quorum"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4)])
def test_06_a_quorum_is_more_than_half_of_all_voters(size, quorum):
    """5.1: any two quorums meet."""
    with Alone(size) as alone:
        assert not alone.group.is_majority(quorum - 1)
        assert alone.group.is_majority(quorum)


def test_07_a_group_of_one_elects_itself_and_commits():
    """5.2, 5.3, with a majority of one."""
    with World(1) as world:
        world.boot_all()
        world.elect()

        assert 0 == world.commit(b"alone").base_offset


def test_07_a_group_of_one_does_not_lead_before_its_vote_is_durable():
    """Figure 2: persisted before it counts."""
    with Alone(1, network=STALLED) as alone:
        alone.run(2)

        assert 1 == alone.group.term
        assert not alone.leads


def deposed_messages(alone: Alone, term: int) -> list[AppendEntries]:
    return [m for m in alone.sent(AppendEntries) if m.term >= term]


def test_08_a_deposed_leader_sends_nothing_in_the_term_that_deposed_it():
    """5.1: only the leader of a term sends AppendEntries of it."""
    with Alone(terms=[5, 5]) as alone:
        alone.lead()

        alone.feed("n2", AppendEntriesResponse(9, False, 0, 1, 0, 0, 0, False))

        assert (9, False) == (alone.group.term, alone.leads)
        assert [] == deposed_messages(alone, 9)


def test_09_what_a_leader_had_scheduled_dies_with_its_term():
    """5.1: a callback of a role that has ended does nothing."""
    with Alone(terms=[5]) as alone:
        term = alone.lead()
        future = alone.node.consensus.propose([batch(b"x")])
        alone.feed("n2", ask(9, "n2", 9, 9, transfer=True), settle=False)
        alone.run(1)

        assert [] == deposed_messages(alone, term + 1)
        assert future.exception() is not None


def test_10_a_candidate_answers_the_vote_request_that_deposes_it():
    """5.1: the request of the higher term is processed, not dropped."""
    with Alone(hard=(4, "")) as alone:
        alone.campaign()
        alone.feed("n3", ask(9, "n3", 9, 9))

        assert [True] == granted(alone, "n3")


def test_10_a_candidate_obeys_the_leader_that_deposes_it():
    """5.2: it returns to follower state, and the entries are taken."""
    with Alone(hard=(4, "")) as alone:
        alone.campaign()
        alone.feed("n2", entries_of(5, 0, 0, run_of([5])))

        assert isinstance(alone.group.state, FollowerRole)
        assert [(True, 1)] == [
            (m.success, m.match_index) for m in alone.sent(AppendEntriesResponse, "n2")
        ]


def test_11_a_granted_vote_lets_the_candidate_have_its_time():
    """5.2: granting a vote restarts the election timeout."""
    with Alone() as alone:
        for term in range(1, 9):
            alone.run(0.2)
            alone.feed("n2", ask(term, "n2"))

        assert [] == alone.sent(PreVote)


def test_11_a_grant_is_repeated_to_the_one_who_has_it():
    """Figure 2: votedFor is null or candidateId."""
    with Alone() as alone:
        alone.feed("n2", ask(5, "n2"))
        alone.feed("n2", ask(5, "n2"))

        assert [True, True] == granted(alone, "n2")


def test_12_a_leader_whose_log_does_not_match_yet_is_a_leader_all_the_same():
    """5.2: AppendEntries from the current leader restart the timeout, success or not."""
    with Alone() as alone:
        for _ in range(10):
            alone.run(0.2)
            alone.feed("n2", entries_of(1, 50, 1))

        assert [] == alone.sent(PreVote)
        assert "n2" == alone.group.leader


def test_13_an_isolated_node_does_not_raise_its_term():
    """9.6 of the thesis: pre-vote."""
    with Alone(hard=(4, "")) as alone:
        alone.run(10)

        assert len(alone.sent(PreVote)) > 10
        assert (4, []) == (alone.group.term, alone.sent(RequestVote))


def test_13_a_candidate_that_gets_no_quorum_asks_again_before_it_raises_the_term_again():
    """5.2 with pre-vote: a split costs one timeout, and one term."""
    with Alone(hard=(4, "")) as alone:
        alone.campaign()
        alone.forget()
        alone.run(0.7)

        assert 5 == alone.group.term
        assert alone.sent(PreVote)


def test_13_a_pre_quorum_makes_a_candidate():
    with Alone() as alone:
        alone.run(0.7)
        alone.feed("n3", PreVoteResponse(0, True, False, 0, 0))

        assert isinstance(alone.group.state, CandidateRole)
        assert {"n2", "n3"} == {peer for _, peer, m in alone.world.log if type(m) is RequestVote}


def test_a_conflict_before_the_term_is_known_is_no_vote():
    with Alone() as alone:
        alone.campaign()
        alone.feed("n2", conflict(1, 0, 0))

        assert not alone.leads
