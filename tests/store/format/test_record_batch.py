from __future__ import annotations

import copy
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronik_store.errors import CorruptionError
from chronik_store.format.batch_layout import BATCH_BYTES_MAX, BATCH_HEADER_BYTES
from chronik_store.format.record_batch import RecordBatch, StoredBatch
from chronik_store.model import Record, StoredRecord

TIMES = st.integers(-(1 << 63), (1 << 63) - 1)
HEADERS = st.lists(st.tuples(st.text(max_size=4), st.binary(max_size=4)), max_size=2).map(tuple)
RECORDS = st.builds(
    Record,
    value=st.binary(max_size=40),
    key=st.none() | st.binary(max_size=10),
    timestamp_us=TIMES,
    headers=HEADERS,
)
TIMELESS = st.builds(Record, value=st.binary(max_size=40), key=st.none() | st.binary(max_size=10))


def records_of(batch: RecordBatch, base_offset: int = 0, time: int = 77) -> list[StoredRecord]:
    return StoredBatch(batch.buffer, base_offset, time).records()


def expected(records: list[Record], time: int) -> list[StoredRecord]:
    return [
        StoredRecord(
            record.value,
            record.key,
            time if record.timestamp_us is None else record.timestamp_us,
            record.headers,
            offset,
        )
        for offset, record in enumerate(records)
    ]


@given(records=st.lists(RECORDS, min_size=1, max_size=20), zstd=st.booleans())
def test_what_goes_in_comes_out(records: list[Record], zstd: bool) -> None:
    batch = RecordBatch.from_records(records, compression="zstd" if zstd else None)

    assert expected(records, 0) == records_of(batch)
    assert batch == RecordBatch.from_buffer(memoryview(batch.buffer))


@given(records=st.lists(TIMELESS, min_size=1, max_size=9))
def test_records_without_a_time_get_that_of_their_entry(records: list[Record]) -> None:
    batch = RecordBatch.from_records(records)

    assert not batch.has_timestamps
    assert expected(records, 77) == records_of(batch, time=77)


@given(record=st.one_of(RECORDS, TIMELESS), producer=st.integers(0, 5))
def test_one_record_is_the_same_batch_by_the_short_way_and_the_long(
    record: Record, producer: int
) -> None:
    options = {"producer_id": producer, "producer_epoch": 3, "base_sequence": 9}
    times = None if record.timestamp_us is None else [record.timestamp_us]
    keys = None if record.key is None else [record.key]
    short = RecordBatch.build([record.value], keys=keys, timestamps_us=times, **options)
    # the long way is taken whenever a headers argument is there
    long = RecordBatch.build(
        [record.value], keys=keys, timestamps_us=times, headers=[()], **options
    )

    assert long == short
    assert long._header == short._header == RecordBatch.from_buffer(short.buffer)._header


def test_bytes_are_records_with_a_value_alone() -> None:
    assert RecordBatch.build([b"a", b"b"]) == RecordBatch.from_records([b"a", Record(b"b")])
    assert RecordBatch.build([b"a"]) == RecordBatch.from_records(iter([b"a"]))


def test_an_empty_key_is_not_a_missing_one() -> None:
    batch = RecordBatch.build([b"", b"", b""], keys=[b"", None, b"k"])

    assert [b"", None, b"k"] == [record.key for record in records_of(batch)]


def test_keys_that_are_all_missing_take_no_room() -> None:
    for count in (1, 3):
        values = [b"a"] * count
        assert RecordBatch.build(values) == RecordBatch.from_records(map(Record, values))
        assert RecordBatch.build(values) == RecordBatch.build(values, keys=[None] * count)


def test_a_missing_time_is_filled_in_where_others_have_one() -> None:
    mixed = [Record(b"a", timestamp_us=5), b"b"]

    assert [5, 9] == [r.timestamp_us for r in records_of(RecordBatch.from_records(mixed, now_us=9))]
    with pytest.raises(ValueError, match="pass now_us"):
        RecordBatch.from_records(mixed)


def test_the_header_says_what_is_inside() -> None:
    batch = RecordBatch.build(
        [b"12", b"3456"],
        keys=[b"k", None],
        timestamps_us=[9, -4],
        headers=[(), (("h", b"v"),)],
        producer_id=(1 << 64) - 1,
        producer_epoch=(1 << 32) - 1,
        base_sequence=(1 << 63) - 2,
    )

    assert (2, 2) == (len(batch), batch.record_count)
    assert (-4, 9, True) == (batch.base_timestamp_us, batch.max_timestamp_us, batch.has_timestamps)
    assert len(batch.buffer) == batch.nbytes == BATCH_HEADER_BYTES + batch.raw_bytes
    assert 4 + len(b"\x82\x61h\x41v") == batch.largest_record_bytes
    assert ((1 << 64) - 1, (1 << 32) - 1) == (batch.producer_id, batch.producer_epoch)
    assert (1 << 63) - 2 == batch.base_sequence
    assert "none" == batch.codec
    assert "2 records" in repr(batch)


