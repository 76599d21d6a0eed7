"""Whether a reader takes what is sent to it.

Place: under `session`, which tells it what leaves and asks it now and then. Promise: who takes what
waits for it, if slowly, is let go on; who takes a byte now and then, to keep it waiting, is not.
Invariant: counts, no clock of its own.
"""

from __future__ import annotations

from typing import Final

PACE_BYTES: Final = 1 << 20
"""So much is to be taken within the time that a connection has, or all that waits."""


class ReaderPace:
    """Of one connection, from where something began to wait. waiting: bytes that do, always."""

    def __init__(self, now: float) -> None:
        self.sent_bytes = 0
        """Handed to the transport, taken or not."""
        self._since = now
        self._taken = 0

    def begin(self, now: float, waiting: int) -> None:
        """Something waits, or nothing did until now."""
        self._since, self._taken = now, self.sent_bytes - waiting

    def seconds(self, now: float, waiting: int) -> float:
        """So long it has taken less than it should."""
        if self.sent_bytes - waiting >= self._taken + PACE_BYTES:
            self.begin(now, waiting)
        return now - self._since
