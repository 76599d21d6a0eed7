"""The arithmetic of ranged reads, once for all implementations.

Place: the bottom of the `objectstore` room; no I/O. Promise: every store cuts a range the same
way. Invariant: a range never reaches outside [0, size).
"""

from __future__ import annotations


def check_range(start: int, length: int) -> None:
    """ValueError for a range that cannot be meant."""
    if length < 0:
        raise ValueError(f"range of {length} bytes from {start}: the length must not be negative")


def clip_range(start: int, length: int, size: int) -> tuple[int, int]:
    """First byte and exclusive end of a range of an object of `size` bytes.

    A negative `start` counts from the end, and from the beginning if it reaches before it.
    """
    check_range(start, length)
    first = max(0, size + start) if start < 0 else min(start, size)
    return first, min(first + length, size)
