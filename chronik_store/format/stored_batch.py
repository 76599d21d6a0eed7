"""StoredBatch: a batch at its place in the log, opened for reading.

Place: in `format`, above `batch_layout` (which shows the bytes). Promise: columns are views into
the buffer that was given (into the decompressed body if it was compressed) and keep it alive;
once built with verify=True nothing raises but IndexError for an offset outside. Invariant: record
i of the batch has offset base_offset + i.
"""

from __future__ import annotations

import struct
from array import array
from io import BytesIO
from itertools import pairwise, repeat
from operator import sub
from typing import TYPE_CHECKING, Any, Final

from chronik_store.format.batch_layout import (
    HAS_HEADERS,
    HAS_KEYS,
    HAS_NULL_KEYS,
    HAS_TIMESTAMPS,
    BatchHeader,
    check_body,
    column_lengths,
    column_starts,
    parse_header,
    raw_body,
    verify_checksum,
)
from chronik_store.format.checksum import Buffer
from chronik_store.format.record_headers import decode_headers
from chronik_store.model import Headers, OpenStoredRecord, StoredRecord

if TYPE_CHECKING:
    import pyarrow

_TIME: Final = struct.Struct("<q")
_ENDS: Final = struct.Struct("<II")
"""A record's offset in an offsets column, and the next one's."""
_LARGE_VALUE_BYTES: Final = 4096
"""From this mean on, slicing a value out of the view beats copying the column first."""


