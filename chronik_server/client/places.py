"""How many questions may be without an answer on one connection, and who is next.

Place: under `channel`. Promise: whoever waits for a place gets one in the order of the calls, or
BackpressureError when the time is up: nothing was sent then. Invariant: places that are taken or
promised are never more than `limit`, which the node named in its welcome.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sized

from chronik_store.errors import BackpressureError


class Places:
    """Belongs to one event loop. taken: the questions without an answer."""

    def __init__(self, taken: Sized, limit: int) -> None:
        self.limit = limit
        self._taken = taken
        self._promised = 0  # handed on, and not asked with yet
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def is_full(self) -> bool:
        """One more question would have to wait for the answer to another."""
        return len(self._taken) + self._promised >= self.limit

    async def next(self, timeout_seconds: float) -> None:
        """Return when it is the caller's turn: it asks before it waits for anything else."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            async with asyncio.timeout(timeout_seconds):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self._promised -= 1
                self.hand_on()
            if isinstance(error, TimeoutError):
                raise BackpressureError(
                    f"{self.limit} requests of this connection, all that its node takes, have been "
                    f"without an answer for {timeout_seconds:g} s"
                ) from None
            raise
        self._promised -= 1

    def hand_on(self) -> None:
        """An answer came: the next may ask."""
        while self._queue and not self.is_full:
            waiter = self._queue.popleft()
            if not waiter.done():
                self._promised += 1
                waiter.set_result(None)

    def open(self) -> None:
        """Nothing can be asked any more: let everybody find out."""
        self.limit = len(self._taken) + self._promised + len(self._queue) + 1
        self.hand_on()
