"""What the pipeline does between any two calls of a reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chronik_store.errors import OffsetOutOfRangeError
from chronik_store.model import Position, StoredRecord


def _upload_and_prune(partition: Any) -> None:
    """Everything is sealed, uploaded and gone from this machine."""
    if partition.log.last_index > partition.manifest.next.index:
        partition.seal()
    partition.wal.prune(partition.manifest.next.index + 1)
    for info in partition.manifest.segments:
        if partition.local.holds(info.key):
            partition.evict(info)


def _collect(partition: Any) -> None:
    """Retention drops three quarters of it, and the objects are deleted."""
    _upload_and_prune(partition)
    old = partition.manifest.segments
    partition.manifest = partition.dropped(33)
    for info in old:
        if info not in partition.manifest.segments:
            partition.bucket.objects.pop(info.key, None)


def _collect_behind_a_lagging_manifest(partition: Any) -> None:
    """The same, done by another node: this one hears of it when it looks again."""
    _upload_and_prune(partition)
    known = partition.manifest
    _collect(partition)
    partition.newer_manifest, partition.manifest = partition.manifest, known


def _at_call(partition: Any, number: int, event: Callable[[Any], None]) -> Callable[[], int]:
    calls = 0

    def before() -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            event(partition)

    partition.before_call = before
    return lambda: calls


def _constant(limit: Position) -> Callable[[], Position]:
    return lambda: limit


def _drain(
    records: Iterator[StoredRecord],
) -> tuple[list[bytes], OffsetOutOfRangeError | None]:
    seen: list[bytes] = []
    try:
        seen.extend(record.value for record in records)
    except OffsetOutOfRangeError as error:
        return seen, error
    return seen, None


@pytest.mark.parametrize("chunk_bytes", [1, 1 << 20])
@pytest.mark.parametrize("event", [_upload_and_prune, _collect, _collect_behind_a_lagging_manifest])
def test_a_scan_sees_every_record_once_or_is_told_the_new_start(
    make_tiered: Any, event: Any, chunk_bytes: int
) -> None:
    number, calls = 0, 1
    while number <= calls:
        partition = make_tiered()
        counted = _at_call(partition, number, event)
        records = partition.chain.scan(0, limit=_constant(partition.limit), chunk_bytes=chunk_bytes)
        seen, error = _drain(records)
        if error is None:
            assert len(seen) == 40
        else:
            assert event is not _upload_and_prune
            assert (error.offset, error.first_offset) == (len(seen), 33)
        assert seen == partition.log.values[: len(seen)]
        calls = counted()
        number += 1
    assert number > 4


@pytest.mark.parametrize("event", [_upload_and_prune, _collect, _collect_behind_a_lagging_manifest])
def test_one_read_and_one_time_lookup_are_right_before_or_after_the_event(
    make_tiered: Any, event: Any
) -> None:
    for offset in range(0, 40, 3):
        for number in range(1, 4):
            partition = make_tiered()
            limit = partition.limit
            _at_call(partition, number, event)
            records = partition.chain.scan(offset, stop=offset + 1, limit=_constant(limit))
            seen, error = _drain(records)
            if error is None:
                assert seen == [b"%d" % offset]
            else:
                assert (offset < 33, error.first_offset) == (True, 33)
            partition = make_tiered()
            _at_call(partition, number, event)
            time = partition.log.timestamps_us[offset]
            before = offset - offset % 2
            found = partition.chain.offset_for_timestamp(time, limit=_constant(limit))
            assert found in {before, max(before, 33)}
