"""An open file and a held lock of the simulated disk.

Place: handed out by `simulated_disk`. Promise: `fs.base.File` and `fs.base.FileLock`, with what a
failing call does: a failed write has put an unknown first part of its bytes into the page cache, a
failed sync has made the pages clean without writing them. Invariant: a call captures its arguments
(bytes to write, writes to sync) when it is made, and takes effect when its time has passed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from chronik_store.fs.base import Buffer
from chronik_store.testing.medium import FileNode
from chronik_store.testing.simulated_calls import Calls
from chronik_store.testing.tree import failure


class SimulatedFile:
    """An open handle. Thread-safe."""

    def __init__(
        self,
        calls: Calls,
        node: FileNode,
        path: str,
        *,
        writable: bool,
        time_us: Callable[[], int],
        on_close: Callable[[SimulatedFile], None],
    ) -> None:
        self._calls = calls
        self._medium = calls.medium
        self._node = node
        self._path = path
        self._writable = writable
        self._time_us = time_us
        self._on_close = on_close
        self._is_open = True

    @property
    def path(self) -> str:
        return self._path

    def write_at(self, position: int, buffers: Sequence[Buffer]) -> int:
        """Write all buffers, or raise OSError with a part of them written (ENOSPC: what fits)."""
        self._check(writing=True)
        data = memoryview(b"".join(buffers))
        try:
            self._calls.begin("write_at", self._path)
        except OSError:
            self._write(position, data[: self._calls.rng.randint(0, len(data))])
            raise
        accepted = self._write(position, data)
        self._calls.finish("write_at", self._path)
        if accepted < len(data):
            raise failure(errno.ENOSPC, self._path)
        return accepted

    def _write(self, position: int, data: memoryview) -> int:
        with self._medium.guard:
            accepted = self._medium.write(self._node, position, data)
            self._node.modified_us = self._time_us()
            return accepted

    def read_at(self, position: int, length: int) -> bytes:
        """Up to `length` bytes; EIO where a sector was made unreadable."""
        self._check()
        self._calls.begin("read_at", self._path)
        with self._medium.guard:
            if self._node.is_unreadable(position, length):
                raise failure(errno.EIO, self._path)
            data = bytes(self._node.content[position : position + length])
        self._calls.finish("read_at", self._path)
        return data

    def size(self) -> int:
        self._check()
        self._calls.begin("size", self._path)
        size_bytes = len(self._node.content)
        self._calls.finish("size", self._path)
        return size_bytes

    def sync_data(self) -> None:
        """Make the bytes written before this call durable."""
        self._sync("sync_data")

    def sync_all(self) -> None:
        """The same; this file system has no other metadata of a file than its size."""
        self._sync("sync_all")

    def _sync(self, operation: str) -> None:
        self._check()
        mark = self._medium.mark
        try:
            self._calls.begin(operation, self._path)
        except OSError:
            with self._medium.guard:
                self._node.fail_sync(mark)
            raise
        with self._medium.guard:
            self._node.sync(mark)
        self._calls.finish(operation, self._path)

    def reserve(self, position: int, length: int) -> bool:
        """Zeros from the end on, which a crash may take like any bytes that are not synced."""
        self._check(writing=True)
        self._calls.begin("reserve", self._path)
        end = len(self._node.content)
        data = memoryview(bytes(position + length - end))
        accepted = self._write(end, data)
        self._calls.finish("reserve", self._path)
        if accepted < len(data):
            raise failure(errno.ENOSPC, self._path)
        return True

    def give_back(self, position: int, length: int) -> None:
        """Nothing changes that a read could tell. AssertionError over bytes that are not zeros."""
        self._check(writing=True)
        self._calls.begin("give_back", self._path)
        with self._medium.guard:
            stretch = self._node.content[position : position + length]
            assert not stretch.strip(b"\0"), f"{self._path}: bytes from {position} on are in use"
        self._calls.finish("give_back", self._path)

    @contextmanager
    def map(self) -> Iterator[memoryview]:
        """A copy of the whole file; EIO if any of its sectors is unreadable."""
        self._check()
        self._calls.begin("map", self._path)
        with self._medium.guard:
            if self._node.is_unreadable(0, len(self._node.content)):
                raise failure(errno.EIO, self._path)
            data = bytes(self._node.content)
        self._calls.finish("map", self._path)
        yield memoryview(data)

    def close(self) -> None:
        """Syncs nothing. Idempotent."""
        self._calls.refuse_if_dead()
        if self._is_open:
            self._calls.begin("close", self._path)
            self.abandon()
            self._calls.finish("close", self._path)

    def abandon(self) -> None:
        """What becomes of an open handle when its process ends: a close that is no call."""
        with self._medium.guard:
            if self._is_open:
                self._is_open = False
                self._node.opens -= 1
                self._medium.release_if_unused(self._node)
        self._on_close(self)

    def _check(self, *, writing: bool = False) -> None:
        self._calls.refuse_if_dead()
        if not self._is_open or (writing and not self._writable):
            raise failure(errno.EBADF, self._path)


class SimulatedFileLock:
    """A held lock; goes with its process."""

    def __init__(self, calls: Calls, node: FileNode, path: str) -> None:
        self._calls = calls
        self._node = node
        self._path = path
        self._held = True

    def release(self) -> None:
        """Give it up. Idempotent."""
        self._calls.refuse_if_dead()
        if self._held:
            self._calls.begin("release", self._path)
            self.abandon()
            self._calls.finish("release", self._path)

    def abandon(self) -> None:
        """What becomes of it when its process ends."""
        with self._calls.medium.guard:
            if self._held:
                self._held = False
                self._calls.medium.locked.remove(self._node)
