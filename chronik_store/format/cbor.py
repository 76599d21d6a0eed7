"""CBOR for the small things: control commands, manifests, record headers.

Place: in `format`; the one importer of cbor2. Promise: `encode` is canonical (RFC 7049, 3.9: equal
values give equal bytes); `decode` takes untrusted bytes and raises CorruptionError alone.
Invariant: a scan of our own over the item heads runs before cbor2 sees a byte, so cbor2 never
meets a container deeper than MAX_DEPTH, an indefinite length, a semantic tag, a length beyond
the input, or a second item.
"""

from __future__ import annotations

from typing import Any

import cbor2

from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import Buffer

MAX_DEPTH = 16

_BYTES, _TEXT, _ARRAY, _MAP, _TAG = 2, 3, 4, 5, 6
_SIMPLE = frozenset((20, 21, 22, 25, 26, 27))
"""Major type 7: false, true, null and the three floats; the rest has no meaning here."""


def encode(value: Any) -> bytes:
    """The canonical encoding of None, bool, int, float, str, bytes, lists, tuples and dicts."""
    return cbor2.dumps(value, canonical=True)


def decode(data: Buffer, *, what: str, path: str = "") -> Any:
    """The one item that `data` holds; arrays as lists.

    `what` names the structure in the message of a CorruptionError: bytes that end early, go on
    after the item, nest deeper than MAX_DEPTH, or hold an indefinite length, a tag, a duplicate
    key, text that is not UTF-8.
    """
    raw = bytes(data)
    refusal = _refusal(raw)
    if refusal:
        raise CorruptionError(f"{what}: {refusal}", path=path)
    try:
        return cbor2.loads(
            raw, max_depth=MAX_DEPTH, allow_indefinite=False, allow_duplicate_keys=False
        )
    except (cbor2.CBORError, ValueError, TypeError) as error:
        raise CorruptionError(f"{what}: not CBOR that Chronik writes: {error}", path=path) from error


def _refusal(raw: bytes) -> str:
    """Why the bytes are not one acceptable item, or "". O(heads); allocates MAX_DEPTH integers."""
    size = len(raw)
    position = 0
    open_counts: list[int] = []  # items still to come in each enclosing container
    pending = 1
    while True:
        while not pending:
            if not open_counts:
                if position != size:
                    return f"{size - position} bytes follow the item"
                return ""
            pending = open_counts.pop()
        pending -= 1
        if position >= size:
            return f"ends early, at byte {position}"
        head = raw[position]
        position += 1
        major, argument = head >> 5, head & 31
        if argument >= 24:
            if argument > 27:
                return f"an indefinite or reserved length at byte {position - 1}"
            if major == 7 and argument == 24:
                return f"a simple value at byte {position - 1}"
            width = 1 << (argument - 24)
            argument = int.from_bytes(raw[position : position + width], "big")
            position += width
        if major == _BYTES or major == _TEXT:
            position += argument
        elif major == _ARRAY or major == _MAP:
            count = argument if major == _ARRAY else 2 * argument
            if count > size - position:  # each item takes a byte at least
                return f"a container of {argument} items does not fit at byte {position}"
            if len(open_counts) >= MAX_DEPTH:
                return f"nested deeper than {MAX_DEPTH} at byte {position}"
            open_counts.append(pending)
            pending = count
        elif major == _TAG:
            return f"a semantic tag before byte {position}"
        elif major == 7 and head & 31 not in _SIMPLE:
            return f"a simple value before byte {position}"
        if position > size:
            return f"ends early, at byte {size}"