class StoredBatch:
    """The records of one batch, by column and by record. Immutable, thread-safe.

    batch_buffer: exactly one batch (of the file `path`). base_offset: of its first record.
    timestamp_us: the entry's index timestamp, which is every record's when the batch has none of
    its own. verify: check the checksum and all that a reader relies on (CorruptionError); pass
    False only for a batch whose checksum was verified (`entry.verify_payload`), and that was built
    here, passed `RecordBatch.from_buffer` before, or passes `check_columns` now.
    """

    __slots__ = (
        "_body",
        "_header",
        "_lengths",
        "_starts",
        "base_offset",
        "record_count",
        "timestamp_us",
        "value_data",
        "value_offsets",
    )

    def __init__(
        self,
        batch_buffer: Buffer,
        base_offset: int,
        timestamp_us: int,
        *,
        verify: bool = True,
        path: str = "",
    ) -> None:
        header = parse_header(batch_buffer, path=path)
        if verify:
            verify_checksum(batch_buffer, path=path)
        self._open(raw_body(batch_buffer, header, path=path), header, base_offset, timestamp_us)
        if verify:
            self.check_columns(path=path)

    def check_columns(self, *, path: str = "") -> None:
        """CorruptionError unless all that a reader relies on, beside the checksum, is as it was
        written.
        """
        check_body(self._body, self._header, path=path)

    def _open(
        self, body: memoryview, header: BatchHeader, base_offset: int, timestamp_us: int
    ) -> None:
        self._body, self._header = body, header
        self.base_offset = base_offset
        self.timestamp_us = timestamp_us
        self.record_count = header.record_count
        lengths = self._lengths = column_lengths(header)
        starts = self._starts = column_starts(lengths)
        data = starts[5]
        self.value_offsets = body[starts[4] : data - 5].cast("I")
        self.value_data = body[data : data + lengths[5]]

    def __reduce__(self) -> tuple[Any, ...]:
        """Views do not pickle; the bytes that they show do."""
        return self._reopened, (
            bytes(self._body),
            self._header,
            self.base_offset,
            self.timestamp_us,
        )

    @classmethod
    def _reopened(
        cls, body: bytes, header: BatchHeader, base_offset: int, timestamp_us: int
    ) -> StoredBatch:
        batch = cls.__new__(cls)
        batch._open(memoryview(body), header, base_offset, timestamp_us)  # noqa: SLF001 (its own)
        return batch

    def _column(self, number: int) -> memoryview:
        start = self._starts[number]
        return self._body[start : start + self._lengths[number]]

    @property
    def key_offsets(self) -> memoryview:
        """uint32, record_count + 1 of them, into `key_data`; empty when no record has a key."""
        return self._column(1).cast("I")

    @property
    def key_data(self) -> memoryview:
        """All keys, back to back."""
        return self._column(2)

    @property
    def key_validity(self) -> memoryview:
        """Bit i & 7 of byte i >> 3: record i has a key; empty when all have one, or none has."""
        return self._column(3)

    @property
    def timestamps_us(self) -> memoryview:
        """int64, record_count of them."""
        if self._header.flags & HAS_TIMESTAMPS:
            return self._column(0).cast("q")
        return memoryview(array("q", [self.timestamp_us]) * self.record_count)

    @property
    def end_offset(self) -> int:
        """The offset behind the last record."""
        return self.base_offset + self.record_count

    @property
    def has_timestamps(self) -> bool:
        """False: `timestamps_us` repeats the entry's index timestamp."""
        return bool(self._header.flags & HAS_TIMESTAMPS)

    def __repr__(self) -> str:
        return f"StoredBatch({self.record_count} records from offset {self.base_offset})"

    def __len__(self) -> int:
        return self.record_count

    def values(self) -> list[bytes]:
        """All values, in offset order."""
        return _slices(self.value_data, self.value_offsets)

    def keys(self) -> list[bytes | None]:
        """All keys, in offset order; None where a record has none."""
        if not self._header.flags & HAS_KEYS:
            return [None] * self.record_count
        keys: list[bytes | None] = list(_slices(self.key_data, self.key_offsets))
        if self._header.flags & HAS_NULL_KEYS:
            bits = f"{int.from_bytes(self.key_validity, 'little'):0{self.record_count}b}"[::-1]
            keys = [key if bit == "1" else None for key, bit in zip(keys, bits, strict=False)]
        return keys

    def headers(self) -> list[Headers]:
        """All records' headers, in offset order."""
        if not self._header.flags & HAS_HEADERS:
            return [()] * self.record_count
        return [self._headers_at(place) for place in range(self.record_count)]

    def records(self) -> list[StoredRecord]:
        """All records, in offset order."""
        flags = self._header.flags
        records: list[StoredRecord] = []
        append = records.append
        offset = self.base_offset
        for value, key, time, headers in zip(
            self.values(),
            self.keys() if flags & HAS_KEYS else repeat(None),
            self.timestamps_us.tolist() if flags & HAS_TIMESTAMPS else repeat(self.timestamp_us),
            self.headers() if flags & HAS_HEADERS else repeat(()),
            strict=False,
        ):
            # In place, as in `record`: a call for each record would be half of the price.
            record = OpenStoredRecord()
            record.value = value
            record.key = key
            record.timestamp_us = time
            record.headers = headers
            record.offset = offset
            record.__class__ = StoredRecord  # type: ignore[assignment]
            append(record)  # type: ignore[arg-type]
            offset += 1
        return records

    def record(self, offset: int) -> StoredRecord:
        """The record at `offset`; IndexError when it is not in [base_offset, end_offset)."""
        place = offset - self.base_offset
        if not 0 <= place < self.record_count:
            raise IndexError(f"offset {offset} is not in [{self.base_offset}, {self.end_offset})")
        flags = self._header.flags
        body, starts = self._body, self._starts
        first, behind = _ENDS.unpack_from(body, starts[4] + 4 * place)
        record = OpenStoredRecord()
        record.value = bytes(self.value_data[first:behind])
        record.key = self._key_at(place) if flags & HAS_KEYS else None
        if flags & HAS_TIMESTAMPS:
            (record.timestamp_us,) = _TIME.unpack_from(body, starts[0] + 8 * place)
        else:
            record.timestamp_us = self.timestamp_us
        record.headers = self._headers_at(place) if flags & HAS_HEADERS else ()
        record.offset = offset
        record.__class__ = StoredRecord  # type: ignore[assignment]
        return record  # type: ignore[return-value]

    def records_from(self, offset: int, limit: int) -> list[StoredRecord]:
        """At most `limit` records at and behind `offset`; offsets below base_offset count as it."""
        start = max(offset, self.base_offset)
        if start == self.base_offset and limit >= self.record_count:
            return self.records()
        return [self.record(place) for place in range(start, min(start + limit, self.end_offset))]

    def to_arrow(self) -> pyarrow.RecordBatch:
        """The records as Arrow columns offset, timestamp_us, key, value, headers.

        Values and keys are not copied. Needs the extra `arrow`.
        """
        from chronik_store.format import arrow

        return arrow.to_arrow(self, stored=True)

    def _key_at(self, place: int) -> bytes | None:
        body, starts = self._body, self._starts
        if self._lengths[3] and not body[starts[3] + (place >> 3)] >> (place & 7) & 1:
            return None
        first, behind = _ENDS.unpack_from(body, starts[1] + 4 * place)
        data = starts[2]
        return bytes(body[data + first : data + behind])

    def _headers_at(self, place: int) -> Headers:
        column = self._column(6)
        first, behind = _ENDS.unpack_from(column, 4 * place)
        if first == behind:
            return ()
        blobs = self._lengths[4]  # as many offsets as the value column has
        return decode_headers(column[blobs + first : blobs + behind])


def _slices(data: memoryview, offsets: memoryview) -> list[bytes]:
    ends = offsets.tolist()
    if len(data) >= _LARGE_VALUE_BYTES * len(ends):
        return [bytes(data[start:end]) for start, end in pairwise(ends)]
    return list(map(BytesIO(data).read, map(sub, ends[1:], ends)))
