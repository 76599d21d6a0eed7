"""Any bytes at all: a decoder answers with a value, CorruptionError or FutureVersionError.

Random bytes alone stop at the magic, so most of what is tried here is a golden file whose bytes
were changed and whose checksums were then made good again: what a buggy or hostile writer, not an
accident, would produce.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronik_store.errors import CorruptionError, FutureVersionError
from chronik_store.format import cbor, frame
from chronik_store.format.batch_layout import BATCH_HEADER_BYTES
from chronik_store.format.checksum import checksum
from chronik_store.format.compression import decompress
from chronik_store.format.control import decode_command
from chronik_store.format.entry import ENTRY_HEADER_BYTES, EntryKind, iter_entries
from chronik_store.format.envelope import Kind, seal
from chronik_store.format.record_batch import RecordBatch, StoredBatch
from chronik_store.format.record_headers import decode_headers
from chronik_store.format.segment_file import decode_segment_trailer
from tests.format.make_golden import GOLDEN
from tests.format.samples import FILE_ID, SAMPLES

REFUSALS = (CorruptionError, FutureVersionError)
FILES = {path.stem: path.read_bytes() for path in GOLDEN.iterdir()}
DECODERS: dict[str, Callable[[bytes], object]] = {
    **{sample.name: sample.decode for sample in SAMPLES},
    "cbor": lambda data: cbor.decode(data, what="test"),
    "headers": decode_headers,
    "hard state": frame.decode_hard_state,
    "truncation": frame.decode_truncate,
    "suspicion": frame.decode_suspect,
    "trailer": decode_segment_trailer,
    "zstd": lambda data: decompress(data, 100, what="test"),
    **{
        f"command {kind}": lambda data, kind=kind: decode_command(kind, data)
        for kind in (*EntryKind, 0, 99)
    },
}
ENVELOPES = ("checkpoint", "manifest", "store_identity", "topic_catalog", "segment_header")
ENVELOPES += ("wal_file_header", "producers")


@contextlib.contextmanager
def refused_or_read() -> Iterator[None]:
    with contextlib.suppress(*REFUSALS):
        yield


@st.composite
def damaged(draw: st.DrawFn, data: bytes, start: int = 0) -> bytes:
    """The data with some bytes behind `start` replaced, put in or taken out."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(min(start, len(changed)), len(changed)))
        width = draw(st.integers(0, 8))
        changed[place : place + width] = draw(st.binary(max_size=8))
    return bytes(changed)


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.binary(max_size=200))
def test_random_bytes(name: str, data: bytes) -> None:
    with refused_or_read():
        DECODERS[name](data)


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_damaged_files(name: str, data: st.DataObject) -> None:
    with refused_or_read():
        DECODERS[name](data.draw(damaged(FILES[name])))


@pytest.mark.parametrize("name", ENVELOPES)
@given(data=st.data())
def test_damaged_bodies_under_a_good_checksum(name: str, data: st.DataObject) -> None:
    raw = FILES[name]
    body_bytes = int.from_bytes(raw[16:24], "little")
    body = data.draw(damaged(raw[24 : 24 + body_bytes]))
    resealed = seal(Kind(raw[:4], 1, name), body)
    if name == "wal_file_header":
        resealed += bytes(-len(resealed) % 512)
    with refused_or_read():
        value = DECODERS[name](resealed)
        sample = next(sample for sample in SAMPLES if sample.name == name)
        assert type(value) is type(sample.value)


SCALARS = st.none() | st.booleans() | st.integers(-(1 << 64), 1 << 64) | st.floats()
SCALARS |= st.text(max_size=5) | st.binary(max_size=16)
ITEMS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("name", ENVELOPES)
@given(data=st.data())
def test_bodies_with_one_field_of_another_type(name: str, data: st.DataObject) -> None:
    raw = FILES[name]
    if name == "producers":
        body = data.draw(st.binary(max_size=300))
    else:
        end = 24 + int.from_bytes(raw[16:24], "little")
        item = cbor.decode(raw[24:end], what=name)
        replace_somewhere(data, item)
        body = cbor.encode(item)
    with refused_or_read():
        DECODERS[name](seal(Kind(raw[:4], 1, name), body))


def replace_somewhere(data: st.DataObject, item: object) -> None:
    """Put a drawn item into a drawn place of a nested item."""
    while True:
        places: list[object]
        if isinstance(item, dict):
            places = list(item)
        else:
            assert isinstance(item, list)
            places = list(range(len(item)))
        place = data.draw(st.sampled_from(places))
        inner = item[place]
        if isinstance(inner, (dict, list)) and inner and data.draw(st.booleans()):
            item = inner
            continue
        item[place] = data.draw(ITEMS)
        return


