"""The durable limit: the end of the longest run of live entries whose frames are synced.

Place: in `wal`, beside staging. Promise: nothing but a sync moves `durable` up, nothing but a
truncation (or a snapshot that replaces the log) moves it down, and a sync that was under way when
a truncation was staged lifts it over live entries only (protocol 4, S1). Invariant: live entries
have rising seqs, so the ones not yet durable are a queue. Not thread-safe.
"""

from __future__ import annotations

from functools import partial

from chronik_store.model import Position

_position = partial(tuple.__new__, Position)


class DurableLimit:
    """`position` and the live entries above it, each with the seq of its frame."""

    __slots__ = ("_staged", "position")

    def __init__(self, position: Position) -> None:
        self.position = position
        # A list: an empty deque takes 760 bytes, and idle logs are many.
        self._staged: list[tuple[int, int, int]] = []

    def stage(self, seq: int, end_index: int, end_offset: int) -> None:
        """A live entry (or a snapshot) that ends at this exclusive limit has the frame `seq`."""
        self._staged.append((seq, end_index, end_offset))

    def truncate(self, position: Position) -> None:
        """No entry above `position` is live any more."""
        staged = self._staged
        while staged and staged[-1][1] > position.index:
            staged.pop()
        if position.index < self.position.index:
            self.position = position

    def begin(self, position: Position) -> None:
        """A log begins, or begins again, with nothing durable behind `position`."""
        self._staged.clear()
        self.position = position

    def restart(self, floor: Position) -> None:
        """A snapshot replaces the log: none of its entries is live any more. What is committed,
        up to `floor`, is in the snapshot, and stays the limit until that is durable.
        """
        self._staged.clear()
        if floor.index < self.position.index:
            self.position = floor

    def synced(self, seq: int) -> bool:
        """All frames up to `seq` are on disk. True: `position` has moved."""
        staged, done = self._staged, 0
        while done < len(staged) and staged[done][0] <= seq:
            done += 1
        if not done:
            return False
        self.position = _position(staged[done - 1][1:])
        del staged[:done]
        return True
