"""One store-wide limit on the bytes that uploads hold in flight (protocol 20).

Place: beside the stages that send bodies to the bucket. Promise: the sum of what is taken never
exceeds the limit, except that a body larger than the limit goes alone; who waits is served in
order of arrival, so a large segment is not starved by small bundles. Invariant: no lock is held
while a body is sent: a take is a number, not a lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from chronik_store.errors import LogClosedError
from chronik_store.threads import Threads


class ByteBudget:
    """Bytes that may be in flight at once. Thread-safe.

    Args:
        threads: where the condition comes from.
        limit_bytes: at most so many at once; default use is the size of one segment.
    """

    def __init__(self, threads: Threads, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._changed = threads.condition()
        self._taken_bytes = 0
        self._queue: deque[object] = deque()
        self._closed = False

    @property
    def taken_bytes(self) -> int:
        """Bytes in flight now."""
        return self._taken_bytes

    @contextmanager
    def take(self, size_bytes: int) -> Iterator[None]:
        """Hold `size_bytes` for the length of the block; waits until they are free.

        Raises:
            LogClosedError: `close` was called before the turn came.
        """
        turn = object()
        with self._changed:
            self._queue.append(turn)
            try:
                while not self._closed and not self._may_go(turn, size_bytes):
                    self._changed.wait()
                if self._closed:
                    raise LogClosedError("the store is closing; the upload goes on when it opens")
                self._taken_bytes += size_bytes
            finally:
                # Also when the wait was interrupted: a turn nobody takes would stop all others.
                self._queue.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._taken_bytes -= size_bytes
                self._changed.notify_all()

    def close(self) -> None:
        """Refuse everyone who waits, now and later. What is in flight is left to finish."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _may_go(self, turn: object, size_bytes: int) -> bool:
        fits = self._taken_bytes == 0 or self._taken_bytes + size_bytes <= self.limit_bytes
        return fits and self._queue[0] is turn
