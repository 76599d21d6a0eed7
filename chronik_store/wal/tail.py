"""The memory tail: the newest entries of a log, so that hot reads touch no disk.

Place: in `wal`. Promise: entries [first_index, last_index] of the log, contiguous up to its end;
entries that are not durable yet are always among them. Invariant: one byte budget over all logs
of a store: whoever goes over it evicts from the log that was appended to least recently, so that
idle logs give their memory to busy ones. `MemoryTail` is guarded by its WAL's lock, `TailBudget`
by its own, and neither lock is taken while the other is held.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Protocol

from chronik_store.format.entry import Entry, EntryHeader
from chronik_store.fs.base import Buffer
from chronik_store.threads import Threads

_OVERHEAD_BYTES = 700
"""What an entry costs beside its payload: two tuples, their integers, a slot."""


_entry = partial(tuple.__new__, Entry)
_STEP_BYTES = 16 << 10
"""Logs report changes of this size, not each append."""


class MemoryTail:
    """The newest entries by index."""

    __slots__ = ("_entries", "bytes_held", "first_index", "next_index")

    def __init__(self, next_index: int = 1) -> None:
        self._entries: dict[int, Entry] = {}
        self.bytes_held = 0
        self.first_index = next_index
        self.next_index = next_index

    def append(self, header: EntryHeader, payload: Buffer) -> None:
        """The log's next entry."""
        index = header.index
        self._entries[index] = _entry((header, payload))
        self.bytes_held += header.payload_bytes + _OVERHEAD_BYTES
        self.next_index = index + 1

    def truncate(self, index: int) -> None:
        """Entries at or above `index` are gone."""
        for gone in range(max(index, self.first_index), self.next_index):
            self._drop(gone)
        self.next_index = min(self.next_index, index)
        self.first_index = min(self.first_index, index)

    def restart(self, next_index: int) -> None:
        """Empty, before the entry `next_index`."""
        self.truncate(0)
        self.first_index = self.next_index = next_index

    def evict(self, goal_bytes: int, limit_index: int) -> None:
        """Forget the oldest entries below `limit_index` until no more than `goal_bytes` stay."""
        while self.bytes_held > goal_bytes and self.first_index < min(limit_index, self.next_index):
            self._drop(self.first_index)
            self.first_index += 1

    def read(self, first_index: int, last_index: int, max_bytes: int) -> list[Entry]:
        """Entries from `first_index`, which is in here: at least one, then up to `max_bytes`."""
        entries = self._entries
        found = [entries[first_index]]
        left = max_bytes - found[0].header.entry_bytes
        for index in range(first_index + 1, last_index + 1):
            entry = entries[index]
            left -= entry.header.entry_bytes
            if left < 0:
                break
            found.append(entry)
        return found

    def _drop(self, index: int) -> None:
        entry = self._entries.pop(index)
        self.bytes_held -= entry.header.payload_bytes + _OVERHEAD_BYTES


class TailOwner(Protocol):
    """A WAL, as the budget sees it."""

    def shrink_tail(self, goal_bytes: int) -> int:
        """Evict down to `goal_bytes` if possible; returns the bytes still held."""
        ...


class TailBudget:
    """The bytes that all memory tails of a store may hold together, each known to `step_bytes`.

    Thread-safe.
    """

    def __init__(self, threads: Threads, limit_bytes: int) -> None:
        self._lock = threads.lock()
        self._limit_bytes = limit_bytes
        self.step_bytes = min(_STEP_BYTES, limit_bytes // 64)
        self._held: OrderedDict[TailOwner, int] = OrderedDict()
        self._total = 0

    @property
    def total_bytes(self) -> int:
        """What all tails hold, as of their last reports."""
        return self._total

    def report(self, owner: TailOwner, bytes_held: int) -> None:
        """`owner` was appended to and holds so much now; evicts, the coldest log first.

        The caller holds no lock.
        """
        self._note(owner, bytes_held, used=True)
        # Once round, each asked for what it has. What is in flight, of all of them perhaps, stays
        # until it is durable, and that may wait for the very thread that reports here.
        for _ in range(len(self._held)):
            with self._lock:
                if self._total <= self._limit_bytes or not self._held:
                    return
                coldest, held = next(iter(self._held.items()))
                goal = max(0, held - (self._total - self._limit_bytes))
            left = coldest.shrink_tail(goal)
            if coldest is owner:
                self._note(owner, left, used=True)
                return
            # Whatever could not be evicted is in flight: no longer cold, so look further.
            self._note(coldest, left, used=left > 0)

    def forget(self, owner: TailOwner) -> None:
        """The log is closed."""
        self._note(owner, 0, used=False)

    def _note(self, owner: TailOwner, bytes_held: int, *, used: bool) -> None:
        with self._lock:
            self._total += bytes_held - self._held.get(owner, 0)
            if bytes_held:
                self._held[owner] = bytes_held
                if used:
                    self._held.move_to_end(owner)
            else:
                self._held.pop(owner, None)
