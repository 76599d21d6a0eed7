"""RecordBatch: records encoded together, once, by whoever appends them.

Place: in `format`, above `batch_layout` (which shows the bytes). Promise: immutable and opaque
from here to the bucket; `build` refuses what no reader could take back. Invariant: `buffer` is
the whole value: batches are equal, hash, pickle and copy by it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from io import BytesIO
from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from chronik_store.format.batch_columns import (
    header_column,
    key_columns,
    refuse_items,
    timestamp_column,
    too_large,
)
from chronik_store.format.batch_layout import (
    BATCH,
    BATCH_HEADER_BYTES,
    BODY_HEADS_BYTES,
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
    body_heads,
    parse_header,
)
from chronik_store.format.checksum import Buffer, checksum
from chronik_store.format.compression import compress
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.model import Headers, Record

if TYPE_CHECKING:
    import pyarrow

__all__ = ["BATCH_HEADER_BYTES", "RecordBatch", "StoredBatch"]

Compression = Literal["none", "zstd"] | None

_INT64: Final = 1 << 63
_CODECS: Final = {None: CODEC_NONE, "none": CODEC_NONE, "zstd": CODEC_ZSTD}
_CODEC_NAMES: Final[dict[int, Literal["none", "zstd"]]] = {CODEC_NONE: "none", CODEC_ZSTD: "zstd"}

# A batch of one record is the unit of a busy asyncio application. But for a few numbers, the value
# and the key, all of its body is constant:
_EMPTY_HEADS: Final = body_heads((0, 0, 0, 0, 0, 0, 0))
_NO_TIME: Final = _EMPTY_HEADS[0]
_NO_KEY: Final = b"".join(_EMPTY_HEADS[1:4])
_NO_VALIDITY: Final = _EMPTY_HEADS[3]
_NO_HEADERS: Final = _EMPTY_HEADS[6]
_ONE_TIME: Final = body_heads((8, 0, 0, 0, 0, 0, 0))[0]
_ONE_OFFSETS: Final = body_heads((0, 8, 0, 0, 0, 0, 0))[1] + bytes(4)
_ONE_BYTES_MAX: Final = 1 << 14
"""Above it the second copy that the short way makes costs more than it saves."""
_PREFIX_GAP: Final = bytes(PREFIX.size)


class _Slots:
    """The one memory layout of a batch and of one under construction (see model._Fields)."""

    __slots__ = ("_header", "buffer")
    buffer: bytes
    _header: BatchHeader


class _OpenBatch(_Slots):
    __slots__ = ()

    def __init__(self, buffer: bytes, header: BatchHeader) -> None:
        self.buffer = buffer
        self._header = header


class RecordBatch(_Slots):
    """Encoded records, ready to append. Immutable, thread-safe; equal by bytes.

    Make one with `build`, `from_records`, `from_arrow` or `from_buffer`. `buffer` is its bytes.
    """

    __slots__ = ()

    def __new__(cls) -> Self:
        raise TypeError("make one with RecordBatch.build, from_records, from_arrow or from_buffer")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"RecordBatch is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"RecordBatch is immutable: cannot delete {name!r}")

    @classmethod
    def build(
        cls,
        values: Sequence[bytes],
        *,
        keys: Sequence[bytes | None] | None = None,
        timestamps_us: Sequence[int] | None = None,
        headers: Sequence[Headers] | None = None,
        compression: Compression = None,
        producer_id: int = 0,
        producer_epoch: int = 0,
        base_sequence: int = 0,
    ) -> RecordBatch:
        """One batch of `values`, with columns of equal length beside them.

        Without `timestamps_us` (microseconds since 1970 UTC) each record gets the time of its
        append. `compression` None is "none"; "zstd" is dropped where it does not make the batch
        smaller. producer_id 0: no duplicate detection. TypeError: not bytes (encode text first);
        ValueError: no records, columns of different lengths, a number out of range, 2 GiB or more.
        """
        if isinstance(values, (str, bytes, bytearray, memoryview)):
            raise TypeError("values is a sequence of bytes; for one record write [value]")
        count = len(values)
        if not count:
            raise ValueError("a batch holds at least one record")
        if compression not in _CODECS:
            raise ValueError(f'compression is "none" or "zstd", not {compression!r}')
        producer = producer_id, producer_epoch, base_sequence
        if not 0 <= base_sequence <= (1 << 63) - count:
            raise ValueError(f"base_sequence {base_sequence} is not in [0, 2**63)")
        if count == 1 and headers is None and not _CODECS[compression]:
            key = keys[0] if keys else None
            time = timestamps_us[0] if timestamps_us else None
            if _is_small(values[0], key, time):
                return _build_one(values[0], key, time, producer)
        return _build(values, keys, timestamps_us, headers, _CODECS[compression], producer)

    @classmethod
    def from_records(
        cls,
        records: Iterable[Record | bytes],
        *,
        now_us: int | None = None,
        compression: Compression = None,
    ) -> RecordBatch:
        """One batch of records (bytes: a record with that value alone).

        If no record has a timestamp, none is stored (see `build`); if some have, the others get
        `now_us`, and a ValueError when that is None. Errors else as of `build`.
        """
        items = records if type(records) is list or type(records) is tuple else list(records)
        if len(items) == 1 and not _CODECS.get(compression, CODEC_ZSTD):
            one = items[0]
            if not isinstance(one, Record):
                if _is_small(one, None, None):
                    return _build_one(one, None, None, (0, 0, 0))
            elif _is_small(one.value, one.key, one.timestamp_us) and not one.headers:
                return _build_one(one.value, one.key, one.timestamp_us, (0, 0, 0))
        if set(map(type, items)) == {bytes}:
            return cls.build(items, compression=compression)  # type: ignore[arg-type]
        rows = [item if isinstance(item, Record) else Record(item) for item in items]
        keys = [row.key for row in rows]
        times = [row.timestamp_us for row in rows]
        headers = [row.headers for row in rows]
        untimed = times.count(None)
        if 0 < untimed < len(times):
            if now_us is None:
                raise ValueError("some records have a timestamp and some have none: pass now_us")
            times = [now_us if time is None else time for time in times]
        return cls.build(
            [row.value for row in rows],
            keys=None if keys.count(None) == len(keys) else keys,
            timestamps_us=None if untimed == len(times) else times,  # type: ignore[arg-type]
            headers=headers if any(headers) else None,
            compression=compression,
        )

    @classmethod
    def from_buffer(cls, buffer: Buffer, *, verify: bool = True) -> RecordBatch:
        """The batch that `buffer` is exactly; copied unless it is bytes.

        CorruptionError or FutureVersionError when its header cannot be; with `verify` also when
        its checksum does not match or any offset or header block could not be read back: what
        passes never fails a reader. `raw_bytes` may be looked at first, with verify=False, where
        the sender is not trusted: it bounds what `verify` decompresses.
        """
        data = bytes(buffer)
        header = parse_header(data)
        if verify:
            StoredBatch(data, 0, 0)
        return _make(data, header)

    @classmethod
    def from_arrow(
        cls, table: pyarrow.RecordBatch | pyarrow.Table, *, compression: Compression = None
    ) -> RecordBatch:
        """One batch of an Arrow table: column `value` (binary), and if there `key` (binary),
        `timestamp_us` (int64), `headers` (list of struct name, value). Needs the extra `arrow`.
        """
        from chronik_store.format import arrow

        return cls.build(**arrow.columns_of(table), compression=compression)

    def to_arrow(self) -> pyarrow.RecordBatch:
        """The records as Arrow columns value, key, timestamp_us (null: the time of the append),
        headers; values and keys are not copied. Needs the extra `arrow`.
        """
        from chronik_store.format import arrow

        return arrow.to_arrow(StoredBatch(self.buffer, 0, 0, verify=False), stored=False)

    @property
    def nbytes(self) -> int:
        """Encoded length in bytes."""
        return len(self.buffer)

    @property
    def raw_bytes(self) -> int:
        """Length of the body in bytes before compression."""
        return self._header.raw_bytes

    @property
    def record_count(self) -> int:
        """At least 1."""
        return self._header.record_count

    def __len__(self) -> int:
        return self._header.record_count

    @property
    def has_timestamps(self) -> bool:
        """False: the records get the time of their append."""
        return bool(self._header.flags & HAS_TIMESTAMPS)

    @property
    def base_timestamp_us(self) -> int:
        """The least timestamp; 0 without timestamps."""
        return self._header.base_timestamp_us

    @property
    def max_timestamp_us(self) -> int:
        """The greatest timestamp; 0 without timestamps."""
        return self._header.max_timestamp_us

    @property
    def producer_id(self) -> int:
        """Who sent it, for duplicate detection; 0: nobody in particular."""
        return self._header.producer_id

    @property
    def producer_epoch(self) -> int:
        """The producer's incarnation."""
        return self._header.producer_epoch

    @property
    def base_sequence(self) -> int:
        """The producer's sequence number of the first record."""
        return self._header.base_sequence

    @property
    def codec(self) -> Literal["none", "zstd"]:
        """How the body is compressed."""
        return _CODEC_NAMES[self._header.codec]

    @property
    def largest_record_bytes(self) -> int:
        """Value, key and encoded headers together of the record that has most of them."""
        return self._header.largest_record_bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecordBatch) and self.buffer == other.buffer

    def __hash__(self) -> int:
        return hash(self.buffer)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self.buffer,)

    def __repr__(self) -> str:
        return f"RecordBatch({self.record_count} records, {self.nbytes} bytes, {self.codec})"


