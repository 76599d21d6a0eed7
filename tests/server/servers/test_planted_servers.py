"""Known bugs of what surrounds the roles, put back one by one: each must be found.

By the stories of `chronik simulate --servers`, or by a directed test that fails with it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chronik_server.testing.servers.planted import BUGS
from chronik_server.testing.servers.playing import play
from chronik_store.testing.planted import planted
from tests.server.client import test_one_topic as one_topic
from tests.server.cluster import test_cluster_topics as topics
from tests.server.cluster import test_hosting as hosting
from tests.server.cluster import test_hosting_ended_topics as ended
from tests.server.cluster import test_hosting_lost_logs as lost
from tests.server.cluster import test_namesakes as namesakes
from tests.server.raft import test_protocol_storage as storage
from tests.server.servers import test_damaged_logs as damaged
from tests.server.servers import test_servers_on_virtual_time as stories

SEEDS = 40

IN_STORIES = {
    "tell-of-closed-logs": 6,
    "ask-again-as-another": 4,
    "acknowledge-at-the-leader": 23,
    "take-new-logs-for-lost": 4,
    "note-before-all-are-made": 15,
    "let-one-too-many-go": 46,
    "let-go-by-size-alone": 6,
    "never-look-whether-there-is-room-again": 84,
    "vote-from-an-empty-log": 141,
    "forget-who-has-founded": 10,
}
"""Bug to the first seed that found it when this was written, so that the search is short."""


def pruned_meanwhile() -> None:
    with pytest.MonkeyPatch.context() as patch:
        storage.test_2_what_is_pruned_while_a_leader_reads_it_comes_as_a_snapshot(
            patch, "memory", "after"
        )


DIRECTED: dict[str, Callable[[Path], None]] = {
    "say-what-there-is-not": lambda _: (
        topics.test_a_leader_that_was_cut_off_does_not_say_what_there_is_not(topics.nameless)
    ),
    "take-new-logs-for-lost": (
        lost.test_a_log_into_which_nothing_was_written_yet_is_not_taken_for_lost
    ),
    "vote-from-an-empty-log": (
        lost.test_a_log_that_is_gone_from_the_disk_begins_anew_without_a_vote
    ),
    "serve-any-namesake": ended.test_6_a_partition_is_found_by_its_topics_id,
    "forget-to-look-whether-it-was-pruned": lambda _: pruned_meanwhile(),
    "read-on-in-any-namesake": lambda path: (
        one_topic.test_one_that_follows_is_told_that_its_topic_is_gone(one_topic.to_a_cluster, path)
    ),
    "call-the-roll-by-the-log": lambda _: (
        damaged.test_it_elects_nobody_without_those_that_joined_later(damaged.flip, True)
    ),
    "assert-what-was-read": lambda _: (
        damaged.test_a_leader_that_cannot_read_what_another_lacks_lets_a_third_lead()
    ),
    "copy-nothing-to-new-nodes": lambda _: (
        stories.test_it_is_judged_whether_each_partition_has_the_copies_that_it_asked_for()
    ),
    "keep-a-removed-copy": hosting.test_it_stays_until_the_others_do_without_it,
    "a-name-is-free-at-once": lambda _: (
        namesakes.test_the_name_is_free_when_those_who_have_not_said_so_are_no_quorum()
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("bug", "first"), IN_STORIES.items())
def test_a_story_finds(bug: str, first: int) -> None:
    assert any(play(seed, bug=bug).violation for seed in range(first, first + SEEDS))


@pytest.mark.parametrize(("bug", "check"), DIRECTED.items())
def test_a_directed_test_finds(bug: str, check: Callable[[Path], None], tmp_path: Path) -> None:
    check(tmp_path / "good")

    with planted(bug, BUGS), pytest.raises((AssertionError, LookupError, pytest.fail.Exception)):
        check(tmp_path / "bad")


def test_each_bug_is_found_by_something() -> None:
    assert set(BUGS) == {*DIRECTED, *IN_STORIES}
