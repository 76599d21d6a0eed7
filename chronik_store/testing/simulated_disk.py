"""A file system in memory that loses power, runs full and fails, on purpose and repeatably.

Place: an implementation of `fs.base.FileSystem`. Promise: it gives no more than the contract does.
Bytes and names that were not synced may be lost, kept or torn by a crash (`crash`, `medium`); a
failed sync makes the pages clean and writes nothing; a sync that takes long covers the writes made
before it began, not those made meanwhile. Invariant: equal calls, hook and seed give equal disks.

    disk = SimulatedDisk(seed=7)
    disk.hook = crash_at(12)             # disk_faults: or fail_at(12, errno.EIO), Gate(...), ...
    with suppress(CrashError):
        program(disk)
    program(disk.crash("torn"))          # the same medium after the power loss, a new incarnation

A `SimulatedDisk` is one process's view of a medium. `kill` is kill -9: the process is gone, its
locks too, the page cache stays. `another_process` is a second one beside it. `crash` is the power
loss, for all of them. Once it is over, every call of an incarnation raises CrashError.
"""

from __future__ import annotations

import errno
import posixpath
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TypeVar

from chronik_store.fs.base import DiskUsage, FileStat
from chronik_store.testing.crash import CrashError, CrashMode
from chronik_store.testing.medium import FileNode, Medium
from chronik_store.testing.simulated_calls import Calls, Hook, Pace
from chronik_store.testing.simulated_file import SimulatedFile, SimulatedFileLock
from chronik_store.testing.tree import Tree, failure

__all__ = ["CrashError", "CrashMode", "Hook", "Pace", "SimulatedDisk"]

T = TypeVar("T")


