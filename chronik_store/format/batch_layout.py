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
bounds every length by the buffer; what `check_body` has passed never fails a reader.
Invariant: the raw body's length and its 42 head bytes are functions of the header.
"""

from __future__ import annotations

import struct
from functools import lru_cache, partial
from typing import Final, NamedTuple

from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import Buffer, checksum, checksum_parts
from chronik_store.format.compression import decompress
from chronik_store.format.envelope import Kind, refuse
from chronik_store.format.record_headers import check_blocks

BATCH: Final = Kind(b"\xf5CKB", 1, "record batch")
BATCH_HEADER_BYTES: Final = 88
BATCH_BYTES_MAX: Final = (1 << 31) - 1
"""A batch, raw body and header together, stays below 2 GiB: its offsets are uint32."""
RAW_BYTES_MAX: Final = BATCH_BYTES_MAX - BATCH_HEADER_BYTES

HAS_TIMESTAMPS: Final = 1
HAS_KEYS: Final = 2
HAS_NULL_KEYS: Final = 4
HAS_HEADERS: Final = 8
_FLAGS: Final = HAS_TIMESTAMPS | HAS_KEYS | HAS_NULL_KEYS | HAS_HEADERS

CODEC_NONE: Final = 0
CODEC_ZSTD: Final = 1

PREFIX: Final = struct.Struct("<4sIQ")
FIELDS: Final = struct.Struct("<HBBIqqQIIQIIIIII")
_HEADER: Final = struct.Struct("<4sIQHBBIqqQIIQIIIIII")
COVERED_FROM: Final = PREFIX.size
"""Where the bytes under the batch checksum start; it stands in the 8 bytes before."""
BODY_HEADS_BYTES: Final = 42
_PEEK: Final = struct.Struct("<4sI 12x I 40x I")
_CHECKSUM: Final = struct.Struct("<Q")
_ENDS: Final = struct.Struct("<II")
_SINT64, _UINT32, _BYTES = b"\xd8\x4f\x5a", b"\xd8\x46\x5a", b"\x5a"
_HEADS: Final = (b"\x87" + _SINT64, _UINT32, _BYTES, _BYTES, _UINT32, _BYTES, _BYTES)
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


# What `_make` does, without its look at the length, in a third of the time.
_make: Final = partial(tuple.__new__, BatchHeader)

Lengths = tuple[int, int, int, int, int, int, int]
"""The byte length of each of the seven columns."""


def column_lengths(header: BatchHeader) -> Lengths:
    """The columns' lengths, which follow from the header alone."""
    flags, _, count = header[:3]
    return (
        8 * count if flags & HAS_TIMESTAMPS else 0,
        4 * count + 4 if flags & HAS_KEYS else 0,
        header.key_data_bytes,
        (count + 7) >> 3 if flags & HAS_NULL_KEYS else 0,
        4 * count + 4,
        header.value_data_bytes,
        header.headers_bytes,
    )


def column_starts(lengths: Lengths) -> Lengths:
    """Where each column starts in the raw body."""
    timestamps, key_offsets, key_data, validity, value_offsets, value_data, _ = lengths
    at_key_offsets = 15 + timestamps
    at_key_data = at_key_offsets + key_offsets + 5
    at_validity = at_key_data + key_data + 5
    at_value_offsets = at_validity + validity + 7
    at_value_data = at_value_offsets + value_offsets + 5
    return (
        8,
        at_key_offsets,
        at_key_data,
        at_validity,
        at_value_offsets,
        at_value_data,
        at_value_data + value_data + 5,
    )


def column_head(number: int, length: int) -> bytes:
    """The CBOR bytes that go before column `number` of this length (and before the first: 0x87)."""
    return _HEADS[number] + length.to_bytes(4, "big")


def parse_header(data: Buffer, *, path: str = "") -> BatchHeader:
    """The header of the batch that `data` is exactly, checked but for its checksum."""
    try:
        magic, version, _, flags, codec, zero, *fields, reserved = _HEADER.unpack_from(data)
    except struct.error:
        refuse(BATCH, data, path=path)
        raise _corrupt(f"{len(data)} bytes, not even its header", path) from None
    if magic != BATCH.magic or version != BATCH.version:
        refuse(BATCH, data, path=path)
    header = _make((flags, codec, *fields))
    fault = _fault(header)
    if zero or reserved:
        fault = "a reserved field is set"
    elif not fault and len(data) != BATCH_HEADER_BYTES + header.body_bytes:
        fault = f"{len(data)} bytes instead of {BATCH_HEADER_BYTES + header.body_bytes}"
    if fault:
        raise _corrupt(fault, path)
    return header


