"""The first record from a time on: as a look at each in turn would find it, without that look."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronik_store import LogConfig, PartitionLog, Record, open_bucket
from chronik_store.objectstore.local import LocalObjectStore
from chronik_store.record_times import first_record_at

CONFIG = LogConfig(pipeline_enabled=False, indexing_enabled=False)
HOUR_US = 3_600_000_000


def by_hand(log: PartitionLog, time_us: int) -> int | None:
    at = log.offset_for_timestamp(time_us)
    if at is None:
        return None
    return next((each.offset for each in log.scan(at) if each.timestamp_us >= time_us), None)


def batch(times: list[int]) -> list[Record]:
    return [Record(b"v" * 100, timestamp_us=time) for time in times]


@pytest.fixture(name="log")
def log_fixture(tmp_path: Path) -> Iterator[PartitionLog]:
    with PartitionLog.open(tmp_path / "data", topic="t", config=CONFIG) as log:
        yield log


def seal(log: PartitionLog) -> None:
    log.seal()
    assert not log.run_pipeline_once().errors


def with_a_late_record_dropped(log: PartitionLog) -> None:
    """Times of the index never go back: all that comes counts as of 1000."""
    log.append(batch([1000]))
    seal(log)
    log.drop_before(1)


def test_it_is_what_a_look_at_each_record_finds(log: PartitionLog, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(6):
        for _ in range(chance.randrange(1, 4)):
            newest = chance.choice([100, 1000])
            log.append(batch([chance.randrange(newest) for _ in range(chance.randrange(1, 6))]))
        if chance.random() < 0.7:
            seal(log)
    log.drop_before(chance.randrange(log.watermarks.tiered + 1))

    for time_us in range(0, 1010, 7):
        assert by_hand(log, time_us) == first_record_at(log, time_us), time_us


def test_records_without_a_time_have_that_of_their_batch(log: PartitionLog) -> None:
    log.append([b"one", b"two"])
    seal(log)
    log.append([b"three"])
    first, second = (next(iter(log.scan(offset))).timestamp_us for offset in (0, 2))

    assert 0 == first_record_at(log, first)
    assert 2 == first_record_at(log, second)
    assert first_record_at(log, second + HOUR_US) is None


def test_of_a_segment_without_a_record_of_that_time_nothing_is_read(
    log: PartitionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each was read whole: of a bucket, all of it was fetched."""
    with_a_late_record_dropped(log)
    for _ in range(5):
        log.append(batch([10, 20, 30] * 100))
        seal(log)
    log.append(batch([500]))
    seal(log)
    keys = []
    original = LocalObjectStore.get_range

    def counting(store: LocalObjectStore, key: str, start: int, length: int) -> bytes:
        keys.append(key)
        return original(store, key, start, length)

    monkeypatch.setattr(LocalObjectStore, "get_range", counting)
    url = f"file://{log._core.paths.wal.partition('/wal/')[0]}/object_store"  # type: ignore[union-attr]
    with open_bucket(url, topic="t") as reader:
        assert 1501 == first_record_at(reader, 500) == by_hand(reader, 500)
        segments = [each.key for each in reader._view.manifest.segments]
        keys.clear()
    with open_bucket(url, topic="t") as reader:
        assert 1501 == first_record_at(reader, 500)

    assert {segments[-1]} == {key for key in keys if key in segments}


def test_batches_of_older_records_are_not_taken_apart(log: PartitionLog) -> None:
    with_a_late_record_dropped(log)
    log.append(batch([10] * 50))
    log.append(batch([10, 600, 20]))

    assert 52 == first_record_at(log, 500) == by_hand(log, 500)
    assert first_record_at(log, 700) is None
