"""Blocks of objects in local files: the second layer of the read cache.

Place: below `cache`. Promise: never an error and never a wrong byte: a block that cannot be read
or does not match its checksum is a miss, and a disk that refuses writes only makes the cache
smaller. Bounded by bytes, least recently used goes first. Invariant: the index is in memory and
files are whole before they enter it, so what an earlier process left is worthless: it is removed
at open. Nothing is synced. No lock is held over a disk call.

One file holds one run of blocks as it was fetched (a read-ahead of 4 MiB is one file, not 64).
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass

from chronik_store.format.checksum import checksum
from chronik_store.fs.base import FileSystem
from chronik_store.objectstore.lru import ByteBoundedLru
from chronik_store.threads import Threads

_log = logging.getLogger("chronik_store.objectstore")
_SUFFIX = ".blocks"
_WARNINGS_MAX = 3


@dataclass(frozen=True, slots=True)
class _Run:
    """A file: consecutive blocks of one object, and the checksum of each."""

    path: str
    key: str
    first_block: int
    checksums: tuple[int, ...]
    size_bytes: int


class DiskBlocks:
    """A directory of cached blocks. Thread-safe; the directory belongs to one process.

    Args:
        directory: absolute; made if absent, its `*.blocks` files are removed.
        limit_bytes: files hold no more than this, except while one is being written.
        reserve_bytes: nothing is kept that would leave less than this free on the disk: the log
            needs that space more than its readers do.
        block_bytes: all blocks but an object's last have this size.
    """

    def __init__(
        self,
        threads: Threads,
        fs: FileSystem,
        directory: str,
        *,
        limit_bytes: int,
        reserve_bytes: int,
        block_bytes: int,
    ) -> None:
        self._fs = fs
        self._reserve_bytes = reserve_bytes
        self._directory = directory
        self._block_bytes = block_bytes
        self._lock = threads.lock()
        self._runs: ByteBoundedLru[int, _Run] = ByteBoundedLru(limit_bytes)
        self._index: dict[tuple[str, int], int] = {}
        self._next_run = 0
        self._warnings = 0
        self.corrupt_blocks = 0
        try:
            fs.make_directories(directory)
            for name in fs.list(directory):
                if name.endswith(_SUFFIX):
                    fs.remove(f"{directory}/{name}")
        except OSError as error:
            # What stays is not in the index, so it is never read; only space is lost.
            self._warn("cannot be cleared", error)

    @property
    def size_bytes(self) -> int:
        """Bytes in indexed files now."""
        return self._runs.size_bytes

    def get(self, key: str, block: int) -> bytes | None:
        """A block's verified bytes, or None."""
        with self._lock:
            number = self._index.get((key, block))
            run = None if number is None else self._runs.get(number)
        if number is None or run is None:
            return None
        position = block - run.first_block
        try:
            file = self._fs.open(run.path)
            try:
                data = file.read_at(position * self._block_bytes, self._block_bytes)
            finally:
                file.close()
        except FileNotFoundError:
            return None  # evicted meanwhile
        except OSError as error:
            self._warn("cannot be read", error)
            self._drop(number)
            return None
        if checksum(data) == run.checksums[position]:
            return data
        self.corrupt_blocks += 1
        _log.warning("cached block %d of %r is damaged in %s; fetched again", block, key, run.path)
        self._drop(number)
        return None

    def put(self, key: str, first_block: int, data: bytes) -> None:
        """Keep a run of blocks that begins with `first_block`. Failure is only a smaller cache."""
        if not data or len(data) > self._runs.limit_bytes:
            return
        view = memoryview(data)
        size = self._block_bytes
        checksums = tuple(checksum(view[at : at + size]) for at in range(0, len(data), size))
        with self._lock:
            number = self._next_run
            self._next_run += 1
        path = f"{self._directory}/{number}{_SUFFIX}"
        if not self._write(path, data):
            return
        run = _Run(path, key, first_block, checksums, len(data))
        with self._lock:
            evicted = self._runs.put(number, run, run.size_bytes)
            for position in range(len(checksums)):
                self._index[key, first_block + position] = number
            self._unindex_locked(evicted)
        self._remove(evicted)

    def forget(self, key: str) -> None:
        """Drop an object's blocks."""
        with self._lock:
            numbers = [n for n in self._runs if (run := self._runs.get(n)) and run.key == key]
        for number in numbers:
            self._drop(number)

    def clear(self) -> None:
        """Drop everything: the disk needs the space."""
        with self._lock:
            evicted = self._runs.shrink(0)
            self._unindex_locked(evicted)
        self._remove(evicted)

    def _drop(self, number: int) -> None:
        with self._lock:
            run = self._runs.pop(number)
            evicted = [] if run is None else [(number, run)]
            self._unindex_locked(evicted)
        self._remove(evicted)

    def _unindex_locked(self, evicted: list[tuple[int, _Run]]) -> None:
        for number, run in evicted:
            for position in range(len(run.checksums)):
                block = (run.key, run.first_block + position)
                if self._index.get(block) == number:  # a later run may hold it too
                    del self._index[block]

    def _write(self, path: str, data: bytes) -> bool:
        try:
            if self._fs.usage(self._directory).free_bytes < self._reserve_bytes + len(data):
                return False
            file = self._fs.create(path)
            try:
                file.write_at(0, [data])
            finally:
                file.close()
        except OSError as error:
            self._warn("cannot be written", error)
            with suppress(OSError):  # told already
                self._fs.remove(path)
            return False
        return True

    def _remove(self, evicted: list[tuple[int, _Run]]) -> None:
        for _, run in evicted:
            try:
                self._fs.remove(run.path)
            except OSError as error:
                self._warn("does not let go of a file", error)

    def _warn(self, what: str, error: OSError) -> None:
        self._warnings += 1
        if self._warnings <= _WARNINGS_MAX:
            _log.warning("read cache %s %s: %s", self._directory, what, error)
