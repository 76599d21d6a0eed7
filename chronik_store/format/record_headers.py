"""The headers of one record: a CBOR array of name, value, name, value ...

Place: in `format`, under `batch_layout`. Promise: what `check_blocks` passes, `decode_headers`
takes. Invariant: whoever checks a batch makes no object of a header that looks as usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from chronik_store.errors import CorruptionError
from chronik_store.format import cbor
from chronik_store.format.checksum import Buffer
from chronik_store.model import Headers


def decode_headers(block: Buffer, *, path: str = "") -> Headers:
    """One record's headers from their block. CorruptionError if it is none."""
    flat = cbor.decode(block, what="record headers", path=path)
    if type(flat) is not list or len(flat) % 2 or not flat:
        raise CorruptionError("record headers: not a list of names and values", path=path)
    names, values = flat[::2], flat[1::2]
    if set(map(type, names)) != {str} or set(map(type, values)) != {bytes}:
        raise CorruptionError(
            "record headers: a name is not text or a value is not bytes", path=path
        )
    return tuple(zip(names, values, strict=True))


def check_blocks(column: bytes, ends: Sequence[int], *, path: str = "") -> None:
    """CorruptionError unless each block of `column`, from one end to the next, can be decoded; an
    empty one is of a record without headers.
    """
    names: set[bytes] = set()
    for start, end in pairwise(ends):
        if start < end and not _is_usual(column, start, end, names):
            decode_headers(column[start:end], path=path)


def _is_usual(column: bytes, position: int, end: int, names: set[bytes]) -> bool:
    """Whether this block is good, and has short heads; False: let it be decoded. names: those that
    are known to be text.
    """
    try:
        items = column[position] - 0x80
        if items & 1 or not 0 < items < 24:
            return False
        position += 1
        for _ in range(items >> 1):
            size = column[position] - 0x60
            if not 0 <= size < 24:
                return False
            behind = position + 1 + size
            name = column[position + 1 : behind]
            if name not in names:
                name.decode()
                names.add(name)
            size = column[behind] - 0x40
            position = behind + 1
            if size == 24:
                size = 1 + column[position]
            elif not 0 <= size < 24:
                return False
            position += size
    except (IndexError, UnicodeDecodeError):
        return False
    return position == end
