"""Checksums: the only module that knows which hash guards the bytes.

Place: the bottom of `format`; the one importer of xxhash. Promise: xxh3-64, one pass, no copy.
Invariant: `checksum_parts(a, b)` equals `checksum(a + b)`. It detects accidents, not forgery.

The checksum tree hashes every byte once, yet leaves none uncovered:

    frame checksum  (seed: file id)  ->  frame header + entry header   (other kinds: whole payload)
    entry checksum                   ->  entry header + batch header   (control: whole payload)
    batch checksum                   ->  batch header + body
"""

from __future__ import annotations

import xxhash

Buffer = bytes | bytearray | memoryview
"""Anything that a decoder takes. A memoryview must be contiguous; it is never copied."""

checksum = xxhash.xxh3_64_intdigest
"""checksum(data: Buffer, seed: int = 0) -> int: the xxh3-64 of one contiguous buffer."""


def checksum_parts(*buffers: Buffer, seed: int = 0) -> int:
    """The checksum of the buffers as if they were one, without joining them."""
    state = xxhash.xxh3_64(seed=seed)
    for buffer in buffers:
        state.update(buffer)
    return state.intdigest()


def content_hash(data: Buffer) -> str:
    """16 hex digits that name a content: in object keys, and as a manifest's predecessor."""
    return xxhash.xxh3_64_hexdigest(data)


class Hasher:
    """A `content_hash` over bytes that come in pieces. Not thread-safe."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = xxhash.xxh3_64()

    def update(self, data: Buffer) -> None:
        """Take the next piece."""
        self._state.update(data)

    def digest_hex(self) -> str:
        """16 hex digits of all the pieces so far; may be asked again after more of them."""
        return self._state.hexdigest()
