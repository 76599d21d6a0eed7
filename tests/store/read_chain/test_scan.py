"""Reading in sequence: scans, entries, budgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chronik_store.errors import CorruptionError, OffsetOutOfRangeError
from chronik_store.format.entry import EntryKind
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.model import Position
from chronik_store.testing.sample_log import SampleLog

RECORDS = int(EntryKind.RECORDS)


@pytest.mark.parametrize("chunk_bytes", [1, 500, 1 << 20])
def test_a_scan_from_anywhere_gives_every_record_once_in_order(
    tiered: Any, chunk_bytes: int
) -> None:
    for start in range(41):
        for stop in (None, start, start + 1, 25, 40, 100):
            records = list(
                tiered.chain.scan(
                    start, stop=stop, limit=lambda: tiered.limit, chunk_bytes=chunk_bytes
                )
            )
            end = 40 if stop is None else max(start, min(stop, 40))
            assert [record.offset for record in records] == list(range(start, end))
            assert [record.value for record in records] == tiered.log.values[start:end]


def test_a_scan_that_begins_past_the_end_is_an_error_not_empty(tiered: Any) -> None:
    """Known bug 10: whoever asks there was told of records that are not known here."""
    assert list(tiered.chain.scan(40, limit=lambda: tiered.limit)) == []
    with pytest.raises(OffsetOutOfRangeError) as caught:
        list(tiered.chain.scan(41, limit=lambda: tiered.limit))
    assert caught.value.end_offset == 40


def test_a_scan_follows_when_its_wait_says_so(tiered: Any) -> None:
    waits = []

    def wait(offset: int) -> bool:
        waits.append(offset)
        if len(waits) < 4:
            tiered.log.append([b"new"] * len(waits))
        return len(waits) < 4

    records = list(tiered.chain.scan(38, limit=lambda: tiered.limit, wait=wait))
    assert [record.offset for record in records] == list(range(38, 46))
    assert waits == [40, 41, 43, 46]


def test_an_abandoned_scan_needs_no_farewell_and_one_overtaken_gets_the_error(
    tiered: Any,
) -> None:
    iterator = tiered.chain.scan(0, limit=lambda: tiered.limit, chunk_bytes=1)
    assert next(iterator).offset == 0
    tiered.manifest = tiered.dropped(20)
    tiered.wal.prune(tiered.wal.index_for_offset(20))
    with pytest.raises(OffsetOutOfRangeError) as caught:
        list(iterator)
    assert caught.value.first_offset == 20


def test_a_follower_at_the_end_is_told_when_retention_drops_what_it_waits_for(
    tiered: Any,
) -> None:
    def wait(_offset: int) -> bool:
        tiered.log.append([b"more"] * 10)
        tiered.manifest = tiered.dropped(45)
        return True

    with pytest.raises(OffsetOutOfRangeError):
        list(tiered.chain.scan(40, limit=lambda: tiered.limit, wait=wait))


def test_max_bytes_bounds_an_answer_but_never_below_one_record(new_partition: Any) -> None:
    partition = new_partition()
    partition.log.append([b"x" * 100] * 50, keys=[b"k" * 100] * 50)
    partition.log.append([b"y" * 5000])
    for seal in (False, True):
        if seal:
            partition.seal(prune=True)
        assert len(partition.read(0, max_bytes=1)) == 1
        assert len(partition.read(0, max_bytes=1000)) == 5
        assert len(partition.read(7, max_bytes=1199)) == 5
        assert len(partition.read(0, max_bytes=1 << 20)) == 51
        assert [len(r.value) for r in partition.read(50, max_bytes=1)] == [5000]
        assert partition.read(49, max_bytes=300).next_offset == 50


def test_max_records_bounds_an_answer_exactly(tiered: Any) -> None:
    for offset in range(40):
        for count in (1, 2, 3, 7, 40):
            answer = tiered.read(offset, max_records=count)
            assert len(answer) == min(count, 40 - offset)
            assert answer.next_offset == offset + len(answer)
    assert len(tiered.read(0, max_records=0)) == 0


def test_compressed_batches_and_batches_with_everything_are_read_back(new_partition: Any) -> None:
    partition = new_partition()
    partition.log.append([b"z" * 10_000] * 20, compression="zstd")
    partition.log.append(
        [b"v"], keys=[b"k"], timestamps_us=[77], headers=[(("h", b"1"),)], timestamp_us=50
    )
    partition.seal(prune=True)
    assert partition.read_all() == partition.log.values
    record = partition.read(20).records[0]
    assert (record.value, record.key, record.timestamp_us) == (b"v", b"k", 77)
    assert record.headers == (("h", b"1"),)
    assert partition.read(0, max_records=1).records[0].timestamp_us == 1


def test_what_compressed_batches_unpack_to_counts_against_max_bytes(new_partition: Any) -> None:
    partition = new_partition()
    for _ in range(50):
        partition.log.append([b"z" * 10_000] * 10, compression="zstd")
    for _ in range(2):
        answer = partition.read(0, max_bytes=1_000_000)
        assert len(answer) == 100
        assert answer.next_offset == 100
        partition.seal(prune=True)


def test_records_without_bytes_do_not_make_an_answer_endless(new_partition: Any) -> None:
    partition = new_partition()
    for _ in range(3000):
        partition.log.append([b""])
    assert 100 < len(partition.read(0, max_records=1 << 60, max_bytes=100_000)) < 3000
    assert len(partition.read(0, max_records=2500)) == 2500


def test_a_batch_that_cannot_be_opened_is_unavailable_and_hides_nothing_before_it(
    new_partition: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = new_partition()
    for number in range(4):
        partition.log.append([b"%d" % number])

    def opening(payload: Any, base_offset: int, timestamp_us: int, *, verify: bool) -> Any:
        if base_offset == 2:
            raise CorruptionError("an offset points outside its column")
        return StoredBatch(payload, base_offset, timestamp_us, verify=verify)

    monkeypatch.setattr("chronik_store.read_chain.chain.StoredBatch", opening)
    answer = partition.read(0)
    assert answer.next_offset == 2
    for offset in (0, 2):
        batches = partition.chain.scan_batches(offset, limit=lambda: partition.limit)
        with pytest.raises(CorruptionError, match="cannot be opened") as caught:
            list(batches)
        assert caught.value.offset_range == (2, 3)
    assert partition.read(3).records[0].value == b"3"


def test_thousands_of_control_entries_between_records_are_crossed(new_partition: Any) -> None:
    partition = new_partition()
    partition.log.append([b"a"])
    for _ in range(3000):
        partition.log.control()
    partition.log.append([b"b"])
    partition.seal()
    for _ in range(2):
        for chunk_bytes in (1, 10_000):
            records = partition.chain.scan(
                0, limit=lambda: partition.limit, chunk_bytes=chunk_bytes
            )
            assert [record.value for record in records] == [b"a", b"b"]
        assert partition.read(0, max_records=2).next_offset == 2
        partition.wal.prune(partition.manifest.next.index + 1)


def test_entries_of_records_come_verbatim_over_all_tiers(tiered: Any) -> None:
    expected = [entry.encode() for entry in tiered.log.entries if entry.header.kind == RECORDS]
    for max_bytes in (1, 700, 1 << 20):
        offset, found = 0, []
        while True:
            run = tiered.chain.read_entries(offset, max_bytes=max_bytes, limit=tiered.limit)
            if not run.entries:
                break
            found += [entry.encode() for entry in run.entries]
            offset = run.entries[-1].header.end_offset
        assert found == expected
        assert run.tier == "none"


def test_entries_stop_at_their_limit_in_every_tier(tiered: Any) -> None:
    for entry in tiered.log.entries:
        header = entry.header
        if header.kind == RECORDS:
            limit = Position(header.index + 1, header.end_offset)
            run = tiered.chain.read_entries(header.base_offset, max_bytes=1 << 20, limit=limit)
            assert [each.encode() for each in run.entries] == [entry.encode()]


def test_a_log_that_begins_elsewhere_is_read_by_its_own_numbers(
    new_partition: Callable[..., Any],
) -> None:
    partition = new_partition(SampleLog.mixed(40, first_index=1000, base_offset=77))
    partition.seal(prune=True)
    partition.log.append([b"tail"])
    assert partition.read_all() == partition.log.values
    with pytest.raises(OffsetOutOfRangeError):
        partition.read(76)


def test_a_limit_inside_a_segment_and_a_place_kept_from_before_agree(tiered: Any) -> None:
    index = tiered.wal.log.entries[3].header.index
    end = tiered.wal.log.entries[3].header.base_offset
    tiered.committed = Position(index, end)
    run = tiered.chain.read_batches(0, limit=tiered.limit)
    assert run.next.offset == end
    tiered.committed = None
    following = tiered.chain.read_batches(end, limit=tiered.limit, place=run.next)
    assert following.batches[0].base_offset == end
