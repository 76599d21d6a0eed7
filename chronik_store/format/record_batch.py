"""RecordBatch: records encoded together, once, by whoever appends them.

Place: in `format`, above `batch_layout` (which shows the bytes). Promise: immutable and opaque
from here to the bucket; `build` refuses what no reader could take back. Invariant: `buffer` is
the whole value: batches are equal, hash, pickle and copy by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from chronik_store.format.batch_encoding import encode_columns, encode_one, is_small
from chronik_store.format.batch_layout import (
    BATCH_HEADER_BYTES,
    CODEC_NONE,
    CODEC_ZSTD,
    HAS_HEADERS,
    HAS_TIMESTAMPS,
    BatchHeader,
    check_body,
    parse_header,
    raw_body,
    restamped,
    verify_checksum,
)
from chronik_store.format.checksum import Buffer
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.model import Headers, Record, StoredRecord

if TYPE_CHECKING:
    import pyarrow

__all__ = ["BATCH_HEADER_BYTES", "RecordBatch", "StoredBatch"]

Compression = Literal["none", "zstd"] | None

_CODECS: Final = {None: CODEC_NONE, "none": CODEC_NONE, "zstd": CODEC_ZSTD}
_NOBODY: Final = (0, 0, 0)
_NO_COLUMN: Final = (str, bytes, bytearray, memoryview, Mapping)
"""They have a length and items, too."""
_RECORD_TYPES: Final = {Record, StoredRecord}
_CODEC_NAMES: Final[dict[int, Literal["none", "zstd"]]] = {CODEC_NONE: "none", CODEC_ZSTD: "zstd"}


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
        if isinstance(values, _NO_COLUMN):
            raise TypeError("values is a sequence of bytes; for one record write [value]")
        if keys is not None and isinstance(keys, _NO_COLUMN):
            raise TypeError("keys is a sequence of bytes and None; for one record write [key]")
        count = len(values)
        if not count:
            raise ValueError("a batch holds at least one record")
        if compression not in _CODECS:
            raise ValueError(f'compression is "none" or "zstd", not {compression!r}')
        producer = producer_id, producer_epoch, base_sequence
        if not 0 <= base_sequence <= (1 << 63) - count:
            raise ValueError(f"base_sequence {base_sequence} is not in [0, 2**63)")
        if count == 1 and headers is None and not _CODECS[compression]:
            value, key, time = values[0], _only(keys), _only(timestamps_us)
            if is_small(value, key, time):
                return _make(*encode_one(value, key, time, producer))
        codec = _CODECS[compression]
        return _make(*encode_columns(values, keys, timestamps_us, headers, codec, producer))

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
                if is_small(one, None, None):
                    return batch_of_one(one)
            elif is_small(one.value, one.key, one.timestamp_us) and not one.headers:
                return _make(*encode_one(one.value, one.key, one.timestamp_us, (0, 0, 0)))
        kinds = set(map(type, items))
        if kinds == {bytes}:
            return cls.build(items, compression=compression)  # type: ignore[arg-type]
        rows: Sequence[Record]
        if kinds <= _RECORD_TYPES:
            rows = items  # type: ignore[assignment]
        else:
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
            keys=keys,
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
        # Not bytes(buffer): of a number that makes so many zeros.
        data = buffer if type(buffer) is bytes else bytes(memoryview(buffer))
        batch = _make(data, parse_header(data))
        if verify:
            batch.verify()
        return batch

    def verify(self) -> None:
        """CorruptionError unless this is a batch that no reader fails at, see `from_buffer`. What
        was built here is one.
        """
        verify_checksum(self.buffer)
        check_body(raw_body(self.buffer, self._header), self._header)

    def with_producer(self, producer_id: int, epoch: int, base_sequence: int) -> RecordBatch:
        """The same records under another producer, epoch and sequence (see `build`)."""
        if not 0 <= base_sequence <= (1 << 63) - self.record_count:
            raise ValueError(f"base_sequence {base_sequence} is not in [0, 2**63)")
        header = self._header._replace(
            producer_id=producer_id, producer_epoch=epoch, base_sequence=base_sequence
        )
        return _make(restamped(self.buffer, header), header)

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
    def has_headers(self) -> bool:
        """Some record has any."""
        return bool(self._header.flags & HAS_HEADERS)

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


def batch_of_one(value: bytes) -> RecordBatch:
    """What `RecordBatch.build([value])` makes of at most SMALL_BYTES, without its questions."""
    return _make(*encode_one(value, None, None, _NOBODY))


def _unpickle(buffer: bytes) -> RecordBatch:
    return RecordBatch.from_buffer(buffer, verify=False)


def _only(column: Sequence[Any] | None) -> Any:
    """The one item of a column of one; else the column, which `is_small` then says no to."""
    return column[0] if column and len(column) == 1 and column[0] is not None else column


def _make(buffer: bytes, header: BatchHeader) -> RecordBatch:
    batch: _Slots = _OpenBatch(buffer, header)
    batch.__class__ = RecordBatch  # closes it: RecordBatch refuses assignment
    return batch  # type: ignore[return-value]
