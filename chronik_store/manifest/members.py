"""The members of a group as its log tells them (protocol 12).

Place: part of the folded state. Promise: the members in force are those of the last MEMBERS entry
in the log, committed or not; a truncation brings back the one before. Invariant: entries are in
index order; the first is committed.
"""

from __future__ import annotations

from chronik_store.format.control import Members


class MemberHistory:
    """MEMBERS entries of one log. Not thread-safe: the log's lock guards it."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, Members]] = []

    def restore(self, members: Members | None, index: int) -> None:
        """Start from a checkpoint's value."""
        self._entries = [] if members is None else [(index, members)]

    def restart(self, members: Members | None, index: int) -> None:
        """Like `restore`, but what came after `index` stays."""
        later = [entry for entry in self._entries if entry[0] > index]
        self.restore(members, index)
        self._entries += later

    def append(self, index: int, members: Members) -> None:
        """A MEMBERS entry entered the log; in force from now on."""
        if not self._entries or index > self._entries[-1][0]:
            self._entries.append((index, members))

    def truncate(self, index: int) -> None:
        """Undo entries at or above `index`."""
        while self._entries and self._entries[-1][0] >= index:
            self._entries.pop()

    def commit(self, index: int) -> None:
        """Forget what can no longer come back: all but the last entry at or below `index`."""
        if len(self._entries) <= 1:
            return
        keep = 0
        for position, (at, _) in enumerate(self._entries):
            if at <= index:
                keep = position
        del self._entries[:keep]

    def in_force(self) -> tuple[int, Members] | None:
        """(index, members) of the last entry in the log."""
        return self._entries[-1] if self._entries else None

    def as_of(self, index: int) -> tuple[int, Members] | None:
        """(index, members) in force at `index`: what a checkpoint folded to it carries."""
        found = None
        for entry in self._entries:
            if entry[0] <= index:
                found = entry
        return found
