"""The reading half of the room: lookups, one range read, damage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chronik_store.errors import ChronikError, CorruptionError, FutureVersionError
from chronik_store.format.entry import Entry, EntryKind
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.segment.reader import Place, SegmentReader, load_footer
from chronik_store.segment.sparse import SPARSE_BYTES, SPARSE_ENTRIES
from chronik_store.testing.sample_log import SampleLog

Seal = Callable[..., Any]


def _values(entries: list[Entry]) -> list[bytes]:
    values: list[bytes] = []
    for header, payload in entries:
        if header.kind == EntryKind.RECORDS:
            batch = StoredBatch(payload, header.base_offset, header.timestamp_us)
            values += batch.values()
    return values


def _large_log() -> SampleLog:
    """Some 20 blocks: small entries, middling ones, and one larger than a block."""
    log = SampleLog()
    for number in range(600):
        log.append([b"s%d" % number])
    for number in range(100):
        log.append([b"%05d" % number * 1000] * 2)
    log.append([b"large" * 60_000])
    for _ in range(300):
        log.control()
    for number in range(100):
        log.append([b"t%d" % number] * 3)
    return log


def test_every_offset_is_one_range_read_away_once_the_footer_is_known(seal: Seal) -> None:
    sealed = seal(_large_log())
    reader = SegmentReader.open(sealed.source, sealed.info)
    assert 1 == len(sealed.source.ranges)
    for offset in range(sealed.log.end_offset):
        sealed.source.ranges.clear()
        run = reader.read(Place(offset), max_bytes=1, max_records=1)
        assert 1 == len(sealed.source.ranges)
        assert [run.entries[0].header.base_offset] == [each.header.base_offset for each in run[0]]
        header, payload = run.entries[0]
        batch = StoredBatch(payload, header.base_offset, header.timestamp_us)
        assert sealed.log.values[offset] == batch.record(offset).value
        _, length = sealed.source.ranges[0]
        assert length <= max(SPARSE_BYTES, header.entry_bytes)


def test_the_footer_is_one_range_read_of_footer_bytes_from_the_end(seal: Seal) -> None:
    sealed = seal(SampleLog.mixed(40))
    load_footer(sealed.source, sealed.info)
    start = sealed.info.size_bytes - sealed.info.footer_bytes
    assert [(start, sealed.info.footer_bytes)] == sealed.source.ranges


def test_every_index_is_found_with_all_entries_behind_it(seal: Seal) -> None:
    sealed = seal(SampleLog.mixed(60, first_index=100, base_offset=5000))
    reader = SegmentReader.open(sealed.source, sealed.info)
    for entry in sealed.log.between(100, sealed.info.last_index):
        index, offset = entry.header.index, entry.header.base_offset
        run = reader.read(Place(offset, index), max_bytes=1 << 20)
        expected = sealed.log.between(index, sealed.info.last_index)
        assert [entry.encode() for entry in expected] == [entry.encode() for entry in run.entries]
        assert Place(sealed.info.end_offset, sealed.info.last_index + 1) == Place(*run.next[:2])


def test_a_read_starts_at_the_entry_that_holds_the_offset_without_control_entries_before_it(
    seal: Seal,
) -> None:
    sealed = seal(SampleLog.mixed(60))
    reader = SegmentReader.open(sealed.source, sealed.info)
    for offset in range(sealed.log.end_offset):
        first = reader.read(Place(offset), max_bytes=1).entries[0].header
        assert first.base_offset <= offset < first.end_offset


@pytest.mark.parametrize("max_bytes", [1, 5_000, 70_000, 300_000, 1 << 30])
def test_reading_on_from_place_to_place_gives_every_entry_once(seal: Seal, max_bytes: int) -> None:
    sealed = seal(_large_log())
    reader = SegmentReader.open(sealed.source, sealed.info)
    sealed.source.ranges.clear()
    entries: list[Entry] = []
    place = Place(0)
    while place.index <= sealed.info.last_index:
        run = reader.read(place, max_bytes=max_bytes)
        entries += run.entries
        place = run.next
    assert sealed.log.values == _values(entries)
    assert list(range(1, sealed.info.last_index + 1)) == [each.header.index for each in entries]
    positions = [start for start, _ in sealed.source.ranges]
    lengths = [length for _, length in sealed.source.ranges]
    assert positions[1:] == [start + length for start, length in sealed.source.ranges][:-1]
    assert max(lengths) <= max(max_bytes, 301_000)


def test_a_count_of_records_bounds_the_range_that_is_read(seal: Seal) -> None:
    sealed = seal(_large_log())
    reader = SegmentReader.open(sealed.source, sealed.info)
    sealed.source.ranges.clear()
    run = reader.read(Place(10), max_bytes=1 << 20, max_records=5)
    assert [10, 11, 12, 13, 14] == [entry.header.base_offset for entry in run.entries]
    assert 15 == run.next.offset
    assert sealed.source.ranges[0][1] <= 2 * SPARSE_BYTES
    following = reader.read(run.next, max_bytes=1 << 20, max_records=2)
    assert [15, 16] == [entry.header.base_offset for entry in following.entries]


def test_iterate_gives_all_entries_in_bounded_chunks(seal: Seal) -> None:
    sealed = seal(_large_log())
    reader = SegmentReader.open(sealed.source, sealed.info)
    for chunk_bytes in (1, 100_000, 1 << 20):
        sealed.source.ranges.clear()
        entries = list(reader.iterate(chunk_bytes=chunk_bytes))
        assert sealed.log.entries == [
            entry._replace(payload=bytes(entry.payload)) for entry in entries
        ]
        assert max(length for _, length in sealed.source.ranges) <= max(chunk_bytes, 301_000)


def test_the_sparse_index_names_an_entry_at_least_every_so_many_entries_and_bytes(
    seal: Seal,
) -> None:
    sealed = seal(_large_log())
    reader = SegmentReader.open(sealed.source, sealed.info)
    index = reader.footer.index
    assert max(b - a for a, b in zip(index.indexes, index.indexes[1:], strict=False)) <= (
        SPARSE_ENTRIES
    )
    sizes = {entry.header.index: entry.header.entry_bytes for entry in sealed.log.entries}
    ends = [*index.positions[1:], reader.footer.entries_end]
    for number, start, end in zip(index.indexes, index.positions, ends, strict=True):
        assert end - start <= max(SPARSE_BYTES, sizes[number])
    assert (1, 0) == (index.indexes[0], index.offsets[0])


def _brute(log: SampleLog, timestamp_us: int) -> int | None:
    for at, time in enumerate(log.timestamps_us):
        if time >= timestamp_us:
            return log.base_offset + at
    return None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_time_lookup_equals_brute_force(seal: Seal, data: st.DataObject) -> None:
    log = SampleLog(base_offset=17)
    time = 0
    steps = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=30))
    for step in steps:
        time += step
        if data.draw(st.booleans()):
            for _ in range(data.draw(st.sampled_from([1, 300]))):
                log.control()
        size = data.draw(st.sampled_from([1, 3000, 70_000]))
        log.append([b"v" * size] * data.draw(st.integers(1, 3)), timestamp_us=time)
    sealed = seal(log)
    reader = SegmentReader.open(sealed.source, sealed.info)
    for timestamp_us in range(time + 2):
        assert _brute(log, timestamp_us) == reader.offset_for_timestamp(timestamp_us)


def test_time_lookup_reads_one_block_at_most_and_none_at_the_ends(seal: Seal) -> None:
    sealed = seal(_large_log())
    reader = SegmentReader.open(sealed.source, sealed.info)
    last = sealed.log.timestamps_us[-1]
    for timestamp_us in (0, 1, last + 1, 1 << 60):
        sealed.source.ranges.clear()
        assert _brute(sealed.log, timestamp_us) == reader.offset_for_timestamp(timestamp_us)
        assert [] == sealed.source.ranges
    for timestamp_us in range(2, last + 1, 7):
        sealed.source.ranges.clear()
        assert _brute(sealed.log, timestamp_us) == reader.offset_for_timestamp(timestamp_us)
        assert 1 == len(sealed.source.ranges)


def _everything(reader: SegmentReader, log: SampleLog) -> None:
    """Read all that can be read in all the ways there are; wrong data is an assertion."""
    values: list[bytes] = []
    place = Place(0, 1)
    while place.index <= log.last_index:
        run = reader.read(place, max_bytes=1 << 20)
        values += _values(run.entries)
        assert log.values[: len(values)] == values
        place = run.next
    for timestamp_us in range(0, log.timestamps_us[-1] + 2, 10):
        assert _brute(log, timestamp_us) == reader.offset_for_timestamp(timestamp_us)


def test_a_flip_of_any_byte_gives_equal_data_or_a_typed_error(seal: Seal) -> None:
    sealed = seal(SampleLog.mixed(12))
    footer = load_footer(sealed.source, sealed.info)
    data = bytearray(sealed.data)
    refused = 0
    for position in range(len(data)):
        data[position] ^= 1 << position % 8
        sealed.source.data = bytes(data)
        try:
            _everything(SegmentReader.open(sealed.source, sealed.info), sealed.log)
        except (CorruptionError, FutureVersionError):
            refused += 1
        else:
            assert position < footer.entries_start, "only the header is not read by readers"
        data[position] ^= 1 << position % 8
    assert len(data) - footer.entries_start == refused


def test_a_flip_of_any_byte_after_the_footer_was_cached_is_still_found(seal: Seal) -> None:
    sealed = seal(SampleLog.mixed(12))
    footer = load_footer(sealed.source, sealed.info)
    for position in range(footer.entries_start, footer.entries_end):
        data = bytearray(sealed.data)
        data[position] ^= 0x80
        sealed.source.data = bytes(data)
        reader = SegmentReader(sealed.source, sealed.info, footer)
        with pytest.raises((CorruptionError, FutureVersionError)):
            _everything(reader, sealed.log)


def test_a_file_cut_anywhere_is_refused_with_path_and_range(seal: Seal) -> None:
    sealed = seal(SampleLog.mixed(12))
    footer = load_footer(sealed.source, sealed.info)
    for length in range(0, len(sealed.data), 37):
        sealed.source.data = sealed.data[:length]
        with pytest.raises(ChronikError):
            load_footer(sealed.source, sealed.info)
        if length < footer.entries_end:
            reader = SegmentReader(sealed.source, sealed.info, footer, path="/there")
            with pytest.raises(CorruptionError) as caught:
                reader.read(Place(0), max_bytes=1 << 20)
            assert ("/there", (0, sealed.info.end_offset)) == (
                caught.value.path,
                caught.value.offset_range,
            )


def test_good_entries_before_a_damaged_one_are_given_and_the_next_read_says_where(
    seal: Seal,
) -> None:
    log = SampleLog()
    for number in range(10):
        log.append([b"%d" % number * 10] * 2)
    sealed = seal(log)
    bad = sealed.data.index(b"4444444444")
    sealed.source.data = sealed.data[:bad] + b"x" + sealed.data[bad + 1 :]
    reader = SegmentReader.open(sealed.source, sealed.info)
    run = reader.read(Place(0), max_bytes=1 << 20)
    assert log.values[:8] == _values(run.entries)
    assert 8 == run.next.offset
    with pytest.raises(CorruptionError, match="checksum") as caught:
        reader.read(run.next, max_bytes=1 << 20)
    assert caught.value.offset_range is not None
    assert 8 == caught.value.offset_range[0]
    behind = reader.read(Place(10), max_bytes=1 << 20)
    assert log.values[10:] == _values(behind.entries)


def test_a_footer_of_another_segment_is_refused(seal: Seal, tmp_path: Any) -> None:
    one = seal(SampleLog.mixed(12))
    for change in (
        {"last_index": one.info.last_index + 1},
        {"base_offset": 1},
        {"end_offset": one.info.end_offset + 1},
        {"last_timestamp_us": 1},
        {"size_bytes": one.info.size_bytes + 1},
    ):
        info = dataclasses.replace(one.info, **change)
        with pytest.raises(CorruptionError, match="another segment"):
            load_footer(one.source, info)


def test_what_lies_before_the_segment_is_refused_not_answered(seal: Seal) -> None:
    sealed = seal(SampleLog.mixed(12, first_index=10, base_offset=100))
    reader = SegmentReader.open(sealed.source, sealed.info)
    with pytest.raises(CorruptionError, match="before it"):
        reader.locate(99)
    with pytest.raises(CorruptionError, match="before it"):
        reader.locate_index(9)
    with pytest.raises(CorruptionError, match="is not in the block"):
        reader.read(Place(sealed.info.end_offset), max_bytes=1)
