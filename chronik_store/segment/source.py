"""Where a segment's bytes come from: anything that reads a range.

Place: bottom of the `segment` room. A local file is one source, an object behind the cache is
another; the reader does not know which. Promise: `LocalFileSource` keeps no descriptor between
calls, so an evicted file costs nothing and a thousand partitions hold none open. OSErrors leave
as typed errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from chronik_store.errors import UnavailableError
from chronik_store.fs.base import File, FileSystem


class ByteSource(Protocol):
    """Random access to the bytes of one segment. Thread-safe; errors are UnavailableErrors."""

    def read_range(self, start: int, length: int) -> bytes:
        """One ranged read of `length` bytes; shorter only at the end."""
        ...

    def read_tail(self, length: int) -> bytes:
        """The last `length` bytes: the footer. A source may keep them apart from other blocks."""
        ...


class SegmentAbsentError(UnavailableError, LookupError):
    """There is no local copy of the segment. Internal: the read chain asks the next tier."""

    retriable = False


class SegmentUnreadableError(UnavailableError):
    """The disk does not give the local copy. Internal: the bucket may."""


class LocalFileSource:
    """A sealed segment's local file, opened for each read."""

    __slots__ = ("_fs", "_path")

    def __init__(self, fs: FileSystem, path: str) -> None:
        self._fs = fs
        self._path = path

    def read_range(self, start: int, length: int) -> bytes:
        """One positional read. SegmentAbsentError: no such file; SegmentUnreadableError: EIO."""
        with self._opened() as file:
            return file.read_at(start, length)

    def read_tail(self, length: int) -> bytes:
        """The last `length` bytes; errors as `read_range`."""
        with self._opened() as file:
            return file.read_at(max(0, file.size() - length), length)

    @contextmanager
    def _opened(self) -> Iterator[File]:
        try:
            file = self._fs.open(self._path)
            try:
                yield file
            finally:
                file.close()
        except FileNotFoundError as error:
            raise SegmentAbsentError(f"{self._path}: there is no local copy") from error
        except OSError as error:
            raise SegmentUnreadableError(
                f"{self._path}: the disk cannot read it: {error}"
            ) from error


class LocalSegments:
    """The directory of one partition's local segment files. Stateless; the disk is the truth."""

    __slots__ = ("_fs", "directory")

    def __init__(self, fs: FileSystem, directory: str) -> None:
        self._fs = fs
        self.directory = directory

    def path_of(self, key: str) -> str:
        """Where the local copy of this object key stands, if there is one."""
        return f"{self.directory}/{key.rpartition('/')[2]}"

    def source(self, key: str) -> LocalFileSource:
        """A source over the local copy; its reads raise SegmentAbsentError when there is none."""
        return LocalFileSource(self._fs, self.path_of(key))

    def holds(self, key: str) -> bool:
        """Whether there is a local copy. UnavailableError when the disk cannot say."""
        try:
            return self._fs.exists(self.path_of(key))
        except OSError as error:
            raise UnavailableError(f"{self.path_of(key)}: cannot be looked up: {error}") from error
