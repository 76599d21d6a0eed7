"""The bytes of a RecordBatch: where each field and column stands. Codec and checks, no records.

     0               4               8                               16
     +---------------+---------------+-------------------------------+
     |  f5 'C K B'   |    version    |           checksum            |  checksum: xxh3-64 of 16..end
     +-------+---+---+---------------+-------------------------------+
  16 | flags |cod| 0 | record_count  |       base_timestamp_us       |
     +-------+---+---+---------------+-------------------------------+
  32 |       max_timestamp_us        |          producer_id          |
     +---------------+---------------+-------------------------------+
  48 |producer_epoch | largest_record|         base_sequence         |
     +---------------+---------------+---------------+---------------+
  64 |  body_bytes   |   raw_bytes   | key_data_bytes|value_data_byte|
     +---------------+---------------+---------------+---------------+
  80 | headers_bytes |   reserved 0  | body: body_bytes bytes ...
     +---------------+---------------+

The body (zstd-compressed when codec is 1; raw_bytes long then after decompression) is one CBOR
array of seven byte strings. Every length head is the 4-byte form, so that each column's place
follows from the header alone:

    87                                  array of 7
    d8 4f 5a nnnnnnnn  timestamps_us    sint64 LE (tag 79), record_count of them, or none
    d8 46 5a nnnnnnnn  key_offsets      uint32 LE (tag 70), record_count + 1 of them, or none
          5a nnnnnnnn  key_data
          5a nnnnnnnn  key_validity     bit i & 7 of byte i >> 3: record i has a key; or none
    d8 46 5a nnnnnnnn  value_offsets    uint32 LE (tag 70), record_count + 1 of them
          5a nnnnnnnn  value_data
          5a nnnnnnnn  headers          uint32 LE offsets, record_count + 1 of them, then blobs

Place: in `format`, below `record_batch`, `stored_batch` and `entry`. Promise: `parse_header`
bounds every length by the buffer; `check_body` leaves no offset that points outside its column.
Invariant: the raw body's length and its 42 head bytes are functions of the header.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import Buffer, checksum
from chronik_store.format.compression import decompress
from chronik_store.format.envelope import Kind, refuse

BATCH: Final = Kind(b"\xf5CKB", 1, "record batch")
BATCH_HEADER_BYTES: Final = 88
BATCH_BYTES_MAX: Final = (1 << 31) - 1
"""A batch, raw body and header together, stays below 2 GiB: its offsets are uint32."""

HAS_TIMESTAMPS: Final = 1
HAS_KEYS: Final = 2
HAS_NULL_KEYS: Final = 4
HAS_HEADERS: Final = 8
_FLAGS: Final = HAS_TIMESTAMPS | HAS_KEYS | HAS_NULL_KEYS | HAS_HEADERS

CODEC_NONE: Final = 0
CODEC_ZSTD: Final = 1

PREFIX: Final = struct.Struct("<4sIQ")
FIELDS: Final = struct.Struct("<HBBIqqQIIQIIIIII")
COVERED_FROM: Final = PREFIX.size
BODY_HEADS_BYTES: Final = 42
_CHECKSUM: Final = struct.Struct("<Q")
_HEADS: Final = struct.Struct(">B HBI HBI BI BI HBI BI BI".replace(" ", ""))
_ARRAY_OF_7, _SINT64, _UINT32, _BYTES = 0x87, 0xD84F, 0xD846, 0x5A
_LIMIT: Final = 1 << 63


class BatchHeader(NamedTuple):
    """The fields of a batch header, without magic, version and checksum."""

    flags: int
    codec: int
    record_count: int
    base_timestamp_us: int
    max_timestamp_us: int
    producer_id: int
    producer_epoch: int
    largest_record_bytes: int
    base_sequence: int
    body_bytes: int
    raw_bytes: int
    key_data_bytes: int
    value_data_bytes: int
    headers_bytes: int


class Columns(NamedTuple):
    """Where the seven columns stand in the raw body: (start, end) each."""

    timestamps: tuple[int, int]
    key_offsets: tuple[int, int]
    key_data: tuple[int, int]
    key_validity: tuple[int, int]
    value_offsets: tuple[int, int]
    value_data: tuple[int, int]
    headers: tuple[int, int]


def column_lengths(header: BatchHeader) -> tuple[int, int, int, int, int, int, int]:
    """The byte length of each of the seven columns."""
    flags, count = header.flags, header.record_count
    return (
        8 * count if flags & HAS_TIMESTAMPS else 0,
        4 * (count + 1) if flags & HAS_KEYS else 0,
        header.key_data_bytes,
        (count + 7) // 8 if flags & HAS_NULL_KEYS else 0,
        4 * (count + 1),
        header.value_data_bytes,
        header.headers_bytes,
    )


def columns(header: BatchHeader) -> Columns:
    """The columns' places, which follow from the header alone."""
    timestamps, key_offsets, key_data, validity, value_offsets, value_data, tail = column_lengths(
        header
    )
    a = 8 + timestamps
    b = a + 7 + key_offsets
    c = b + 5 + key_data
    d = c + 5 + validity
    e = d + 7 + value_offsets
    f = e + 5 + value_data
    g = f + 5 + tail
    return Columns(
        (8, a),
        (a + 7, b),
        (b + 5, c),
        (c + 5, d),
        (d + 7, e),
        (e + 5, f),
        (f + 5, g),
    )


