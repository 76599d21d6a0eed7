from __future__ import annotations

import pytest

from chronik_store.errors import CorruptionError
from chronik_store.format.batch_layout import BATCH_HEADER_BYTES
from chronik_store.format.checksum import checksum
from chronik_store.format.record_batch import RecordBatch, StoredBatch
from chronik_store.model import StoredRecord

BATCH = RecordBatch.build(
    [b"a", b"", b"ccc"],
    keys=[b"k", None, b""],
    timestamps_us=[5, -1, 7],
    headers=[(), (("h", b"1"), ("h", b"2")), ()],
)


def test_each_record_is_where_its_offset_says() -> None:
    stored = StoredBatch(BATCH.buffer, 100, 9)
    records = [
        StoredRecord(b"a", b"k", 5, (), 100),
        StoredRecord(b"", None, -1, (("h", b"1"), ("h", b"2")), 101),
        StoredRecord(b"ccc", b"", 7, (), 102),
    ]

    assert records == stored.records() == [stored.record(offset) for offset in (100, 101, 102)]
    assert (100, 103, 3) == (stored.base_offset, stored.end_offset, len(stored))
    assert [b"k", None, b""] == stored.keys()
    assert [(), (("h", b"1"), ("h", b"2")), ()] == stored.headers()


def test_what_is_printed_says_what_there_is() -> None:
    stored = StoredBatch(BATCH.buffer, 100, 9)

    assert "StoredBatch(3 records from offset 100)" == repr(stored)
    first, second, _ = map(repr, stored.records())
    assert "StoredRecord(offset=100, value=b'a', key=b'k', timestamp_us=5)" == first
    assert second.endswith("timestamp_us=-1, headers=(('h', b'1'), ('h', b'2')))")


@pytest.mark.parametrize("offset", [99, 103, -1])
def test_an_offset_outside_is_an_index_error(offset: int) -> None:
    with pytest.raises(IndexError, match=r"not in \[100, 103\)"):
        StoredBatch(BATCH.buffer, 100, 9).record(offset)


@pytest.mark.parametrize(
    ("offset", "limit", "offsets"),
    [
        (100, 3, [100, 101, 102]),
        (0, 9, [100, 101, 102]),
        (101, 1, [101]),
        (101, 9, [101, 102]),
        (100, 2, [100, 101]),
        (103, 5, []),
        (100, 0, []),
    ],
)
def test_records_from_an_offset(offset: int, limit: int, offsets: list[int]) -> None:
    stored = StoredBatch(BATCH.buffer, 100, 9)

    assert offsets == [record.offset for record in stored.records_from(offset, limit)]


def test_columns_are_views_into_the_buffer_that_was_given() -> None:
    buffer = bytearray(BATCH.buffer)
    stored = StoredBatch(memoryview(buffer), 100, 9)

    columns = [stored.value_data, stored.value_offsets, stored.key_data, stored.key_offsets]
    columns += [stored.key_validity, stored.timestamps_us]
    assert all(column.obj is buffer for column in columns)
    assert [0, 1, 1, 4] == stored.value_offsets.tolist()
    assert [0, 1, 1, 1] == stored.key_offsets.tolist()
    assert [5, -1, 7] == stored.timestamps_us.tolist()
    assert b"\x05" == stored.key_validity


def test_absent_columns_are_empty_and_absent_times_those_of_the_entry() -> None:
    stored = StoredBatch(RecordBatch.build([b"a", b"b"]).buffer, 0, 9)

    assert ([], b"", b"") == (stored.key_offsets.tolist(), stored.key_data, stored.key_validity)
    assert not stored.has_timestamps
    assert [9, 9] == stored.timestamps_us.tolist()
    assert [None, None] == stored.keys()
    assert [(), ()] == stored.headers()


@pytest.mark.parametrize("size", [0, 1, 4095, 5000])
def test_values_of_any_size(size: int) -> None:
    values = [bytes([place]) * size for place in range(5)]

    assert values == StoredBatch(RecordBatch.build(values).buffer, 0, 0).values()


@pytest.mark.parametrize("count", [7, 8, 9, 64, 65])
def test_missing_keys_at_any_place(count: int) -> None:
    keys = [None if place % 3 else b"k%d" % place for place in range(count)]
    stored = StoredBatch(RecordBatch.build([b""] * count, keys=keys).buffer, 0, 0)

    assert keys == stored.keys() == [stored.record(place).key for place in range(count)]


def resealed(data: bytearray) -> bytes:
    data[8:16] = checksum(bytes(data[16:])).to_bytes(8, "little")
    return bytes(data)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (88 + 8 + 24 + 6, 9, "columns are not where"),  # of the key offsets: see the body's diagram
        (88 + 8 + 24 + 7 + 4, 9, "key offsets do not rise"),
        (88 + 8 + 24 + 7 + 16 + 5 + 1 + 5 + 1 + 7 + 8, 9, "value offsets do not rise"),
    ],
)
def test_offsets_and_heads_that_do_not_fit_are_refused(
    place: int, value: int, message: str
) -> None:
    data = bytearray(BATCH.buffer)
    data[place] = value

    with pytest.raises(CorruptionError, match=message) as caught:
        StoredBatch(resealed(data), 100, 9, path="some/file")
    assert "some/file" == caught.value.path


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("columns", range(4))
def test_each_byte_of_a_body_is_data_or_must_be_what_it_is(count: int, columns: int) -> None:
    """Of one record even its offsets follow from the header; of more they must rise."""
    given = {
        "keys": [b"KKKK"] * count if columns & 1 else None,
        "timestamps_us": [int.from_bytes(b"T" * 8, "little")] * count if columns & 2 else None,
    }
    batch = RecordBatch.build([b"VVVV"] * count, **given)
    for place in range(BATCH_HEADER_BYTES, batch.nbytes):
        data = bytearray(batch.buffer)
        is_data = chr(data[place]) in "KVT"
        data[place] ^= 0x80
        changed = RecordBatch.from_buffer(resealed(data), verify=False)
        if is_data:
            changed.verify()
        else:
            with pytest.raises(CorruptionError, match=r"not where its header|do not rise"):
                changed.verify()


def test_headers_that_cannot_be_decoded_are_refused_when_verified() -> None:
    data = bytearray(BATCH.buffer)
    data[-6] = 0x00  # a name that is an integer

    with pytest.raises(CorruptionError, match="record headers"):
        StoredBatch(resealed(data), 100, 9)


def test_the_checksum_is_looked_at_when_verified() -> None:
    data = bytearray(BATCH.buffer)
    data[-1] ^= 1

    with pytest.raises(CorruptionError, match="checksum"):
        StoredBatch(data, 100, 9)
    assert b"ccc" == StoredBatch(data, 100, 9, verify=False).record(102).value
