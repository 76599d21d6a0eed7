"""One store-wide limit on the bytes that uploads hold in flight (protocol 20).

Place: beside the stages that send bodies to the bucket. Promise: the sum of what is taken never
exceeds the limit, except that a body larger than the limit goes alone; who waits is served in
order of arrival, so a large segment is not starved by small bundles. Invariant: no lock is held
while a body is sent: a take is a number, not a lock. It ends in one step, wherever an interrupt
comes: nobody would give back what one that is gone had taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from chronik_store.errors import LogClosedError
from chronik_store.threads import Threads


@dataclass(slots=True, eq=False)
class _Take:
    """Bytes that somebody waits for, or has."""

    size_bytes: int
    ended: bool = False


class ByteBudget:
    """Bytes that may be in flight at once. Thread-safe.

    Args:
        threads: where the condition comes from.
        limit_bytes: at most so many at once; default use is the size of one segment.
    """

    def __init__(self, threads: Threads, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._changed = threads.condition()
        self._queue: deque[_Take] = deque()
        """Who waits, in order of arrival."""
        self._going: list[_Take] = []
        self._closed = False

    @property
    def taken_bytes(self) -> int:
        """Bytes in flight now."""
        return sum(each.size_bytes for each in self._going if not each.ended)

    @contextmanager
    def take(self, size_bytes: int) -> Iterator[None]:
        """Hold `size_bytes` for the length of the block; waits until they are free.

        Raises:
            LogClosedError: `close` was called before the turn came.
        """
        mine = _Take(size_bytes)
        try:
            with self._changed:
                self._queue.append(mine)
                while not self._closed and not self._may_go_locked(mine):
                    self._changed.wait(1.0)  # an interrupt may have swallowed the wake-up
                if self._closed:
                    raise LogClosedError("the store is closing; the upload goes on when it opens")
                self._going.append(mine)
                self._queue.remove(mine)
            yield
        finally:
            mine.ended = True
            with self._changed:
                self._forget_ended_locked()
                self._changed.notify_all()

    def close(self) -> None:
        """Refuse everyone who waits, now and later. What is in flight is left to finish."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _may_go_locked(self, mine: _Take) -> bool:
        self._forget_ended_locked()
        taken_bytes = self.taken_bytes
        fits = taken_bytes == 0 or taken_bytes + mine.size_bytes <= self.limit_bytes
        return fits and self._queue[0] is mine

    def _forget_ended_locked(self) -> None:
        self._queue = deque(each for each in self._queue if not each.ended)
        self._going = [each for each in self._going if not each.ended]
