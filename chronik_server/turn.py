"""One turn of the event loop: what is said in it leaves at its end.

Place: the lowest room over asyncio, under the connections and consensus. Promise: each connection
that has something to send is flushed once, before the work that may wait, and the loop is not
woken again for it. Invariant: order within a connection is that of its own queue; a connection
that fails to flush takes no other with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("chronik_server.turn")


class Turn:
    """Shared by everything of one node that sends. Not thread-safe but for `from_thread`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._speakers: list[Callable[[], None]] = []
        self._running = False

    def speak(self, flush: Callable[[], None]) -> None:
        """Call `flush` at the end of this turn: a connection has its first bytes to send."""
        if not self._speakers and not self._running:
            self._loop.call_soon(self.flush)
        self._speakers.append(flush)

    def flush(self) -> None:
        """Everything said so far leaves now."""
        speakers, self._speakers = self._speakers, []
        for flush in speakers:
            try:
                flush()
            except Exception:
                logger.exception("a connection could not be written to")

    def run(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do the work of a turn, then flush."""
        self._running = True
        try:
            work(*arguments)
        finally:
            self._running = False
            if self._speakers:
                self.flush()

    def soon(self, work: Callable[[], None]) -> None:
        """`run` it in the loop's next turn."""
        self._loop.call_soon(self.run, work)

    def from_thread(self, work: Callable[[], None]) -> None:
        """`run` it on the loop; called from any thread."""
        self._loop.call_soon_threadsafe(self.run, work)
