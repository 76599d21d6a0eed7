"""Zstandard: the one module that knows which binding compresses.

Place: in `format`; the one importer of zstd (the standard library's from Python 3.14, its
backport before). Promise: `decompress` never allocates more than the caller's limit, and raises
CorruptionError alone. Invariant: a frame decompresses to exactly the length that was announced.
"""

from __future__ import annotations

import sys

from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import Buffer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVEL = 3


def compress(data: Buffer) -> bytes:
    """One zstd frame. Equal bytes in give equal bytes out with one version of the library only."""
    return zstd.compress(data, LEVEL)


def decompress(data: Buffer, raw_bytes: int, *, what: str, path: str = "") -> bytes:
    """The `raw_bytes` bytes that one zstd frame holds; anything more or less is corruption."""
    decompressor = zstd.ZstdDecompressor()
    try:
        raw = decompressor.decompress(data, raw_bytes + 1)
    except zstd.ZstdError as error:
        raise CorruptionError(f"{what}: not a zstd frame: {error}", path=path) from error
    if len(raw) != raw_bytes or not decompressor.eof or decompressor.unused_data:
        raise CorruptionError(
            f"{what}: the zstd frame does not hold the {raw_bytes} bytes announced", path=path
        )
    return raw
