"""Open files, shared and bounded: a thousand idle partitions hold a handful of descriptors.

Place: one per store, under all WALs. Promise: a file is open while anybody uses it. Up to `limit`
idle ones that were read, and up to `busy_limit` that are written to, stay open for the next use,
the least recently used are closed; a log that rests `forget`s its own; where the process has no
descriptor left, all idle ones are closed before anything fails for it. Invariant: `close` of a file
never runs beside a call on it; nothing unsynced is lost by a close, since a group's write and sync
happen within one use.
"""

from __future__ import annotations

import errno
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TypeVar

from chronik_store.fs.base import File, FileSystem
from chronik_store.threads import Threads

logger = logging.getLogger("chronik_store.wal")
T = TypeVar("T")
_NONE_LEFT = {errno.EMFILE, errno.ENFILE}


class Lent:
    """An open file and how many use it. `stale`: close it with the last use."""

    __slots__ = ("file", "stale", "users", "write")

    def __init__(self, file: File, *, write: bool) -> None:
        self.file = file
        self.write = write
        self.users = 1
        self.stale = False


class DescriptorCache:
    """Lends open files by path. Thread-safe; no lock is held while a file is opened or closed."""

    def __init__(
        self, fs: FileSystem, threads: Threads, limit: int = 64, *, busy_limit: int = 512
    ) -> None:
        self._fs = fs
        self._lock = threads.lock()
        self._limit = limit
        self._busy_limit = busy_limit
        self._least_limit = min(limit, busy_limit)
        self._open: OrderedDict[str, Lent] = OrderedDict()
        self._written = 0

    @contextmanager
    def use(self, path: str, *, write: bool = False) -> Iterator[File]:
        """The file, open; OSError as opening raises it. `write`: it will be written to."""
        lent = self.lend(path, write=write)
        try:
            yield lent.file
        finally:
            self.give_back(lent)

    def adopt(self, path: str, file: File) -> None:
        """Keep a file that the caller has opened for writing, under the name that it has now."""
        with self._lock:
            lent = Lent(file, write=True)
            replaced = self._put(path, lent)
        if replaced is not None:
            _close(replaced)
        self.give_back(lent)

    def forget(self, path: str) -> None:
        """Close the file as soon as nobody uses it: its name is about to go."""
        with self._lock:
            found = self._open.get(path)
            if found is None:
                return
            self._take_out(path)
            found.stale = True
            if found.users:
                return
        _close(found.file)

    @property
    def open_files(self) -> int:
        """How many descriptors are held now."""
        return len(self._open)

    def close(self) -> None:
        """Close what nobody uses; the rest follows with its last use. Idempotent."""
        for path in list(self._open):
            self.forget(path)

    def lend(self, path: str, *, write: bool = False) -> Lent:
        """`use` in two halves, for the hot path: every loan goes to `give_back`."""
        opened = self._open
        with self._lock:
            found = opened.get(path)
            if found is not None and (found.write or not write):
                found.users += 1
                opened.move_to_end(path)
                return found
        lent = Lent(self.with_room(partial(self._fs.open, path, write=write)), write=write)
        with self._lock:
            replaced = self._put(path, lent)
        if replaced is not None:
            _close(replaced)
        return lent

    def with_room(self, call: Callable[[], T]) -> T:
        """What `call` returns, which takes a descriptor first of all: where there is none left,
        nothing was done yet, and idle files are closed for it. OSError as it comes.
        """
        while True:
            try:
                return call()
            except OSError as error:
                if error.errno not in _NONE_LEFT or not self._close_idle():
                    raise

    def _close_idle(self) -> bool:
        """Close what nobody uses; False: there is nothing."""
        with self._lock:
            closing = self._evict(len(self._open), write=False)
            closing += self._evict(len(self._open), write=True)
        for file in closing:
            _close(file)
        return bool(closing)

    def _put(self, path: str, lent: Lent) -> File | None:
        """Let `lent` stand for `path`; returns the file to close, if it took an idle one's place.

        Two that opened at once both work; the later one stays. The lock must be held.
        """
        replaced = self._open.get(path)
        if replaced is not None:
            self._take_out(path)
        self._open[path] = lent
        self._written += lent.write
        if replaced is None:
            return None
        replaced.stale = True
        return None if replaced.users else replaced.file

    def give_back(self, lent: Lent) -> None:
        """The end of a loan."""
        with self._lock:
            lent.users -= 1
            if not lent.stale and len(self._open) <= self._least_limit:
                return
            closing: list[File] = []
            if lent.stale:
                if lent.users == 0:
                    closing.append(lent.file)
            elif len(self._open) - self._written > self._limit:
                closing += self._evict(len(self._open) - self._written - self._limit, write=False)
            elif self._written > self._busy_limit:
                closing += self._evict(self._written - self._busy_limit, write=True)
        for file in closing:
            _close(file)

    def _evict(self, surplus: int, *, write: bool) -> list[File]:
        """Take that many idle files of a kind out, least recently used first. Lock held."""
        idle = (path for path, held in self._open.items() if held.write == write and not held.users)
        return [self._take_out(path) for path in list(islice(idle, surplus))]

    def _take_out(self, path: str) -> File:
        taken = self._open.pop(path)
        self._written -= taken.write
        return taken.file


def _close(file: File) -> None:
    """Release a descriptor. What had to be on disk was synced before: a failure loses nothing."""
    try:
        file.close()
    except OSError as error:
        logger.warning("closing %s failed: %s", file.path, error)
