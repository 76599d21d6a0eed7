"""Reading a segment: locate by offset, index or time, then one range read.

Place: between a `ByteSource` and the read chain; knows nothing of where the bytes come from.
Promise: with the footer in hand any record is one range read away; each entry handed out was
verified at all levels (its own checksum, and through it the batch's) and follows the one before it
in index and offset. Whatever is wrong is a CorruptionError with path and offset range:
unavailable, never absent, never skipped; good entries before a damaged one are still handed out.
Invariant: immutable after construction, so any number of threads may share a reader.

    header | entries ... SEAL | footer
           ^ entries_start    ^ entries_end
    block i = [positions[i], positions[i + 1]): whole entries, 64 KiB or one entry; unit of a read
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from chronik_store.errors import FROM_A_COPY, CorruptionError
from chronik_store.format.entry import (
    ENTRY_HEADER_BYTES,
    Entry,
    EntryKind,
    decode_entry_header,
    verify_payload,
)
from chronik_store.format.manifest_file import SegmentInfo
from chronik_store.format.segment_file import SegmentFooter, decode_segment_footer
from chronik_store.segment.source import ByteSource

UNKNOWN = -1
NO_LIMIT = 1 << 62
_RECORDS = int(EntryKind.RECORDS)
_SPARE = 1.25
"""Records are not all of average size: read a little more than a count of them should need."""


class Place(NamedTuple):
    """Where a reader goes on: the next offset, and the next index where a read has told it.

    `position` is that of the next entry in the file of segment `key`. A place at or below
    `committed` stays true for ever, so it is kept without pinning anything.
    """

    offset: int
    index: int = UNKNOWN  # type: ignore[assignment]  # shadows tuple.index, as everywhere
    key: str = ""
    position: int = UNKNOWN


class Span(NamedTuple):
    """A range of the file: whole entries from entry `index` at `offset` on."""

    position: int
    length: int
    index: int  # type: ignore[assignment]
    offset: int


class SegmentRun(NamedTuple):
    """Consecutive whole entries, at least one, and the place right after the last."""

    entries: list[Entry]
    next: Place


def load_footer(source: ByteSource, info: SegmentInfo, *, path: str = "") -> SegmentFooter:
    """The footer: verified, and what the manifest says of this segment. One range read."""
    path = path or info.key
    data = source.read_tail(info.footer_bytes)
    footer = decode_segment_footer(data, path=path)
    found = (
        *(footer.first_index, footer.last_index, footer.base_offset, footer.end_offset),
        *(footer.first_timestamp_us, footer.last_timestamp_us),
        footer.entries_end + info.footer_bytes,
    )
    expected = (
        *(info.first_index, info.last_index, info.base_offset, info.end_offset),
        *(info.first_timestamp_us, info.last_timestamp_us),
        info.size_bytes,
    )
    index = footer.index
    starts = (index.positions[0], index.indexes[0], index.offsets[0])
    if found != expected or starts != (footer.entries_start, info.first_index, info.base_offset):
        raise CorruptionError(
            f"{path}: its footer is that of another segment: {found}, the manifest says {expected}",
            path=path,
            offset_range=(info.base_offset, info.end_offset),
        )
    return footer


class SegmentReader:
    """One segment, its footer in memory. Errors: CorruptionError, FutureVersionError, and those of
    the source (UnavailableError; its subclasses tell that there is no copy).
    """

    __slots__ = ("_index", "_source", "footer", "info", "path")

    def __init__(
        self, source: ByteSource, info: SegmentInfo, footer: SegmentFooter, *, path: str = ""
    ) -> None:
        self._source = source
        self.info = info
        self.footer = footer
        self.path = path or info.key
        self._index = footer.index

    @classmethod
    def open(cls, source: ByteSource, info: SegmentInfo, *, path: str = "") -> SegmentReader:
        """A reader with its footer freshly loaded: one range read."""
        return cls(source, info, load_footer(source, info, path=path), path=path)

    def locate(self, offset: int, max_bytes: int = 1) -> Span:
        """The blocks to read for `offset`: at least its own, up to `max_bytes` when more."""
        point = bisect_right(self._index.offsets, offset) - 1
        return self._span(point, max_bytes)

    def locate_index(self, index: int, max_bytes: int = 1) -> Span:
        """The blocks to read for the entry `index`."""
        point = bisect_right(self._index.indexes, index) - 1
        return self._span(point, max_bytes)

    def read(self, place: Place, *, max_bytes: int, max_records: int = NO_LIMIT) -> SegmentRun:
        """Whole entries from the one that holds `place`, with exactly one range read.

        At least one entry; more while they fit in `max_bytes` (one block may be read beyond it)
        and fewer than `max_records` records have been found. The place is inside this segment.
        """
        if max_records < NO_LIMIT:
            average = self.info.size_bytes / max(1, self.info.record_count)
            max_bytes = min(max_bytes, int(max_records * average * _SPARE))
        if place.key == self.info.key and place.position != UNKNOWN:
            span = self._span_from(place, max_bytes)
        elif place.index != UNKNOWN:
            span = self.locate_index(place.index, max_bytes)
        else:
            span = self.locate(place.offset, max_bytes)
        return self._parse(self._fetch(span), span, place, max_records)

    def offset_for_timestamp(self, timestamp_us: int) -> int | None:
        """The first offset whose index timestamp is at least this; None: there is none here.

        At most one range read. Control entries take no part.
        """
        if timestamp_us > self.footer.last_timestamp_us:
            return None
        if timestamp_us <= self.footer.first_timestamp_us:
            return self.info.base_offset
        # The answer is after the last named entry that is still earlier, at the next at the latest.
        point = bisect_left(self._index.timestamps_us, timestamp_us)
        if point > 0:
            span = self._span(point - 1, 1)
            for entry, _ in self._walk(self._fetch(span), span, Place(span.offset, span.index)):
                header = entry.header
                if header.kind == _RECORDS and header.timestamp_us >= timestamp_us:
                    return header.base_offset
            if point < len(self._index.offsets):
                return int(self._index.offsets[point])
        raise self._corrupt(
            f"its footer promises a record at or after {timestamp_us}, there is none",
            (self.info.base_offset, self.info.end_offset),
        )

    def iterate(self, *, chunk_bytes: int = 1 << 20) -> Iterator[Entry]:
        """All entries in order, read ahead in chunks of about `chunk_bytes`, at least a block."""
        place = Place(self.info.base_offset, self.info.first_index)
        while place.index <= self.info.last_index:
            run = self.read(place, max_bytes=chunk_bytes)
            yield from run.entries
            place = run.next

    def _span(self, point: int, max_bytes: int) -> Span:
        index = self._index
        if point < 0:
            raise self._corrupt(
                "asked for what lies before it", (self.info.base_offset, self.info.end_offset)
            )
        start = index.positions[point]
        length = self._block_end(start, max_bytes) - start
        return Span(start, length, index.indexes[point], index.offsets[point])

    def _span_from(self, place: Place, max_bytes: int) -> Span:
        length = self._block_end(place.position, max_bytes) - place.position
        return Span(place.position, length, place.index, place.offset)

    def _block_end(self, start: int, max_bytes: int) -> int:
        """The last block border within `max_bytes` from `start`; the next one when none is."""
        positions, end = self._index.positions, self.footer.entries_end
        if start + max_bytes >= end:
            return end
        border = bisect_right(positions, start + max_bytes) - 1
        if positions[border] <= start:
            border += 1
        return positions[border] if border < len(positions) else end

    def _fetch(self, span: Span) -> memoryview:
        data = self._source.read_range(span.position, span.length)
        if len(data) != span.length:
            raise self._corrupt(
                f"{len(data)} of {span.length} bytes are there at byte {span.position}",
                (span.offset, self.info.end_offset),
            )
        return memoryview(data)

    def _parse(self, data: memoryview, span: Span, place: Place, max_records: int) -> SegmentRun:
        entries: list[Entry] = []
        after = span.position
        stop = NO_LIMIT
        try:
            for entry, end in self._walk(data, span, place):
                if not entries:
                    stop = max(place.offset, entry.header.base_offset) + max_records
                entries.append(entry)
                after = end
                if entry.header.end_offset >= stop:
                    break
        except CorruptionError:
            if not entries:
                raise
            # What comes before the damage is good; the next read starts at it and says so.
        if not entries:
            raise self._corrupt(
                f"{place} is not in the block that its index names", (span.offset, span.offset)
            )
        last = entries[-1].header
        return SegmentRun(entries, Place(last.end_offset, last.index + 1, self.info.key, after))

    def _walk(self, data: memoryview, span: Span, place: Place) -> Iterator[tuple[Entry, int]]:
        """Each entry from `place` on, verified, with the file position behind it.

        Entries before `place` are stepped over by their headers; a header that lies about its
        length cannot lead astray, since index and offset must run on.
        """
        position, index, offset = 0, span.index, span.offset
        while position < len(data):
            try:
                header = decode_entry_header(data, position, path=self.path)
                if header.index != index or header.base_offset != offset:
                    raise CorruptionError(
                        f"entry {header.index} at offset {header.base_offset} stands where entry "
                        f"{index} at offset {offset} should"
                    )
                end = position + header.entry_bytes
                if place.index == UNKNOWN:
                    wanted = header.end_offset > place.offset
                else:
                    wanted = index >= place.index
                payload = data[position + ENTRY_HEADER_BYTES : end]
                if wanted or end > len(data):
                    verify_payload(header, payload, path=self.path)
            except CorruptionError as error:
                at = bisect_right(self._index.positions, span.position + position)
                limit = self.info.end_offset
                if at < len(self._index.offsets):
                    limit = self._index.offsets[at]
                raise self._corrupt(
                    f"damaged at byte {span.position + position}: {error.args[0]}", (offset, limit)
                ) from error
            if wanted:
                yield Entry(header, payload), span.position + end
            position, index, offset = end, index + 1, header.end_offset

    def _corrupt(self, message: str, offset_range: tuple[int, int]) -> CorruptionError:
        return CorruptionError(
            f"{self.path}: {message}; offsets {offset_range[0]} to {offset_range[1] - 1} cannot be "
            "read from this copy",
            path=self.path,
            offset_range=offset_range,
            advice=FROM_A_COPY,
        )
