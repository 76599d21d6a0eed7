"""Control commands change the manifest only when their precondition holds (protocol 8)."""

from __future__ import annotations

import dataclasses

import pytest

from chronik_store.format.control import (
    AddIndex,
    AddSegment,
    Collected,
    Command,
    CursorSet,
    DropPrefix,
    Fenced,
    Intent,
    Noop,
    Published,
    Seal,
)
from chronik_store.format.entry import EntryHeader
from chronik_store.format.manifest_file import BundleInfo, Manifest, SealedRange, SegmentInfo
from chronik_store.manifest.fold import apply_command, check_manifest
from chronik_store.manifest.state import empty_manifest

HASH = "0123456789abcdef"


class Log:
    """Applies commands the way a log would: one index each, records in between."""

    def __init__(self) -> None:
        self.manifest = empty_manifest("logs", 0, "a" * 32, "b" * 32)
        self.index = 0
        self.offset = 0
        self.term = 1

    def records(self, count: int) -> None:
        self.index += 1
        self.offset += count

    def apply(self, command: Command) -> str | None:
        self.index += 1
        header = EntryHeader(
            int(command.KIND), self.term, self.index, self.offset, 0, 1_000 + self.index, 0, 0
        )
        before = self.manifest
        self.manifest, refused = apply_command(before, header, command)
        if refused is not None:
            assert before == self.manifest
        check_manifest(self.manifest)
        return refused

    def seal(self) -> str | None:
        return self.apply(Seal(self.manifest.open_first_index, "size", 5))

    def add_next(self) -> str | None:
        return self.apply(AddSegment(segment_of(self.manifest.sealed[0])))


def segment_of(sealed: SealedRange, **changes: object) -> SegmentInfo:
    info = SegmentInfo(
        key=f"segments/logs/0/{sealed.base_offset}",
        first_index=sealed.first_index,
        last_index=sealed.last_index,
        base_offset=sealed.base_offset,
        end_offset=sealed.end_offset,
        term=sealed.term,
        size_bytes=100,
        hash=HASH,
        record_count=sealed.end_offset - sealed.base_offset,
        first_timestamp_us=1,
        last_timestamp_us=2,
        min_timestamp_us=1,
        max_timestamp_us=2,
        footer_bytes=10,
        sealed_us=sealed.sealed_us,
    )
    return dataclasses.replace(info, **changes)  # type: ignore[arg-type]


def bundle(key: str) -> BundleInfo:
    return BundleInfo(key, 10, HASH, "0.27", 1, 0, 1, (), False)


@pytest.fixture
def log() -> Log:
    return Log()


def with_segments(log: Log, count: int) -> Manifest:
    for _ in range(count):
        log.records(10)
        assert log.seal() is None
        assert log.add_next() is None
    return log.manifest


def test_a_seal_closes_the_open_segment_and_is_its_last_entry(log: Log) -> None:
    log.records(10)
    assert log.seal() is None
    assert log.manifest.sealed == (
        SealedRange(1, 2, 0, 10, term=1, sealed_us=5, timestamp_us=1_002),
    )
    assert log.manifest.open_first_index == 3


def test_protocol_8_s2_a_second_seal_of_the_same_range_is_a_no_op(log: Log) -> None:
    log.records(10)
    first = log.manifest.open_first_index
    assert log.apply(Seal(first, "age", 5)) is None
    assert log.apply(Seal(first, "age", 5)) is not None
    assert len(log.manifest.sealed) == 1


def test_protocol_7_s2_a_log_without_unsealed_records_is_never_sealed(log: Log) -> None:
    with_segments(log, 1)
    for _ in range(5):
        assert log.seal() == "no records to seal"
    assert log.manifest.sealed == ()


def test_add_segment_takes_exactly_the_next_sealed_range(log: Log) -> None:
    log.records(10)
    log.seal()
    log.records(5)
    log.seal()
    second = log.manifest.sealed[1]
    assert log.apply(AddSegment(segment_of(second))) is not None
    assert log.add_next() is None
    assert log.manifest.segments[0].added_index == log.index
    assert log.manifest.next[:3] == (2, 1, 10)
    assert log.add_next() is None
    assert log.manifest.sealed == ()


def test_protocol_8_s4_a_segment_of_another_term_is_not_listed(log: Log) -> None:
    log.records(10)
    log.seal()
    wrong = segment_of(log.manifest.sealed[0], term=7)
    assert log.apply(AddSegment(wrong)) is not None
    assert log.manifest.segments == ()


