from __future__ import annotations

import pytest

from chronik_store.errors import CorruptionError, FutureVersionError
from chronik_store.format.checksum import checksum
from chronik_store.format.control import Noop, Seal
from chronik_store.format.entry import (
    ENTRY_HEADER_BYTES,
    Entry,
    EntryKind,
    decode_entry_header,
    encode_entry_header,
    iter_entries,
    verified_entry,
    verify_payload,
)
from chronik_store.format.record_batch import RecordBatch

BATCH = RecordBatch.build([b"a", b"b", b"c"])
RECORDS = encode_entry_header(EntryKind.RECORDS, 2, 7, 100, 3, -5, BATCH.buffer)
SEAL = Seal(1, "admin", 9).encode()
CONTROL = encode_entry_header(EntryKind.SEAL, 2, 8, 103, 0, -5, SEAL)
LOG = RECORDS + BATCH.buffer + CONTROL + SEAL


def test_a_header_is_what_was_written() -> None:
    header = decode_entry_header(memoryview(bytes(9) + RECORDS), 9)

    assert ENTRY_HEADER_BYTES == len(RECORDS)
    assert (1, 2, 7, 100, 3, -5, BATCH.nbytes) == header[:7]
    assert (103, 64 + BATCH.nbytes) == (header.end_offset, header.entry_bytes)


def test_entries_lie_back_to_back_and_payloads_are_views() -> None:
    data = bytearray(LOG)
    entries = list(iter_entries(data))

    assert [7, 8] == [header.index for header, _ in entries]
    assert [BATCH.buffer, SEAL] == [payload for _, payload in entries]
    assert all(payload.obj is data for _, payload in entries)
    assert LOG == b"".join(Entry(*entry).encode() for entry in entries)
    assert [] == list(iter_entries(b""))


def test_an_entry_splits_into_header_and_payload_that_prove_each_other() -> None:
    for head, payload in ((RECORDS, BATCH.buffer), (CONTROL, SEAL)):
        header = decode_entry_header(head)
        verify_payload(header, payload)
        verify_payload(header, memoryview(payload))
        with pytest.raises(CorruptionError, match="bytes of payload instead of"):
            verify_payload(header, payload + b"\0")


@pytest.mark.parametrize(
    ("head", "payload"), [(RECORDS, BATCH.buffer), (CONTROL, SEAL)], ids=["records", "control"]
)
def test_every_flipped_byte_of_a_split_entry_is_noticed(head: bytes, payload: bytes) -> None:
    for place in range(len(head)):
        changed = bytearray(head)
        changed[place] ^= 0x10
        with pytest.raises((CorruptionError, FutureVersionError)):
            verify_payload(decode_entry_header(changed), payload)
    for place in range(len(payload)):
        changed = bytearray(payload)
        changed[place] ^= 0x10
        with pytest.raises(CorruptionError) as caught:  # the entry's checksum is looked at first
            verify_payload(decode_entry_header(head), changed, path="the file")
        assert "the file" == caught.value.path


def test_the_good_entries_before_a_damaged_one_are_handed_out() -> None:
    entries = iter_entries(LOG[:-1] + b"\xff")

    assert 7 == next(entries)[0].index
    with pytest.raises(CorruptionError, match="entry 8: its checksum") as caught:
        next(entries)
    assert (103, 103) == caught.value.offset_range


def test_an_entry_that_is_cut_off_names_its_offsets() -> None:
    with pytest.raises(CorruptionError, match="entry 7: cut off at byte 100") as caught:
        list(iter_entries(LOG[:100], path="segment"))
    assert (100, 103) == caught.value.offset_range
    assert "segment" == caught.value.path


def test_a_batch_with_another_number_of_records_is_refused() -> None:
    lying = encode_entry_header(EntryKind.RECORDS, 2, 7, 100, 4, -5, BATCH.buffer)

    with pytest.raises(CorruptionError, match="its batch holds 3 records"):
        verified_entry(memoryview(lying + BATCH.buffer))


def test_a_batch_of_another_length_is_refused() -> None:
    longer = BATCH.buffer + b"\0"
    lying = encode_entry_header(EntryKind.RECORDS, 2, 7, 100, 3, -5, longer)

    with pytest.raises(CorruptionError, match="its batch has a body of"):
        verified_entry(memoryview(lying + longer))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (16, 0, "kind 0"),
        (16, 13, "kind 13"),
        (16, 2, "3 records, .* in a control entry"),
        (20, 0, "0 records in a batch"),
        (31, 0x80, "out of range"),
        (39, 0x80, "out of range"),
        (47, 0x80, "out of range"),
        (32, 0, "index 0"),
        (59, 0x80, "in a batch of"),
        (60, 1, "reserved"),
    ],
)
def test_fields_out_of_range_are_refused_before_the_checksum(
    place: int, value: int, message: str
) -> None:
    header = bytearray(RECORDS)
    header[place] = value

    with pytest.raises(CorruptionError, match=message):
        decode_entry_header(header)


@pytest.mark.parametrize(
    "fields",
    [
        (0, 1, 1, 0, 0, 0),
        (EntryKind.RECORDS, 1, 1, 0, 0, 0),
        (EntryKind.RECORDS, 1, 0, 0, 3, 0),
        (EntryKind.RECORDS, -1, 1, 0, 3, 0),
        (EntryKind.RECORDS, 1, 1, -1, 3, 0),
        (EntryKind.RECORDS, 1, 1, (1 << 63) - 3, 3, 0),
        (EntryKind.RECORDS, 1, 1, 0, 3, 1 << 63),
        (EntryKind.NOOP, 1, 1, 0, 1, 0),
    ],
)
def test_what_could_not_be_read_back_is_not_written(fields: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="entry"):
        encode_entry_header(*fields, BATCH.buffer)


def test_the_entry_checksum_covers_the_batch_header_but_not_its_body() -> None:
    covered = RECORDS[16:] + BATCH.buffer[:88]

    assert checksum(covered) == decode_entry_header(RECORDS).checksum
    control = encode_entry_header(EntryKind.NOOP, 1, 1, 0, 0, 0, Noop().encode())
    assert checksum(control[16:] + Noop().encode()) == decode_entry_header(control).checksum
