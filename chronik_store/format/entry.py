"""The entry: one batch or one control command with its place in the log; replicated verbatim.

     0               4               8                               16
     +---------------+---------------+-------------------------------+
     |  f5 'C K E'   |    version    |           checksum            |
     +---------------+---------------+-------------------------------+
  16 |     kind      | record_count  |             term              |
     +---------------+---------------+-------------------------------+
  32 |             index             |          base_offset          |
     +-------------------------------+---------------+---------------+
  48 |         timestamp_us          | payload_bytes |  reserved 0   |
     +-------------------------------+---------------+---------------+
  64 |  payload: payload_bytes bytes ...

Place: in `format`, above `batch_layout`. Promise: what was appended is carried as it came; no
byte of the payload is copied to verify or to iterate. Invariant: the checksum covers bytes 16..64
and, of the payload, the batch header of a RECORDS entry (whose own checksum covers the batch) or
all of a control command; so `verify_payload` proves every byte, and hashes each once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from functools import partial
from typing import Final, NamedTuple

from chronik_store.errors import CorruptionError
from chronik_store.format import batch_layout
from chronik_store.format.batch_layout import BATCH_HEADER_BYTES
from chronik_store.format.checksum import Buffer, checksum
from chronik_store.format.envelope import Kind, refuse

ENTRY: Final = Kind(b"\xf5CKE", 1, "entry")
ENTRY_HEADER_BYTES: Final = 64
PAYLOAD_BYTES_MAX: Final = batch_layout.BATCH_BYTES_MAX

_PREFIX: Final = struct.Struct("<4sIQ")
_FIELDS: Final = struct.Struct("<IIQQQqII")
_HEADER: Final = struct.Struct("<4sIQIIQQQqII")
_COVERED_FROM: Final = _PREFIX.size


class EntryKind(IntEnum):
    """What an entry carries: records, or one control command."""

    RECORDS = 1
    NOOP = 2
    SEAL = 3
    INTENT = 4
    ADD_SEGMENT = 5
    ADD_INDEX = 6
    PUBLISHED = 7
    DROP_PREFIX = 8
    COLLECTED = 9
    CURSOR = 10
    MEMBERS = 11
    FENCED = 12


_RECORDS: Final = int(EntryKind.RECORDS)
_KIND_MAX: Final = max(EntryKind)


class EntryHeader(NamedTuple):
    """An entry's place: term, index, offsets [base_offset, end_offset), index timestamp.

    `kind` is an EntryKind's number, `record_count` is 0 for control entries.
    """

    kind: int
    term: int
    index: int  # type: ignore[assignment]  # tuple.index is not missed
    base_offset: int
    record_count: int
    timestamp_us: int
    payload_bytes: int
    checksum: int

    @property
    def end_offset(self) -> int:
        """The offset behind the entry's last record."""
        return self.base_offset + self.record_count

    @property
    def entry_bytes(self) -> int:
        """Header and payload together."""
        return ENTRY_HEADER_BYTES + self.payload_bytes


# What `_make` does, without its look at the length, in a third of the time.
_make: Final = partial(tuple.__new__, EntryHeader)


class Entry(NamedTuple):
    """A header and its payload."""

    header: EntryHeader
    payload: Buffer

    def encode(self) -> bytes:
        """The entry's bytes, those that it came from."""
        return b"".join((pack_header(self.header), self.payload))


def encode_entry_header(
    kind: int,
    term: int,
    index: int,
    base_offset: int,
    record_count: int,
    timestamp_us: int,
    payload: Buffer,
) -> bytes:
    """The 64 bytes that go before `payload`, which follows verbatim.

    ValueError when a field is out of its range, or no records come with RECORDS.
    """
    return new_entry_header(kind, term, index, base_offset, record_count, timestamp_us, payload)[0]


def new_entry_header(
    kind: int,
    term: int,
    index: int,
    base_offset: int,
    record_count: int,
    timestamp_us: int,
    payload: Buffer,
) -> tuple[bytes, EntryHeader]:
    """As `encode_entry_header`, and what decoding those bytes would give."""
    size = len(payload)
    if fault := _fault(kind, term, index, base_offset, record_count, size):
        raise ValueError(f"entry {index}: {fault}")
    try:
        covered = _FIELDS.pack(kind, record_count, term, index, base_offset, timestamp_us, size, 0)
    except struct.error as error:
        raise ValueError(f"entry {index}: {error}") from error
    digest = checksum(covered + (payload[:BATCH_HEADER_BYTES] if kind == _RECORDS else payload))
    return _PREFIX.pack(ENTRY.magic, ENTRY.version, digest) + covered, _make(
        (kind, term, index, base_offset, record_count, timestamp_us, size, digest)
    )