class SimulatedDisk:
    """One process's view of a simulated medium. Thread-safe.

    Args:
        seed: decides what the disk leaves open: what survives a crash, how much of a failed write.
        capacity_bytes: space for file contents; a write that goes over it writes what fits and
            raises ENOSPC. None: as good as endless.
        time_us: clock of modification times; by default they only count up.
        medium: the one to look at; by default a new and empty one.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        capacity_bytes: int | None = None,
        time_us: Callable[[], int] | None = None,
        medium: Medium | None = None,
    ) -> None:
        medium = Medium(capacity_bytes) if medium is None else medium
        self._medium = medium
        self._rng = random.Random(seed)
        self._calls = Calls(medium, self._rng)
        self._given_time_us = time_us
        self._time_us = time_us or (lambda: medium.mark)
        self._tree = Tree(medium, self._time_us)
        self._files: list[SimulatedFile] = []
        self._locks: list[SimulatedFileLock] = []

    # ------------------------------------------------------------------ faults and incarnations

    @property
    def hook(self) -> Hook | None:
        """Called before each call takes effect; see `simulated_calls.Hook`."""
        return self._calls.hook

    @hook.setter
    def hook(self, hook: Hook | None) -> None:
        self._calls.hook = hook

    @property
    def pace(self) -> Pace | None:
        """What makes calls take virtual time; set by a simulation."""
        return self._calls.pace

    @pace.setter
    def pace(self, pace: Pace | None) -> None:
        self._calls.pace = pace

    @property
    def calls(self) -> int:
        """How many calls this incarnation has made."""
        return self._calls.total

    @property
    def calls_by_operation(self) -> Counter[str]:
        """The same, apart for each operation ("write_at", "sync_data", ...)."""
        return Counter(self._calls.by_operation)

    @property
    def open_files(self) -> list[str]:
        """Paths of the files that this process has open."""
        return sorted(file.path for file in self._files)

    @property
    def used_bytes(self) -> int:
        """What its files take."""
        return self._medium.used_bytes

    @property
    def capacity_bytes(self) -> int | None:
        """May be changed at any time: a disk that fills up, or one that was cleaned."""
        return self._medium.capacity_bytes

    @capacity_bytes.setter
    def capacity_bytes(self, capacity_bytes: int | None) -> None:
        self._medium.capacity_bytes = capacity_bytes

    def crash(self, mode: CrashMode = "any", rng: random.Random | None = None) -> SimulatedDisk:
        """Lose power: every process on this medium is dead. Returns the disk after the reboot.

        May be called again, for another outcome of the same crash.
        """
        self._medium.powered_off = True
        return self.crashed(mode, rng)

    def crashed(self, mode: CrashMode = "any", rng: random.Random | None = None) -> SimulatedDisk:
        """The disk as a power loss at this moment would leave it; this one goes on."""
        rng = rng or self._rng
        with self._medium.guard:
            medium = self._medium.after_crash(mode, rng)
        return self._incarnation(medium)

    def kill(self) -> SimulatedDisk:
        """End this process only (kill -9): unsynced bytes and names stay in the page cache."""
        self._calls.stop()
        for file in list(self._files):
            file.abandon()
        for lock in self._locks:
            lock.abandon()
        return self._incarnation(self._medium)

    def another_process(self) -> SimulatedDisk:
        """A second process on the same machine: the same files, other locks and handles."""
        return self._incarnation(self._medium)

    def _incarnation(self, medium: Medium) -> SimulatedDisk:
        seed = self._rng.getrandbits(64)
        return SimulatedDisk(seed, time_us=self._given_time_us, medium=medium)

    # --------------------------------------------------------------------- damage and inspection

    def flip_bit(self, path: str, position: int, bit: int = 0) -> None:
        """Damage one bit of byte `position`, in the page cache and on the medium."""
        flipped = self.peek(path)[position] ^ (1 << bit)
        self.overwrite(path, position, bytes([flipped]))

    def overwrite(self, path: str, position: int, data: bytes) -> None:
        """Put other bytes there, durably and behind everybody's back."""
        with self._medium.guard:
            self._medium.damage(self._tree.file(path), position, data)

    def truncate(self, path: str, size_bytes: int) -> None:
        """Cut the file, durably and behind everybody's back."""
        with self._medium.guard:
            self._medium.truncate(self._tree.file(path), size_bytes)

    def vanish(self, path: str) -> None:
        """Take the file's name away, durably and behind everybody's back."""
        with self._medium.guard:
            self._tree.remove(path)
            directory = self._tree.directory(posixpath.dirname(path))
            self._medium.sync_directory(directory, self._medium.mark)

    def make_unreadable(self, path: str, position: int, length: int = 512) -> None:
        """Reads that touch these bytes fail with EIO until something is written over them."""
        with self._medium.guard:
            self._tree.file(path).bad_ranges.append((position, position + length))

    def peek(self, path: str) -> bytes:
        """The file as readers see it; no call, no hook."""
        with self._medium.guard:
            return bytes(self._tree.file(path).content)

    def peek_durable(self, path: str) -> bytes | None:
        """What a crash is sure to leave of the file of this name; None if not even the name."""
        with self._medium.guard:
            node = self._tree.durable_file(path)
            return None if node is None else bytes(node.durable)

    def paths(self, below: str = "/") -> list[str]:
        """All files, depth first, sorted; no call, no hook."""
        with self._medium.guard:
            return list(self._tree.walk(below))

    # ---------------------------------------------------------------------------- the file system

    def _call(self, operation: str, path: str, effect: Callable[[], T]) -> T:
        self._calls.begin(operation, path)
        with self._medium.guard:
            result = effect()
        self._calls.finish(operation, path)
        return result

    def create(self, path: str) -> SimulatedFile:
        return self._call(
            "create", path, lambda: self._handle(self._tree.create(path), path, writable=True)
        )

    def open(self, path: str, *, write: bool = False) -> SimulatedFile:
        return self._call(
            "open", path, lambda: self._handle(self._tree.file(path), path, writable=write)
        )

    def _handle(self, node: FileNode, path: str, *, writable: bool) -> SimulatedFile:
        file = SimulatedFile(
            self._calls,
            node,
            path,
            writable=writable,
            time_us=self._time_us,
            on_close=self._files.remove,
        )
        node.opens += 1
        self._files.append(file)
        return file

    def exists(self, path: str) -> bool:
        return self._call("exists", path, lambda: self._tree.exists(path))

    def stat(self, path: str) -> FileStat:
        return self._call("stat", path, lambda: self._tree.stat(path))

    def list(self, path: str) -> list[str]:
        return self._call("list", path, lambda: sorted(self._tree.directory(path).entries))

    def walk(self, path: str) -> Iterator[str]:
        """All file paths below a directory as they are at this moment."""
        return self._call("walk", path, lambda: iter(list(self._tree.walk(path))))

    def make_directories(self, path: str) -> None:
        """As `PosixFileSystem` does it: a "make_directory" and a sync for each level."""
        path = posixpath.normpath(path)
        missing = []
        while not (self.exists(path) and self.stat(path).is_directory):
            missing.append(path)
            path = posixpath.dirname(path)
        self.sync_directory(posixpath.dirname(path))
        for path in reversed(missing):
            self._call("make_directory", path, partial(self._tree.make_directory, path))
            try:
                self.sync_directory(posixpath.dirname(path))
            except OSError:
                with suppress(OSError):
                    self.remove_directory(path)
                raise

    def rename(self, source: str, target: str) -> None:
        self._call("rename", source, lambda: self._tree.rename(source, target))

    def link(self, source: str, target: str) -> None:
        self._call("link", target, lambda: self._tree.link(source, target))

    def remove(self, path: str) -> None:
        self._call("remove", path, lambda: self._tree.remove(path))

    def remove_directory(self, path: str) -> None:
        self._call("remove_directory", path, lambda: self._tree.remove_directory(path))

    def sync_directory(self, path: str) -> None:
        """Make the names changed before this call durable; those that it fails on never are."""
        mark = self._medium.mark
        try:
            self._calls.begin("sync_directory", path)
        except OSError:
            with self._medium.guard:
                self._medium.fail_sync_directory(self._tree.directory(path), mark)
            raise
        with self._medium.guard:
            self._medium.sync_directory(self._tree.directory(path), mark)
        self._calls.finish("sync_directory", path)

    def usage(self, path: str) -> DiskUsage:
        def effect() -> DiskUsage:
            self._tree.find(path)
            free_bytes = max(0, self._medium.free_bytes)
            return DiskUsage(
                total_bytes=free_bytes + self._medium.used_bytes, free_bytes=free_bytes
            )

        return self._call("usage", path, effect)

    def lock(self, path: str, content: bytes) -> SimulatedFileLock:
        return self._call("lock", path, lambda: self._locked(path, content))

    def _locked(self, path: str, content: bytes) -> SimulatedFileLock:
        node = self._tree.file(path) if self._tree.exists(path) else self._tree.create(path)
        if node in self._medium.locked:
            raise failure(errno.EWOULDBLOCK, path)
        self._medium.truncate(node, 0)
        if self._medium.write(node, 0, memoryview(content)) < len(content):
            raise failure(errno.ENOSPC, path)
        self._medium.locked.append(node)
        lock = SimulatedFileLock(self._calls, node, path)
        self._locks.append(lock)
        return lock
