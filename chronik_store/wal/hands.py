"""Who is at work on a log's files, so that `close` can wait for them.

Place: the bottom of `wal`; a WAL and its parts share one. Promise: when `end` returns nobody is at
work, and nobody begins any more: the directory may be another process's then, or a namesake's with
files of the same names, and a late rename or unlink would take what that one has acknowledged.
Invariant: whoever stops working, Ctrl-C or not, is counted no more; should that take the wake-up
with it, `end` looks again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from chronik_store.threads import Event, Lock, Threads

LOOK_AGAIN_SECONDS = 1.0
T = TypeVar("T")


class Hands:
    """The work under way on one log's files. Thread-safe; `lock` is the WAL's.

    at_work: a token for each. Whoever is to work adds its own under the lock, unless `ended`.
    """

    __slots__ = ("_lock", "_over", "_threads", "at_work", "ended")

    def __init__(self, threads: Threads, lock: Lock) -> None:
        self.at_work: set[object] = set()
        self.ended = False
        self._threads = threads
        self._lock = lock
        self._over: Event | None = None

    def during(self, work: Callable[[object], T]) -> T:
        """What `work` returns, called with a token that counts for no longer than this. (As the
        block of a `with` it would count for as long as the traceback of an interrupt is there.)
        """
        token = object()
        try:
            try:
                return work(token)
            finally:
                self.at_work.discard(token)
        finally:
            self.left(token)

    def left(self, token: object) -> None:
        """Whoever had this token is at work no more: once again, since Ctrl-C may have come in
        front of the first `discard`.
        """
        self.at_work.discard(token)
        if self._over is not None:
            self._over.set()

    def end(self) -> None:
        """Let nobody begin any more; return when nobody is at work."""
        with self._lock:
            self.ended = True
            over = self._over = self._threads.event()
        while self.at_work:
            over.clear()
            if self.at_work:
                over.wait(LOOK_AGAIN_SECONDS)
