"""The start moves at ends of tiered segments only, and never by a leaping clock."""

from __future__ import annotations

from typing import Any

HOUR = 3600.0


def tiered(kit: Any, segments: int = 4, **config: Any) -> tuple[Any, Any]:
    world = kit.World(**config)
    process = world.open()
    for _ in range(segments):
        process.append(5)
        assert process.pipeline.seal_now(process)
        world.clock.advance(60)
    return world, process


def test_size_keeps_the_newest_segments_within_the_limit(kit: Any) -> None:
    """Listed segments count, nothing else (known bug 22)."""
    _, process = tiered(kit)
    process.drain()
    size = process.manifest.segments[0].size_bytes
    _, process = tiered(kit, retention_bytes=2 * size + size // 2)
    process.drain()
    assert process.manifest.start_offset == 10
    assert [each.base_offset for each in process.manifest.segments] == [10, 15]


def test_a_stalled_upload_holds_the_start_back(kit: Any) -> None:
    """Protocol 18, S1."""
    world, process = tiered(kit, retention_bytes=0, retention_seconds=0.0)
    process.bucket.fail["put"] = lambda key: kit.lost(key) if "segments" in key else None
    world.clock.advance(HOUR)
    for _ in range(3):
        assert process.run().dropped_segments == 0
    assert process.manifest.start_offset == 0
    process.bucket.fail.clear()
    process.drain()
    assert process.manifest.start_offset == 20


def test_an_upload_goes_on_after_retention_emptied_the_bucket(kit: Any) -> None:
    """Known bug 7 (docs/known-bugs.md)."""
    world, process = tiered(kit, retention_bytes=0, garbage_seconds=0.0)
    process.drain()
    assert world.ranges_in_bucket() == []
    process.append(5)
    process.bucket.fail["delete"] = kit.lost
    process.run()
    assert world.ranges_in_bucket() == [(20, 25)]


def test_age_is_that_of_the_seal(kit: Any) -> None:
    world, process = tiered(kit, retention_seconds=HOUR)
    process.drain()
    world.clock.advance(HOUR - 150)
    process.drain()
    assert process.manifest.start_offset == 10


def test_a_clock_that_leaps_a_year_expires_nothing_until_it_has_stood(kit: Any) -> None:
    world, process = tiered(kit, retention_seconds=30 * 24 * HOUR)
    process.drain()
    world.clock.wall_us += int(365 * 24 * HOUR * 1e6)
    process.drain()
    assert process.manifest.start_offset == 0
    world.clock.wall_us -= int(365 * 24 * HOUR * 1e6)
    world.clock.advance(2 * HOUR)
    process.drain()
    assert process.manifest.start_offset == 0


def test_without_limits_nothing_is_dropped(kit: Any) -> None:
    world, process = tiered(kit)
    world.clock.advance(10 * 365 * 24 * HOUR)
    process.drain()
    assert process.manifest.start_offset == 0


def test_of_a_topic_that_is_kept_nothing_is_dropped_and_nothing_pruned(kit: Any) -> None:
    """A cluster's own topic: what it says must be known without the bucket."""
    world, process = tiered(kit, retention_bytes=0, retention_seconds=0.0)
    object.__setattr__(process.tiering, "kept", {process.identity.topic})
    world.clock.advance(HOUR)
    process.drain()
    assert len(world.ranges_in_bucket()) == 4
    assert process.manifest.start_offset == 0
    assert world.wal_offsets() == set(range(20))
