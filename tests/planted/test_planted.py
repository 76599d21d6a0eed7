"""Known bugs, put back one by one: each must be found, or the tests are at fault (architecture 10).

A directed test must pass without the bug and fail with it. Worlds and crash points run elsewhere
without it, seed by seed and call by call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chronik_store.testing.planted import BUGS, planted
from tests.bad_input import test_buckets
from tests.planted.finders import (
    Finder,
    crash_points,
    damaged_worlds,
    given,
    in_life,
    moved_worlds,
    on_disk,
    plain,
    quiet,
    replicas,
    worlds,
)
from tests.schedules import (
    test_protocol_01_05_checkpoints_and_fence as section_1_5,
)
from tests.schedules import (
    test_protocol_04_durable as section_4,
)
from tests.schedules import (
    test_protocol_06_08_topics_positions_commands as section_6_8,
)
from tests.schedules import (
    test_protocol_09_verdicts as section_9,
)
from tests.schedules import (
    test_protocol_11_to_20 as section_11_20,
)
from tests.store import test_replica, test_replica_proposals_and_snapshots, test_restore_races
from tests.store.objectstore import test_cache, test_disk_blocks, test_in_simulation, test_verified
from tests.store.pipeline import conftest as pipeline_kit
from tests.store.pipeline import test_collect, test_publish
from tests.store.search import conftest as search_kit
from tests.store.search import test_search_deadlines, test_searcher

SEED = 1


def fixture(made: Any) -> Any:
    """The function that makes a fixture."""
    return made.__wrapped__


def searched(test: Callable[..., None]) -> Finder:
    return given(test, partition=fixture(search_kit.partition))


def cached(test: Callable[..., None]) -> Finder:
    return given(
        test,
        make_cache=fixture(test_cache.make_cache),
        store=lambda _: fixture(test_cache.store)(),
    )


def with_kit(test: Callable[..., None]) -> Finder:
    return given(test, kit=lambda _: fixture(pipeline_kit.kit_fixture)())


def failing_bucket(_: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        yield from fixture(test_buckets.bucket)(patch)


FOUND: dict[str, tuple[Finder, ...]] = {
    # --- the log ---
    "acknowledge-before-sync": (worlds(), crash_points("append much")),
    "retry-a-failed-sync": (
        in_life(
            section_4.test_4_s2_after_a_failed_sync_reopening_does_not_build_on_ghosts, mode="lost"
        ),
        worlds(),
    ),
    "skip-directory-sync": (worlds(), crash_points("append much")),
    "sync-counts-for-what-was-cut": (
        plain(section_4.test_4_s1_a_sync_in_flight_makes_nothing_durable_that_was_cut),
        on_disk(
            test_replica.test_a_sync_that_began_before_a_truncation_makes_nothing_durable_that_is_gone
        ),
        replicas(),
    ),
    "trust-the-page-cache": (
        in_life(
            section_4.test_4_s2_what_a_killed_process_left_in_the_page_cache_is_not_durable_by_itself,
            mode="lost",
        ),
        worlds(),
    ),
    "forget-truncations": (replicas(),),
    "cut-what-was-sworn": (
        plain(
            section_9.test_9_s1_a_flip_in_what_was_synced_is_never_cut_off_as_torn,
            number=0,
            seed=SEED,
        ),
        in_life(section_9.test_9_suspect_refuses_by_default_and_goes_on_from_the_good_part_if_told),
    ),
    "call-torn-groups-damage": (
        plain(
            section_9.test_9_s2_no_healthy_power_cut_is_called_damage, number=0, limit=16, seed=1
        ),
        worlds(),
        crash_points("append much"),
    ),
    "checkpoint-without-producers": (
        in_life(
            section_1_5.test_1_manifest_producers_and_terms_outlive_the_files_that_held_them,
            mode="kill",
        ),
        worlds(),
    ),
    "checkpoint-without-manifest": (
        in_life(
            section_1_5.test_1_manifest_producers_and_terms_outlive_the_files_that_held_them,
            mode="kill",
        ),
        worlds(),
        crash_points("next segment"),
    ),
    "frames-without-commit-mark": (
        in_life(section_4.test_4_a_reader_beside_sees_only_what_marks_swear_to),
        replicas(),
    ),
    "swear-before-the-sync": (worlds(), crash_points("append much")),
    "dedupe-on-committed-only": (
        in_life(section_1_5.test_3_a_retry_of_what_is_in_flight_waits_for_its_original),
    ),
    "answer-a-retry-at-once": (
        in_life(section_1_5.test_3_a_retry_of_what_is_in_flight_waits_for_its_original),
    ),
    "truncation-keeps-producers": (
        on_disk(
            test_replica_proposals_and_snapshots.test_a_truncation_forgets_the_batches_that_it_cut
        ),
        replicas(),
    ),
    "unknown-outcome-is-not-done": (
        in_life(section_1_5.test_3_when_the_original_fails_its_retry_fails_as_unknown),
    ),
    "acknowledge-what-is-staged": (worlds(), crash_points("append_nowait")),
    "commit-moves-back": (replicas(),),
    "go-on-after-a-failed-sync": (
        in_life(
            section_4.test_4_s2_after_a_failed_sync_reopening_does_not_build_on_ghosts, mode="lost"
        ),
        worlds(),
    ),
    "trust-any-clock": (
        plain(section_11_20.test_17_a_clock_that_leaps_by_hours_keeps_the_time_index_monotonic),
    ),
    # --- tiering ---
    "prune-before-published": (
        in_life(section_1_5.test_5_s2_nothing_local_goes_before_the_manifest_that_lists_it_is_out),
        worlds(),
    ),
    "prune-without-looking": (
        in_life(section_11_20.test_20_the_last_local_copy_waits_for_an_answer_of_the_bucket),
    ),
    "prune-past-coverage": (worlds(), crash_points("publish and prune")),
    "overwrite-the-manifest": (
        in_life(section_1_5.test_5_s1_two_copies_that_have_both_looked_collide_on_the_number),
        worlds(),
    ),
    "adopt-any-manifest": (
        in_life(section_1_5.test_5_s1_of_two_copies_of_a_log_one_publishes_a_number),
        in_life(section_1_5.test_5_s3_a_restore_claims_first_and_the_old_owner_stops),
    ),
    "exists-is-success": (
        in_life(section_6_8.test_8_a_key_whose_object_has_other_bytes_is_never_adopted),
    ),
    "created-is-verified": (plain(test_verified.test_a_store_that_changes_the_bytes_is_found_out),),
    "lost-reply-is-not-done": (
        with_kit(test_publish.test_a_manifest_whose_published_was_lost_is_adopted),
        worlds(),
    ),
    "upload-under-a-new-key": (
        in_life(
            section_6_8.test_8_s1_who_comes_after_a_crash_behind_the_put_adopts_the_object,
            mode="kept",
        ),
        worlds(),
        crash_points("upload"),
    ),
    "put-before-intent": (
        in_life(section_11_20.test_18_s3_an_object_whose_range_was_dropped_before_it_was_listed),
        worlds(),
    ),
    "list-before-the-put": (worlds(), crash_points("upload")),
    "retain-past-tiered": (
        in_life(section_11_20.test_18_s1_retention_never_passes_an_upload_that_stalls),
        worlds(),
    ),
    "collect-before-published": (
        with_kit(test_collect.test_unpublished_garbage_stays),
        worlds(),
    ),
    "collect-at-once": (
        with_kit(test_collect.test_a_dropped_segment_goes_after_publication_and_grace),
    ),
    "never-collect": (
        in_life(
            section_11_20.test_18_s2_what_was_dropped_is_deleted_by_whoever_comes_next, mode="lost"
        ),
        worlds(),
    ),
    "seal-without-records": (
        plain(section_6_8.test_7_s2_an_idle_log_is_sealed_once_and_never_again),
    ),
    "restore-without-claim": (
        in_life(section_1_5.test_5_s3_a_restore_claims_first_and_the_old_owner_stops),
        moved_worlds(),
    ),
    "delete-without-tombstone": (
        plain(
            test_restore_races.test_an_old_owner_does_not_begin_anew_where_the_new_one_has_deleted_its_topic,
            looked=True,
        ),
    ),
    # --- reading ---
    "show-what-is-not-committed": (worlds(), replicas()),
    "keep-what-a-failed-read-left": (cached(test_cache.test_a_short_answer_is_never_cached),),
    "forget-who-waits": (
        plain(test_in_simulation.test_readers_share_a_small_cache_over_a_bucket_that_fails, seed=0),
    ),
    "trust-blocks-on-disk": (on_disk(test_disk_blocks.test_every_flipped_byte_is_a_miss),),
    "damage-is-absence": (
        in_life(section_6_8.test_a_segment_that_rots_in_the_bucket_is_unavailable_never_absent),
        damaged_worlds(),
    ),
    "unknown-is-empty": (
        given(
            test_buckets.test_a_log_opens_appends_and_reads_while_the_bucket_is_away,
            tmp_path=Path,
            bucket=failing_bucket,
        ),
    ),
    "coverage-that-lies": (
        searched(test_searcher.test_what_can_be_searched_nowhere_is_missing_with_the_reason),
        searched(test_search_deadlines.test_without_time_only_what_is_open_already_is_searched),
    ),
    "damaged-bundles-are-empty": (
        searched(test_searcher.test_a_corrupt_bundle_is_searched_as_tail),
    ),
    "forget-the-tail": (
        searched(test_searcher.test_the_tail_is_fed_once_and_only_what_has_no_bundle),
    ),
    "committed-is-what-is-there": (worlds(), replicas()),
    "end-where-a-read-fails": (
        in_life(section_6_8.test_a_segment_that_rots_in_the_bucket_is_unavailable_never_absent),
    ),
}


def cases() -> Iterator[Any]:
    """The quickest way to each bug in every run; the others find it, too, in a slow one."""
    for bug, finders in FOUND.items():
        for number, finder in enumerate(finders):
            marks = [pytest.mark.slow, pytest.mark.timeout(900)] if number else []
            yield pytest.param(bug, finder, marks=marks, id=f"{bug} by {finder.name.strip('`')}")


@pytest.mark.parametrize(("bug", "finder"), list(cases()))
def test_is_found(bug: str, finder: Finder) -> None:
    if finder.name.startswith("`"):
        finder.look()
    with quiet(), planted(bug), pytest.raises((Exception, pytest.fail.Exception)):
        finder.look()


def test_each_bug_is_found_by_something() -> None:
    assert set(BUGS) == set(FOUND)
    assert {bug for bug, finders in FOUND.items() if not finders} == set()


def test_the_page_on_testing_has_them_all() -> None:
    """The table in docs/testing.md, row by row: bug, what it is, what finds it."""
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    assert [row for row in rows() if row not in page] == []


def rows() -> list[str]:
    """One row for each bug."""
    made = []
    for bug, finders in FOUND.items():
        what = " ".join((BUGS[bug].__doc__ or "").split()).rstrip(".")
        found_by = "; ".join(dict.fromkeys(finder.name for finder in finders))
        made.append(f"| {bug} | {what} | {found_by} |")
    return made
