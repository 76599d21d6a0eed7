"""Ranges of offsets: what was asked for, searched, left out.

Place: at the bottom of `search`; pure arithmetic on half-open ranges. Promise: results are sorted,
disjoint and free of empty ranges. Invariant: for any ranges, `covered` and `gaps` within the same
bounds together are exactly those bounds.
"""

from __future__ import annotations

from collections.abc import Iterable

Range = tuple[int, int]


def merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The same offsets as the fewest ranges."""
    out: list[Range] = []
    for start, stop in sorted(ranges):
        if start >= stop:
            continue
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], stop))
        else:
            out.append((start, stop))
    return tuple(out)


def covered(ranges: Iterable[Range], start: int, stop: int) -> tuple[Range, ...]:
    """The part of [start, stop) that the ranges cover."""
    return merged((max(low, start), min(high, stop)) for low, high in ranges)


def gaps(ranges: Iterable[Range], start: int, stop: int) -> tuple[Range, ...]:
    """The part of [start, stop) that the ranges do not cover."""
    out: list[Range] = []
    position = start
    for low, high in covered(ranges, start, stop):
        if position < low:
            out.append((position, low))
        position = high
    if position < stop:
        out.append((position, stop))
    return tuple(out)
