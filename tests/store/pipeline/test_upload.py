"""Sealed ranges become objects, in order, exactly once, whatever fails in between."""

from __future__ import annotations

from typing import Any


def test_a_full_segment_is_sealed_uploaded_published_and_pruned_in_one_run(kit: Any) -> None:
    world = kit.World()
    process = world.open()
    process.append(5)
    report = process.run()
    assert report.errors == ()
    assert (report.sealed, report.uploaded, report.published) == (1, 1, 1)
    assert world.ranges_in_bucket() == [(0, 5)]
    assert report.pruned_files >= 1
    assert set() == world.wal_offsets()
    assert process.run().idle


def test_every_crash_point_ends_with_one_object_for_each_range(kit: Any) -> None:
    def story(process: Any) -> None:
        for _ in range(3):
            process.append(5)
            process.run()
        process.drain()

    points = 0
    for world, where in kit.crash_points(kit.World, story):
        points += 1
        again = world.open()
        again.append(15 - len(world.acked))
        again.drain()
        assert sorted(set(world.ranges_in_bucket())) == sorted(world.ranges_in_bucket()), where
        ends = [0]
        for base, end in sorted(world.ranges_in_bucket()):
            assert base == ends[-1], where
            ends.append(end)
        assert ends[-1] == 15, where
        unnamed = set(world.object_keys("segments/")) - world.named()
        assert set() == unnamed, where
    assert points > 30
