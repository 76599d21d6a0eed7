"""Known bugs, put back one by one: each must be found, or the tests are at fault.

By the directed schedules where one exists, and by the stories of `chronik simulate --cluster`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from chronik_server.testing.planted import BUGS
from chronik_server.testing.playing import play
from chronik_store.testing.planted import planted
from tests.server.raft import (
    test_defects_01_13_elections,
    test_defects_14_27_replication,
    test_defects_28_37_durability,
    test_protocol_elections,
    test_protocol_roles,
    test_protocol_storage,
)
from tests.store import test_covered_damage

ELECTIONS: ModuleType = test_defects_01_13_elections
REPLICATION: ModuleType = test_defects_14_27_replication
DURABILITY: ModuleType = test_defects_28_37_durability
ROLES: ModuleType = test_protocol_roles
ASKING: ModuleType = test_protocol_elections
STORAGE: ModuleType = test_protocol_storage
DAMAGE: ModuleType = test_covered_damage

DIRECTED: list[tuple[str, Callable[[], None]]] = [
    ("forget-the-vote", ELECTIONS.test_01_a_vote_survives_a_restart),
    ("forget-the-vote", ELECTIONS.test_02_a_candidate_that_steps_down_keeps_its_vote),
    ("send-before-the-disk", DURABILITY.test_28_no_vote_leaves_before_it_is_durable),
    ("send-before-the-disk", DURABILITY.test_28_no_vote_is_asked_for_before_the_own_is_durable),
    (
        "acknowledge-before-the-disk",
        DURABILITY.test_28_no_entry_is_acknowledged_before_it_is_durable,
    ),
    ("count-duplicate-votes", ELECTIONS.test_05_a_voter_counts_once_however_often_it_answers),
    (
        "commit-older-terms-by-counting",
        REPLICATION.test_18_an_older_term_is_never_committed_by_counting,
    ),
    (
        "count-oneself-before-the-disk",
        DURABILITY.test_28_a_leader_counts_itself_only_when_its_own_disk_has_the_entry,
    ),
    ("acknowledge-the-whole-log", REPLICATION.test_15_an_answer_speaks_of_what_was_compared_only),
    (
        "answer-beats-with-what-is-not-durable",
        DURABILITY.test_28_a_beat_is_answered_by_a_slow_disk_with_what_it_has,
    ),
    ("take-answers-of-any-term", REPLICATION.test_17_answers_of_an_older_term_do_not_count),
    ("take-answers-of-any-term", ELECTIONS.test_04_votes_of_an_older_term_do_not_count),
    ("read-without-a-round", REPLICATION.test_27_a_read_waits_for_a_round_that_began_after_it),
    (
        "trust-a-restarted-peer",
        ROLES.test_9_s5_a_new_boot_id_takes_back_what_the_peer_had_acknowledged,
    ),
    ("count-suspects", ROLES.test_9_a_suspect_node_does_not_count_in_a_quorum),
    (
        "commit-what-was-not-compared",
        REPLICATION.test_16_a_follower_commits_no_further_than_what_was_compared,
    ),
    ("trust-at-once", ROLES.test_9_trust_needs_a_leader_that_others_have_confirmed_since),
    (
        "begin-behind-any-damage",
        DAMAGE.test_a_segment_that_nothing_shows_to_be_committed_covers_nothing,
    ),
    ("no-noop", REPLICATION.test_19_a_leader_begins_with_an_entry_of_its_own),
    ("pre-vote-raises-the-term", ASKING.test_13_s1_a_pre_vote_raises_no_term),
    (
        "any-one-may-hand-over",
        ASKING.test_13_votes_and_pre_votes_are_refused_while_the_leader_is_heard,
    ),
]


@pytest.mark.parametrize(("bug", "check"), DIRECTED)
def test_a_directed_schedule_finds(bug: str, check: Callable[[], None]) -> None:
    check()

    with planted(bug, BUGS), pytest.raises(AssertionError):
        check()


IN_STORIES = {
    "forget-the-vote": 0,
    "send-before-the-disk": 12,
    "acknowledge-before-the-disk": 23,
    "quorum-without-self": 15,
    "count-oneself-before-the-disk": 0,
    "acknowledge-the-whole-log": 0,
    "answer-beats-with-what-is-not-durable": 15,
    "vote-for-any-log": 4,
    "commit-what-was-not-compared": 9,
    "no-noop": 0,
    "only-voters-ask": 14,
    "prune-before-published": 0,
    "prune-past-coverage": 0,
    "overwrite-the-manifest": 2,
    "upload-under-a-new-key": 7,
    "put-before-intent": 0,
    "list-before-the-put": 0,
    "retain-past-tiered": 4,
    "collect-before-published": 4,
    "never-collect": 4,
}
"""Bug to the first seed that found it when this was written, so that the search is short."""


@pytest.mark.parametrize(("bug", "first"), IN_STORIES.items())
def test_a_story_finds(bug: str, first: int) -> None:
    assert any(play(seed, bug=bug).violation for seed in range(first, first + 40))


def test_each_bug_is_found_by_something() -> None:
    assert set(BUGS) == {bug for bug, _ in DIRECTED} | set(IN_STORIES)
