"""A leader whose disk takes no records lets another lead.

Place: under `raft_backend`; told by a partition when it has to refuse an append. Promise: the
refused append is refused all the same, and whoever repeats it finds a leader with room, if there is
one. Invariant: a partition is offered once in PAUSE_SECONDS, so that nodes which are all full do
not hand it round and round; which node may take it, the transfer decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from chronik_server.raft_partition import RaftPartition
from chronik_store.errors import ChronikError

logger = logging.getLogger("chronik_server.leaders")

PAUSE_SECONDS = 10.0
"""Between two offers of one partition."""


class GivingWay:
    """See the module. Belongs to the event loop. transfer: to any node that can lead."""

    def __init__(
        self, transfer: Callable[[RaftPartition], Awaitable[None]], now: Callable[[], float]
    ) -> None:
        self._transfer = transfer
        self._now = now
        self._not_before: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def refused(self, part: RaftPartition) -> None:
        """The disk was too full for an append to this partition."""
        now, group = self._now(), part.consensus.group_id
        self._not_before = {each: at for each, at in self._not_before.items() if at > now}
        if group not in self._not_before:
            self._not_before[group] = now + PAUSE_SECONDS
            task = asyncio.create_task(self._offer(part))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _offer(self, part: RaftPartition) -> None:
        try:
            await self._transfer(part)
        except ChronikError as error:
            logger.warning("%s: the disk is full, and nobody takes over: %s", part, error)
        else:
            logger.warning("%s: the disk is full: it is handed over", part)

    async def stop(self) -> None:
        """Offer nothing more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
