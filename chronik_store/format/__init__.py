"""Bytes <-> values: every structure that Chronik writes, and nothing else.

Place: a low room, above `errors` and `model`; it does no I/O, reads no clock and holds no state.
Promise: all integers are little-endian; each structure starts with a magic, a version and an
xxh3-64 checksum; every length is bounded before anything is allocated for it; a decoder raises
CorruptionError or FutureVersionError for bytes it will not take, and nothing else, whatever the
bytes. Invariant: what `encode` wrote, `decode` returns as an equal value, and equal values encode
to equal bytes. `docs/file-format.md` describes the same bytes field by field.
"""

import sys

if sys.byteorder != "little":
    raise ImportError("Chronik's column views need a little-endian machine")
