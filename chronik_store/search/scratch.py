"""Scratch directories: where indexes lie on local disk, and how they go away.

Place: at the bottom of `search`, above `fs`. Promise: `empty_directory` leaves an empty directory,
`remove_tree` never raises; nobody who asks `Room` first takes what is kept for the log, whose next
write must not be the one that finds the disk full. Invariant: nothing here is synced or trusted
after a restart. The paths are on the machine's own disk, because Tantivy opens them by itself:
under a simulated disk callers pass the real file system for them.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from chronik_store.errors import ChronikError, DiskFullError, UnavailableError
from chronik_store.fs.base import FileSystem

_log = logging.getLogger("chronik_store.search")
_ENOSPC: Final = 28
_ENDLESS: Final = 1 << 62


@contextmanager
def disk(directory: str) -> Iterator[None]:
    """OSErrors of scratch work as DiskFullError or UnavailableError."""
    try:
        yield
    except ChronikError:
        raise
    except OSError as error:
        kind = DiskFullError if error.errno == _ENOSPC else UnavailableError
        raise kind(f"search scratch {directory}: {error}") from error


@dataclass(frozen=True, slots=True)
class Room:
    """What scratch may take of a disk: all of it but `reserve_bytes`. 0: nothing is kept back."""

    fs: FileSystem
    reserve_bytes: int

    def left(self, directory: str) -> int:
        """Bytes that may be taken where this directory is or will be; negative when it is short.

        UnavailableError: the disk does not answer.
        """
        if not self.reserve_bytes:
            return _ENDLESS
        with disk(directory):
            while True:
                try:
                    return self.fs.usage(directory).free_bytes - self.reserve_bytes
                except FileNotFoundError:
                    parent = posixpath.dirname(directory) or "."
                    if parent == directory:
                        raise
                    directory = parent

    def need(self, directory: str, size_bytes: int, what: str) -> None:
        """DiskFullError unless `size_bytes` may be taken, for `what`."""
        if self.left(directory) < size_bytes:
            raise self.is_short(directory, what)

    def is_short(self, directory: str, what: str) -> DiskFullError:
        """The error that says so, in the same words each time, so that it is logged once."""
        return DiskFullError(
            f"{directory}: no room for {what} beside the {self.reserve_bytes} bytes that are kept "
            "for the log"
        )


def empty_directory(fs: FileSystem, directory: str) -> None:
    """Make an empty directory here, whatever was here before. OSError."""
    if fs.exists(directory):
        _remove_below(fs, directory)
    fs.make_directories(directory)


def remove_tree(fs: FileSystem, directory: str) -> None:
    """Remove a directory and all below it, if it is there. An OSError is logged, not raised:
    what stays costs space, is emptied before its next use, and hides no data.
    """
    try:
        if fs.exists(directory):
            _remove_below(fs, directory)
            fs.remove_directory(directory)
    except OSError as error:
        _log.warning("search scratch %s could not be removed: %s", directory, error)


def used_bytes(fs: FileSystem, directory: str) -> int:
    """Bytes of the files below a directory. DiskFullError or UnavailableError."""
    with disk(directory):
        return sum(fs.stat(path).size_bytes for path in fs.walk(directory))


def _remove_below(fs: FileSystem, directory: str) -> None:
    for name in fs.list(directory):
        path = f"{directory}/{name}"
        if fs.stat(path).is_directory:
            _remove_below(fs, path)
            fs.remove_directory(path)
        else:
            fs.remove(path)
