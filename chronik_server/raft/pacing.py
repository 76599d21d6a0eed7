"""How fast one node starts elections.

Place: shared by all groups of a node. Promise: after a restart a thousand groups do not all ask for
votes within one second; each that is turned away comes again after a jittered moment. Invariant: a
bucket of tokens that fills at a fixed rate, by the event loop's clock.
"""

from __future__ import annotations

from collections.abc import Callable


class ElectionPacer:
    """A token bucket; holds at most a second's worth. Not thread-safe: the event loop's."""

    def __init__(self, per_second: float, now: Callable[[], float]) -> None:
        self._per_second = per_second
        self._most = max(1.0, per_second)
        self._now = now
        self._tokens = self._most
        self._filled_at = now()

    def admit(self) -> bool:
        """Whether one more election may start now."""
        now = self._now()
        grown = self._tokens + (now - self._filled_at) * self._per_second
        self._tokens, self._filled_at = min(self._most, grown), now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
