"""From lists of values, keys, timestamps and headers to the bytes of a batch.

Place: in `format`, between `batch_layout` (which shows the bytes) and `record_batch`. Promise: what
cannot be stored is a TypeError or ValueError in words that say what to write instead, raised
before anything large is allocated. Invariant: each piece of a body is a column, or several, with
the CBOR heads that go before them; `encode_one` writes what `encode_columns` writes.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from functools import partial
from io import BytesIO
from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING, Any, Final, NoReturn

from chronik_store.format import cbor
from chronik_store.format.batch_layout import (
    BATCH,
    BATCH_BYTES_MAX,
    BATCH_HEADER_BYTES,
    CODEC_NONE,
    CODEC_ZSTD,
    COVERED_FROM,
    FIELDS,
    HAS_HEADERS,
    HAS_KEYS,
    HAS_NULL_KEYS,
    HAS_TIMESTAMPS,
    PREFIX,
    RAW_BYTES_MAX,
    BatchHeader,
    column_head,
)
from chronik_store.format.checksum import Buffer, checksum
from chronik_store.format.compression import compress
from chronik_store.model import Headers

if TYPE_CHECKING:
    Part = Buffer | array[int]  # below 3.12 an array has no item type when it runs

Producer = tuple[int, int, int]
"""(producer id, epoch, base sequence)."""
Encoded = tuple[bytes, BatchHeader]

_TIMES, _KEY_OFFSETS, _KEYS, _VALIDITY, _OFFSETS, _VALUES, _HEADERS = range(7)
_NO_TIMES: Final = column_head(_TIMES, 0)
_NO_VALIDITY: Final = column_head(_VALIDITY, 0)
_NO_KEYS: Final = column_head(_KEY_OFFSETS, 0) + column_head(_KEYS, 0) + _NO_VALIDITY
_NO_HEADERS: Final = column_head(_HEADERS, 0)
_ONE_TIME: Final = column_head(_TIMES, 8)
_ONE_OFFSETS: Final = column_head(_OFFSETS, 8) + bytes(4)

SMALL_BYTES: Final = 1 << 14
"""Up to here a second copy of the body costs less than a BytesIO that saves it."""
_header: Final = partial(tuple.__new__, BatchHeader)
_PREFIX_GAP: Final = bytes(PREFIX.size)
_INT64: Final = 1 << 63


def encode_columns(
    values: Sequence[bytes],
    keys: Sequence[bytes | None] | None,
    timestamps_us: Sequence[int] | None,
    headers: Sequence[Headers] | None,
    codec: int,
    producer: Producer,
) -> Encoded:
    """The batch of these columns; see `RecordBatch.build`."""
    count = len(values)
    flags = base_us = max_us = key_bytes = 0
    times, keyed, tail = _NO_TIMES, _NO_KEYS, _NO_HEADERS
    try:
        lengths = list(map(len, values))
    except TypeError:
        _refuse_items("values", values)
    offsets = _offsets(lengths)
    size = offsets[-1]
    if timestamps_us is not None:
        flags |= HAS_TIMESTAMPS
        times, base_us, max_us = _timestamp_piece(timestamps_us, count)
    if keys is not None:
        key_flags, keyed, key_bytes, key_lengths = _key_piece(keys, count)
        flags |= key_flags
        lengths = list(map(add, lengths, key_lengths))
    if headers is not None:
        header_flags, tail, header_lengths = _header_piece(headers, count)
        flags |= header_flags
        lengths = list(map(add, lengths, header_lengths))
    offsets_head = column_head(_OFFSETS, 4 * count + 4)
    parts: tuple[Part, ...]
    parts = (times, keyed, offsets_head, offsets, column_head(_VALUES, size), *values, tail)
    raw = len(times) + len(keyed) + 4 * count + 16 + size + len(tail)
    if raw > RAW_BYTES_MAX:
        raise _too_large(raw)
    if codec == CODEC_ZSTD:
        compressed = compress(b"".join(parts))
        if len(compressed) < raw:
            parts = (compressed,)
        else:
            codec = CODEC_NONE
    body = len(parts[0]) if codec else raw
    producer_id, epoch, sequence = producer
    header = BatchHeader(
        *(flags, codec, count, base_us, max_us, producer_id, epoch, max(lengths), sequence),
        *(body, raw, key_bytes, size, len(tail) - len(_NO_HEADERS)),
    )
    try:
        return _seal(header, parts), header
    except TypeError:  # from join: len() went through, but not all values are bytes
        _refuse_items("values", values)


def is_small(value: object, key: object, time: object) -> bool:
    """Whether this is a record for `encode_one`; what is no record at all is not."""
    return (
        type(value) is bytes
        and len(value) <= SMALL_BYTES
        and (key is None or (type(key) is bytes and len(key) <= SMALL_BYTES))
        and (time is None or (type(time) is int and -_INT64 <= time < _INT64))
    )


def encode_one(value: bytes, key: bytes | None, time: int | None, producer: Producer) -> Encoded:
    """What `encode_columns` makes of one small record without headers, in a third of the time.

    The unit of a busy asyncio application: but for a few numbers all of it is constant.
    """
    flags = time_us = key_bytes = 0
    times, keyed = _NO_TIMES, _NO_KEYS
    size = len(value)
    if time is not None:
        flags, time_us = HAS_TIMESTAMPS, time
        times = _ONE_TIME + time.to_bytes(8, "little", signed=True)
    if key is not None:
        flags |= HAS_KEYS
        key_bytes = len(key)
        keyed = b"".join((_ONE_OFFSETS, _one_end(key_bytes), key, _NO_VALIDITY))
    raw = len(times) + len(keyed) + 20 + size + len(_NO_HEADERS)
    producer_id, epoch, sequence = producer
    fields = (flags, CODEC_NONE, 1, time_us, time_us, producer_id, epoch, size + key_bytes)
    header = _header((*fields, sequence, raw, raw, key_bytes, size, 0))
    parts = (times, keyed, _ONE_OFFSETS, _one_end(size), value, _NO_HEADERS)
    return _seal(header, parts), header


def _one_end(size: int) -> bytes:
    """The second offset of a column of one item, and the head of the item's data."""
    return size.to_bytes(4, "little") + b"\x5a" + size.to_bytes(4, "big")


