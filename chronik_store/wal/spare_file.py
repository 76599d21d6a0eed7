"""The next WAL file of a busy log, which reads as zeros before it is needed.

Place: in `wal`, under the active file. Promise: zeros that are written into a file of their own
delay no sync of the file in use, which would have to wait for all that is dirty in it, and commits
its growth (measured: 10 to 20 ms every 16 MiB at full speed). A log of large groups gets blocks
that are reserved and not written (decision 0027). Invariant: its name ends in `.tmp`
until a rotation has written a header and a checkpoint into it, so what a crash leaves is swept away
like any interrupted rotation.
"""

from __future__ import annotations

import logging

from chronik_store.commit.filler import reserve_zeros, write_zeros
from chronik_store.fs.base import FileSystem

logger = logging.getLogger("chronik_store.wal")


class SpareFile:
    """Zeros under preparation. `grow` and `remove` are for one thread at a time.

    reserved: its blocks are to be reserved, not written; False once the file system cannot.
    """

    __slots__ = ("filled", "path", "reserved", "size")

    def __init__(self, path: str, size: int, *, reserved: bool) -> None:
        self.path = path
        self.size = size
        self.reserved = reserved
        self.filled = 0

    @property
    def ready(self) -> bool:
        """All of it is durable zeros, or reserved."""
        return self.filled == self.size

    def grow(self, fs: FileSystem, piece_bytes: int, *, keep_free_bytes: int) -> None:
        """Write the next piece. OSError as `write_zeros`: the file is gone then, since a full disk
        needs its room more, and the next piece begins a new one.
        """
        end = min(self.filled + piece_bytes, self.size)
        if not self.filled:
            fs.create(self.path).close()
        try:
            if self.reserved:
                self.reserved = reserve_zeros(
                    fs, self.path, self.size, keep_free_bytes=keep_free_bytes
                )
            if self.reserved:
                end = self.size
            else:
                write_zeros(fs, self.path, self.filled, end, keep_free_bytes=keep_free_bytes)
        except OSError:
            self.filled = 0
            self.remove(fs)
            raise
        self.filled = end

    def remove(self, fs: FileSystem) -> None:
        """It is not needed after all."""
        try:
            fs.remove(self.path)
        except OSError as error:
            logger.warning("%s stays until the log is opened next: %s", self.path, error)
