"""Objects go when the log no longer names them as alive, said so, and waited."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from chronik_store.format.control import DropPrefix
from chronik_store.format.manifest_file import GarbageItem, IntentItem
from chronik_store.manifest.state import empty_manifest
from chronik_store.pipeline.collect import collectable


def dropped(kit: Any, **config: Any) -> tuple[Any, Any]:
    world = kit.World(**config)
    process = world.open()
    process.append(5)
    process.drain()
    now_us = world.clock.time_us()
    process.propose(DropPrefix(offset=5, reason="test", clock_us=now_us), term=world.term)
    return world, process


def test_a_dropped_segment_goes_after_publication_and_grace(kit: Any) -> None:
    world, process = dropped(kit)
    process.drain()
    assert world.ranges_in_bucket() == [(0, 5)]
    world.clock.advance(101)
    report = process.run()
    assert report.collected_objects == 1
    assert world.ranges_in_bucket() == []
    assert process.manifest.garbage == ()
    assert process.run().idle


def test_unpublished_garbage_stays(kit: Any) -> None:
    """Known bug 35."""
    world, process = dropped(kit)
    process.bucket.fail["put"] = kit.lost
    world.clock.advance(1000)
    assert process.run().collected_objects == 0
    assert world.ranges_in_bucket() == [(0, 5)]


def test_a_failed_delete_is_tried_again_and_takes_nothing_off_the_list(kit: Any) -> None:
    """Known bug 20."""
    world, process = dropped(kit)
    world.clock.advance(101)
    process.bucket.fail["delete"] = kit.lost
    assert "collect" in process.run().errors[0]
    assert len(process.manifest.garbage) == 1
    process.bucket.fail.clear()
    process.drain()
    assert process.manifest.garbage == ()


@pytest.mark.parametrize("moment", ["crash_before", "crash_after"])
def test_a_crash_around_the_delete_leaves_nothing_behind(kit: Any, moment: str) -> None:
    """Protocol 18, S2."""
    world, process = dropped(kit)
    process.drain()
    world.clock.advance(101)
    again = world.open(**{moment: 1})
    with pytest.raises(kit.Crash):
        again.run()
    last = world.open()
    last.drain()
    assert world.ranges_in_bucket() == []
    assert last.manifest.garbage == ()


def test_only_the_leader_deletes(kit: Any) -> None:
    world, process = dropped(kit)
    process.drain()
    world.clock.advance(101)
    process.leads = None
    process.run()
    assert world.ranges_in_bucket() == [(0, 5)]


def test_what_an_intent_names_again_is_alive_whatever_the_list_says() -> None:
    key = "segments/t/0/x.seg"
    manifest = dataclasses.replace(
        empty_manifest("t", 0, "a" * 32, "b" * 32),
        garbage=(GarbageItem(key, 0, 1), GarbageItem("other", 0, 1), GarbageItem("late", 0, 9)),
        published_folded_to=5,
    )
    assert collectable(manifest, 1_000_000, 1.0) == [key, "other"]
    intent = IntentItem(keys=(key,), first_index=1, term=1, index=4, clock_us=0)
    manifest = dataclasses.replace(manifest, intents=(intent,))
    assert collectable(manifest, 1_000_000, 1.0) == ["other"]
    assert collectable(manifest, 999_999, 1.0) == []


def test_an_announced_upload_that_its_term_never_finished_is_collected(kit: Any) -> None:
    """Protocol 18, S3; known bug 36."""
    world = kit.World()
    process = world.open()
    process.append(5)
    process.bucket.fail["reply"] = kit.lost
    process.run()
    assert world.ranges_in_bucket() == [(0, 5)]
    # Retention takes the range before a successor lists it: the object belongs to nobody.
    again = world.open()
    again.propose(DropPrefix(offset=5, reason="test", clock_us=0), term=world.term)
    again.drain()
    last = world.open()
    last.append(5)
    last.drain()
    world.clock.advance(101)
    last.drain()
    assert world.ranges_in_bucket() == [(5, 10)]


def test_losing_the_lead_while_the_folder_is_checked_deletes_nothing(kit: Any) -> None:
    world, process = dropped(kit)
    process.drain()
    world.clock.advance(101)
    again = world.open()
    again.bucket.fail["list"] = lambda _key: setattr(again, "leads", None)
    again.run()
    assert world.ranges_in_bucket() == [(0, 5)]
