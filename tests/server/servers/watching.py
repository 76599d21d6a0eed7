"""What a test of whole servers looks at, behind their faces, and waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from chronik_server.testing.servers.world import ServersWorld

PATIENCE: Any = {"connect_seconds": 1.0, "request_seconds": 5.0, "retry_seconds": 15.0}
"""Of a client."""


def backend(world: ServersWorld, name: str) -> Any:
    server = world.nodes[name].server
    return None if server is None else server.backend


async def until(condition: Callable[[], object], what: str) -> None:
    end = asyncio.get_running_loop().time() + 60
    while not condition():
        assert asyncio.get_running_loop().time() < end, what
        await asyncio.sleep(0.05)


def agree(world: ServersWorld, *topics: str) -> bool:
    """All are up, members, whole, and know these topics; one of them leads."""
    found = [backend(world, name) for name in world.nodes]
    if None in found:
        return False
    groups = [each._group for each in found]
    return (
        sum(group.part.consensus.is_ready for group in groups) == 1
        and not any(group.part.core.replica.suspect for group in groups)
        and all(len(group.state.nodes_in("member")) == len(world.nodes) for group in groups)
        and all(set(topics) == set(group.state.topics) for group in groups)
    )
