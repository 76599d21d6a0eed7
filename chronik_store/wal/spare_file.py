"""The next WAL file of a busy log, full of zeros before it is needed.

Place: in `wal`, under the active file. Promise: zeros that are written into a file of their own
delay no sync of the file in use, which would have to wait for all that is dirty in it, and commits
its growth (measured: 10 to 20 ms every 16 MiB at full speed). Invariant: its name ends in `.tmp`
until a rotation has written a header and a checkpoint into it, so what a crash leaves is swept away
like any interrupted rotation.
"""

from __future__ import annotations

import logging

from chronik_store.commit.filler import write_zeros
from chronik_store.fs.base import FileSystem

logger = logging.getLogger("chronik_store.wal")


class SpareFile:
    """Zeros under preparation. `grow` and `remove` are for one thread at a time."""

    __slots__ = ("filled", "path", "size")

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        self.size = size
        self.filled = 0

    @property
    def ready(self) -> bool:
        """All of it is durable zeros."""
        return self.filled == self.size

    def grow(self, fs: FileSystem, piece_bytes: int, *, keep_free_bytes: int) -> None:
        """Write the next piece. OSError as `write_zeros`: the file is gone then, since a full disk
        needs its room more, and the next piece begins a new one.
        """
        end = min(self.filled + piece_bytes, self.size)
        if not self.filled:
            fs.create(self.path).close()
        try:
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