@pytest.mark.parametrize("kind", [kind for kind in EntryKind if kind is not EntryKind.RECORDS])
@given(data=st.data())
def test_damaged_commands(kind: EntryKind, data: st.DataObject) -> None:
    payload = FILES[f"entry_{kind.name.lower()}"][ENTRY_HEADER_BYTES:]
    with refused_or_read():
        decode_command(kind, data.draw(damaged(payload, 8)))


def with_batch_checksum(batch: bytes) -> bytes:
    return batch[:8] + checksum(batch[16:]).to_bytes(8, "little") + batch[16:]


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("batch_")])
@given(data=st.data())
def test_damaged_batches_under_a_good_checksum_read_without_error_or_not_at_all(
    name: str, data: st.DataObject
) -> None:
    raw = with_batch_checksum(data.draw(damaged(FILES[name], 16)))
    read_all_ways(raw)


@given(data=st.data())
def test_changed_numbers_in_a_batch_header_under_a_good_checksum(data: st.DataObject) -> None:
    raw = bytearray(FILES["batch_full"])
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(range(16, BATCH_HEADER_BYTES, 2)))
        raw[place : place + 4] = data.draw(
            st.sampled_from([0, 1, 2, 3, 4, 5, 8, 42, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
        ).to_bytes(4, "little")
    read_all_ways(with_batch_checksum(bytes(raw[:])))


@given(data=st.data())
def test_changed_columns_under_a_good_checksum(data: st.DataObject) -> None:
    raw = bytearray(FILES["batch_full"])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(BATCH_HEADER_BYTES, len(raw) - 1))
        raw[place] = data.draw(st.integers(0, 255))
    read_all_ways(with_batch_checksum(bytes(raw)))


def read_all_ways(raw: bytes) -> None:
    with refused_or_read():
        batch = RecordBatch.from_buffer(raw)
        # what the door let in never fails a reader
        stored = StoredBatch(raw, 5, 9, verify=False)
        records = stored.records()
        assert len(records) == len(batch) == len(stored.values()) == len(stored.timestamps_us)
        assert [stored.record(5 + place) for place in range(len(batch))] == records
    with refused_or_read():
        unverified = StoredBatch(raw, 5, 9, verify=False)
        with refused_or_read():
            unverified.headers()
        unverified.values()
        unverified.keys()


@given(data=st.data())
def test_damaged_entries_under_a_good_checksum(data: st.DataObject) -> None:
    raw = bytearray(data.draw(damaged(FILES["entry_records"], 16)))
    covered = bytes(raw[16 : ENTRY_HEADER_BYTES + BATCH_HEADER_BYTES])
    raw[8:16] = checksum(covered).to_bytes(8, "little")
    with refused_or_read():
        for header, payload in iter_entries(bytes(raw)):
            assert len(payload) == header.payload_bytes


@given(data=st.data(), position=st.integers(0, 600))
def test_frames_are_looked_for_in_anything(data: st.DataObject, position: int) -> None:
    file = bytes(8) + FILES["frame_hard_state"] + FILES["frame_mark"] + bytes(100)
    view = memoryview(data.draw(damaged(file)))

    frame.decode_frame(view, position, file_id=FILE_ID)
    frame.find_frame(view, position, file_id=FILE_ID)
    frame.first_nonzero(view, position)


@given(item=ITEMS)
def test_what_cbor_encodes_it_decodes(item: object) -> None:
    encoded = cbor.encode(item)
    with refused_or_read():  # integers beyond 64 bits are tagged
        assert cbor.encode(cbor.decode(encoded, what="test")) == encoded


@pytest.mark.parametrize("key", [0, -1, 1.5, 1 << 63, None, True, (), ("text",), (0, (1,))])
def test_a_key_of_cbor_is_a_string(key: object) -> None:
    """Whoever may choose numbers as keys chooses those that collide in a hash table: a quarter of
    a megabyte of them took twenty seconds.
    """
    last = {b"bytes": 3, "text": {"inner": [{}, {"": 0}], key: 2}, "": 1}
    with pytest.raises(CorruptionError, match="a key that is no string"):
        cbor.decode(cbor.encode([{}, {"good": 1}, last]), what="test")
    del last["text"][key]  # type: ignore[attr-defined]
    assert cbor.decode(cbor.encode([{}, {"good": 1}, last]), what="test")[2] == last


def test_no_more_items_of_cbor_are_made_than_the_caller_takes() -> None:
    """An item of one byte takes up to seventy in memory, and as long as one of a hundred."""
    items = [{}, [], [[1, 2], {"key": [3]}], b"a long string counts as one" * 100]
    encoded = cbor.encode(items)
    assert cbor.decode(encoded, what="test", items_max=12) == items
    with pytest.raises(CorruptionError, match="more than 11 items"):
        cbor.decode(encoded, what="test", items_max=11)
