"""A node that stops lets others lead first, so that nobody waits for an election.

Place: under `raft_backend`. Promise: every partition that is led here is offered once to a node
that is there; what waits for its turn is served meanwhile. Invariant: a partition rests while its
turn lasts, so only a few have theirs at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from chronik_server.raft_partition import RaftPartition

HAND_OVERS_AT_ONCE = 32


async def hand_over(
    parts: Iterable[RaftPartition],
    transfer: Callable[[RaftPartition], Awaitable[None]],
    seconds: float,
) -> list[tuple[RaftPartition, BaseException]] | None:
    """Give up leading these. What could not be given, and why; None: that took too long.

    transfer: to any node that can lead.
    """
    led = [part for part in parts if part.consensus.is_ready]
    turns = asyncio.Semaphore(HAND_OVERS_AT_ONCE)

    async def give(part: RaftPartition) -> None:
        async with turns:
            if part.consensus.is_ready:
                await transfer(part)

    pending = asyncio.gather(*map(give, led), return_exceptions=True)
    try:
        found = await asyncio.wait_for(pending, seconds)
    except TimeoutError:
        return None
    failed = zip(led, found, strict=True)
    return [(part, error) for part, error in failed if error is not None]
