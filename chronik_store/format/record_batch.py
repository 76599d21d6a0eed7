"""RecordBatch: records encoded together, once, by whoever appends them.

Place: in `format`, above `batch_layout` (which shows the bytes). Promise: immutable and opaque
from here to the bucket; `build` refuses what no reader could take back. Invariant: `buffer` is
the whole value: batches are equal, hash, pickle and copy by it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from chronik_store.format import cbor
from chronik_store.format.batch_layout import (
    BATCH,
    BATCH_BYTES_MAX,
    BATCH_HEADER_BYTES,
    BODY_HEADS_BYTES,
    CODEC_NONE,
    CODEC_ZSTD,
    FIELDS,
    HAS_HEADERS,
    HAS_KEYS,
    HAS_NULL_KEYS,
    HAS_TIMESTAMPS,
    PREFIX,
    BatchHeader,
    body_heads,
    check_body,
    parse_header,
    raw_body,
    verify_checksum,
)
from chronik_store.format.checksum import Buffer, checksum
from chronik_store.format.compression import compress
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.model import Headers, Record

if TYPE_CHECKING:
    import pyarrow

__all__ = ["BATCH_HEADER_BYTES", "RecordBatch", "StoredBatch"]

Compression = Literal["none", "zstd"] | None

_RAW_BYTES_MAX: Final = BATCH_BYTES_MAX - BATCH_HEADER_BYTES
_INT64: Final = 1 << 63
_CODECS: Final = {None: CODEC_NONE, "none": CODEC_NONE, "zstd": CODEC_ZSTD}
_CODEC_NAMES: Final[dict[int, Literal["none", "zstd"]]] = {CODEC_NONE: "none", CODEC_ZSTD: "zstd"}


class RecordBatch:
    """Encoded records, ready to append. Immutable, thread-safe; equal by bytes.

    Make one with `build`, `from_records`, `from_arrow` or `from_buffer`.
    """

    __slots__ = ("_header", "buffer")
    buffer: bytes
    _header: BatchHeader

    def __new__(cls) -> RecordBatch:
        raise TypeError("make one with RecordBatch.build, from_records, from_arrow or from_buffer")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"RecordBatch is immutable: cannot set {name!r}")

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
        if type(values) is not list and type(values) is not tuple:
            values = _listed(values)
        count = len(values)
        if not count:
            raise ValueError("a batch holds at least one record")
        flags = 0
        try:
            lengths = list(map(len, values))
            value_ends = list(accumulate(lengths, initial=0))
            if value_ends[-1] > _RAW_BYTES_MAX:
                raise ValueError(_too_large(value_ends[-1]))
            value_data = b"".join(values)
        except TypeError:
            _refuse_items("values", values)
        if len(value_data) != value_ends[-1]:
            _refuse_items("values", values)
        columns = [b"", b"", b"", b"", array("I", value_ends).tobytes(), value_data, b""]
        base_us = max_us = 0
        if timestamps_us is not None:
            flags |= HAS_TIMESTAMPS
            columns[0], base_us, max_us = _timestamp_column(timestamps_us, count)
        if keys is not None:
            key_flags, columns[1], columns[2], columns[3], key_lengths = _key_columns(keys, count)
            flags |= key_flags
            lengths = list(map(int.__add__, lengths, key_lengths))
        if headers is not None:
            columns[6], header_lengths = _header_column(headers, count)
            if columns[6]:
                flags |= HAS_HEADERS
                lengths = list(map(int.__add__, lengths, header_lengths))
        return _assemble(
            cls,
            (flags, count, base_us, max_us, producer_id, producer_epoch, max(lengths)),
            base_sequence,
            columns,
            compression,
        )

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
        values: list[bytes] = []
        keys: list[bytes | None] = []
        times: list[int | None] = []
        headers: list[Headers] = []
        for record in records:
            if isinstance(record, Record):
                values.append(record.value)
                keys.append(record.key)
                times.append(record.timestamp_us)
                headers.append(record.headers)
            else:
                values.append(record)
                keys.append(None)
                times.append(None)
                headers.append(())
        timestamps: list[int] | None = None
        if any(time is not None for time in times):
            if now_us is None and None in times:
                raise ValueError("some records have a timestamp and some have none: pass now_us")
            timestamps = [now_us if time is None else time for time in times]  # type: ignore[misc]
        return cls.build(
            values,
            keys=keys if any(key is not None for key in keys) else None,
            timestamps_us=timestamps,
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
            verify_checksum(data)
            check_body(raw_body(data, header), header)
        return _make(cls, data, header)

    @classmethod
    def from_arrow(
        cls, table: pyarrow.RecordBatch | pyarrow.Table, *, compression: Compression = None
    ) -> RecordBatch:
        """One batch of an Arrow table: column `value` (binary), and if there `key` (binary),
        `timestamp_us` (int64), `headers` (list of struct name, value). Needs the extra `arrow`."""
        from chronik_store.format import arrow

        return cls.build(**arrow.columns_of(table), compression=compression)

    def to_arrow(self) -> pyarrow.RecordBatch:
        """The records as Arrow columns value, key, timestamp_us (null: the time of the append),
        headers; values and keys are not copied. Needs the extra `arrow`."""
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


def _make(cls: type[RecordBatch], buffer: bytes, header: BatchHeader) -> RecordBatch:
    batch = object.__new__(cls)
    object.__setattr__(batch, "buffer", buffer)
    object.__setattr__(batch, "_header", header)
    return batch


def _assemble(
    cls: type[RecordBatch],
    head: tuple[int, int, int, int, int, int, int],
    base_sequence: int,
    columns: list[bytes],
    compression: Compression,
) -> RecordBatch:
    flags, count, base_us, max_us, producer_id, producer_epoch, largest = head
    if compression not in _CODECS:
        raise ValueError(f'compression is "none" or "zstd", not {compression!r}')
    if not 0 <= producer_id < 1 << 64 or not 0 <= producer_epoch < 1 << 32:
        raise ValueError(f"producer {producer_id} epoch {producer_epoch} is out of range")
    if not 0 <= base_sequence <= _INT64 - count:
        raise ValueError(f"base_sequence {base_sequence} is not in [0, 2**63)")
    raw_bytes = BODY_HEADS_BYTES + sum(map(len, columns))
    if raw_bytes > _RAW_BYTES_MAX:
        raise ValueError(_too_large(raw_bytes))
    heads = body_heads(tuple(map(len, columns)))  # type: ignore[arg-type]
    t, ko, k, kv, vo, v, h = columns
    parts = (heads[:8], t, heads[8:15], ko, heads[15:20], k, heads[20:25], kv)
    parts += (heads[25:32], vo, heads[32:37], v, heads[37:42], h)  # type: ignore[assignment]
    codec = CODEC_NONE
    if _CODECS[compression] == CODEC_ZSTD:
        compressed = compress(b"".join(parts))
        if len(compressed) < raw_bytes:
            codec, parts = CODEC_ZSTD, (compressed,)  # type: ignore[assignment]
    header = BatchHeader(
        *(flags, codec, count, base_us, max_us, producer_id, producer_epoch, largest),
        *(base_sequence, len(parts[0]) if codec else raw_bytes, raw_bytes),
        *(len(k), len(v), len(h)),
    )
    covered = b"".join((FIELDS.pack(*header[:2], 0, *header[2:], 0), *parts))
    prefix = PREFIX.pack(BATCH.magic, BATCH.version, checksum(covered))
    return _make(cls, prefix + covered, header)


def _listed(values: Iterable[bytes]) -> list[bytes]:
    if isinstance(values, (str, bytes, bytearray, memoryview)):
        raise TypeError("values is a sequence of bytes; for one record write [value]")
    return list(values)


def _refuse_items(what: str, items: Sequence[object]) -> NoReturn:
    for place, item in enumerate(items):
        if isinstance(item, str):
            raise TypeError(f"{what}[{place}] is str: encode it, e.g. value.encode()")
        if not isinstance(item, (bytes, bytearray)):
            raise TypeError(f"{what}[{place}] is {type(item).__name__}, not bytes")
    raise TypeError(f"{what} are not bytes")


def _too_large(size: int) -> str:
    return f"a batch stays below {BATCH_BYTES_MAX} bytes, this one has {size}: split it"


def _same_length(what: str, items: Sequence[object], count: int) -> None:
    if len(items) != count:
        raise ValueError(f"{len(items)} {what} for {count} values")


def _timestamp_column(times: Sequence[int], count: int) -> tuple[bytes, int, int]:
    _same_length("timestamps_us", times, count)
    try:
        return array("q", times).tobytes(), min(times), max(times)
    except TypeError as error:
        raise TypeError(f"timestamps_us are integers (microseconds): {error}") from None
    except OverflowError as error:
        raise ValueError(f"a timestamp is beyond 64 bits: {error}") from None


def _key_columns(
    keys: Sequence[bytes | None], count: int
) -> tuple[int, bytes, bytes, bytes, list[int]]:
    _same_length("keys", keys, count)
    present = [key if key is not None else b"" for key in keys]
    try:
        lengths = list(map(len, present))
        data = b"".join(present)
    except TypeError:
        _refuse_items("keys", present)
    ends = list(accumulate(lengths, initial=0))
    if len(data) != ends[-1]:
        _refuse_items("keys", present)
    if ends[-1] > _RAW_BYTES_MAX:
        raise ValueError(_too_large(ends[-1]))
    validity = b""
    flags = HAS_KEYS
    if None in keys:
        flags |= HAS_NULL_KEYS
        bits = sum(1 << place for place, key in enumerate(keys) if key is not None)
        validity = bits.to_bytes((count + 7) // 8, "little")
    return flags, array("I", ends).tobytes(), data, validity, lengths


def _header_column(headers: Sequence[Headers], count: int) -> tuple[bytes, list[int]]:
    _same_length("headers", headers, count)
    if not any(headers):
        return b"", []
    blobs = [_header_blob(pairs) if pairs else b"" for pairs in headers]
    lengths = list(map(len, blobs))
    ends = list(accumulate(lengths, initial=0))
    if ends[-1] > _RAW_BYTES_MAX:
        raise ValueError(_too_large(ends[-1]))
    return b"".join((array("I", ends).tobytes(), *blobs)), lengths


def _header_blob(pairs: Iterable[tuple[str, bytes]]) -> bytes:
    flat: list[str | bytes] = []
    for pair in pairs:
        if type(pair) is not tuple or len(pair) != 2:
            raise TypeError(f"a header is a tuple (str, bytes), not {pair!r:.80}")
        name, value = pair
        if not isinstance(name, str) or not isinstance(value, bytes):
            raise TypeError(f"a header is a tuple (str, bytes), not {pair!r:.80}")
        flat += (name, value)
    try:
        return cbor.encode(flat)
    except UnicodeEncodeError as error:
        raise ValueError(f"a header name is not valid text: {error}") from None
