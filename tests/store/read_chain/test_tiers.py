"""Which tier answers, and what happens when it cannot."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Iterator
from typing import Any

import pytest

from chronik_store.errors import CorruptionError, OffsetOutOfRangeError, UnavailableError
from chronik_store.model import Position, StoredRecord

TIER_OF = ["object_store", "local_segment", "wal", "wal_tail"]


def test_each_range_is_answered_by_the_first_tier_that_has_it(tiered: Any) -> None:
    for offset in range(40):
        answer = tiered.read(offset, max_records=1)
        assert [record.value for record in answer] == [b"%d" % offset]
        assert (answer.next_offset, answer.tier) == (offset + 1, TIER_OF[offset // 10])
        assert answer.elapsed_seconds >= 0


def test_a_batch_run_says_its_tier_and_where_to_go_on(tiered: Any) -> None:
    tiers = []
    place = None
    offset = 0
    values: list[bytes] = []
    while True:
        run = tiered.chain.read_batches(offset, limit=tiered.limit, place=place)
        tiers.append(run.tier)
        for batch in run.batches:
            values += batch.values()
        if not run.batches:
            break
        assert run.next.offset == run.batches[-1].end_offset
        place, offset = run.next, run.next.offset
    assert values == tiered.log.values
    assert list(dict.fromkeys(tiers)) == [*TIER_OF[:3], "none"]  # WAL reads run on into the tail.


def test_one_read_fills_over_tier_borders_and_names_the_tier_of_its_first_record(
    tiered: Any,
) -> None:
    answer = tiered.read(5, max_records=30)
    assert [record.offset for record in answer] == list(range(5, 35))
    assert answer.tier == "object_store"


def test_the_whole_log_is_read_without_a_local_copy_of_anything_sealed(tiered: Any) -> None:
    sealed_end = tiered.manifest.next.offset
    tiered.committed = Position(tiered.manifest.next.index + 1, sealed_end)
    chain = tiered.new_chain(wal=False, local=False)
    assert tiered.read_all(chain) == tiered.log.values[:sealed_end]


def test_a_hot_record_is_decoded_from_one_entry_of_the_tail(tiered: Any) -> None:
    tiered.wal.reads.clear()
    tiered.read(33, max_records=1)
    (first, last, _) = tiered.wal.reads[0]
    assert (first, last) == (last, first)
    assert len(tiered.wal.reads) == 1
    assert tiered.bucket.reads == []


def test_a_warm_record_costs_one_ranged_get_once_the_footer_is_cached(tiered: Any) -> None:
    tiered.read(0, max_records=1)
    tiered.bucket.reads.clear()
    for offset in range(10):
        assert tiered.read(offset, max_records=1).records[0].value == b"%d" % offset
    assert len(tiered.bucket.reads) == 10


def test_reading_at_the_limit_is_empty_and_past_it_an_error(tiered: Any) -> None:
    answer = tiered.read(40)
    assert (answer.records, answer.next_offset, answer.tier) == ((), 40, "none")
    assert tiered.chain.read_batches(40, limit=tiered.limit).batches == []
    for call in (tiered.chain.read, tiered.chain.read_batches):
        with pytest.raises(OffsetOutOfRangeError) as caught:
            call(41, limit=tiered.limit)
        error = caught.value
        assert (error.offset, error.first_offset, error.end_offset) == (41, 0, 40)


def test_nothing_at_or_past_the_limit_is_shown_whatever_tier_has_it(tiered: Any) -> None:
    for index in range(1, tiered.log.last_index + 2):
        end = (
            tiered.wal.log.between(index, index)[0].header.base_offset
            if (index <= tiered.log.last_index)
            else 40
        )
        tiered.committed = Position(index, end)
        assert tiered.read_all() == tiered.log.values[:end]
        if end:
            run = tiered.chain.read_batches(end - 1, limit=tiered.limit)
            assert [batch.end_offset for batch in run.batches] == [end]
            assert run.next.offset == end


def test_a_damaged_local_copy_is_passed_over_for_the_object(tiered: Any) -> None:
    info = tiered.manifest.segments[1]
    for position in range(info.size_bytes):
        tiered.flip(info, position)
        chain = tiered.new_chain()
        answer = chain.read(10, max_records=10, limit=tiered.limit)
        assert [record.value for record in answer] == tiered.log.values[10:20]
        tiered.flip(info, position)


def test_a_damaged_object_with_no_other_copy_is_unavailable_and_says_where(tiered: Any) -> None:
    info = tiered.manifest.segments[0]
    tiered.flip(info, 400, local=False)
    with pytest.raises(CorruptionError) as caught:
        tiered.read_all()
    assert caught.value.path == info.key
    assert caught.value.offset_range is not None
    assert 0 <= caught.value.offset_range[0] < 10
    assert tiered.read(10, max_records=1).tier == "local_segment"


def test_records_before_the_damage_are_given_first_and_then_the_error(tiered: Any) -> None:
    info = tiered.manifest.segments[0]
    data = tiered.bucket.objects[info.key]
    entry = tiered.records_entry(3)
    tiered.flip(info, data.index(entry.encode()) + 64 + 100, local=False)
    answer = tiered.read(0, max_records=10)
    assert [record.offset for record in answer] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(CorruptionError):
        tiered.read(answer.next_offset)
    assert tiered.read(8, max_records=1).records[0].value == b"8"


def test_damage_that_sits_in_the_cache_is_healed_by_reading_the_bucket_again(
    tiered: Any,
) -> None:
    info = tiered.manifest.segments[0]
    healthy = tiered.bucket.objects[info.key]
    for position in range(0, info.size_bytes, 7):
        bad = bytearray(healthy)
        bad[position] ^= 1
        tiered.bucket.cached[info.key] = bytes(bad)
        answer = tiered.new_chain().read(0, max_records=10, limit=tiered.limit)
        assert [record.value for record in answer] == tiered.log.values[:10]


def test_a_damaged_wal_entry_is_read_from_its_segment_when_there_is_one(tiered: Any) -> None:
    tiered.wal.damaged.add(tiered.wal.index_for_offset(24))
    assert tiered.read_all() == tiered.log.values
    assert tiered.read(24, max_records=1).tier == "local_segment"
    assert tiered.read(22, max_records=1).tier == "wal"


def test_a_damaged_wal_entry_without_another_copy_is_unavailable_not_skipped(tiered: Any) -> None:
    tiered.wal.damaged.add(tiered.wal.index_for_offset(34))
    seen: list[bytes] = []
    with pytest.raises(CorruptionError, match="WAL entry"):
        _collect(tiered.chain.scan(0, limit=lambda: tiered.limit), seen)
    assert seen == tiered.log.values[:34]
    assert tiered.read(36, max_records=1).tier == "wal_tail"


def test_a_silent_bucket_is_unavailable_and_retriable(tiered: Any) -> None:
    tiered.bucket.down = True
    with pytest.raises(UnavailableError) as caught:
        tiered.read(0)
    assert caught.value.retriable
    assert len(tiered.bucket.reads) == 1
    assert tiered.read(10).tier == "local_segment"


def test_a_damaged_local_copy_and_a_silent_bucket_is_unavailable_not_corrupt(tiered: Any) -> None:
    tiered.flip(tiered.manifest.segments[1])
    tiered.bucket.down = True
    with pytest.raises(UnavailableError):
        tiered.read_all(tiered.new_chain())


def test_a_file_pruned_between_look_and_read_makes_the_chain_plan_again(tiered: Any) -> None:
    tiered.wal.before_read = lambda: tiered.wal.prune(tiered.manifest.next.index + 1)
    answer = tiered.read(20, max_records=1)
    assert (answer.records[0].value, answer.tier) == (b"20", "local_segment")


def test_what_was_uploaded_and_pruned_since_a_stale_manifest_is_found_after_a_refresh(
    tiered: Any,
) -> None:
    old = tiered.manifest
    tiered.seal(prune=True)
    tiered.newer_manifest = tiered.manifest
    tiered.manifest = old
    assert tiered.read(30, max_records=1).tier == "local_segment"
    assert tiered.refreshes == 1


def test_an_object_collected_under_a_reader_gives_the_new_start(tiered: Any) -> None:
    info = tiered.manifest.segments[0]
    scan = tiered.chain.scan(0, limit=lambda: tiered.limit, chunk_bytes=1)
    assert next(scan).value == b"0"
    tiered.newer_manifest = tiered.dropped(15)
    del tiered.bucket.objects[info.key]
    with pytest.raises(OffsetOutOfRangeError) as caught:
        tiered.read(2)
    assert (caught.value.offset, caught.value.first_offset) == (2, 15)
    assert tiered.refreshes == 1
    in_hand: list[bytes] = []
    with pytest.raises(OffsetOutOfRangeError) as caught:
        _collect(scan, in_hand)
    assert (caught.value.offset, caught.value.first_offset) == (10, 15)
    assert in_hand == tiered.log.values[1:10]


def _collect(records: Iterator[StoredRecord], into: list[bytes]) -> None:
    for record in records:
        into.append(record.value)  # noqa: PERF401  (what came before an error counts)


def test_an_object_that_is_missing_although_listed_is_unavailable_after_bounded_looks(
    tiered: Any,
) -> None:
    tiered.bucket.objects.clear()
    with pytest.raises(UnavailableError, match="manifest lists") as caught:
        tiered.read(0)
    assert caught.value.retriable
    assert not isinstance(caught.value, LookupError)
    assert (len(tiered.bucket.reads), tiered.refreshes) == (1, 1)


def test_a_manifest_that_keeps_changing_does_not_make_a_reader_spin(tiered: Any) -> None:
    tiered.bucket.objects.clear()

    def changing() -> Any:
        tiered.refreshes += 1
        tiered.manifest = dataclasses.replace(
            tiered.manifest, generation=tiered.manifest.generation + 1
        )
        return tiered.manifest

    tiered.refresh = changing
    tiered.chain = tiered.new_chain()
    with pytest.raises(UnavailableError):
        tiered.read(0)
    assert tiered.refreshes <= 4


def test_below_start_is_out_of_range_even_where_a_tier_still_has_it(tiered: Any) -> None:
    tiered.manifest = dataclasses.replace(tiered.manifest, start_offset=35)
    for offset in (0, 15, 25, 34):
        with pytest.raises(OffsetOutOfRangeError) as caught:
            tiered.read(offset)
        error = caught.value
        assert (error.offset, error.first_offset, error.end_offset) == (offset, 35, 40)
    assert tiered.read(35).records[0].value == b"35"


def test_start_inside_a_segment_and_inside_a_batch_reads_from_there(tiered: Any) -> None:
    tiered.manifest = tiered.dropped(13)
    assert tiered.read_all() == tiered.log.values[13:]
    with pytest.raises(OffsetOutOfRangeError):
        tiered.read(12)


def test_a_hole_between_the_tiers_is_corruption_with_its_range(tiered: Any) -> None:
    tiered.manifest = dataclasses.replace(
        tiered.manifest, segments=(tiered.manifest.segments[0], tiered.manifest.segments[2])
    )
    with pytest.raises(CorruptionError, match="in no tier") as caught:
        tiered.read(12)
    assert caught.value.offset_range == (12, 20)
    tiered.wal.prune(tiered.wal.index_for_offset(36))
    with pytest.raises(CorruptionError, match="in no tier") as caught:
        tiered.read(32)
    assert caught.value.offset_range == (32, 36)


def test_a_wal_that_answers_with_something_else_is_not_believed(tiered: Any) -> None:
    right = tiered.wal.read
    tiered.wal.read = lambda first, last, size: right(first + 1, last + 1, size)
    with pytest.raises(CorruptionError, match="belongs"):
        tiered.read(32, max_records=1)
    assert tiered.read(22, max_records=1).tier == "local_segment"
    tiered.wal.read = lambda first, last, size: right(first, last, 1 << 20)[::2]
    with pytest.raises(CorruptionError, match="belongs"):
        tiered.read(32, max_records=10)


def test_a_reader_in_sequence_has_the_next_object_fetched_ahead(tiered: Any) -> None:
    keys = [info.key for info in tiered.manifest.segments]
    for info in tiered.manifest.segments[1:]:
        tiered.evict(info)
    tiered.wal.prune(tiered.manifest.next.index + 1)
    assert tiered.read(9, max_records=1).tier == "object_store"
    first = tiered.chain.read_batches(0, limit=tiered.limit)
    assert tiered.bucket.prefetched == []
    second = tiered.chain.read_batches(10, limit=tiered.limit, place=first.next)
    assert tiered.bucket.prefetched == [keys[2]]
    tiered.chain.read_batches(20, limit=tiered.limit, place=second.next)
    assert tiered.bucket.prefetched == [keys[2]]


def test_a_disk_that_cannot_be_asked_for_the_next_segment_stops_no_reader(tiered: Any) -> None:
    def fail(_number: int, operation: str, path: str) -> None:
        if operation in {"open", "exists"} and path.startswith("/segments/"):
            raise OSError(errno.EIO, "the disk is broken")

    tiered.wal.prune(tiered.manifest.next.index + 1)
    tiered.fs.hook = fail
    first = tiered.chain.read_batches(0, limit=tiered.limit)
    second = tiered.chain.read_batches(10, limit=tiered.limit, place=first.next)
    assert (second.tier, second.next.offset) == ("object_store", 20)
    assert tiered.bucket.prefetched == [tiered.manifest.segments[2].key]


def test_nothing_is_fetched_ahead_that_a_nearer_tier_has(tiered: Any) -> None:
    tiered.evict(tiered.manifest.segments[1])
    first = tiered.chain.read_batches(0, limit=tiered.limit)
    tiered.chain.read_batches(10, limit=tiered.limit, place=first.next)
    tiered.wal.prune(tiered.manifest.next.index + 1)
    tiered.chain.read_batches(10, limit=tiered.limit, place=first.next)
    assert tiered.bucket.prefetched == []