def _fault(header: BatchHeader) -> str:
    flags, codec, count, base_us, max_us, _, _, _, sequence, body, raw, keys, _, headers = header
    if flags & ~_FLAGS or codec > CODEC_ZSTD:
        return f"flags {flags:#x} or codec {codec} that Chronik never wrote"
    if not flags & HAS_KEYS and (keys or flags & HAS_NULL_KEYS):
        return "key columns without their flag"
    if headers < 4 * count + 4 if flags & HAS_HEADERS else headers:
        return "the headers column and its flag disagree"
    if not count or base_us > max_us or sequence + count > _LIMIT:
        return "no records, times the wrong way round, or a sequence beyond 2**63"
    if raw > RAW_BYTES_MAX or (raw != BODY_HEADS_BYTES + sum(column_lengths(header))):
        return f"{raw} bytes of raw body do not fit its columns"
    if body >= raw if codec else body != raw:
        return f"a body of {body} bytes for {raw} raw bytes"
    return ""


def restamped(data: Buffer, header: BatchHeader) -> bytes:
    """The batch `data` with other fields in its header, none of which moves a column.

    ValueError when one is out of its range.
    """
    flags, codec, *fields = header
    body = memoryview(data)[BATCH_HEADER_BYTES:]
    try:
        covered = FIELDS.pack(flags, codec, 0, *fields, 0)
    except struct.error as error:
        raise ValueError(f"record batch: {error}") from error
    prefix = PREFIX.pack(BATCH.magic, BATCH.version, checksum_parts(covered, body))
    return b"".join((prefix, covered, body))


def peek(data: Buffer, *, path: str = "") -> tuple[int, int]:
    """(record_count, body_bytes) of a batch whose header bytes are known to be as written."""
    magic, version, count, body_bytes = _PEEK.unpack_from(data)
    if magic != BATCH.magic or version != BATCH.version:
        refuse(BATCH, data, path=path)
    return count, body_bytes


def verify_checksum(data: Buffer, *, path: str = "") -> None:
    """CorruptionError unless the batch that is all of `data` has the checksum of its bytes."""
    (expected,) = _CHECKSUM.unpack_from(data, COVERED_FROM - 8)
    if checksum(memoryview(data)[COVERED_FROM:]) != expected:
        raise _corrupt("its checksum does not match its bytes", path)


def raw_body(data: Buffer, header: BatchHeader, *, path: str = "") -> memoryview:
    """The body of the batch `data`, as a view unless it must be decompressed."""
    body = memoryview(data)[BATCH_HEADER_BYTES:]
    if header.codec == CODEC_ZSTD:
        return memoryview(decompress(body, header.raw_bytes, what="record batch", path=path))
    return body


def check_body(body: memoryview, header: BatchHeader, *, path: str = "") -> None:
    """CorruptionError unless the CBOR heads are those of the header, all offsets rise from 0 to the
    end of what they point into, and each record's headers can be decoded.
    """
    lengths, is_one = column_lengths(header), header.record_count == 1
    for first, stop, fixed in _fixed(lengths, is_one):
        if body[first:stop] != fixed:
            raise _corrupt("its columns are not where its header says", path)
    starts, ends = column_starts(lengths), [0, lengths[6] - lengths[4]]
    blocks = starts[6] + lengths[4]  # behind as many offsets as the value column has
    if not is_one:
        _check_offsets(body[starts[4] : starts[4] + lengths[4]], lengths[5], "value", path)
        if header.flags & HAS_KEYS:
            _check_offsets(body[starts[1] : starts[1] + lengths[1]], lengths[2], "key", path)
        if header.flags & HAS_HEADERS:
            ends = _check_offsets(body[starts[6] : blocks], ends[1], "header", path)
    if header.flags & HAS_HEADERS:
        check_blocks(bytes(body[blocks : starts[6] + lengths[6]]), ends, path=path)


@lru_cache(maxsize=1024)  # a producer's batches of one record are alike
def _fixed(lengths: Lengths, is_one: bool) -> tuple[tuple[int, int, bytes], ...]:
    """What the header alone says of a body: heads and, of one record, offsets; from, to, bytes."""
    fixed: list[tuple[int, int, bytes]] = []
    ends = {1: lengths[2], 4: lengths[5], 6: lengths[6] - lengths[4]}
    for number, start in enumerate(column_starts(lengths)):
        piece = column_head(number, lengths[number])
        first = start - len(piece)
        if is_one and number in ends and lengths[number]:
            piece += _ENDS.pack(0, ends[number])
        if fixed and fixed[-1][1] == first:
            first, _, before = fixed.pop()
            piece = before + piece
        fixed.append((first, first + len(piece), piece))
    return tuple(fixed)


def _check_offsets(column: memoryview, limit: int, what: str, path: str) -> list[int]:
    offsets = column.cast("I").tolist()
    if offsets[0] != 0 or offsets[-1] != limit or offsets != sorted(offsets):
        raise _corrupt(f"its {what} offsets do not rise from 0 to {limit}", path)
    return offsets


def _corrupt(message: str, path: str) -> CorruptionError:
    return CorruptionError(f"record batch: {message}", path=path)
