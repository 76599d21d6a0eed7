"""When a segment is due, and that a jumping clock changes little about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chronik_store.config import LogConfig
from chronik_store.format.entry import EntryKind
from chronik_store.manifest.state import OpenSegment
from chronik_store.pipeline import Pipeline
from chronik_store.pipeline.seal import due

HOUR = 3600.0


def open_segment(records: int, size_bytes: int) -> OpenSegment:
    return OpenSegment(
        first_index=1, base_offset=0, record_count=records, payload_bytes=size_bytes, oldest_us=0
    )


@pytest.mark.parametrize(
    ("records", "size_bytes", "age_seconds", "reason"),
    [
        (0, 0, 1e9, None),
        (1, 99, 59.0, None),
        (1, 100, 0.0, "size"),
        (1, 1, 60.0, "age"),
        (1, 100, 60.0, "size"),
    ],
)
def test_a_segment_is_due_by_size_or_age_and_only_with_records(
    records: int, size_bytes: int, age_seconds: float, reason: str | None
) -> None:
    config = LogConfig(segment_bytes=100, segment_age_seconds=60.0)
    assert due(open_segment(records, size_bytes), age_seconds, config) == reason


def test_an_idle_log_writes_no_entry_however_long_it_idles(kit: Any) -> None:
    """Protocol 7, S2."""
    world = kit.World()
    process = world.open()
    process.append(1)
    world.clock.advance(HOUR)
    process.drain()
    entries = len(world.entries)
    for _ in range(20):
        world.clock.advance(12 * HOUR)
        assert process.run().idle
    assert len(world.entries) == entries


def test_a_seal_begins_a_new_wal_file_but_where_nothing_is_ever_pruned(kit: Any) -> None:
    """The metadata of a cluster lives for years: a file for each seal would stay for ever."""
    files = []
    for kept in ((), ("t",)):
        world = kit.World()
        process = world.open()
        process.pipeline = Pipeline(replace(process.tiering, kept=kept))
        for _ in range(3):
            process.append(1)
            world.clock.advance(HOUR)
            process.drain()
        assert len(process.manifest.segments) == 3
        assert len(process.manifest.segments) == len(world.object_keys("segments/"))
        seals = [entry for entry in world.entries if entry.header.kind == EntryKind.SEAL]
        assert len(seals) == 3
        files.append({file.first_index for file in world.files if file.seq > 1})
    assert files[0] != set()
    assert files[1] == set()


def test_a_young_small_segment_stays_open(kit: Any) -> None:
    process = kit.World().open()
    process.append(1)
    assert process.run().idle


def test_a_clock_that_leaps_forward_seals_nothing_for_an_hour(kit: Any) -> None:
    world = kit.World(segment_age_seconds=7 * HOUR)
    process = world.open()
    process.append(1)
    process.run()
    world.clock.wall_us += int(24 * HOUR * 1e6)
    assert process.run().sealed == 0
    world.clock.advance(HOUR + 1)
    assert process.run().sealed == 1


def test_a_clock_that_flaps_by_hours_does_not_seal_more_often(kit: Any) -> None:
    world = kit.World(segment_bytes=1 << 20)
    process = world.open()
    sealed = 0
    for minute in range(120):
        process.append(1, size=10)
        leap = int(5 * HOUR * 1e6) * (1 if minute % 2 else -1)
        world.clock.wall_us += leap
        world.clock.advance(60)
        sealed += process.run().sealed
    assert 1 <= sealed <= 5


def test_a_clock_that_leaps_back_still_seals_by_age(kit: Any) -> None:
    world = kit.World()
    process = world.open()
    process.append(1)
    process.run()
    world.clock.wall_us -= int(24 * HOUR * 1e6)
    world.clock.advance(1700)
    assert process.run().sealed == 0
    world.clock.advance(200)
    assert process.run().sealed == 1


def test_age_counts_through_a_restart(kit: Any) -> None:
    world = kit.World()
    process = world.open()
    process.append(1)
    process.run()
    world.clock.advance(1790)
    assert world.open().run().sealed == 0
    world.clock.advance(20)
    assert world.open().run().sealed == 1


def test_the_wal_goes_on_in_a_new_file_behind_the_seal(kit: Any) -> None:
    world = kit.World()
    process = world.open()
    process.append(5)
    process.bucket.fail["put"] = kit.lost
    process.run()
    assert [each.records for each in world.files] == [5, 0]
    assert world.files[1].first_index == world.files[0].last_index + 1


def test_sealing_on_request_takes_what_is_there_and_nothing_else(kit: Any) -> None:
    world = kit.World()
    process = world.open()
    assert process.pipeline.seal_now(process) is False
    process.append(1)
    assert process.pipeline.seal_now(process) is True
    assert process.pipeline.seal_now(process) is False
    assert [(each.base_offset, each.end_offset) for each in process.manifest.sealed] == [(0, 1)]


def test_a_follower_seals_nothing(kit: Any) -> None:
    process = kit.World().open()
    process.append(10)
    process.leads = None
    assert process.run().sealed == 0
