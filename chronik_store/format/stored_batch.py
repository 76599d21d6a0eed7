"""StoredBatch: a batch at its place in the log, opened for reading.

Place: in `format`, above `batch_layout` (which shows the bytes). Promise: columns are views into
the buffer that was given (into the decompressed body if it was compressed) and keep it alive;
after construction with verify=True nothing raises but IndexError for an offset outside.
Invariant: record i of the batch has offset base_offset + i.
"""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from chronik_store.errors import CorruptionError
from chronik_store.format import cbor
from chronik_store.format.batch_layout import (
    HAS_HEADERS,
    HAS_KEYS,
    HAS_NULL_KEYS,
    HAS_TIMESTAMPS,
    check_body,
    columns,
    parse_header,
    raw_body,
    verify_checksum,
)
from chronik_store.format.checksum import Buffer
from chronik_store.model import Headers, OpenStoredRecord, StoredRecord

if TYPE_CHECKING:
    import pyarrow

_NONE: Final = memoryview(b"")
_NO_OFFSETS: Final = memoryview(b"").cast("I")


class StoredBatch:
    """The records of one batch, by column and by record. Immutable, thread-safe.

    batch_buffer: exactly one batch. base_offset: of its first record. timestamp_us: the entry's
    index timestamp, which is every record's when the batch has none of its own. verify: check
    the checksum and all offsets first (CorruptionError); without it the caller has.
    """

    __slots__ = (
        "_header",
        "_headers",
        "base_offset",
        "key_data",
        "key_offsets",
        "key_validity",
        "record_count",
        "timestamp_us",
        "timestamps_us",
        "value_data",
        "value_offsets",
    )

    def __init__(
        self, batch_buffer: Buffer, base_offset: int, timestamp_us: int, *, verify: bool = True
    ) -> None:
        header = self._header = parse_header(batch_buffer)
        if verify:
            verify_checksum(batch_buffer)
        body = raw_body(batch_buffer, header)
        check_body(body, header)
        places = columns(header)
        flags = header.flags
        self.base_offset = base_offset
        self.timestamp_us = timestamp_us
        self.record_count = header.record_count
        self.value_offsets = _column(body, places.value_offsets).cast("I")
        self.value_data = _column(body, places.value_data)
        self.key_offsets = _NO_OFFSETS
        self.key_data = _NONE
        if flags & HAS_KEYS:
            self.key_offsets = _column(body, places.key_offsets).cast("I")
            self.key_data = _column(body, places.key_data)
        self.key_validity = _column(body, places.key_validity)
        self._headers = _column(body, places.headers)
        if flags & HAS_TIMESTAMPS:
            self.timestamps_us = _column(body, places.timestamps).cast("q")
        else:
            self.timestamps_us = memoryview(array("q", [timestamp_us]) * self.record_count)

    @property
    def end_offset(self) -> int:
        """The offset behind the last record."""
        return self.base_offset + self.record_count

    @property
    def has_timestamps(self) -> bool:
        """False: `timestamps_us` repeats the entry's index timestamp."""
        return bool(self._header.flags & HAS_TIMESTAMPS)

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
            bits = int.from_bytes(self.key_validity, "little")
            keys = [key if bits >> place & 1 else None for place, key in enumerate(keys)]
        return keys

    def headers(self) -> list[Headers]:
        """All records' headers, in offset order."""
        if not self._header.flags & HAS_HEADERS:
            return [()] * self.record_count
        return [self._headers_at(place) for place in range(self.record_count)]

    def records(self) -> list[StoredRecord]:
        """All records, in offset order."""
        records: list[StoredRecord] = []
        append = records.append
        offset = self.base_offset
        for value, key, time, headers in zip(
            self.values(), self.keys(), self.timestamps_us.tolist(), self.headers(), strict=True
        ):
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
        record = OpenStoredRecord()
        ends = self.value_offsets
        record.value = bytes(self.value_data[ends[place] : ends[place + 1]])
        record.key = self._key_at(place) if self._header.flags & HAS_KEYS else None
        record.timestamp_us = self.timestamps_us[place]
        record.headers = self._headers_at(place) if self._header.flags & HAS_HEADERS else ()
        record.offset = offset
        record.__class__ = StoredRecord  # type: ignore[assignment]
        return record  # type: ignore[return-value]

    def records_from(self, offset: int, limit: int) -> list[StoredRecord]:
        """At most `limit` records at and behind `offset`; offsets below base_offset count as it."""
        start = max(offset - self.base_offset, 0)
        if start == 0 and limit >= self.record_count:
            return self.records()
        stop = min(start + limit, self.record_count)
        return [self.record(self.base_offset + place) for place in range(start, stop)]

    def to_arrow(self) -> pyarrow.RecordBatch:
        """The records as Arrow columns offset, timestamp_us, key, value, headers; values and keys
        are not copied. Needs the extra `arrow`."""
        from chronik_store.format import arrow

        return arrow.to_arrow(self, stored=True)

    def _key_at(self, place: int) -> bytes | None:
        if self._header.flags & HAS_NULL_KEYS and not self.key_validity[place >> 3] >> (
            place & 7
        ) & 1:
            return None
        ends = self.key_offsets
        return bytes(self.key_data[ends[place] : ends[place + 1]])

    def _headers_at(self, place: int) -> Headers:
        column = self._headers
        start, end = column[4 * place : 4 * place + 8].cast("I")
        if start == end:
            return ()
        blobs = 4 * (self.record_count + 1)
        return decode_headers(column[blobs + start : blobs + end])


def decode_headers(blob: Buffer) -> Headers:
    """One record's headers from their block: a CBOR array of name, value, name, value ..."""
    flat = cbor.decode(blob, what="record headers")
    if type(flat) is not list or len(flat) % 2 or not flat:
        raise CorruptionError("record headers: not a list of names and values")
    names, values = flat[::2], flat[1::2]
    if set(map(type, names)) != {str} or set(map(type, values)) != {bytes}:
        raise CorruptionError("record headers: a name is not text or a value is not bytes")
    return tuple(zip(names, values, strict=True))


def _column(body: memoryview, place: tuple[int, int]) -> memoryview:
    return body[place[0] : place[1]]


def _slices(data: memoryview, offsets: memoryview) -> list[bytes]:
    raw = bytes(data)
    return [raw[start:end] for start, end in pairwise(offsets.tolist())]
