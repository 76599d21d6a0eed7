"""The segment file: entries verbatim between a header and a footer that finds them.

    +--------------------------------------------------------------+
    | header: envelope (magic f5 'CKS'), canonical CBOR map        |
    +--------------------------------------------------------------+
    | entries, back to back, from entries_start to entries_end     |
    +--------------------------------------------------------------+
    | footer: envelope (magic f5 'CKT'), canonical CBOR map        |  footer_bytes of SegmentInfo
    +--------------------------------------------------------------+  = footer and trailer
    | trailer, 32 bytes                                            |
    +--------------------------------------------------------------+

    trailer:
     0               4               8                               16
     +---------------+---------------+-------------------------------+
     |  f5 'C K Z'   |    version    |           checksum            |
     +---------------+---------------+-------------------------------+
  16 |         footer_bytes          |          file_bytes           |
     +-------------------------------+-------------------------------+

Place: in `format`, above `entry` and `producer_state`. Promise: equal entries give equal bytes on
every replica: nothing in here depends on who wrote it, where or when. Invariant: the footer's
sparse index rises in position, index and offset; its first point is the first entry.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple

from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import Buffer, checksum
from chronik_store.format.envelope import Kind, refuse, seal_value, unseal_value
from chronik_store.format.manifest_file import PRODUCERS
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.format.segment_info import range_fault
from chronik_store.format.shape import (
    ID,
    INDEX,
    INT64,
    PARTITION,
    TOPIC,
    UINT63,
    ShapeError,
    Table,
)

SEGMENT_TRAILER_BYTES: Final = 32
POINTS_MAX: Final = 1 << 20

_HEADER_KIND: Final = Kind(b"\xf5CKS", 1, "segment header")
_FOOTER_KIND: Final = Kind(b"\xf5CKT", 1, "segment footer")
_TRAILER_KIND: Final = Kind(b"\xf5CKZ", 1, "segment trailer")
_TRAILER: Final = struct.Struct("<4sIQQQ")
_LENGTHS: Final = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """Whose entries follow: indexes [first_index, last_index], offsets [base_offset, end_offset).

    term: of the SEAL that is the last entry. sealed_us: that entry's clock.
    """

    topic: str
    partition: int
    topic_id: str
    first_index: int
    last_index: int
    base_offset: int
    end_offset: int
    term: int
    sealed_us: int

    def encode(self) -> bytes:
        """The header's bytes; the first entry follows. ValueError when a field is out of range."""
        return seal_value(_HEADER_KIND, _HEADER, self)


class SparseIndex(NamedTuple):
    """Points of a segment, four columns of equal length: the entry at `positions[i]` of the file
    has index `indexes[i]`, base offset `offsets[i]` and index timestamp `timestamps_us[i]`.
    """

    offsets: memoryview
    indexes: memoryview
    timestamps_us: memoryview
    positions: memoryview


def sparse_index(points: Iterable[tuple[int, int, int, int]]) -> SparseIndex:
    """The columns of (offset, index, timestamp_us, position) points. ValueError: out of int64."""
    columns = array("q"), array("q"), array("q"), array("q")
    try:
        for point in points:
            for column, value in zip(columns, point, strict=True):
                column.append(value)
    except OverflowError as error:
        raise ValueError(f"a point of the sparse index is out of range: {error}") from error
    return SparseIndex(*(memoryview(column.tobytes()).cast("q") for column in columns))


@dataclass(frozen=True, slots=True)
class SegmentFooter:
    """What a reader needs to reach any record with one ranged read.

    Counts are of all entries and of records; first/last_timestamp_us are index timestamps,
    min/max_timestamp_us the records' own (0 without records). [entries_start, entries_end): the
    entries' place in the file. producers: as of the last entry.
    """

    first_index: int
    last_index: int
    base_offset: int
    end_offset: int
    entry_count: int
    record_count: int
    first_timestamp_us: int
    last_timestamp_us: int
    min_timestamp_us: int
    max_timestamp_us: int
    entries_start: int
    entries_end: int
    index: SparseIndex
    producers: tuple[ProducerEntry, ...] = ()

    def encode(self) -> bytes:
        """Footer and trailer: the end of the file. ValueError when a field is out of its range or
        the sparse index does not rise.
        """
        footer = seal_value(_FOOTER_KIND, _FOOTER, self)
        size = len(footer) + SEGMENT_TRAILER_BYTES
        lengths = _LENGTHS.pack(size, self.entries_end + size)
        kind = _TRAILER_KIND
        return footer + _TRAILER.pack(
            kind.magic, kind.version, checksum(lengths), size, self.entries_end + size
        )