def body_heads(lengths: tuple[int, int, int, int, int, int, int]) -> bytes:
    """The 42 CBOR head bytes of a body with columns of these lengths, back to back."""
    timestamps, key_offsets, key_data, validity, value_offsets, value_data, tail = lengths
    return _HEADS.pack(
        *(_ARRAY_OF_7, _SINT64, _BYTES, timestamps, _UINT32, _BYTES, key_offsets),
        *(_BYTES, key_data, _BYTES, validity, _UINT32, _BYTES, value_offsets),
        *(_BYTES, value_data, _BYTES, tail),
    )


def parse_header(data: Buffer, *, whole: bool = True, path: str = "") -> BatchHeader:
    """The header that starts `data`, checked but for its checksum.

    `whole`: `data` must be exactly one batch, else just its header may be there.
    """
    refuse(BATCH, data, path=path)
    if len(data) < BATCH_HEADER_BYTES:
        raise _corrupt(f"{len(data)} bytes, not even its header", path)
    fields = FIELDS.unpack_from(data, COVERED_FROM)
    header = BatchHeader(fields[0], fields[1], *fields[3:15])
    flags, count = header.flags, header.record_count
    if flags & ~_FLAGS or fields[2] or fields[15]:
        raise _corrupt("an unknown flag or a reserved field is set", path)
    if header.codec > CODEC_ZSTD:
        raise _corrupt(f"codec {header.codec} is none that Chronik wrote", path)
    if flags & HAS_NULL_KEYS and not flags & HAS_KEYS:
        raise _corrupt("a key validity column without keys", path)
    if header.key_data_bytes and not flags & HAS_KEYS:
        raise _corrupt("a key column without its flag", path)
    if bool(flags & HAS_HEADERS) != bool(header.headers_bytes):
        raise _corrupt("the headers column and its flag disagree", path)
    if not 1 <= count or header.base_timestamp_us > header.max_timestamp_us:
        raise _corrupt("no records, or a base timestamp above the greatest", path)
    if header.base_sequence + count > _LIMIT:
        raise _corrupt("a sequence beyond 2**63", path)
    if header.raw_bytes > BATCH_BYTES_MAX - BATCH_HEADER_BYTES or header.raw_bytes != (
        BODY_HEADS_BYTES + sum(column_lengths(header))
    ):
        raise _corrupt(f"{header.raw_bytes} bytes of raw body do not fit its columns", path)
    if header.codec == CODEC_NONE and header.body_bytes != header.raw_bytes:
        raise _corrupt("an uncompressed body of another length than its columns", path)
    if header.codec == CODEC_ZSTD and header.body_bytes >= header.raw_bytes:
        raise _corrupt("a compressed body that is not smaller", path)
    if whole and len(data) != BATCH_HEADER_BYTES + header.body_bytes:
        raise _corrupt(
            f"{len(data)} bytes instead of {BATCH_HEADER_BYTES + header.body_bytes}", path
        )
    return header


def verify_checksum(data: Buffer, *, path: str = "") -> None:
    """CorruptionError unless the batch that is all of `data` has the checksum of its bytes."""
    (expected,) = _CHECKSUM.unpack_from(data, COVERED_FROM - 8)
    if checksum(memoryview(data)[COVERED_FROM:]) != expected:
        raise _corrupt("its checksum does not match its bytes", path)


def raw_body(data: Buffer, header: BatchHeader, *, path: str = "") -> memoryview:
    """The body of the batch `data`, decompressed if it must be; its heads are checked."""
    body = memoryview(data)[BATCH_HEADER_BYTES : BATCH_HEADER_BYTES + header.body_bytes]
    if header.codec == CODEC_ZSTD:
        raw = decompress(body, header.raw_bytes, what="record batch", path=path)
        body = memoryview(raw)
    places = columns(header)
    starts = [0, *[end for _, end in places[:-1]]]
    heads = b"".join([body[at:start] for at, (start, _) in zip(starts, places, strict=True)])
    if heads != body_heads(column_lengths(header)):
        raise _corrupt("the CBOR heads of its columns are not those of its header", path)
    return body


def check_body(body: memoryview, header: BatchHeader, *, path: str = "") -> None:
    """CorruptionError unless all offsets rise from 0 to the end of what they point into."""
    places = columns(header)
    _check_offsets(body, places.value_offsets, header.value_data_bytes, "value", path)
    if header.flags & HAS_KEYS:
        _check_offsets(body, places.key_offsets, header.key_data_bytes, "key", path)
    if header.flags & HAS_HEADERS:
        start, end = places.headers
        blobs = start + 4 * (header.record_count + 1)
        if blobs > end:
            raise _corrupt("the headers column has no room for its offsets", path)
        _check_offsets(body, (start, blobs), end - blobs, "header", path)


def _check_offsets(
    body: memoryview, place: tuple[int, int], limit: int, what: str, path: str
) -> None:
    offsets = body[place[0] : place[1]].cast("I").tolist()
    if offsets[0] != 0 or offsets[-1] != limit or offsets != sorted(offsets):
        raise _corrupt(f"its {what} offsets do not rise from 0 to {limit}", path)


def _corrupt(message: str, path: str) -> CorruptionError:
    return CorruptionError(f"record batch: {message}", path=path)