def _unpickle(buffer: bytes) -> RecordBatch:
    return RecordBatch.from_buffer(buffer, verify=False)


def _make(buffer: bytes, header: BatchHeader) -> RecordBatch:
    batch: _Slots = _OpenBatch(buffer, header)
    batch.__class__ = RecordBatch  # closes it: RecordBatch refuses assignment
    return batch  # type: ignore[return-value]


def _is_small(value: object, key: object, time: object) -> bool:
    return (
        type(value) is bytes
        and len(value) <= _ONE_BYTES_MAX
        and (key is None or (type(key) is bytes and len(key) <= _ONE_BYTES_MAX))
        and (time is None or (type(time) is int and -_INT64 <= time < _INT64))
    )


def _build_one(
    value: bytes, key: bytes | None, time: int | None, producer: tuple[int, int, int]
) -> RecordBatch:
    """What `_build` makes of one small record without headers, in a third of the time."""
    flags = time_us = key_bytes = 0
    times, keys = _NO_TIME, _NO_KEY
    size = largest = len(value)
    raw = BODY_HEADS_BYTES + 8 + size
    if time is not None:
        flags, time_us = HAS_TIMESTAMPS, time
        times = _ONE_TIME + time.to_bytes(8, "little", signed=True)
        raw += 8
    if key is not None:
        key_bytes = len(key)
        flags |= HAS_KEYS
        keys = b"".join((_ONE_OFFSETS, _one_end(key_bytes), key, _NO_VALIDITY))
        raw += 8 + key_bytes
        largest += key_bytes
    producer_id, epoch, sequence = producer
    fields = (
        *(flags, CODEC_NONE, 1, time_us, time_us, producer_id, epoch, largest, sequence),
        *(raw, raw, key_bytes, size, 0),
    )
    try:
        head = FIELDS.pack(flags, CODEC_NONE, 0, *fields[2:], 0)
    except struct.error as error:
        raise _producer_error(producer) from error
    covered = b"".join((head, times, keys, _ONE_OFFSETS, _one_end(size), value, _NO_HEADERS))
    prefix = PREFIX.pack(BATCH.magic, BATCH.version, checksum(covered))
    return _make(prefix + covered, BatchHeader._make(fields))


