"""CBOR for the small things: control commands, manifests, record headers.

Place: in `format`; the one importer of cbor2. Promise: `encode` is canonical (RFC 7049, 3.9: equal
values give equal bytes); `decode` takes untrusted bytes and raises CorruptionError alone.
Invariant: a scan of our own over the item heads runs before cbor2 sees a byte, so cbor2 never
meets a container deeper than MAX_DEPTH, an indefinite length, a semantic tag, a length beyond
the input, a second item, or a map's key that is no string: Python's hash of numbers is no secret,
so whoever chooses them makes each one collide with all before it. And what the caller allows is
all it makes: one byte is an item, and an item takes up to seventy.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import cbor2

from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import Buffer

MAX_DEPTH: Final = 16

_SCALAR, _STRING, _ARRAY, _MAP, _REFUSED = range(5)
_SIMPLE: Final = frozenset((20, 21, 22, 25, 26, 27))
"""Major type 7: false, true, null and the three floats; the rest has no meaning here."""


def _classify(head: int) -> tuple[int, int, int]:
    """(what, bytes of argument that follow, argument if none do) of an item's first byte."""
    major, argument = head >> 5, head & 31
    if major == 6 or (major == 7 and argument not in _SIMPLE) or argument > 27:
        return _REFUSED, 0, 0  # a tag, a simple value, an indefinite or reserved length
    what = (_SCALAR, _SCALAR, _STRING, _STRING, _ARRAY, _MAP, _REFUSED, _SCALAR)[major]
    if argument < 24:
        return what, 0, argument
    return what, 1 << (argument - 24), 0


_HEADS: Final = tuple(map(_classify, range(256)))


def encode(value: Any) -> bytes:
    """The canonical encoding of None, bool, int, float, str, bytes, lists, tuples and dicts."""
    return cbor2.dumps(value, canonical=True)


def array_head(count: int) -> bytes:
    """How the canonical encoding of an array of so many items begins; the items follow."""
    for most, first, width in ((0x17, 0x80 + count, 0), (0xFF, 0x98, 1), (0xFFFF, 0x99, 2)):
        if count <= most:
            return bytes((first,)) + (count.to_bytes(width, "big") if width else b"")
    return b"\x9a" + count.to_bytes(4, "big")


def decode(data: Buffer, *, what: str, path: str = "", items_max: int = sys.maxsize) -> Any:
    """The one item that `data` holds; arrays as lists.

    `what` names the structure in the message of a CorruptionError: bytes that end early, go on
    after the item, nest deeper than MAX_DEPTH, or hold more than `items_max` items, an indefinite
    length, a tag, a key that is no string, a duplicate key, text that is not UTF-8.
    """
    raw = bytes(data)
    refusal = _refusal(raw, items_max)
    if refusal:
        raise CorruptionError(f"{what}: {refusal}", path=path)
    try:
        return cbor2.loads(
            raw, max_depth=MAX_DEPTH, allow_indefinite=False, allow_duplicate_keys=False
        )
    except (cbor2.CBORError, ValueError, TypeError) as error:
        raise CorruptionError(f"{what}: cannot be decoded: {error}", path=path) from error


def _refusal(raw: bytes, items_max: int) -> str:
    """Why the bytes are not one acceptable item, or "". O(heads); allocates MAX_DEPTH integers."""
    size = len(raw)
    position = 0
    items = 1  # announced so far
    pending = 1  # items still to come in the innermost container; of a map, below zero
    outer: list[int] = []  # the same, of the containers around it
    while position < size:
        what, width, argument = _HEADS[raw[position]]
        position += 1
        if width:
            argument = int.from_bytes(raw[position : position + width], "big")
            position += width
        if pending < 0 and not pending & 1 and what != _STRING:
            return f"a key that is no string before byte {position}"
        pending -= 1 if pending > 0 else -1
        if what == _STRING:
            position += argument
        elif what == _REFUSED:
            return f"a tag, a simple value or an indefinite length before byte {position}"
        elif what >= _ARRAY:
            count = argument if what == _ARRAY else 2 * argument
            if count > size - position:  # each item takes a byte at least
                return f"a container of {count} items does not fit at byte {position}"
            if len(outer) >= MAX_DEPTH:
                return f"nested deeper than {MAX_DEPTH} at byte {position}"
            items += count
            if items > items_max:
                return f"more than {items_max} items at byte {position}"
            outer.append(pending)
            pending = count if what == _ARRAY else -count
        while not pending and outer:
            pending = outer.pop()
        if not pending:
            break
    return _end_fault(size, position, pending)


def _end_fault(size: int, position: int, pending: int) -> str:
    if position > size or pending:
        return f"ends early, at byte {size}"
    return f"{size - position} bytes follow the item" if position < size else ""
