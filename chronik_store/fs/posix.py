"""The disk, through POSIX calls.

Place: the production implementation of `fs.base`; only this module of the library calls `os` for
files. Promise: `write_at` hands every byte to the kernel or raises; `sync_data` returns only when
the device says that the bytes are kept (F_FULLFSYNC on macOS, where fsync stops at the drive's
cache). Invariant: OSErrors leave as they are (the room that acts translates them), and nothing is
retried: after a failed sync the kernel has marked the pages clean, so a second one proves nothing.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from chronik_store.fs.base import Buffer, DiskUsage, FileStat

_FILE_MODE = 0o644
_CLOSED = -1
_JOIN_BELOW_BYTES = 16 * 1024
"""Smaller buffers than this (on average) cost less to copy than to hand over one by one."""
_IOV_MAX = os.sysconf("SC_IOV_MAX") if "SC_IOV_MAX" in os.sysconf_names else 16


_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_NO_SUCH_CALL = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.EPERM}
"""What file systems say that have none, and sandboxes that forbid it."""


def _load_fallocate() -> Callable[[int, int, int, int], int] | None:
    """Linux's own call, which Python does not offer: `posix_fallocate` knows no holes, and
    writes into each block where the file system cannot reserve.
    """
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None, use_errno=True)
    found = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if found is not None:
        found.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        found.restype = ctypes.c_int
    return found


_fallocate = _load_fallocate()


class PosixFile:
    """An open descriptor. Positional calls, so any number of threads may share it.

    `close` must not run beside another call: the kernel may give the number to somebody else.
    """

    __slots__ = ("_descriptor", "_path")

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self._path = path

    @property
    def path(self) -> str:
        return self._path

    def write_at(self, position: int, buffers: Sequence[Buffer]) -> int:
        """Write all buffers, back to back, at `position`; returns the byte count."""
        count = len(buffers)
        if count > 1 and sum(map(len, buffers)) < count * _JOIN_BELOW_BYTES:
            buffers, count = (b"".join(buffers),), 1
        if count == 1:
            buffer = buffers[0]
            expected = len(buffer) if type(buffer) is bytes else memoryview(buffer).nbytes
            written = os.pwrite(self._descriptor, buffer, position)
            if written != expected:
                self._write_rest(position, buffers, written)
            return expected
        start = position
        for first in range(0, len(buffers), _IOV_MAX):
            chunk = buffers[first : first + _IOV_MAX]
            expected = sum(memoryview(buffer).nbytes for buffer in chunk)
            written = os.pwritev(self._descriptor, chunk, position)
            if written != expected:
                self._write_rest(position, chunk, written)
            position += expected
        return position - start

    def _write_rest(self, position: int, buffers: Sequence[Buffer], written: int) -> None:
        """Go on after a short write: rare, so one joined copy is cheaper than clever slicing."""
        rest = memoryview(b"".join(buffers))[written:]
        position += written
        while rest:
            written = os.pwrite(self._descriptor, rest, position)
            if written == 0:
                raise OSError(errno.EIO, "the file system accepts no more bytes", self._path)
            position += written
            rest = rest[written:]

    def read_at(self, position: int, length: int) -> bytes:
        """Up to `length` bytes from `position`; shorter only at the end of the file."""
        data = os.pread(self._descriptor, length, position)
        if len(data) == length or not data:
            return data
        parts = []
        while data:  # Short, but perhaps not at the end (a signal, 2 GiB): ask until it is empty.
            parts.append(data)
            position += len(data)
            length -= len(data)
            data = os.pread(self._descriptor, length, position)
        return b"".join(parts)

    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self._descriptor).st_size

    def sync_data(self) -> None:
        """Make all bytes written so far durable, and the size where a read needs it."""
        descriptor = self._descriptor
        if sys.platform == "darwin" or descriptor == _CLOSED:
            _sync(descriptor)
        else:
            os.fdatasync(descriptor)

    def sync_all(self) -> None:
        """Make bytes and all metadata durable."""
        _sync(self._descriptor)

    def reserve(self, position: int, length: int) -> bool:
        """Blocks for a stretch behind the end (Linux: unwritten extents); the size grows."""
        return length > 0 and self._allocate(0, position, length)

    def give_back(self, position: int, length: int) -> None:
        """Free the blocks under a stretch of zeros (Linux: a hole); the size stays."""
        if length > 0:
            self._allocate(_PUNCH_HOLE | _KEEP_SIZE, position, length)

    def _allocate(self, mode: int, position: int, length: int) -> bool:
        """fallocate(2). False where there is no such call."""
        if _fallocate is None:
            return False
        while _fallocate(self._descriptor, mode, position, length):
            code = ctypes.get_errno()
            if code in _NO_SUCH_CALL:
                return False
            if code != errno.EINTR:
                raise OSError(code, os.strerror(code), self._path)
        return True

    @contextmanager
    def map(self) -> Iterator[memoryview]:
        """The whole file as it is now, mapped read-only.

        A slice that outlives the context makes it raise BufferError. A device that cannot read a
        mapped page kills the process (SIGBUS): whoever must survive that uses `read_at`.
        """
        if self.size() == 0:
            yield memoryview(b"")
            return
        mapping = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
        mapping.madvise(mmap.MADV_SEQUENTIAL)
        view = memoryview(mapping)
        yield view
        # Reached only without an error: the traceback of one keeps slices alive, and closing under
        # them would replace it by a BufferError. Then the mapping goes with its last slice.
        view.release()
        mapping.close()

    def close(self) -> None:
        """Release the descriptor. Syncs nothing. Idempotent."""
        descriptor, self._descriptor = self._descriptor, _CLOSED
        if descriptor != _CLOSED:
            os.close(descriptor)


class PosixFileSystem:
    """The directory tree of this machine. Stateless and thread-safe."""

    __slots__ = ()

    def create(self, path: str) -> PosixFile:
        """Create a new file, open for reading and writing; FileExistsError if it is there."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return PosixFile(os.open(path, flags, _FILE_MODE), path)

    def open(self, path: str, *, write: bool = False) -> PosixFile:
        """Open an existing file; FileNotFoundError if absent."""
        # Of a pipe an open would wait for its other end, and a device has no end.
        flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags)
        try:
            _check_regular(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
        return PosixFile(descriptor, path)

    def exists(self, path: str) -> bool:
        """Whether the name is there; what hides it (no permission, a broken disk) raises."""
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def stat(self, path: str) -> FileStat:
        """FileNotFoundError if absent."""
        found = os.stat(path)
        return FileStat(
            size_bytes=found.st_size,
            is_directory=stat.S_ISDIR(found.st_mode),
            modified_us=found.st_mtime_ns // 1000,
            blocks_bytes=found.st_blocks * 512,
        )

    def list(self, path: str) -> list[str]:
        """Names in a directory, sorted; FileNotFoundError if absent."""
        return sorted(os.listdir(path))

    def walk(self, path: str) -> Iterator[str]:
        """All file paths below a directory, depth first, sorted; nothing if absent."""
        try:
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        for entry in entries:
            if entry.is_dir():
                yield from self.walk(entry.path)
            else:
                yield entry.path

    def make_directories(self, path: str) -> None:
        """Create the directory and its parents, each made durable in its parent.

        The deepest one that is there already is synced as well: a process killed between its
        mkdir and the sync has left a name that may not be durable (one at most, by this order).
        One whose sync fails is taken away: the next caller would find it, and believe it durable.
        """
        path = os.path.abspath(path)
        missing = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        with suppress(PermissionError):  # A parent that we may not read is not one that we filled.
            self.sync_directory(os.path.dirname(path))
        for path in reversed(missing):
            try:
                os.mkdir(path)
            except FileExistsError:
                if not os.path.isdir(path):
                    raise
            try:
                self.sync_directory(os.path.dirname(path))
            except OSError:
                with suppress(OSError):  # somebody else's, with something in it by now
                    os.rmdir(path)
                raise

    def rename(self, source: str, target: str) -> None:
        """Replace `target` by `source` in one step. Durable after `sync_directory`."""
        os.replace(source, target)

    def link(self, source: str, target: str) -> None:
        """A second name for a file; FileExistsError if `target` exists."""
        os.link(source, target)

    def remove(self, path: str) -> None:
        """Remove a file name. FileNotFoundError if absent."""
        os.unlink(path)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _sync(descriptor)
        finally:
            os.close(descriptor)

    def usage(self, path: str) -> DiskUsage:
        """Space of the file system that holds `path`; free is what an ordinary user may take."""
        found = os.statvfs(path)
        return DiskUsage(
            total_bytes=found.f_blocks * found.f_frsize,
            free_bytes=found.f_bavail * found.f_frsize,
        )

    def lock(self, path: str, content: bytes) -> PosixFileLock:
        """Take an exclusive advisory lock on a file (created if absent) and write `content`.

        BlockingIOError if another process, or another open in this one, holds it.
        """
        return PosixFileLock(path, content)


def _check_open(descriptor: int) -> None:
    """EBADF for a closed file, as all other calls have it: sync calls make it a ValueError."""
    if descriptor == _CLOSED:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _check_regular(descriptor: int, path: str) -> os.stat_result:
    found = os.fstat(descriptor)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", path)
    return found


def _sync(descriptor: int) -> None:
    _check_open(descriptor)
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


# Locks held by this process, by (device, inode). flock alone would do on a local disk, but where
# it is made of fcntl locks (NFS) a process does not exclude itself.
_held: dict[tuple[int, int], PosixFileLock] = {}
_held_guard = threading.Lock()


class PosixFileLock:
    """An flock, held until `release`, or until the process is gone."""

    __slots__ = ("_descriptor", "_identity")

    def __init__(self, path: str, content: bytes) -> None:
        # Not through a link: what it names is somebody else's, and is written over.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, _FILE_MODE)
        try:
            found = _check_regular(descriptor, path)
            self._identity = (found.st_dev, found.st_ino)
            self._descriptor = descriptor
            with _held_guard:
                if self._identity in _held:
                    raise BlockingIOError(errno.EWOULDBLOCK, "locked by this process", path)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _held[self._identity] = self
        except BaseException:
            os.close(descriptor)
            raise
        try:
            os.pwrite(descriptor, content, 0)
            os.ftruncate(descriptor, len(content))
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give it up. Idempotent."""
        with _held_guard:
            if self._descriptor != _CLOSED:
                _held.pop(self._identity, None)  # gone, if Ctrl-C came just behind
                self.close_descriptor()

    def close_descriptor(self) -> None:
        """Close this process's copy: an unlock if it is the only one."""
        descriptor, self._descriptor = self._descriptor, _CLOSED
        os.close(descriptor)


def _forget_locks_in_child() -> None:
    """A forked child shares the open descriptions: closing its copies (without an unlock, which
    would free the parent's) lets the locks go with the parent, as promised.
    """
    global _held_guard  # noqa: PLW0603  (the parent's may be held, by a thread that is not here)
    _held_guard = threading.Lock()
    for lock in _held.values():
        lock.close_descriptor()
    _held.clear()


os.register_at_fork(after_in_child=_forget_locks_in_child)