def test_zstd_is_used_where_it_pays() -> None:
    assert "zstd" == RecordBatch.build([bytes(1000)], compression="zstd").codec
    assert "none" == RecordBatch.build([random.randbytes(5000)], compression="zstd").codec
    batch = RecordBatch.build([b"word " * 100] * 10, compression="zstd")

    assert batch.nbytes < batch.raw_bytes
    assert [b"word " * 100] * 10 == StoredBatch(batch.buffer, 0, 0).values()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"values": []}, ValueError, "at least one record"),
        ({"values": ["text"]}, TypeError, r"values\[0\] is str: encode it"),
        ({"values": [b"", "text"]}, TypeError, r"values\[1\] is str: encode it"),
        ({"values": "text"}, TypeError, r"write \[value\]"),
        ({"values": b"bytes"}, TypeError, r"write \[value\]"),
        ({"values": [b"", 5]}, TypeError, r"values\[1\] is int"),
        ({"values": [None]}, TypeError, r"values\[0\] is NoneType"),
        ({"values": [memoryview(bytes(8)).cast("I")]}, TypeError, "memoryview"),
        ({"values": [b""], "keys": []}, ValueError, "0 keys for 1 values"),
        ({"values": [b""], "keys": ["text"]}, TypeError, r"keys\[0\] is str: encode it"),
        ({"values": [b""], "timestamps_us": [1, 2]}, ValueError, "2 timestamps_us for 1"),
        ({"values": [b""], "timestamps_us": [1.5]}, TypeError, "integers"),
        ({"values": [b""], "timestamps_us": [None]}, TypeError, "integers"),
        ({"values": [b""], "timestamps_us": [1 << 63]}, ValueError, "beyond 64 bits"),
        ({"values": [b""], "headers": []}, ValueError, "0 headers for 1 values"),
        ({"values": [b""], "headers": [(("n", "v"),)]}, TypeError, r"tuple \(str, bytes\)"),
        ({"values": [b""], "headers": [(("n",),)]}, TypeError, r"tuple \(str, bytes\)"),
        ({"values": [b""], "headers": [(["n", b"v"],)]}, TypeError, r"tuple \(str, bytes\)"),
        ({"values": [b""], "headers": [(("\ud800", b""),)]}, ValueError, "not valid text"),
        ({"values": {"a": b""}}, TypeError, "sequence of bytes"),
        ({"values": [b""], "compression": "gzip"}, ValueError, "'gzip'"),
        ({"values": [b""], "producer_id": -1}, ValueError, "producer id -1"),
        ({"values": [b"", b""], "producer_epoch": 1 << 32}, ValueError, "producer"),
        ({"values": [b"", b""], "base_sequence": (1 << 63) - 1}, ValueError, "base_sequence"),
    ],
)
def test_what_no_reader_could_take_back_is_refused(
    arguments: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RecordBatch.build(**arguments)


@pytest.mark.parametrize("buffer", [5, 1 << 70, "text", None, [1]])
def test_a_buffer_is_bytes_and_no_number_of_zeros(buffer: object) -> None:
    with pytest.raises(TypeError):
        RecordBatch.from_buffer(buffer)


@pytest.mark.parametrize("records", [["text"], [Record("text")], "text", [b"", 5]])
def test_records_that_are_not_bytes_are_refused(records: object) -> None:
    with pytest.raises(TypeError, match=r"values\[\d\] is (str|int)"):
        RecordBatch.from_records(records)


def test_a_batch_of_two_gib_is_refused_before_it_is_built() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 1 << 30

    with pytest.raises(ValueError, match=f"below {BATCH_BYTES_MAX} bytes.*split it"):
        RecordBatch.build([Huge(), Huge()])


def test_a_value_that_lies_about_its_length_is_refused() -> None:
    class Liar(bytes):
        def __len__(self) -> int:
            return 3

    with pytest.raises(TypeError, match="values"):
        RecordBatch.build([Liar(), b""])


def test_bytearrays_are_copied() -> None:
    value = bytearray(b"before")
    batch = RecordBatch.build([value, b""])
    value[:] = b"after."

    assert [b"before", b""] == StoredBatch(batch.buffer, 0, 0).values()


def test_batches_pickle_copy_compare_and_hash_by_their_bytes() -> None:
    batch, same = RecordBatch.build([b"a"]), RecordBatch.build([b"a"])

    assert batch == same == pickle.loads(pickle.dumps(batch)) == copy.deepcopy(batch)
    assert hash(batch) == hash(same)
    assert batch != RecordBatch.build([b"b"])
    assert batch != b"a"


def test_a_batch_is_immutable_and_not_made_by_hand() -> None:
    batch = RecordBatch.build([b"a"])

    with pytest.raises(AttributeError, match="immutable"):
        batch.buffer = b""
    with pytest.raises(AttributeError, match="immutable"):
        del batch.buffer
    with pytest.raises(TypeError, match="build"):
        RecordBatch()


def test_an_unverified_buffer_is_checked_in_its_header_only() -> None:
    data = bytearray(RecordBatch.build([b"hello"]).buffer)
    data[-6] ^= 1

    assert 1 == len(RecordBatch.from_buffer(data, verify=False))
    with pytest.raises(CorruptionError, match="checksum"):
        RecordBatch.from_buffer(data)
