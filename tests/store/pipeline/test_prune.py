"""Nothing local goes before the bucket holds it for certain."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from chronik_store.format.control import DropPrefix, Intent
from chronik_store.format.manifest_file import LogBase, SegmentInfo
from chronik_store.manifest.state import empty_manifest
from chronik_store.pipeline.prune import coverage


def tiered(kit: Any, runs: int = 1, **config: Any) -> tuple[Any, Any]:
    world = kit.World(**config)
    process = world.open()
    for _ in range(runs):
        process.append(5)
        process.drain()
    return world, process


def local_files(world: Any) -> list[str]:
    return [path.rpartition("/")[2] for path in world.disk.paths("/data/segments")]


def test_records_leave_the_wal_only_after_published(kit: Any) -> None:
    """Protocol 5, S2; known bug 26."""
    world = kit.World()
    process = world.open()
    process.append(5)
    process.bucket.fail["put"] = lambda key: kit.lost(key) if "manifests" in key else None
    for _ in range(3):
        report = process.run()
        assert report.pruned_files == 0
    assert world.ranges_in_bucket() == [(0, 5)]
    assert world.wal_offsets() == set(range(5))
    process.bucket.fail.clear()
    process.drain()
    assert world.wal_offsets() == set()


@pytest.mark.parametrize("damage", ["absent", "short"])
def test_the_last_local_copy_stays_when_the_object_does_not_answer_right(
    kit: Any, damage: str
) -> None:
    world = kit.World()
    process = world.open()
    process.append(5)

    def tamper(key: str) -> None:
        if "manifests" in key:
            [segment] = world.object_keys("segments/")
            world.objects.delete([segment])
            if damage == "short":
                world.objects.put_if_absent(segment, b"short")

    steps = process.steps
    process.bucket.fail["put"] = tamper
    steps.watch = lambda: None
    report = process.run()
    assert "the local copies stay" in report.errors[-1]
    assert world.wal_offsets() == set(range(5))
    assert len(local_files(world)) == 1


def without_the_newest_manifest(world: Any) -> tuple[str, bytes]:
    key = world.object_keys("manifests/")[-1]
    body = world.objects.get(key)
    world.objects.delete([key])
    return key, body


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize("what", ["WAL files", "a segment"])
def test_the_last_local_copy_stays_while_the_manifest_that_lists_it_is_lost(
    kit: Any, what: str, leads: bool
) -> None:
    """Nobody who opens the bucket would find the object."""
    world = kit.World(local_segment_bytes=1 << 20 if what == "a segment" else 0)
    process = world.open()
    process.append(5)
    if what == "WAL files":
        process.bucket.fail["head"] = lambda key: (
            kit.lost(key) if process.manifest.published_number else None
        )
    process.run()
    process.bucket.fail.clear()
    key, body = without_the_newest_manifest(world)
    object.__setattr__(process.tiering, "config", world.config.replace(local_segment_bytes=0))
    process.leads = process.leads if leads else None
    held = world.wal_offsets(), local_files(world)
    assert held == (
        (set(range(5)), local_files(world)) if what == "WAL files" else (set(), held[1])
    )

    for _ in range(2):
        (said,) = process.run().errors
        assert "manifest 1 of t/0 is not there" in said
        assert held == (world.wal_offsets(), local_files(world))

    world.objects.put_if_absent(key, body)
    process.drain()
    assert (set(), []) == (world.wal_offsets(), local_files(world))


@pytest.mark.parametrize("leads", [True, False])
def test_a_follower_that_lags_waits_while_its_manifest_is_collected(kit: Any, leads: bool) -> None:
    """The leader has published newer ones since, which its own log will tell of. Who leads itself,
    and did not publish them, is an old copy.
    """
    world = kit.World()
    process = world.open()
    process.append(5)
    process.bucket.fail["head"] = lambda key: (
        kit.lost(key) if process.manifest.published_number else None
    )
    process.run()
    (key,) = world.object_keys("manifests/")
    newer = key.replace("1.cbor", "9.cbor")
    world.objects.put_if_absent(newer, world.objects.get(key))
    world.objects.delete([key])
    process.bucket.fail.clear()
    process.leads = process.leads if leads else None

    errors = process.run().errors

    assert len(errors) == leads
    assert all("it may be an old copy" in each for each in errors)
    assert leads is (process.manifest.fenced is not None)
    assert world.wal_offsets() == set(range(5))


def test_a_small_file_or_two_is_all_that_stays_of_an_idle_log(kit: Any) -> None:
    world, process = tiered(kit, runs=4)
    assert len(world.files) <= 2
    assert sum(each.records for each in world.files) == 0
    assert local_files(world) == []
    assert process.run().idle


def test_control_entries_behind_the_last_segment_stay_for_the_next_one(kit: Any) -> None:
    """Decision 0002."""
    world, process = tiered(kit)
    next_index = process.manifest.next.index
    assert world.files[0].first_index <= next_index + 1
    process.append(5)
    process.drain()
    assert world.ranges_in_bucket() == [(0, 5), (5, 10)]


def test_a_follower_prunes_by_its_own_look_at_the_bucket(kit: Any) -> None:
    world = kit.World()
    process = world.open()
    process.append(5)

    def lost_once_listed(key: str) -> Any:
        return kit.lost(key) if process.manifest.segments and "segments" in key else None

    process.bucket.fail["head"] = lost_once_listed
    process.run()
    assert world.wal_offsets() == set(range(5))
    follower = world.open()
    follower.leads = None
    entries = len(world.entries)
    report = follower.run()
    assert report.errors == ()
    assert report.pruned_files > 0
    assert world.wal_offsets() == set()
    assert len(world.entries) == entries
    assert ("head", process.manifest.segments[0].key) in follower.bucket.calls


def test_newest_local_segments_stay_within_their_budget(kit: Any) -> None:
    world, process = tiered(kit, runs=4, local_segment_bytes=8000)
    sizes = [each.size_bytes for each in process.manifest.segments]
    assert len(local_files(world)) == 8000 // sizes[-1]
    kept = {
        each.key.rpartition("/")[2]
        for each in process.manifest.segments[-len(local_files(world)) :]
    }
    assert set(local_files(world)) == kept


def test_local_segments_wait_for_their_index(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import chronik_store.pipeline as pipeline_room

    def stands_still(_turn: Any) -> None:
        return

    stages = tuple(
        (name, stands_still if name == "index" else stage) for name, stage in pipeline_room.STAGES
    )
    monkeypatch.setattr(pipeline_room, "STAGES", stages)
    world, process = tiered(kit, indexing_enabled=True)
    assert len(local_files(world)) == 1
    assert world.wal_offsets() == set()
    world.disk.capacity_bytes = 10_000
    object.__setattr__(process.tiering, "config", world.config.replace(disk_throttle_bytes=1 << 30))
    # By now it is the only copy, if the bucket has lost its own (protocol 20).
    (key,) = world.object_keys("segments/")
    body = world.objects.get(key)
    world.objects.delete([key])
    assert any("absent" in error for error in process.run().errors)
    assert len(local_files(world)) == 1
    world.objects.put_if_absent(key, body)
    process.drain()
    assert local_files(world) == []


@pytest.mark.parametrize("leads", [True, False])
def test_what_a_crash_left_of_a_segment_goes_although_nobody_writes_it_again(
    kit: Any, leads: bool
) -> None:
    world, _ = tiered(kit)  # the range went from memory, or from another leader
    process = world.open()
    process.leads = process.leads if leads else None
    world.disk.make_directories("/data/segments/t/0")
    world.disk.create("/data/segments/t/0/sealing-00000000000000000000.tmp").close()
    assert "sealing-00000000000000000000.tmp" in local_files(world)

    assert process.run().errors == ()
    assert local_files(world) == []


def test_a_dropped_prefix_leaves_the_disk_once_the_drop_is_published(kit: Any) -> None:
    """Protocol 7, S3; known bug 13."""
    world = kit.World()
    process = world.open()
    process.append(5)
    process.bucket.fail["put"] = lambda key: kit.lost(key) if "segments" in key else None
    process.run()
    process.propose(DropPrefix(offset=5, reason="test", clock_us=0), term=world.term)
    process.drain()
    assert world.wal_offsets() == set()
    assert process.manifest.next.offset == 5
    assert local_files(world) == []
    process.bucket.fail.clear()
    process.append(5)
    process.drain()
    assert world.ranges_in_bucket() == [(5, 10)]


def test_a_drop_while_the_bucket_is_asked_is_no_defect(kit: Any) -> None:
    """What covers the files is no longer listed then; what was dropped needs no copy at all."""
    world = kit.World()
    process = world.open()
    process.append(5)

    def dropped_meanwhile(_key: str) -> None:
        if process.manifest.published_number and not process.manifest.start_offset:
            process.propose(DropPrefix(offset=5, reason="test", clock_us=0), term=world.term)

    process.bucket.fail["head"] = dropped_meanwhile
    for _ in range(3):
        assert process.run().errors == ()
    assert process.manifest.start_offset == 5
    process.drain()
    assert world.wal_offsets() == set()


def test_what_is_announced_while_the_bucket_is_asked_is_no_defect_where_all_was_dropped(
    kit: Any,
) -> None:
    """Nothing was listed any more, and the drop was published: that covered the files. The intent
    is of the next segment, and comes from the leader of this follower.
    """
    world = kit.World()
    leader = world.open()
    object.__setattr__(leader.tiering, "kept", {leader.identity.topic})
    leader.append(5)
    leader.wal.rotate()
    leader.drain()
    leader.propose(DropPrefix(offset=5, reason="test", clock_us=0), term=world.term)
    leader.drain()
    assert world.wal_offsets() == set(range(5))
    follower = world.open()
    assert follower.manifest.segments == ()
    assert follower.manifest.generation <= follower.manifest.published_folded_to
    follower.leads = None

    def goes_on(_key: str) -> None:
        if not follower.manifest.intents:
            follower.leads = world.term
            intent = Intent(keys=("segments/next",), clock_us=0, first_index=0)
            follower.propose(intent, term=world.term)
            follower.leads = None

    follower.bucket.fail["head"] = goes_on
    assert follower.run().errors == ()
    assert follower.manifest.intents
    follower.leads = world.term
    follower.drain()
    assert world.wal_offsets() == set()


def segment(base: int, end: int, first: int, last: int, added: int) -> SegmentInfo:
    return SegmentInfo(
        key=f"segments/t/0/{base:020}-{end:020}-1-{'0' * 16}.seg",
        first_index=first,
        last_index=last,
        base_offset=base,
        end_offset=end,
        term=1,
        size_bytes=1,
        hash="0" * 16,
        record_count=end - base,
        first_timestamp_us=0,
        last_timestamp_us=0,
        min_timestamp_us=0,
        max_timestamp_us=0,
        footer_bytes=1,
        sealed_us=0,
        added_index=added,
    )


def test_coverage_ends_with_the_last_published_segment() -> None:
    manifest = dataclasses.replace(
        empty_manifest("t", 0, "a" * 32, "b" * 32),
        segments=(segment(0, 5, 1, 6, 8), segment(5, 9, 7, 12, 14)),
        next=LogBase(12, 1, 9, 0),
        generation=14,
        published_number=1,
        published_folded_to=9,
    )
    assert coverage(manifest).last_index == 6
    assert coverage(dataclasses.replace(manifest, published_folded_to=14)).last_index == 12


@pytest.mark.parametrize(
    ("segments", "start"),
    [
        ((segment(0, 5, 1, 6, 8), segment(6, 9, 7, 12, 14)), 0),
        ((segment(5, 9, 7, 12, 14),), 0),
    ],
)
def test_a_hole_in_the_coverage_is_an_assertion(segments: tuple[Any, ...], start: int) -> None:
    manifest = dataclasses.replace(
        empty_manifest("t", 0, "a" * 32, "b" * 32),
        segments=segments,
        start_offset=start,
        published_number=1,
        published_folded_to=20,
    )
    with pytest.raises(AssertionError):
        coverage(manifest)


def test_a_checkpoint_that_lags_supersedes_nothing_and_is_not_made_in_vain(kit: Any) -> None:
    """Protocol 1, S2."""
    world = kit.World()
    process = world.open()
    world.commit_lag = 3
    process.append(5)
    assert process.run().errors == ()
    files = len(world.files)
    for _ in range(4):
        assert process.run().idle
    assert world.wal_offsets() == set(range(5))
    assert len(world.files) == files
    world.commit_lag = 0
    process.drain()
    assert world.wal_offsets() == set()
