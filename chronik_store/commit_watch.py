"""Waiting for `committed` to move.

Place: part of `log_core`. Promise: whoever waits is woken when it may have moved, when the log
fails and when it closes; telling costs nothing while nobody waits. Invariant: no lock is held
while listeners are called.
"""

from __future__ import annotations

from collections.abc import Callable

from chronik_store.clock import Clock
from chronik_store.threads import Threads

LOOK_AGAIN_SECONDS = 1.0


class CommitWatch:
    """One log's waiters. Thread-safe."""

    def __init__(self, threads: Threads, clock: Clock) -> None:
        self._clock = clock
        self._moved = threads.condition()
        self._waiting = 0
        self._listeners: tuple[Callable[[], None], ...] = ()

    def wait(self, reached: Callable[[], bool], timeout_seconds: float) -> None:
        """Block until `reached()` or the time is up."""
        deadline = self._clock.monotonic() + timeout_seconds
        with self._moved:
            self._waiting += 1
            try:
                while not reached():
                    left = deadline - self._clock.monotonic()
                    if left <= 0:
                        return
                    self._moved.wait(min(left, LOOK_AGAIN_SECONDS))
            finally:
                self._waiting -= 1

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` on each `tell`, from the telling thread. It must not block."""
        self._listeners = (*self._listeners, listener)

    def tell(self) -> None:
        """Something moved. The caller changed it before, so a waiter cannot miss it."""
        for listener in self._listeners:
            listener()
        if self._waiting:
            with self._moved:
                self._moved.notify_all()
