"""The contract of the disk: the only operations that Chronik asks of a file system.

Place: a low room; `fs.posix` is the production implementation, `testing` has a fault-injecting
one. Promise: durability has one door. Bytes are durable only after `sync_data`/`sync_all` of the
file has returned, names only after `sync_directory` of their parent. Any operation may raise
OSError (callers translate); after a failed write or sync the file's content is unknown and the
caller must not go on using it. Paths are strings, absolute, POSIX.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

Buffer = bytes | bytearray | memoryview
SYNC_BYTES = 8 << 20
"""A large file is synced whenever so much of it was written: the append that syncs its WAL on the
same disk meanwhile waits for that much, and not for the whole file.
"""


class File(Protocol):
    """An open file. Positional calls only; safe to use from several threads."""

    @property
    def path(self) -> str: ...

    def write_at(self, position: int, buffers: Sequence[Buffer]) -> int:
        """Write all buffers, back to back, at `position`; returns the byte count.

        Returns only when every byte was accepted (short writes are continued), else raises
        OSError. Not durable until `sync_data` returns.
        """
        ...

    def read_at(self, position: int, length: int) -> bytes:
        """Up to `length` bytes from `position`; shorter only at the end of the file."""
        ...

    def size(self) -> int:
        """Bytes in the file now."""
        ...

    def sync_data(self) -> None:
        """Make all bytes written so far durable, and the size where a read needs it."""
        ...

    def sync_all(self) -> None:
        """Make bytes and all metadata durable."""
        ...

    def reserve(self, position: int, length: int) -> bool:
        """Have the disk's blocks for a stretch from the end of the file on, without writing them.
        It reads as zeros, and the size grows. False, and nothing done, where the file system has
        no such call. OSError (ENOSPC) when there is no room.
        """
        ...

    def give_back(self, position: int, length: int) -> None:
        """Free the disk's blocks under a stretch of zeros. It reads as zeros, and the size stays.

        A wish: whole blocks at most, and none where the file system has no such call. OSError when
        the disk refuses; then, too, every byte reads as before.
        """
        ...

    def map(self) -> AbstractContextManager[memoryview]:
        """The whole file, read-only, for sequential scans; may be one read on other systems.

        No exported slice may outlive the context.
        """
        ...

    def close(self) -> None:
        """Release the descriptor. Syncs nothing. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class FileStat:
    """What a directory entry is."""

    size_bytes: int
    is_directory: bool
    modified_us: int
    blocks_bytes: int
    """Bytes allocated on disk (0 where unknown)."""


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """Space of the file system that holds a path."""

    total_bytes: int
    free_bytes: int


class FileSystem(Protocol):
    """A directory tree. Thread-safe."""

    def create(self, path: str) -> File:
        """Create a new file, open for reading and writing; FileExistsError if it is there."""
        ...

    def open(self, path: str, *, write: bool = False) -> File:
        """Open an existing file; FileNotFoundError if absent."""
        ...

    def exists(self, path: str) -> bool: ...
    def stat(self, path: str) -> FileStat:
        """FileNotFoundError if absent."""
        ...

    def list(self, path: str) -> list[str]:
        """Names in a directory, sorted; FileNotFoundError if absent."""
        ...

    def walk(self, path: str) -> Iterator[str]:
        """All file paths below a directory, depth first, sorted; nothing if absent."""
        ...

    def make_directories(self, path: str) -> None:
        """Create the directory and its parents, each made durable in its parent."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Replace `target` by `source` in one step. Durable after `sync_directory`."""
        ...

    def link(self, source: str, target: str) -> None:
        """A second name for a file; FileExistsError if `target` exists. The create-only door."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file name. FileNotFoundError if absent."""
        ...

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        ...

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        ...

    def usage(self, path: str) -> DiskUsage: ...

    def lock(self, path: str, content: bytes) -> FileLock:
        """Take an exclusive advisory lock on a file (created if absent) and write `content`.

        BlockingIOError if another process, or another open in this one, holds it. The lock goes
        with the process.
        """
        ...


class FileLock(Protocol):
    """A held advisory lock."""

    def release(self) -> None:
        """Give it up. Idempotent."""
        ...
