"""Objects as files of a directory: `file:///path`, and the default of an embedded log.

Place: an implementation of `base.ObjectStore` over `fs`. Promise: create-only is atomic among
all processes of the machine and survives a crash at every call: bytes are written to a temporary
file and fsynced before `link(temp, final)` gives them their name, so an object is whole or not
there. (Not fsspec's local files: their create checks, then writes, and their rename replaces.)
Invariant: a name in the tree, outside `.incoming/`, is a complete object.

    put:  create temp > write > sync > link(temp, final) > remove temp > sync directory > done
                                       ^ commit point                    ^ durable

EXISTS is durable, too, so that whoever adopts the object may let its own copy go: the rival that
linked it may have died before its own sync, or that has failed, and then no later one brings the
name. So where the very same bytes are there, ours take the name over (rename), and the directory is
synced. Between the comparison and that nobody else's object comes in the way: keys do not repeat
with other bytes (`layout`).
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from chronik_store.clock import Clock, Entropy
from chronik_store.errors import AccessDeniedError, Durability, UnavailableError
from chronik_store.fs.base import SYNC_BYTES, FileSystem
from chronik_store.objectstore.base import (
    Buffer,
    ObjectInfo,
    ObjectNotFoundError,
    ObjectStoreRefusedError,
    PutOutcome,
)
from chronik_store.objectstore.layout import check_key, check_prefix
from chronik_store.objectstore.ranges import clip_range

_log = logging.getLogger("chronik_store.objectstore")
INCOMING = ".incoming"
STALE_TEMP_SECONDS = 3600.0
"""A temporary file older than this has no writer left. Removing a live one is harmless too: its
writer's `link` fails, which is "not done"."""


_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""An object's parent is a directory and the object a file; anything else is no object."""
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
"""What `link` says where there are none (a FAT, some network and user-space file systems)."""


class _NoLinksError(OSError):
    """The file system of the directory has no hard links."""


