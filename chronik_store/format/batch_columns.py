"""The columns of a batch from lists of keys, timestamps and headers, and what is wrong with them.

Place: in `format`, below `record_batch`, which owns the value column. Promise: TypeError or
ValueError in words that say what to write instead. Invariant: each function takes exactly `count`
items and returns bytes as `batch_layout` shows them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NoReturn

from chronik_store.format import cbor
from chronik_store.format.batch_layout import BATCH_BYTES_MAX, RAW_BYTES_MAX
from chronik_store.model import Headers


def refuse_items(what: str, items: Iterable[object]) -> NoReturn:
    """TypeError that names the first item which is not bytes."""
    for place, item in enumerate(items):
        if isinstance(item, str):
            raise TypeError(f"{what}[{place}] is str: encode it, e.g. text.encode()")
        if not isinstance(item, (bytes, bytearray)):
            raise TypeError(f"{what}[{place}] is {type(item).__name__}, not bytes")
    raise TypeError(f"{what} are not bytes")


def too_large(size: int) -> ValueError:
    """The error for a batch whose columns take this many bytes."""
    return ValueError(f"a batch stays below {BATCH_BYTES_MAX} bytes, this has {size}: split it")


def _same_length(what: str, items: Sequence[object], count: int) -> None:
    if len(items) != count:
        raise ValueError(f"{len(items)} {what} for {count} values")


def _offsets(lengths: Iterable[int]) -> bytes:
    ends = list(accumulate(lengths, initial=0))
    if ends[-1] > RAW_BYTES_MAX:
        raise too_large(ends[-1])
    return array("I", ends).tobytes()


def timestamp_column(times: Sequence[int], count: int) -> tuple[bytes, int, int]:
    """(column, least, greatest)."""
    _same_length("timestamps_us", times, count)
    try:
        return array("q", times).tobytes(), min(times), max(times)
    except TypeError as error:
        raise TypeError(f"timestamps_us are integers (microseconds): {error}") from None
    except OverflowError as error:
        raise ValueError(f"a timestamp is beyond 64 bits: {error}") from None


def key_columns(keys: Sequence[bytes | None], count: int) -> tuple[bytes, bytes, bytes, list[int]]:
    """(offsets, data, validity or nothing, length of each key)."""
    _same_length("keys", keys, count)
    present = [b"" if key is None else key for key in keys]
    try:
        lengths = list(map(len, present))
        offsets, data = _offsets(lengths), b"".join(present)
    except TypeError:
        refuse_items("keys", present)
    if len(data) != sum(lengths):
        refuse_items("keys", present)
    validity = b""
    if None in keys:
        bits = int("".join(["0" if key is None else "1" for key in reversed(keys)]), 2)
        validity = bits.to_bytes((count + 7) // 8, "little")
    return offsets, data, validity, lengths


def header_column(headers: Sequence[Headers], count: int) -> tuple[bytes, list[int]]:
    """(offsets and blobs, or nothing when no record has a header, length of each blob)."""
    _same_length("headers", headers, count)
    if not any(headers):
        return b"", []
    blobs = [_header_blob(pairs) if pairs else b"" for pairs in headers]
    lengths = list(map(len, blobs))
    return b"".join((_offsets(lengths), *blobs)), lengths


def _header_blob(pairs: Iterable[tuple[str, bytes]]) -> bytes:
    flat: list[str | bytes] = []
    for pair in pairs:
        if type(pair) is not tuple or list(map(type, pair)) != [str, bytes]:
            raise TypeError(f"a header is a tuple (str, bytes), not {pair!r:.80}")
        flat += pair
    try:
        return cbor.encode(flat)
    except UnicodeEncodeError as error:
        raise ValueError(f"a header name is not valid text: {error}") from None
