"""A request body that is read from a buffer without copying the whole of it.

Place: beside `fsspec_s3`. Promise: the HTTP client sees a seekable file; each `read` copies one
small piece. Invariant: after `release` the buffer (a mapped segment file, say) is free, even if a
cancelled request still holds the reader: it then reads as ended.
"""

from __future__ import annotations

import io

PIECE_BYTES_MAX = 1 << 20


class BodyReader(io.RawIOBase):
    """A read-only file over a memoryview. One reader per request; not shared."""

    def __init__(self, view: memoryview) -> None:
        super().__init__()
        self._view = view
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._view)}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """At most `PIECE_BYTES_MAX` bytes, whatever is asked: raw files may return less."""
        wanted = PIECE_BYTES_MAX if size is None or size < 0 else min(size, PIECE_BYTES_MAX)
        piece = bytes(self._view[self._position : self._position + wanted])
        self._position += len(piece)
        return piece

    def release(self) -> None:
        """Let go of the buffer."""
        self._view = memoryview(b"")
