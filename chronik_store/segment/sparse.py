"""Which entries of a segment the sparse index names, and the other figures of its footer.

Place: shared by the sealer, which writes the footer, and by the full check, which compares it.
Promise: a pure function of the entries, hence equal on every replica; the first entry is always
named. A point (offset, index, timestamp, position) stands for the entry at `position`; its
timestamp is the highest index timestamp of the record entries up to and including that entry (0
before the first), so the column never goes back and control entries take no part in it.
Invariant: the two constants are part of the format: replicas that disagree on them would write
different bytes under the same version.
"""

from __future__ import annotations

from chronik_store.errors import CorruptionError
from chronik_store.format.batch_layout import HAS_TIMESTAMPS, parse_header
from chronik_store.format.checksum import Buffer
from chronik_store.format.entry import EntryHeader, EntryKind
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.format.segment_file import SegmentFooter, sparse_index

SPARSE_BYTES = 64 * 1024
"""A block (what lies between two named entries) is at most this long, or one entry."""
SPARSE_ENTRIES = 256
"""And at most this many entries, so that a walk among small ones is short."""

_RECORDS = int(EntryKind.RECORDS)


class FooterBuilder:
    """What the footer says, while the entries go by. Not thread-safe.

    first_index, base_offset: where the first entry must stand; position: where in the file.
    """

    def __init__(self, first_index: int, base_offset: int, position: int) -> None:
        self.next_index = first_index
        self.next_offset = base_offset
        self.position = position
        self._first_index = first_index
        self._base_offset = base_offset
        self._start = position
        self._points: list[tuple[int, int, int, int]] = []
        self._since_point = SPARSE_ENTRIES
        self._first_us: int | None = None
        self._last_us = 0
        self._min_us: int | None = None
        self._max_us: int | None = None

    def add(self, header: EntryHeader, payload: Buffer, *, path: str) -> None:
        """Take the next entry. CorruptionError when it does not follow the one before."""
        if header.index != self.next_index or header.base_offset != self.next_offset:
            raise CorruptionError(
                f"{path}: entry {header.index} at offset {header.base_offset} follows, expected "
                f"entry {self.next_index} at offset {self.next_offset}",
                path=path,
                offset_range=(self.next_offset, max(self.next_offset, header.end_offset)),
            )
        if header.kind == _RECORDS:
            self._add_times(header, payload, path)
        end = self.position + header.entry_bytes
        if self._since_point >= SPARSE_ENTRIES or end - self._points[-1][3] > SPARSE_BYTES:
            self._points.append((header.base_offset, header.index, self._last_us, self.position))
            self._since_point = 0
        self._since_point += 1
        self.next_index += 1
        self.next_offset = header.end_offset
        self.position = end

    def _add_times(self, header: EntryHeader, payload: Buffer, path: str) -> None:
        if header.timestamp_us < self._last_us:
            raise CorruptionError(
                f"{path}: the index timestamp of entry {header.index} goes back from "
                f"{self._last_us} to {header.timestamp_us}",
                path=path,
                offset_range=(header.base_offset, header.end_offset),
            )
        self._last_us = header.timestamp_us
        if self._first_us is None:
            self._first_us = header.timestamp_us
        low = high = header.timestamp_us
        batch = parse_header(payload, path=path)
        if batch.flags & HAS_TIMESTAMPS:
            low, high = batch.base_timestamp_us, batch.max_timestamp_us
        self._min_us = low if self._min_us is None else min(self._min_us, low)
        self._max_us = high if self._max_us is None else max(self._max_us, high)

    def footer(self, producers: tuple[ProducerEntry, ...]) -> SegmentFooter:
        """The footer of the entries so far; at least one was added."""
        return SegmentFooter(
            first_index=self._first_index,
            last_index=self.next_index - 1,
            base_offset=self._base_offset,
            end_offset=self.next_offset,
            entry_count=self.next_index - self._first_index,
            record_count=self.next_offset - self._base_offset,
            first_timestamp_us=self._first_us or 0,
            last_timestamp_us=self._last_us,
            min_timestamp_us=self._min_us or 0,
            max_timestamp_us=self._max_us or 0,
            entries_start=self._start,
            entries_end=self.position,
            index=sparse_index(self._points),
            producers=producers,
        )
