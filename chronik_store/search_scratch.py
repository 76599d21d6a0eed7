"""Where search keeps what may be thrown away: unpacked bundles, tail indexes, builds.

Place: owned by `log_assembly` and `bucket_log`. Promise: a writer uses its data directory's
`scratch`, a reader that must not write there a temporary directory of its own, made by its first
search and removed at `close`; what a killed one left goes with the next that is made. Invariant:
nothing here is trusted after a restart, and it is always a real disk, since Tantivy opens files
itself: under a simulated one it is a temporary directory, too.

A temporary directory belongs to a reader that is alive as long as somebody holds the lock of its
LOCK: the kernel frees that with the process, and process ids prove nothing. Between its making and
its lock another may take it for a dead one's, and an empty one is nobody's: then its maker has no
lock, and makes another.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
from contextlib import suppress

from chronik_store.errors import UnavailableError
from chronik_store.fs.base import FileLock, FileSystem
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.threads import Threads

KINDS = ("building", "tail")
"""What there is one of for each partition."""
_log = logging.getLogger("chronik_store.search")
_LOCK = "LOCK"
_CHANCES = 5  # to be taken for a dead one's


class SearchScratch:
    """Scratch directories of one store. Thread-safe. `directory` None: a temporary one.

    UnavailableError, of each that names one: the temporary directory cannot be made.
    """

    def __init__(self, fs: FileSystem, threads: Threads, directory: str | None) -> None:
        self._lock = threads.lock()
        self._directory = directory if isinstance(fs, PosixFileSystem) else None
        self._temporary: str | None = None
        self._held: FileLock | None = None
        self.fs: FileSystem = PosixFileSystem() if self._directory is None else fs

    def _root(self) -> str:
        if self._directory is not None:
            return self._directory
        with self._lock:
            if self._temporary is None:
                try:
                    self._temporary, self._held = _make(self.fs)
                except OSError as error:
                    raise UnavailableError(
                        f"no directory for what a search unpacks: {error}; TMPDIR names another"
                    ) from error
                _sweep(self.fs)
            return self._temporary

    def bundles(self) -> str:
        """Where bundles are unpacked."""
        return f"{self._root()}/bundles"

    def building(self) -> str:
        """Where bundles are made."""
        return f"{self._root()}/building"

    def tail(self, topic: str, partition: int) -> str:
        """Where the tail index of one partition lives."""
        return f"{self._root()}/tail/{topic}/{partition}"

    def left_of(self, topic: str, partition: int) -> tuple[str, ...]:
        """Where something may be left of a partition whose log is closed: a tail after a crash, a
        build that was never listed.
        """
        if self._directory is None:
            return ()
        return tuple(f"{self._directory}/{kind}/{topic}/{partition}" for kind in KINDS)

    def close(self) -> None:
        """Remove the temporary directory, if this one is."""
        if self._temporary is not None:
            _remove(self.fs, self._temporary)
        if self._held is not None:
            self._held.release()


def _prefix() -> str:
    """Names the host, too: a directory that several share may keep locks for each by itself."""
    return f"chronik-search-{os.uname().nodename}-"


def _make(fs: FileSystem) -> tuple[str, FileLock | None]:
    """A new temporary directory and its lock; None where the file system has none: then nobody gets
    one, and nobody removes it.
    """
    for _ in range(_CHANCES):
        path = tempfile.mkdtemp(prefix=_prefix())
        try:
            lock = fs.lock(f"{path}/{_LOCK}", b"")
        except (BlockingIOError, FileNotFoundError):
            continue
        except OSError:
            with suppress(OSError):
                fs.remove(f"{path}/{_LOCK}")  # lest it looks free
            return path, None
        if fs.exists(f"{path}/{_LOCK}"):
            return path, lock
        lock.release()
    raise OSError(f"others remove what is made in {tempfile.gettempdir()} at once")


def _sweep(fs: FileSystem) -> None:
    """Remove what dead readers of this host and user left."""
    place, prefix = tempfile.gettempdir(), _prefix()
    try:
        if not _only_owners_remove(place):
            return
        found = [f"{place}/{name}" for name in fs.list(place) if name.startswith(prefix)]
    except OSError as error:
        _log.info("what dead searches left in %s was not looked for: %s", place, error)
        return
    for path in found:
        try:
            if not _is_ours(path):
                continue
            if not fs.exists(f"{path}/{_LOCK}"):
                with suppress(OSError):  # it is not empty: of a system without locks
                    fs.remove_directory(path)
                continue
            lock = fs.lock(f"{path}/{_LOCK}", b"")
        except (BlockingIOError, FileNotFoundError):
            continue  # it is in use, or has gone
        except OSError as error:
            _log.info("%s may be left of a dead search: %s", path, error)
            continue
        try:
            _remove(fs, path)
        finally:
            lock.release()
        _log.info("removed %s, which a reader that was killed had left", path)


def _only_owners_remove(place: str) -> bool:
    """Nobody else can put another thing there between a look and what follows from it."""
    found = os.stat(place)
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    is_sticky = bool(found.st_mode & stat.S_ISVTX)
    return found.st_uid in {0, os.geteuid()} and (is_sticky or not others_write)


def _is_ours(path: str) -> bool:
    """A directory, not a link to one, made by this user and writable for no other."""
    found = os.lstat(path)
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.geteuid()
        and not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    )


def _remove(fs: FileSystem, path: str) -> None:
    """Its LOCK last: what is cut off is a dead one's as before."""
    try:
        names = fs.list(path)
    except FileNotFoundError:
        return
    for name in names:
        if name != _LOCK:
            shutil.rmtree(f"{path}/{name}", ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)