def pack_header(header: EntryHeader) -> bytes:
    """The 64 bytes that `decode_entry_header` read `header` from."""
    kind, term, index, base_offset, record_count, timestamp_us, payload_bytes, digest = header
    return _HEADER.pack(
        *(ENTRY.magic, ENTRY.version, digest, kind, record_count, term, index, base_offset),
        *(timestamp_us, payload_bytes, 0),
    )


def decode_entry_header(data: Buffer, position: int = 0, *, path: str = "") -> EntryHeader:
    """The header at `position`, every field in its range; nothing is verified by checksum yet."""
    try:
        magic, version, digest, kind, count, term, index, base, time, size, zero = (
            _HEADER.unpack_from(data, position)
        )
    except struct.error:
        refuse(ENTRY, data, position, path=path)
        raise CorruptionError(f"entry at byte {position}: cut off", path=path) from None
    if magic != ENTRY.magic or version != ENTRY.version:
        refuse(ENTRY, data, position, path=path)
    fault = _fault(kind, term, index, base, count, size)
    if fault or zero:
        fault = fault or "a reserved field is set"
        raise CorruptionError(f"entry at byte {position}: {fault}", path=path)
    return _make((kind, term, index, base, count, time, size, digest))


def _fault(kind: int, term: int, index: int, base: int, count: int, size: int) -> str:
    if (term | index | (base + count)) >> 63 or index < 1:
        return f"term {term}, index {index} or offset {base} is out of range"
    if kind == _RECORDS:
        if count < 1 or not BATCH_HEADER_BYTES < size <= PAYLOAD_BYTES_MAX:
            return f"{count} records in a batch of {size} bytes"
    elif not _RECORDS < kind <= _KIND_MAX:
        return f"kind {kind} is none that Chronik knows"
    elif count or size > PAYLOAD_BYTES_MAX:
        return f"{count} records, {size} bytes in a control entry"
    return ""


def verify_payload(header: EntryHeader, payload: Buffer, *, path: str = "") -> None:
    """CorruptionError unless these bytes are the entry's payload, every one of them.

    Entry checksum and batch checksum must match, lengths and the number of records too. What the
    batch's columns hold is not looked at: see `RecordBatch.from_buffer`.
    """
    kind, term, index, base, count, time, size, _ = header
    fields = _FIELDS.pack(kind, count, term, index, base, time, size, 0)
    if len(payload) != size:
        raise _corrupt(header, f"{len(payload)} bytes of payload instead of {size}", path)
    head = payload[:BATCH_HEADER_BYTES] if kind == _RECORDS else payload
    _verify(header, fields + head, payload, path)


def _verify(header: EntryHeader, covered: Buffer, payload: Buffer, path: str) -> None:
    if checksum(covered) != header.checksum:
        raise _corrupt(header, "its checksum does not match its bytes", path)
    if header.kind == _RECORDS:
        count, body_bytes = batch_layout.peek(payload, path=path)
        if count != header.record_count:
            raise _corrupt(header, f"its batch holds {count} records", path)
        if body_bytes + BATCH_HEADER_BYTES != header.payload_bytes:
            raise _corrupt(header, f"its batch has a body of {body_bytes} bytes", path)
        batch_layout.verify_checksum(payload, path=path)


def _corrupt(header: EntryHeader, message: str, path: str) -> CorruptionError:
    return CorruptionError(
        f"entry {header.index}: {message}",
        path=path,
        offset_range=(header.base_offset, header.end_offset),
    )


def verified_entry(
    data: memoryview, position: int = 0, *, path: str = ""
) -> tuple[EntryHeader, memoryview]:
    """The entry at `position` and its payload as a view, both verified; CorruptionError if not."""
    header = decode_entry_header(data, position, path=path)
    start = position + ENTRY_HEADER_BYTES
    payload = data[start : start + header.payload_bytes]
    if len(payload) != header.payload_bytes:
        raise _corrupt(header, f"cut off at byte {len(data)}", path)
    covered = BATCH_HEADER_BYTES if header.kind == _RECORDS else header.payload_bytes
    _verify(header, data[position + _COVERED_FROM : start + covered], payload, path)
    return header, payload


def iter_entries(data: Buffer, *, path: str = "") -> Iterator[tuple[EntryHeader, memoryview]]:
    """The entries that lie back to back in `data`, each verified, payloads as views into it.

    CorruptionError at the first that is damaged or cut off; the ones before it were good.
    """
    view = memoryview(data)
    position, end = 0, len(view)
    while position < end:
        header, payload = verified_entry(view, position, path=path)
        yield header, payload
        position += ENTRY_HEADER_BYTES + header.payload_bytes
