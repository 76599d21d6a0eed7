"""The filler: writes zeros ahead of WAL files, so that appends find written blocks.

Place: one per store, shared by all WALs. A sync of bytes that were written before (as zeros)
moves no metadata and takes about half the time of one that grows the file; and the zeros tell
recovery an unwritten sector from a damaged one (protocol 9, 14). For groups so large that metadata
hardly counts, blocks are reserved instead: they read as zeros, and nothing is written twice.
Promise: an acknowledgement never waits for it, unless it needs the very bytes being filled, or a
sync of the same file to end: the error of a write may be told to one of two only. Invariant: it has
a descriptor of its own, so that where each is told of it (Linux) the committer is told, too.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Protocol

from chronik_store.commit.rounds import Rounds
from chronik_store.fs.base import FileSystem
from chronik_store.threads import Threads

_ZEROS = bytes(1 << 18)


class FillTarget(Protocol):
    """A file that wants zeros ahead."""

    def fill(self) -> bool:
        """Write one chunk of zeros. True: it wants another at once."""
        ...


class Filler:
    """Fills files in the background. Thread-safe."""

    def __init__(self, threads: Threads, workers: int = 1) -> None:
        self._rounds = Rounds(threads, workers, "chronik-fill")

    def notify(self, target: FillTarget) -> None:
        """Have one chunk filled soon. Cheap, never blocks on the disk: where no thread can be had,
        nothing is filled, and the next group asks again.
        """
        self._rounds.notify(target.fill)

    def close(self) -> None:
        """Finish what was notified, end the workers. Idempotent."""
        self._rounds.close()


def write_zeros(
    fs: FileSystem,
    path: str,
    start: int,
    end: int,
    *,
    keep_free_bytes: int = 0,
    before_sync: Callable[[], None] = lambda: None,
) -> None:
    """Make [start, end) of an existing file durable zeros. OSError as it comes. before_sync: from
    here on it may be told of errors in other bytes of the file.

    ENOSPC, and nothing written, if less than `keep_free_bytes` would be free: what comes after
    the zeros (a rotation, a control entry) needs that room more.
    """
    _check_room(fs, path, end - start, keep_free_bytes)
    file = fs.open(path, write=True)
    try:
        while start < end:
            length = min(len(_ZEROS), end - start)
            file.write_at(start, [_ZEROS[:length] if length < len(_ZEROS) else _ZEROS])
            start += length
        before_sync()
        file.sync_data()
    finally:
        file.close()


def reserve_zeros(fs: FileSystem, path: str, size_bytes: int, *, keep_free_bytes: int = 0) -> bool:
    """Give an empty file so many bytes that read as zeros, in blocks of its own that nobody wrote.
    False where the file system cannot. OSError as `write_zeros`.
    """
    _check_room(fs, path, size_bytes, keep_free_bytes)
    file = fs.open(path, write=True)
    try:
        return file.reserve(0, size_bytes)
    finally:
        file.close()


def _check_room(fs: FileSystem, path: str, size_bytes: int, keep_free_bytes: int) -> None:
    if keep_free_bytes and fs.usage(path).free_bytes - size_bytes < keep_free_bytes:
        raise OSError(errno.ENOSPC, "the room left is kept for appends", path)


def give_back_zeros(fs: FileSystem, path: str, start: int, end: int) -> None:
    """[start, end) of a file is zeros that nobody will write over: the disk may have its blocks."""
    file = fs.open(path, write=True)
    try:
        file.give_back(start, end - start)
    finally:
        file.close()