class _IndexShape:
    """Four byte strings of int64, little-endian."""

    def pack(self, value: SparseIndex) -> Any:
        _check_index(value)
        return [bytes(column) for column in value]

    def unpack(self, item: Any, what: str) -> SparseIndex:
        if type(item) is not list or len(item) != 4:
            raise ShapeError(f"{what} is not four columns")
        if any(type(part) is not bytes or len(part) % 8 for part in item):
            raise ShapeError(f"{what} has a column that is not of 64-bit integers")
        index = SparseIndex(*(memoryview(part).cast("q") for part in item))
        _check_index(index)
        return index


def _check_index(index: SparseIndex) -> None:
    if len({len(column) for column in index}) != 1 or not 1 <= len(index.offsets) <= POINTS_MAX:
        raise ShapeError("the sparse index has columns of different lengths, or none")
    for column in (index.indexes, index.positions):
        values = column.tolist()
        if any(left >= right for left, right in pairwise(values)):
            raise ShapeError("the sparse index does not rise")
    for column in (index.offsets, index.timestamps_us):
        values = column.tolist()
        if values != sorted(values):
            raise ShapeError("the sparse index does not rise")
    if index.offsets[0] < 0 or index.indexes[0] < 1 or index.positions[0] < 0:
        raise ShapeError("the sparse index starts below zero")


def _footer_fault(footer: SegmentFooter) -> str:
    first = (footer.base_offset, footer.first_index, footer.entries_start)
    index = footer.index
    if (index.offsets[0], index.indexes[0], index.positions[0]) != first:
        return "its sparse index does not start at its first entry"
    last = (footer.end_offset, footer.last_index, footer.entries_end - 1)
    columns = (index.offsets, index.indexes, index.positions)
    if any(column[-1] > limit for column, limit in zip(columns, last, strict=True)):
        return "its sparse index goes beyond its last entry"
    return range_fault(footer)


_HEADER: Final = Table(
    SegmentHeader,
    {
        "topic": TOPIC,
        "partition": PARTITION,
        "topic_id": ID,
        "first_index": INDEX,
        "last_index": INDEX,
        "base_offset": UINT63,
        "end_offset": UINT63,
        "term": UINT63,
        "sealed_us": INT64,
    },
    range_fault,
)
_FOOTER: Final = Table(
    SegmentFooter,
    {
        "first_index": INDEX,
        "last_index": INDEX,
        "base_offset": UINT63,
        "end_offset": UINT63,
        "entry_count": UINT63,
        "record_count": UINT63,
        "first_timestamp_us": INT64,
        "last_timestamp_us": INT64,
        "min_timestamp_us": INT64,
        "max_timestamp_us": INT64,
        "entries_start": UINT63,
        "entries_end": UINT63,
        "index": _IndexShape(),
        "producers": PRODUCERS,
    },
    _footer_fault,
)


def decode_segment_header(data: Buffer, *, path: str = "") -> tuple[SegmentHeader, int]:
    """The header that starts `data`, and the position of the first entry."""
    return unseal_value(_HEADER_KIND, _HEADER, data, path=path, whole=False)


def decode_segment_trailer(data: Buffer, *, path: str = "") -> tuple[int, int]:
    """(footer_bytes, file_bytes) from the last SEGMENT_TRAILER_BYTES of a segment file.

    footer_bytes counts the trailer.
    """
    refuse(_TRAILER_KIND, data, path=path)
    if len(data) != SEGMENT_TRAILER_BYTES:
        raise CorruptionError(f"segment trailer: {len(data)} bytes", path=path)
    _, _, digest, footer_bytes, file_bytes = _TRAILER.unpack(data)
    if checksum(_LENGTHS.pack(footer_bytes, file_bytes)) != digest:
        raise CorruptionError("segment trailer: its checksum does not match", path=path)
    if not SEGMENT_TRAILER_BYTES < footer_bytes <= file_bytes:
        raise CorruptionError(f"segment trailer: a footer of {footer_bytes} bytes", path=path)
    return footer_bytes, file_bytes


def decode_segment_footer(data: Buffer, *, path: str = "") -> SegmentFooter:
    """The footer that the last footer_bytes of a segment file, trailer included, are."""
    view = memoryview(data)
    end = len(view) - SEGMENT_TRAILER_BYTES
    footer_bytes, file_bytes = decode_segment_trailer(view[max(end, 0) :], path=path)
    if footer_bytes != len(view):
        raise CorruptionError(f"segment footer: {len(view)} bytes, not {footer_bytes}", path=path)
    footer, _ = unseal_value(_FOOTER_KIND, _FOOTER, view[:end], path=path)
    if footer.entries_end + footer_bytes != file_bytes:
        raise CorruptionError("segment footer: entries and footer do not meet", path=path)
    return footer
