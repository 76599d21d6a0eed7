"""Waiting for `committed` to move, told by the writer's threads or by looking.

Place: part of `log_core`. Promise: whoever waits is woken when it may have moved, when the log
fails and when it closes; telling costs nothing while nobody waits. Beside a writer in another
process nobody tells: many threads may look, one at a time does, and those who came before it
began share what it found. Invariant: no lock is held while listeners are called, nor over a look.
"""

from __future__ import annotations

from collections.abc import Callable

from chronik_store.clock import Clock
from chronik_store.threads import Threads

LOOK_AGAIN_SECONDS = 1.0
POLL_SECONDS = 0.05
"""How often a reader beside a writer looks for more."""


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


class SharedLook:
    """`look`, which goes on from where the last one ended, for many threads. Thread-safe."""

    def __init__(self, threads: Threads, clock: Clock, look: Callable[[], None]) -> None:
        self._clock = clock
        self._look = look
        self._done = threads.condition()
        self._looking = False
        self._begun = 0
        self._seen = 0

    def look(self) -> None:
        """Return when a look that began after this call has ended; errors are those of its own
        caller, others look again.
        """
        mine = seen = 0
        try:
            with self._done:
                wanted = self._begun + 1
                while self._looking:
                    self._done.wait(LOOK_AGAIN_SECONDS)
                    if self._seen >= wanted:
                        return
                self._begun = mine = self._begun + 1
                self._looking = True
            self._look()
            seen = mine
        finally:
            if mine:
                with self._done:
                    self._looking = False
                    self._seen = max(self._seen, seen)
                    self._done.notify_all()

    def wait(self, reached: Callable[[], bool], timeout_seconds: float) -> None:
        """Block until `reached()`, which looks, or the time is up."""
        deadline = self._clock.monotonic() + timeout_seconds
        while not reached():
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return
            self._clock.sleep(min(left, POLL_SECONDS))
