"""Where each live entry stands: columns per WAL file, looked up by bisection.

Place: in `wal`, under staging, reading and recovery. Promise: term, offset, time and place of any
stored entry without touching the disk; 28 bytes an entry. Invariant: live entries are contiguous
in index and offset, from `base` on; what an appender needs of the past (last term, end offset,
last timestamp) is read from the last live entry, never kept beside it, so a truncation cannot
leave a stale copy (protocol 16). Not thread-safe: the WAL's lock guards it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from operator import attrgetter

from chronik_store.format.entry import EntryHeader
from chronik_store.format.manifest_file import LogBase
from chronik_store.model import Position

_FIRST_INDEX = attrgetter("first_index")


class LogFile:
    """One WAL file as the table knows it: its name, and where its live entries stand.

    base_index: the last live entry when the file was begun, as its checkpoint says. positions are
    relative to `origin`, since entries are staged before the checkpoint that comes first in their
    file is encoded. readers: uses that keep the file from being unlinked.
    """

    __slots__ = ("base_index", "base_offsets", "damaged", "file_id", "first_index", "folded_to",
                 "header_bytes", "origin", "path", "positions", "readers", "removed", "seq", "size",
                 "sizes", "timestamps")  # fmt: skip

    def __init__(self, seq: int, path: str, base_index: int) -> None:
        self.seq = seq
        self.path = path
        self.base_index = base_index
        self.first_index = base_index + 1
        self.file_id = 0
        self.header_bytes = 0
        self.origin = 0
        self.size = 0
        self.folded_to = 0
        self.damaged = False
        self.removed = False
        self.readers = 0
        self.base_offsets = array("Q")
        self.positions = array("Q")
        self.sizes = array("I")
        self.timestamps = array("q")

    @property
    def count(self) -> int:
        """How many live entries stand in this file."""
        return len(self.positions)

    @property
    def last_index(self) -> int:
        """The last live entry; below first_index when there is none."""
        return self.first_index + len(self.positions) - 1

    def cut(self, index: int) -> None:
        """Forget entries at or above `index`."""
        keep = max(0, index - self.first_index)
        del self.base_offsets[keep:], self.positions[keep:], self.sizes[keep:]
        del self.timestamps[keep:]
        self.first_index = min(self.first_index, index)


class EntryTable:
    """The live entries of a log, over all its files."""

    __slots__ = ("base", "end_offset", "files", "last_index", "last_timestamp_us", "run_first",
                 "run_term")  # fmt: skip

    def __init__(self) -> None:
        self.files: list[LogFile] = []
        self.reset(LogBase(0, 0, 0, 0))

    def reset(self, base: LogBase) -> None:
        """No live entry but what comes after `base`; files stay, emptied."""
        self.base = base
        self.last_index = base.index
        self.end_offset = base.offset
        self.last_timestamp_us = base.timestamp_us
        self.run_first = array("Q")
        self.run_term = array("Q")
        for file in self.files:
            file.cut(0)
            file.first_index = base.index + 1

    @property
    def first_index(self) -> int:
        """The first stored entry; last_index + 1 when there is none."""
        return self.base.index + 1

    @property
    def last_term(self) -> int:
        """The term of the last live entry, or of the base."""
        return self.run_term[-1] if self.run_term else self.base.term

    def last(self) -> LogBase:
        """The last live entry, as the base of what follows it."""
        return LogBase(self.last_index, self.last_term, self.end_offset, self.last_timestamp_us)

    # --- change ----------------------------------------------------------------------------------

    def append(self, header: EntryHeader, position: int, frame_bytes: int) -> None:
        """The next entry, in the newest file. ValueError unless it follows the last one."""
        _, term, index, offset, record_count, timestamp_us, _, _ = header
        if index != self.last_index + 1 or offset != self.end_offset:
            raise ValueError(
                f"entry {index} at offset {offset} does not follow entry {self.last_index}, "
                f"which ends at offset {self.end_offset}"
            )
        file = self.files[-1]
        file.base_offsets.append(offset)
        file.positions.append(position)
        file.sizes.append(frame_bytes)
        file.timestamps.append(timestamp_us)
        run_term = self.run_term
        if not run_term or run_term[-1] != term:
            self.run_first.append(index)
            run_term.append(term)
        self.last_index = index
        self.end_offset = offset + record_count
        self.last_timestamp_us = timestamp_us

    def truncate(self, index: int) -> None:
        """Forget entries at or above `index`, which lies above the base."""
        if index > self.last_index:
            return
        if index <= self.base.index:
            raise ValueError(f"truncation to {index} below the base {self.base.index}")
        file, place = self.locate(index)
        self.end_offset = file.base_offsets[place]
        self.last_index = index - 1
        if index == self.first_index:
            self.last_timestamp_us = self.base.timestamp_us
        else:
            before, place = self.locate(index - 1)
            self.last_timestamp_us = before.timestamps[place]
        for file in reversed(self.files):
            if file.first_index < index and file.last_index < index:
                break
            file.cut(index)
        keep = bisect_left(self.run_first, index)
        del self.run_first[keep:], self.run_term[keep:]

    def drop_front(self, count: int) -> list[LogFile]:
        """Forget the oldest `count` files; the base moves behind their last live entry."""
        dropped, rest = self.files[:count], self.files[count:]
        first = rest[0].first_index
        if first > self.first_index:
            position = self.position_after(first - 1)
            file, place = self.locate(first - 1)
            self.base = LogBase(
                first - 1, self.term(first - 1), position.offset, file.timestamps[place]
            )
            runs = max(0, bisect_right(self.run_first, first) - 1)
            del self.run_first[:runs], self.run_term[:runs]
            if self.run_first:
                self.run_first[0] = max(self.run_first[0], first)
            if first > self.last_index:
                self.run_first, self.run_term = array("Q"), array("Q")
        self.files = rest
        return dropped

    # --- look up ---------------------------------------------------------------------------------

    def locate(self, index: int) -> tuple[LogFile, int]:
        """The file of a live entry and its place in the columns. IndexError if it is not stored."""
        if not self.base.index < index <= self.last_index:
            raise IndexError(
                f"entry {index} is not stored here: the log holds [{self.first_index}, "
                f"{self.last_index}]"
            )
        file = self.files[bisect_right(self.files, index, key=_FIRST_INDEX) - 1]
        return file, index - file.first_index

    def term(self, index: int) -> int:
        """The term of a stored entry or of the base. IndexError for any other."""
        if index == self.base.index:
            return self.base.term
        if not self.base.index < index <= self.last_index:
            self.locate(index)
        return self.run_term[bisect_right(self.run_first, index) - 1]

    def position_after(self, index: int) -> Position:
        """The limit right behind a stored entry, or behind the base."""
        if index == self.last_index:
            return Position(index + 1, self.end_offset)
        file, place = self.locate(index + 1)
        return Position(index + 1, file.base_offsets[place])

    def index_for_offset(self, offset: int) -> int:
        """The last entry that starts at or below `offset`. IndexError below the first."""
        for file in reversed(self.files):
            if file.count and file.base_offsets[0] <= offset:
                return file.first_index + bisect_right(file.base_offsets, offset) - 1
        raise IndexError(f"offset {offset} lies below {self.base.offset}, where the log starts")

    def index_for_timestamp(self, timestamp_us: int, low_index: int) -> int | None:
        """The first entry at or above `low_index` whose index timestamp is >= `timestamp_us`."""
        for file in self.files:
            if file.last_index < low_index or not file.count:
                continue
            low = max(0, low_index - file.first_index)
            place = bisect_left(file.timestamps, timestamp_us, lo=low)
            if place < file.count:
                return file.first_index + place
        return None

    def live_files(self, first_index: int, last_index: int) -> Iterator[LogFile]:
        """The files that hold entries of [first_index, last_index], oldest first."""
        for file in self.files:
            if file.count and file.last_index >= first_index and file.first_index <= last_index:
                yield file
