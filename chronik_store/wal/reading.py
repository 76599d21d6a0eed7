"""Entries from WAL files, verified.

Place: in `wal`. A read is planned under the WAL's lock (places copied from the entry table, the
file kept from being unlinked) and done without it. Promise: an entry that is returned has matched
its own checksum and its batch's, and is the one asked for; damage is CorruptionError, an
unreadable disk UnavailableError, never an empty answer. Invariant: one positional read per run of
neighbouring frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chronik_store.errors import CorruptionError, UnavailableError
from chronik_store.format.entry import (
    ENTRY_HEADER_BYTES,
    Entry,
    decode_entry_header,
    verify_payload,
)
from chronik_store.format.frame import FRAME_HEADER_BYTES
from chronik_store.wal.descriptors import DescriptorCache
from chronik_store.wal.entry_table import EntryTable, LogFile

_GAP_BYTES_MAX = 64 << 10
"""Frames of other kinds between two entries are read over up to this many bytes."""


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """Entries [first_index, first_index + len(positions)) of one file, and where they end there."""

    file: LogFile
    first_index: int
    positions: list[int]
    sizes: list[int]

    def runs(self) -> Iterator[tuple[int, int]]:
        """(first, behind the last) of each run of entries that one read may cover."""
        first = 0
        for place in range(1, len(self.positions)):
            end = self.positions[place - 1] + self.sizes[place - 1]
            if self.positions[place] - end > _GAP_BYTES_MAX:
                yield first, place
                first = place
        yield first, len(self.positions)


def plan_read(table: EntryTable, first_index: int, last_index: int, max_bytes: int) -> ReadPlan:
    """What one call reads: from one file, at least one entry, then up to `max_bytes`.

    IndexError when `first_index` is not stored. The lock must be held; the caller unpins the file
    (`readers`) afterwards.
    """
    file, place = table.locate(first_index)
    end = min(last_index, file.last_index) - file.first_index + 1
    sizes = file.sizes
    left, behind = max_bytes - sizes[place], place + 1
    while behind < end and left >= sizes[behind]:
        left -= sizes[behind]
        behind += 1
    file.readers += 1
    positions = [file.origin + position for position in file.positions[place:behind]]
    return ReadPlan(file, first_index, positions, list(sizes[place:behind]))


def read_entries(descriptors: DescriptorCache, plan: ReadPlan) -> list[Entry]:
    """Carry out a plan. Payloads are views into what was read."""
    entries: list[Entry] = []
    path = plan.file.path
    try:
        with descriptors.use(path) as handle:
            for first, behind in plan.runs():
                low = plan.positions[first]
                high = plan.positions[behind - 1] + plan.sizes[behind - 1]
                view = memoryview(handle.read_at(low, high - low))
                entries += [_entry(view, plan, place, low) for place in range(first, behind)]
    except FileNotFoundError:
        raise IndexError(f"entry {plan.first_index}: {path} has been pruned") from None
    except OSError as error:
        raise UnavailableError(f"{path} cannot be read: {error}") from error
    return entries


def _entry(view: memoryview, plan: ReadPlan, place: int, low: int) -> Entry:
    index, path = plan.first_index + place, plan.file.path
    start = plan.positions[place] - low + FRAME_HEADER_BYTES
    try:
        header = decode_entry_header(view, start, path=path)
        end = start + header.entry_bytes
        if header.index != index or end > start + plan.sizes[place]:
            raise CorruptionError(f"entry {header.index} stands there", path=path)
        payload = view[start + ENTRY_HEADER_BYTES : end]
        verify_payload(header, payload, path=path)
    except CorruptionError as error:
        raise CorruptionError(
            f"{path}: entry {index} at byte {plan.positions[place]} is damaged "
            f"({error.finding}): the log is unavailable there",
            path=path,
            offset_range=error.offset_range,
            advice="`chronik repair` shows what can be saved",
        ) from error
    return Entry(header, payload)