def _seal(header: BatchHeader, parts: Iterable[Part]) -> bytes:
    """Header, checksum and parts joined. TypeError: a part is not bytes or lied of its length."""
    flags, codec, *rest = header
    try:
        fields = FIELDS.pack(flags, codec, 0, *rest, 0)
    except struct.error as error:
        raise ValueError(f"producer id {rest[3]} or epoch {rest[4]} is not in range") from error
    if header.body_bytes <= SMALL_BYTES:
        covered = b"".join((fields, *parts))
        whole = PREFIX.pack(BATCH.magic, BATCH.version, checksum(covered)) + covered
    else:
        # One copy, not two: the checksum goes into the very buffer that getvalue() hands over.
        file = BytesIO(b"".join((_PREFIX_GAP, fields, *parts)))
        with file.getbuffer() as view:
            PREFIX.pack_into(view, 0, BATCH.magic, BATCH.version, checksum(view[COVERED_FROM:]))
        whole = file.getvalue()
    if len(whole) != BATCH_HEADER_BYTES + header.body_bytes:
        raise TypeError("an item's len() is not its length in bytes")
    return whole


def _offsets(lengths: list[int]) -> array[int]:
    try:
        offsets = array("I", accumulate(lengths, initial=0))
    except OverflowError:
        raise _too_large(sum(lengths)) from None
    if offsets[-1] > RAW_BYTES_MAX:
        raise _too_large(offsets[-1])
    return offsets


def _timestamp_piece(times: Sequence[int], count: int) -> tuple[bytes, int, int]:
    """(column, least, greatest)."""
    _same_length("timestamps_us", times, count)
    try:
        column = array("q", times)
    except TypeError as error:
        raise TypeError(f"timestamps_us are integers (microseconds): {error}") from None
    except OverflowError as error:
        raise ValueError(f"a timestamp is beyond 64 bits: {error}") from None
    return b"".join((column_head(_TIMES, 8 * count), column)), min(column), max(column)


def _key_piece(keys: Sequence[bytes | None], count: int) -> tuple[int, bytes, int, Iterable[int]]:
    """(flags, the three key columns, bytes of all keys, bytes of each)."""
    _same_length("keys", keys, count)
    missing = keys.count(None)
    if missing == count:
        return 0, _NO_KEYS, 0, [0] * count
    present = [b"" if key is None else key for key in keys]
    try:
        lengths = list(map(len, present))
        offsets, data = _offsets(lengths), b"".join(present)
    except TypeError:
        _refuse_items("keys", present)
    if len(data) != offsets[-1]:
        _refuse_items("keys", present)
    flags, validity = HAS_KEYS, _NO_VALIDITY
    if missing:
        flags |= HAS_NULL_KEYS
        bits = int("".join(["0" if key is None else "1" for key in reversed(keys)]), 2)
        width = (count + 7) // 8
        validity = column_head(_VALIDITY, width) + bits.to_bytes(width, "little")
    head, data_head = column_head(_KEY_OFFSETS, 4 * count + 4), column_head(_KEYS, len(data))
    return flags, b"".join((head, offsets, data_head, data, validity)), len(data), lengths


def _header_piece(headers: Sequence[Headers], count: int) -> tuple[int, bytes, Iterable[int]]:
    """(flags, the headers column, bytes of each record's block)."""
    _same_length("headers", headers, count)
    if not any(headers):
        return 0, _NO_HEADERS, [0] * count
    blobs = [_header_blob(pairs) if pairs else b"" for pairs in headers]
    lengths = list(map(len, blobs))
    offsets = _offsets(lengths)
    head = column_head(_HEADERS, 4 * count + 4 + offsets[-1])
    return HAS_HEADERS, b"".join((head, offsets, *blobs)), lengths


def _header_blob(pairs: Iterable[tuple[str, bytes]]) -> bytes:
    flat: list[str | bytes] = []
    for pair in pairs:
        if type(pair) is not tuple or list(map(type, pair)) != [str, bytes]:
            raise TypeError(f"a header is a tuple (str, bytes), not {pair!r:.80}")
        flat += pair
    try:
        return cbor.encode(flat)
    except UnicodeEncodeError as error:
        raise ValueError(f"a header name is not valid text: {error}") from None


def _same_length(what: str, items: Sequence[Any], count: int) -> None:
    if len(items) != count:
        raise ValueError(f"{len(items)} {what} for {count} values")


def _refuse_items(what: str, items: Iterable[object]) -> NoReturn:
    """TypeError that names the first item which is not bytes."""
    for place, item in enumerate(items):
        if isinstance(item, str):
            raise TypeError(f"{what}[{place}] is str: encode it, e.g. text.encode()")
        if not isinstance(item, (bytes, bytearray)):
            raise TypeError(f"{what}[{place}] is {type(item).__name__}, not bytes")
    raise TypeError(f"{what} are not bytes")


def _too_large(size: int) -> ValueError:
    return ValueError(f"a batch stays below {BATCH_BYTES_MAX} bytes, this has {size}: split it")