def test_the_first_add_index_wins_and_the_loser_becomes_garbage(log: Log) -> None:
    manifest = with_segments(log, 1)
    key = manifest.segments[0].key
    log.apply(Intent(("indexes/a",), 1))
    log.apply(Intent(("indexes/b",), 1))
    assert log.apply(AddIndex(key, None, bundle("indexes/a"), 2)) is None
    assert log.apply(AddIndex(key, None, bundle("indexes/b"), 2)) is None
    assert log.manifest.segments[0].bundle == bundle("indexes/a")
    assert [item.key for item in log.manifest.garbage] == ["indexes/b"]
    assert log.manifest.intents == ()


def test_a_replaced_bundle_becomes_garbage(log: Log) -> None:
    key = with_segments(log, 1).segments[0].key
    log.apply(AddIndex(key, None, bundle("indexes/a"), 2))
    log.apply(AddIndex(key, "indexes/a", bundle("indexes/b"), 2))
    assert log.manifest.segments[0].bundle == bundle("indexes/b")
    assert [item.key for item in log.manifest.garbage] == ["indexes/a"]


def test_published_numbers_are_dense(log: Log) -> None:
    assert log.apply(Published(2, 1, HASH, 1)) is not None
    assert log.apply(Published(1, 1, HASH, 1)) is None
    assert log.apply(Published(1, 1, HASH, 1)) is not None
    assert log.manifest.published_number == 1


def test_publishing_does_not_make_the_manifest_stale_again(log: Log) -> None:
    generation = with_segments(log, 1).generation
    log.apply(Published(1, generation, HASH, 1))
    log.apply(CursorSet("c", 3, False))
    assert generation == log.manifest.generation


def test_drop_prefix_moves_start_and_turns_whole_segments_into_garbage(log: Log) -> None:
    with_segments(log, 3)
    assert log.apply(DropPrefix(15, "admin", 9)) is None
    assert log.manifest.start_offset == 15
    assert [each.base_offset for each in log.manifest.segments] == [10, 20]
    assert [item.key for item in log.manifest.garbage] == ["segments/logs/0/0"]


@pytest.mark.parametrize("offset", [0, 31])
def test_drop_prefix_neither_goes_back_nor_past_the_end(log: Log, offset: int) -> None:
    with_segments(log, 3)
    assert log.apply(DropPrefix(offset, "admin", 9)) is not None
    assert log.manifest.start_offset == 0


def test_protocol_7_s3_sealed_ranges_below_start_need_no_segment(log: Log) -> None:
    log.records(10)
    log.seal()
    log.records(10)
    log.seal()
    assert log.apply(DropPrefix(12, "admin", 9)) is None
    assert log.manifest.next[:3] == (2, 1, 10)
    assert [each.base_offset for each in log.manifest.sealed] == [10]
    assert log.add_next() is None


def test_a_range_sealed_after_all_of_it_was_dropped_is_skipped(log: Log) -> None:
    log.records(10)
    assert log.apply(DropPrefix(10, "admin", 9)) is None
    assert log.seal() is None
    assert log.manifest.sealed == ()
    assert log.manifest.next.offset == 10


def test_protocol_18_s3_a_new_term_turns_unfinished_intents_into_garbage(log: Log) -> None:
    log.apply(Intent(("indexes/x",), 7))
    log.term = 2
    assert log.apply(Noop()) is None
    assert [(item.key, item.since_us) for item in log.manifest.garbage] == [("indexes/x", 7)]
    assert log.manifest.intents == ()


def test_an_intent_for_a_range_that_still_waits_stays_for_the_successor(log: Log) -> None:
    log.records(10)
    log.seal()
    key = "segments/logs/0/0"
    log.apply(Intent((key,), 7, first_index=1))
    log.term = 2
    log.apply(Noop())
    assert log.manifest.garbage == ()
    log.add_next()
    assert log.manifest.intents == ()


def test_an_intent_takes_its_key_off_the_garbage_list(log: Log) -> None:
    log.apply(Intent(("indexes/x",), 7))
    log.term = 2
    log.apply(Noop())
    log.apply(Intent(("indexes/x",), 8))
    assert log.manifest.garbage == ()


def test_collected_keys_leave_the_garbage_list(log: Log) -> None:
    with_segments(log, 2)
    log.apply(DropPrefix(10, "admin", 9))
    assert log.apply(Collected(("segments/logs/0/0",))) is None
    assert log.manifest.garbage == ()
    assert log.apply(Collected(("segments/logs/0/0",))) is not None


def test_a_cursor_never_moves_back_without_reset(log: Log) -> None:
    log.apply(CursorSet("c", 5, False))
    assert log.apply(CursorSet("c", 4, False)) is not None
    assert log.apply(CursorSet("c", 4, True)) is None
    assert log.apply(CursorSet("c", None, True)) is None
    assert log.manifest.cursors == ()


def test_the_first_fence_stays(log: Log) -> None:
    fence = Fenced("c" * 32, 3, "claimed")
    assert log.apply(fence) is None
    assert log.apply(Fenced("d" * 32, 4, "again")) is not None
    assert log.manifest.fenced == fence
