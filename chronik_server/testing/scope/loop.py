"""An event loop of one node whose time is moved by hand.

Place: the bottom of the scope; a cell has one. Promise: `drain` runs what is ready, in order;
`advance` makes time pass and runs what has become due. Invariant: nothing else runs anything, so a
node is a function of what it was given.
"""

from __future__ import annotations

import asyncio
import heapq
from typing import Any


class StepLoop(asyncio.BaseEventLoop):
    """As much of a loop as roles and futures ask for; it has nothing that must be closed."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._ready: Any  # asyncio's own, of handles
        self._scheduled: Any
        self.errors: list[str] = []

    def __del__(self) -> None:
        """Asyncio would warn that it was not closed."""

    def time(self) -> float:
        """Seconds since it was made."""
        return self._now

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A callback has failed: nobody may overlook it."""
        self.errors.append(repr(context.get("exception") or context["message"]))

    def drain(self) -> None:
        """Run what is due now, and whatever that makes due."""
        while self._ready or self._is_due():
            while self._ready:
                _run(self._ready.popleft())
            if self._is_due():
                _run(heapq.heappop(self._scheduled))

    def _is_due(self) -> bool:
        return bool(self._scheduled) and self._scheduled[0].when() <= self._now

    def advance(self, seconds: float) -> None:
        """Let time pass at once: what is due several times by then is called once."""
        self._now += seconds
        self.drain()


def _run(handle: Any) -> None:
    if not handle.cancelled():
        handle._run()
