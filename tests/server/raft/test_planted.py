"""Known bugs, put back one by one: each must be found, or the tests are at fault.

By the directed schedules where one exists, else by the simulation (`RAFT_SEEDS` does not apply).
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from chronik_server.raft import candidate, durable_state, follower, group, leader, replication
from chronik_store.replica import Replica
from tests.server.raft import (
    test_defects_01_13_elections,
    test_defects_14_27_replication,
    test_defects_28_37_durability,
    test_protocol_roles,
    test_protocol_storage,
)
from tests.server.raft.test_simulation import one_run

GROUP, FOLLOWER = group.RaftGroup, follower.FollowerRole
CANDIDATE, LEADER = candidate.CandidateRole, leader.LeaderRole
ELECTIONS: ModuleType = test_defects_01_13_elections
REPLICATION: ModuleType = test_defects_14_27_replication
DURABILITY: ModuleType = test_defects_28_37_durability
ROLES: ModuleType = test_protocol_roles
STORAGE: ModuleType = test_protocol_storage

Patch = pytest.MonkeyPatch


def forget_the_vote(patch: Patch) -> None:
    def init_storage(self: Any) -> None:
        self.group.replica.save_hard_state(self.group.term, "")

    patch.setattr(FOLLOWER, "init_storage", init_storage)


def send_before_the_disk(patch: Patch) -> None:
    patch.setattr(Replica, "synced_ticket", property(lambda _self: 1 << 62))


def acknowledge_before_the_disk(patch: Patch) -> None:
    send = GROUP.send
    patch.setattr(GROUP, "send", lambda self, data, to, _ticket=0: send(self, data, to, 0))


def count_duplicate_votes(patch: Patch) -> None:
    raw = candidate.Candidate.on_receive_request_vote_response

    def count(self: Any, data: Any) -> None:
        if data.message.vote_granted:
            raw(self, data)

    patch.setattr(CANDIDATE, "on_receive_request_vote_response", count)


def quorum_without_self(patch: Patch) -> None:
    patch.setattr(GROUP, "is_majority", lambda self, count: count > (len(self.voters) - 1) // 2)


def commit_older_terms_by_counting(patch: Patch) -> None:
    def update(self: Any) -> None:
        held = sorted(self._held(voter) for voter in self.group.voters)
        self.commit_index = max(self.commit_index, held[(len(held) - 1) // 2])
        self.group.note_commit(self.commit_index)

    patch.setattr(LEADER, "update_commit_index", update)


def count_oneself_before_the_disk(patch: Patch) -> None:
    held = LEADER._held

    def count(self: Any, voter: str) -> int:
        own = voter == self.group.id
        return int(self.group.replica.last_index if own else held(self, voter))

    patch.setattr(LEADER, "_held", count)


def acknowledge_the_whole_log(patch: Patch) -> None:
    answer = FOLLOWER._acknowledge

    def acknowledge(self: Any, data: Any, matched: int, **options: Any) -> None:
        if options.get("hint") is None:
            matched = self.group.replica.last_index
        answer(self, data, matched, **options)

    patch.setattr(FOLLOWER, "_acknowledge", acknowledge)


def answer_beats_with_what_is_not_durable(patch: Patch) -> None:
    patch.setattr(Replica, "durable_index", property(lambda self: self.last_index))


def take_answers_of_any_term(patch: Patch) -> None:
    refuse = GROUP._refuse

    def dispatch(self: Any, sender: str, message: Any) -> None:
        if message.KIND.endswith("_response"):
            group.State.request_handler(self, group.Received(sender, message))
        else:
            refuse(self, sender, message)

    patch.setattr(GROUP, "_refuse", dispatch)


def vote_for_any_log(patch: Patch) -> None:
    patch.setattr(durable_state.LogEnd, "last_log_term", property(lambda _self: 0))
    patch.setattr(durable_state.LogEnd, "last_log_index", property(lambda _self: 0))
    patch.setattr(durable_state.LogEnd, "position", lambda _self: (0, 0))


def read_without_a_round(patch: Patch) -> None:
    def read(self: Any) -> Any:
        future = self.loop.create_future()
        future.set_result(self.commit_index)
        return future

    patch.setattr(LEADER, "read_barrier", read)


def trust_a_restarted_peer(patch: Patch) -> None:
    patch.setattr(replication.Replication, "reset", lambda _self, _peer: None)


def count_suspects(patch: Patch) -> None:
    def held(self: Any, voter: str) -> int:
        if voter == self.group.id:
            return int(self.group.replica.durable_index)
        return int(self.replication.peers[voter].match_index)

    patch.setattr(LEADER, "_held", held)


def commit_what_was_not_compared(patch: Patch) -> None:
    receive = FOLLOWER.on_receive_append_entries

    def commit(self: Any, data: Any) -> None:
        receive(self, data)
        last = self.group.replica.last_index
        self.group.note_commit(min(data.message.commit_index, last))

    patch.setattr(FOLLOWER, "on_receive_append_entries", commit)


def no_noop(patch: Patch) -> None:
    def start(self: Any) -> None:
        leader.Leader.start(self)
        self.noop_index = self.group.replica.last_index or 1

    patch.setattr(LEADER, "start", start)


def pre_vote_raises_the_term(patch: Patch) -> None:
    receive = GROUP.receive

    def raise_term(self: Any, sender: str, message: Any) -> None:
        if message.KIND == "pre_vote" and message.term > self.term:
            self._enter_term(message.term)
        receive(self, sender, message)

    patch.setattr(GROUP, "receive", raise_term)


def any_one_may_hand_over(patch: Patch) -> None:
    patch.setattr(FOLLOWER, "is_sticky", lambda _self: False)


def trust_at_once(patch: Patch) -> None:
    patch.setattr(LEADER, "trusted_index", lambda self, _peer: self.commit_index)


DIRECTED: list[tuple[Callable[[Patch], None], Callable[[], None]]] = [
    (forget_the_vote, ELECTIONS.test_01_a_vote_survives_a_restart),
    (forget_the_vote, ELECTIONS.test_02_a_candidate_that_steps_down_keeps_its_vote),
    (send_before_the_disk, DURABILITY.test_28_no_vote_leaves_before_it_is_durable),
    (send_before_the_disk, DURABILITY.test_28_no_vote_is_asked_for_before_the_own_is_durable),
    (acknowledge_before_the_disk, DURABILITY.test_28_no_entry_is_acknowledged_before_it_is_durable),
    (count_duplicate_votes, ELECTIONS.test_05_a_voter_counts_once_however_often_it_answers),
    (
        commit_older_terms_by_counting,
        REPLICATION.test_18_an_older_term_is_never_committed_by_counting,
    ),
    (
        count_oneself_before_the_disk,
        DURABILITY.test_28_a_leader_counts_itself_only_when_its_own_disk_has_the_entry,
    ),
    (acknowledge_the_whole_log, REPLICATION.test_15_an_answer_speaks_of_what_was_compared_only),
    (
        answer_beats_with_what_is_not_durable,
        DURABILITY.test_28_a_beat_is_answered_by_a_slow_disk_with_what_it_has,
    ),
    (take_answers_of_any_term, REPLICATION.test_17_answers_of_an_older_term_do_not_count),
    (take_answers_of_any_term, ELECTIONS.test_04_votes_of_an_older_term_do_not_count),
    (read_without_a_round, REPLICATION.test_27_a_read_waits_for_a_round_that_began_after_it),
    (
        trust_a_restarted_peer,
        ROLES.test_9_s5_a_new_boot_id_takes_back_what_the_peer_had_acknowledged,
    ),
    (count_suspects, ROLES.test_9_a_suspect_node_does_not_count_in_a_quorum),
    (
        commit_what_was_not_compared,
        REPLICATION.test_16_a_follower_commits_no_further_than_what_was_compared,
    ),
    (trust_at_once, ROLES.test_9_trust_needs_a_leader_that_others_have_confirmed_since),
    (no_noop, REPLICATION.test_19_a_leader_begins_with_an_entry_of_its_own),
    (pre_vote_raises_the_term, ROLES.test_13_s1_a_pre_vote_raises_no_term),
    (
        any_one_may_hand_over,
        ROLES.test_13_votes_and_pre_votes_are_refused_while_the_leader_is_heard,
    ),
]


@pytest.mark.parametrize(("plant", "check"), DIRECTED)
def test_a_directed_schedule_finds(
    plant: Callable[[Patch], None], check: Callable[[], None], monkeypatch: Patch
) -> None:
    check()
    plant(monkeypatch)

    with pytest.raises(AssertionError):
        check()


# From the first seed that found it when this was written, so that the search is short.
IN_SIMULATION: list[tuple[Callable[[Patch], None], range]] = [
    (quorum_without_self, range(4, 44)),
    (acknowledge_the_whole_log, range(16, 56)),
    (vote_for_any_log, range(40)),
]


@pytest.mark.parametrize(("plant", "seeds"), IN_SIMULATION)
def test_the_simulation_finds(
    plant: Callable[[Patch], None], seeds: range, monkeypatch: Patch
) -> None:
    plant(monkeypatch)

    assert any(found(seed) for seed in seeds), f"{plant.__name__} was not found in {seeds}"


def found(seed: int) -> bool:
    try:
        return bool(one_run(seed, seconds=8).violations)
    except (AssertionError, IndexError):
        return True