class LocalObjectStore:
    """A directory as an object store. Thread-safe, and safe among processes.

    Args:
        fs: the disk.
        path: absolute directory; created if absent.
        entropy: names of temporary files.
        clock: tells stale temporary files from live ones.
        read_only: write nothing, not even the directory.
    """

    def __init__(
        self, fs: FileSystem, path: str, *, entropy: Entropy, clock: Clock, read_only: bool = False
    ) -> None:
        self._fs = fs
        self._path = path.rstrip("/") or "/"
        self._entropy = entropy
        self._clock = clock
        self._incoming = f"{self._path}/{INCOMING}"
        if not read_only:
            with self._translated("open", "", None):
                fs.make_directories(self._incoming)
                self._remove_stale_temps()

    @property
    def url(self) -> str:
        return f"file://{self._path}"

    def put_if_absent(self, key: str, data: Buffer) -> PutOutcome:
        final = self._file(key)
        parent = final.rpartition("/")[0]
        temp = f"{self._incoming}/{self._entropy.token_bytes(16).hex()}"
        with self._translated("put", key, "not_durable"):
            # Before its folder: in a bucket that has gone (a mount) nothing must be made, or an
            # empty directory would answer for it afterwards.
            self._write_temp(temp, data)
            with self._gone_on_error(temp):
                self._fs.make_directories(parent)
        # From the link on the object may exist: any error leaves the outcome unknown.
        with self._translated("put", key, "unknown"):
            with self._gone_on_error(temp):
                outcome = self._link(temp, final)
                if outcome is PutOutcome.EXISTS and self._holds(final, data):
                    self._fs.rename(temp, final)
                else:
                    self._fs.remove(temp)
            self._fs.sync_directory(parent)
        return outcome

    def get(self, key: str) -> bytes:
        return self._read(key, 0, None)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._read(key, start, length)

    def head(self, key: str) -> ObjectInfo | None:
        with self._translated("head", key, None):
            try:
                return self._info(key)
            except _ABSENT:
                # Absence is proved by a directory that is there, not by a missing mount.
                self._fs.stat(self._path)
                return None

    def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        check_prefix(prefix)
        folder = prefix.rpartition("/")[0]
        root = f"{self._path}/{folder}" if folder else self._path
        found: list[ObjectInfo] = []
        with self._translated("list", prefix, None):
            self._fs.stat(self._path)
            # Sorted here: depth-first order puts "a/b" before "a-b", key order after it.
            for key in sorted(self._keys(root)):
                if len(found) >= limit:
                    break
                if key.startswith(prefix) and key > start_after:
                    with suppress(FileNotFoundError):  # deleted since the walk saw it
                        found.append(self._info(key))
        return found

    def delete(self, keys: Sequence[str]) -> None:
        parents = set()
        for key in keys:
            path = self._file(key)
            with self._translated("delete", key, "unknown"):
                try:
                    self._fs.remove(path)
                except FileNotFoundError:
                    self._fs.stat(self._path)  # as in `head`: a missing mount proves nothing
            # Of an absent one, too: an earlier try may have ended before this.
            parents.add(path.rpartition("/")[0])
        for parent in sorted(parents):
            with self._translated("delete", parent, "unknown"), suppress(FileNotFoundError):
                self._fs.sync_directory(parent)

    def close(self) -> None:
        """Nothing to release: no descriptor outlives a call."""

    def _file(self, key: str) -> str:
        return f"{self._path}/{check_key(key)}"

    def _info(self, key: str) -> ObjectInfo:
        stat = self._fs.stat(self._file(key))
        if stat.is_directory:
            raise FileNotFoundError(key)
        return ObjectInfo(key, stat.size_bytes, None, stat.modified_us)

    def _keys(self, root: str) -> Iterator[str]:
        for path in self._fs.walk(root):
            key = path[len(self._path) :].lstrip("/")
            if not key.startswith(f"{INCOMING}/"):
                yield key

    def _read(self, key: str, start: int, length: int | None) -> bytes:
        path = self._file(key)
        with self._translated("get", key, None):
            file = self._fs.open(path)
            try:
                size = file.size()
                first, stop = clip_range(start, size if length is None else length, size)
                data = file.read_at(first, stop - first)
            finally:
                file.close()
        if len(data) != stop - first:
            raise UnavailableError(f"{self.url}: {key!r} became shorter while it was read")
        return data

    def _write_temp(self, temp: str, data: Buffer) -> None:
        file = self._fs.create(temp)
        with self._gone_on_error(temp):
            try:
                whole = memoryview(data)
                for start in range(0, max(len(whole), 1), SYNC_BYTES):
                    if start:
                        file.sync_data()
                    file.write_at(start, [whole[start : start + SYNC_BYTES]])
                file.sync_all()
            finally:
                file.close()

    def _link(self, temp: str, final: str) -> PutOutcome:
        try:
            self._fs.link(temp, final)
        except FileExistsError:
            return PutOutcome.EXISTS
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise _NoLinksError(error.errno, os.strerror(error.errno)) from error
        return PutOutcome.CREATED

    def _holds(self, path: str, data: Buffer) -> bool:
        """Whether the file has these very bytes."""
        whole = memoryview(data).cast("B")
        file = self._fs.open(path)
        try:
            return file.size() == len(whole) and all(
                file.read_at(start, SYNC_BYTES) == whole[start : start + SYNC_BYTES]
                for start in range(0, len(whole), SYNC_BYTES)
            )
        finally:
            file.close()

    @contextmanager
    def _gone_on_error(self, temp: str) -> Iterator[None]:
        """What the disk refuses leaves no temporary file: the next try makes one of its own."""
        try:
            yield
        except OSError:
            with suppress(OSError):  # the first error is the one to tell; the open cleans up
                self._fs.remove(temp)
            raise

    def _remove_stale_temps(self) -> None:
        horizon = self._clock.time_us() - int(STALE_TEMP_SECONDS * 1e6)
        for name in self._fs.list(self._incoming):
            path = f"{self._incoming}/{name}"
            with suppress(FileNotFoundError):  # another opener was faster
                if self._fs.stat(path).modified_us < horizon:
                    self._fs.remove(path)
                    _log.info("%s: removed stale temporary file %s", self.url, name)

    @contextmanager
    def _translated(self, verb: str, key: str, durability: Durability | None) -> Iterator[None]:
        try:
            yield
        except _NoLinksError as error:
            raise ObjectStoreRefusedError(
                f"{self.url}: {verb} {key!r}: this file system has no hard links, without which "
                "of two writers nobody knows who was first; use another directory",
                durability="not_durable",
            ) from error
        except _ABSENT as error:
            if verb == "get":
                raise ObjectNotFoundError(f"{self.url}: no object {key!r}") from error
            raise UnavailableError(
                f"{self.url}: {verb} {key!r}: {error.strerror or error}", durability=durability
            ) from error
        except PermissionError as error:
            raise AccessDeniedError(
                f"{self.url}: {verb} {key!r}: permission denied; check the owner and mode of the "
                "directory",
                durability=durability,
            ) from error
        except OSError as error:
            raise UnavailableError(
                f"{self.url}: {verb} {key!r}: {error.strerror or error}", durability=durability
            ) from error
