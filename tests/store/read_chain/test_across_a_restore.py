"""A reader of a bucket whose log a restore cuts meanwhile: offsets go on, entry indexes do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from chronik_store.errors import UnavailableError
from chronik_store.model import Position

CUT = 15


def _reader(new_partition: Callable[[], Any], controls: int, records: int = 1) -> Any:
    """A partition of 20 offsets that is in the bucket alone, `records` to an entry, with so many
    control entries behind each.
    """
    partition = new_partition()
    for base in range(0, 20, records):
        partition.log.append([b"%d" % each for each in range(base, base + records)])
        for _ in range(controls):
            partition.log.control()
    partition.seal()
    partition.chain = partition.new_chain(wal=False, local=False)
    return partition


def _restored(new_partition: Callable[[], Any], until: int = 40) -> Any:
    """What a restore that cut at 15 has made of it: one record to an entry, others behind."""
    partition = new_partition()
    for number in range(until):
        partition.log.append([b"%d" % number if number < CUT else b"new %d" % number])
        if number == CUT - 1:
            partition.seal()
    if until > CUT:
        partition.seal()
    return partition


def _go_on(reader: Any, restored: Any) -> None:
    """The reader's view has found the new log."""
    reader.bucket.objects |= restored.bucket.objects
    reader.manifest = dataclasses.replace(restored.manifest, log_id="ef" * 16)


@pytest.mark.parametrize("controls", [1, 3])
def test_a_place_in_the_old_log_is_an_offset_in_the_new_one(
    new_partition: Callable[[], Any], controls: int
) -> None:
    """Its index may be that of a later record, or of none: a cut takes control entries out."""
    restored = _restored(new_partition)
    for offset in range(1, 21):
        reader = _reader(new_partition, controls)
        limit = Position(offset * (controls + 1) + 1, offset)
        place = reader.chain.read_batches(0, limit=limit).next
        assert (offset, limit.index) == (place.offset, place.index)
        _go_on(reader, restored)
        run = reader.chain.read_batches(offset, limit=restored.limit, place=place)
        assert restored.log.values[offset] == next(iter(run.batches[0].records())).value


def test_a_scan_that_stands_in_the_old_log_leaves_nothing_out(
    new_partition: Callable[[], Any],
) -> None:
    restored = _restored(new_partition)
    for offset in range(1, 20):
        reader = _reader(new_partition, controls=1)
        limits = [Position(offset * 2 + 1, offset)]
        scan = reader.chain.scan(0, limit=lambda limits=limits: limits[0])
        seen = [next(scan).value for _ in range(offset)]
        _go_on(reader, restored)
        limits[0] = restored.limit
        seen += [record.value for record in scan]
        assert [b"%d" % each for each in range(offset)] == seen[:offset]
        assert restored.log.values[offset:] == seen[offset:]


def test_a_record_behind_the_cut_comes_once_in_whatever_batch_it_lies(
    new_partition: Callable[[], Any],
) -> None:
    restored = _restored(new_partition, until=CUT)
    restored.log.append([b"new %d" % number for number in range(CUT, 40)])
    restored.seal()
    for offset in range(CUT, 21):
        reader = _reader(new_partition, controls=1)
        limits = [Position(offset * 2 + 1, offset)]
        scan = reader.chain.scan(0, limit=lambda limits=limits: limits[0])
        assert list(range(offset)) == [next(scan).offset for _ in range(offset)]
        _go_on(reader, restored)
        limits[0] = restored.limit
        assert list(range(offset, 40)) == [record.offset for record in scan]


def test_a_limit_of_the_old_log_is_an_offset_in_the_new_one(
    new_partition: Callable[[], Any],
) -> None:
    """Another thread's look may find the new log between a reader's look and its read."""
    restored = _restored(new_partition)
    for start in range(20):
        reader = _reader(new_partition, controls=0, records=20)
        limit = reader.limit
        _go_on(reader, restored)
        scan = reader.chain.scan(start, limit=lambda limit=limit: limit)
        assert restored.log.values[start:20] == [record.value for record in scan]


def test_what_was_cut_off_between_a_look_and_the_read_is_no_damage(
    new_partition: Callable[[], Any],
) -> None:
    """A second try waits at the new end, or is told that it is past it."""
    restored = _restored(new_partition, until=CUT)
    for offset in (CUT, CUT + 1):
        reader = _reader(new_partition, controls=1)
        limit = reader.limit
        _go_on(reader, restored)
        with pytest.raises(UnavailableError, match=f"ends at offset {CUT} now"):
            reader.chain.read(offset, limit=limit)
