"""How much the slow tests look at: CI's share, which keeps it short, or all of it.

Everything is looked at with `CHRONIK_HYPOTHESIS=deep`; docs/testing.md has the command.
"""

from __future__ import annotations

import os

IS_DEEP = os.environ.get("CHRONIK_HYPOTHESIS") == "deep"


def share(some: int, every: int) -> int:
    """A number of seeds or rounds, or a stride: CI's, or the one that leaves nothing out."""
    return every if IS_DEEP else some


def places(number: int, stop: int, *, some: int, every: int) -> range:
    """The places from 1 to `stop` that one test of several looks at: each begins elsewhere."""
    stride = share(some, every)
    return range(1 + number % stride, stop, stride)
