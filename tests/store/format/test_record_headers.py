"""Headers that are checked without being made: what passes can be decoded, the rest is refused."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronik_store.errors import CorruptionError
from chronik_store.format import cbor
from chronik_store.format.record_headers import check_blocks, decode_headers

PAIRS = st.lists(st.tuples(st.text(max_size=30), st.binary(max_size=300)), min_size=1, max_size=14)
"""Longer than usual, too: names from 24 bytes on, values from 256, from 12 headers on."""


def block_of(pairs: list[tuple[str, bytes]]) -> bytes:
    return cbor.encode([item for pair in pairs for item in pair])


def checked(*blocks: bytes) -> None:
    check_blocks(b"".join(blocks), list(accumulate(map(len, blocks), initial=0)))


@given(st.lists(PAIRS, max_size=4))
def test_what_writers_write_passes(records: list[list[tuple[str, bytes]]]) -> None:
    checked(*map(block_of, records), b"")


@given(PAIRS, st.integers(0, 10_000), st.binary(max_size=2), st.integers(0, 2))
def test_a_damaged_block_passes_if_it_can_be_decoded(
    pairs: list[tuple[str, bytes]], place: int, new: bytes, cut: int
) -> None:
    """Behind one with an empty name and in front of another: neither lends it anything."""
    good, block = block_of([("", b""), ("h", b"1")]), block_of(pairs)
    place %= len(block)
    block = block[:place] + new + block[place + cut :]
    try:
        decode_headers(block) if block else ()
    except CorruptionError:
        with pytest.raises(CorruptionError):
            checked(good, block, good)
    else:
        checked(good, block, good)


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",
        b"\x81\x61h",
        b"\x82\x61h\x61v",
        b"\x82\x41h\x41v",
        b"\x82\x61\xff\x41v",
        b"\x82\x61h\x42v",
        b"\x82\x61h\x41vv",
        b"\x82\x40\x82\x60\x40",  # a head that would lead back to where an empty name was met
        b"\x9f\x61h\x41v\xff",
        b"\x58",
        b"\x82\x61h\x58",
        b"\xa1\x61h\x41v",
        b"h",
    ],
)
def test_what_is_no_block_is_refused(block: bytes) -> None:
    for blocks in ([block], [b"\x82\x60\x40", block], [block, b"\x82\x60\x40"]):
        with pytest.raises(CorruptionError, match=r"^record headers"):
            checked(*blocks)
