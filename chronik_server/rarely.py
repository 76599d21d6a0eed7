"""What is to be logged of a fault that lasts: something at once, and not much.

Place: beside whatever tries again for ever: links between nodes, listeners, duties. Promise: what
was not said lately is said at once; the same is not said again within SAY_AGAIN_SECONDS, nor more
than KINDS_MAX different ones. Invariant: what is remembered is bounded; nobody outside fills log or
memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

SAY_AGAIN_SECONDS: Final = 60.0
KINDS_MAX: Final = 64


class Rarely:
    """What was said, and when. now: seconds, of a clock that only moves forward."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._said: dict[str, float] = {}

    def is_news(self, kind: str, *, lasts: bool = True) -> bool:
        """It is to be said now; asking notes that it is. lasts: it does not pass by itself, so it
        is worth saying again after a while.
        """
        said, now = self._said.get(kind), self._now()
        if said is not None and not (lasts and now >= said + SAY_AGAIN_SECONDS):
            return False
        if len(self._said) >= KINDS_MAX:
            late = now - SAY_AGAIN_SECONDS
            self._said = {each: when for each, when in self._said.items() if when > late}
            if len(self._said) >= KINDS_MAX:
                return False
        self._said[kind] = now
        return True

    def is_over(self) -> None:
        """Nothing is wrong any more: what comes next is news."""
        self._said.clear()