def _one_end(size: int) -> bytes:
    return size.to_bytes(4, "little") + b"\x5a" + size.to_bytes(4, "big")


def _build(
    values: Sequence[bytes],
    keys: Sequence[bytes | None] | None,
    timestamps_us: Sequence[int] | None,
    headers: Sequence[Headers] | None,
    codec: int,
    producer: tuple[int, int, int],
) -> RecordBatch:
    count = len(values)
    flags = base_us = max_us = 0
    timestamps = key_offsets = key_data = validity = header_data = b""
    try:
        lengths = list(map(len, values))
    except TypeError:
        refuse_items("values", values)
    ends = list(accumulate(lengths, initial=0))
    size = ends[-1]
    if size > RAW_BYTES_MAX:
        raise too_large(size)
    if timestamps_us is not None:
        flags |= HAS_TIMESTAMPS
        timestamps, base_us, max_us = timestamp_column(timestamps_us, count)
    if keys is not None:
        key_offsets, key_data, validity, key_lengths = key_columns(keys, count)
        flags |= HAS_KEYS | HAS_NULL_KEYS if validity else HAS_KEYS
        lengths = list(map(add, lengths, key_lengths))
    if headers is not None:
        header_data, header_lengths = header_column(headers, count)
        if header_data:
            flags |= HAS_HEADERS
            lengths = list(map(add, lengths, header_lengths))
    column_lengths = (
        *(len(timestamps), len(key_offsets), len(key_data), len(validity)),
        *(4 * count + 4, size, len(header_data)),
    )
    raw = BODY_HEADS_BYTES + sum(column_lengths)
    if raw > RAW_BYTES_MAX:
        raise too_large(raw)
    h0, h1, h2, h3, h4, h5, h6 = body_heads(column_lengths)
    value_offsets = array("I", ends).tobytes()
    parts = (
        *(h0, timestamps, h1, key_offsets, h2, key_data, h3, validity, h4, value_offsets),
        *(h5, *values, h6, header_data),
    )
    producer_id, epoch, sequence = producer
    fields = (
        *(flags, codec, count, base_us, max_us, producer_id, epoch, max(lengths), sequence),
        *(raw, raw, len(key_data), size, len(header_data)),
    )
    try:
        return _seal(BatchHeader._make(fields), parts)
    except TypeError:  # from join: len() went through, but not all values are bytes
        refuse_items("values", values)
    except struct.error as error:
        raise _producer_error(producer) from error


def _seal(header: BatchHeader, parts: tuple[bytes, ...]) -> RecordBatch:
    """The batch with a body of these parts, compressed if the header says so and it pays."""
    if header.codec == CODEC_ZSTD:
        compressed = compress(b"".join(parts))
        if len(compressed) < header.raw_bytes:
            header, parts = header._replace(body_bytes=len(compressed)), (compressed,)
        else:
            header = header._replace(codec=CODEC_NONE)
    flags, codec, *rest = header
    # One copy of the values, not two: the checksum goes into the buffer that getvalue() returns.
    whole = BytesIO(b"".join((_PREFIX_GAP, FIELDS.pack(flags, codec, 0, *rest, 0), *parts)))
    with whole.getbuffer() as view:
        if len(view) != BATCH_HEADER_BYTES + header.body_bytes:
            raise TypeError("an item's len() is not its length in bytes")
        PREFIX.pack_into(view, 0, BATCH.magic, BATCH.version, checksum(view[COVERED_FROM:]))
    return _make(whole.getvalue(), header)


def _producer_error(producer: tuple[int, int, int]) -> ValueError:
    return ValueError(f"producer id {producer[0]} or epoch {producer[1]} is not in range")
