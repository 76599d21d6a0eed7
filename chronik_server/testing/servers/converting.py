"""A server of its own becomes the first node of a cluster, while it has clients and troubles.

Place: over `player`, beside `nemesis`. Promise: it is ended somehow, converted, and started again;
what breaks off is begun anew, as an operator would do it. Invariant: it is a node in the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from chronik_server.testing.servers.nemesis import MODES
from chronik_server.testing.servers.player import Player
from chronik_server.testing.servers.world import CONVERTED, ServerNode
from chronik_store.testing.crash import CrashError

FIRST_SECONDS: Final = (0.5, 12.0)
CALLS_MAX: Final = 150
"""Of the disk; a conversion makes about so many."""
LOOK_SECONDS: Final = 0.5
"""Whatever runs longer is ended: a conversion, too."""


class Converting(Player):
    """See the module."""

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """One thing, which is done to its end."""
        return [self.convert()]

    async def convert(self) -> None:
        """Once it has lived for a while."""
        (node,) = self.world.nodes.values()
        await asyncio.sleep(self.rng.uniform(*FIRST_SECONDS))
        while not self._is_node(node):
            if node.is_up:
                self._end(node)
            else:
                self.events["conversions"] += 1
                node.convert()
                if self.rng.random() < 0.5:
                    self._cut_power(node)
            await asyncio.sleep(LOOK_SECONDS)
        node.boot_if_down()

    def _is_node(self, node: ServerNode) -> bool:
        return node.ended == CONVERTED or node.ended.endswith("already")

    def _end(self, node: ServerNode) -> None:
        draw = self.rng.random()
        if draw < 0.4:
            node.stop()
        elif draw < 0.7:
            node.kill()
        else:
            node.crash(self.rng.choice(MODES))

    def _cut_power(self, node: ServerNode) -> None:
        """In one of the next calls of its disk."""
        left = self.rng.randint(1, CALLS_MAX)

        def hook(_number: int, operation: str, path: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                self.events["deaths in a disk call"] += 1
                raise CrashError(f"{node.name} crashed in {operation} {path}")

        node.machine.disk.hook = hook

    def heal(self) -> None:
        """It is over before that."""
