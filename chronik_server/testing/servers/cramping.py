"""Disks that are full for long, while everything else goes on.

Place: over `player`, beside `nemesis`. Promise: some of the disks, or all, have little room for
seconds; then there is room again, until the next time. Invariant: nothing that is there goes.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

from chronik_server.testing.servers.player import Player

ROOM_BYTES: Final = (0, 3000, 9000, 30_000)
SECONDS: Final = (0.5, 2.0, 6.0)


class Cramping(Player):
    """See the module."""

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """One time after the other."""
        return [self.again(self.cramp, 1.0)]

    async def cramp(self) -> None:
        """For one node, for some, or for all."""
        nodes = list(self.world.nodes.values())
        chosen = self.rng.sample(nodes, self.rng.randint(1, len(nodes)))
        self.events["cramped disks"] += len(chosen)
        for node in chosen:
            disk = node.machine.disk
            disk.capacity_bytes = disk.used_bytes + self.rng.choice(ROOM_BYTES)
        await self.pause(1 / self.rng.choice(SECONDS))
        for node in chosen:
            node.machine.disk.capacity_bytes = None

    def heal(self) -> None:
        """There is room."""
        for node in self.world.nodes.values():
            node.machine.disk.capacity_bytes = None
