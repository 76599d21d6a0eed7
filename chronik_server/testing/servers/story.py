"""A cluster of whole servers in a hostile world: clients, an operator, a nemesis, and a judgement.

Place: over `world` and those who play with it; `playing` plays one for each seed.
Promise: when all is healed everything acknowledged is on each node that should have it, what was
deleted is nowhere, and the cluster works on. Invariant: what happens is drawn from the seed.

Sizes 1 to 5; in one of four stories nodes join and leave, in one of five all is indexed.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from chronik_server.testing.servers.clients import Clients
from chronik_server.testing.servers.judge import ServersJudge
from chronik_server.testing.servers.nemesis import Nemesis
from chronik_server.testing.servers.operator import Operator
from chronik_server.testing.servers.player import Stage
from chronik_server.testing.servers.told import Told
from chronik_server.testing.servers.world import LOG, ServersWorld

SIZES: Final = (3, 1, 3, 5, 3, 4, 2)
PATIENCE: Final = {"connect_seconds": 1.0, "request_seconds": 2.0, "retry_seconds": 4.0}
DELAYS: Final = ((0.0002, 0.0005), (0.0005, 0.002, 0.01), (0.001, 0.03, 0.1))


class ServersStory:
    """The story of one seed. seconds: of virtual time, until all is healed."""

    def __init__(self, seed: int, *, seconds: float = 20.0) -> None:
        self._changes_nodes = seed % 4 == 3
        size = 3 if self._changes_nodes else SIZES[seed % len(SIZES)]
        log = LOG.replace(indexing_enabled=seed % 5 == 2)
        self.world = ServersWorld([f"n{n + 1}" for n in range(size)], seed=seed, log=log)
        self.world.wires.delays = self.world.rng.choice(DELAYS)
        self.told = Told(self.world.violate)
        self._seconds = seconds

    def run(self) -> None:
        """Play it. What is wrong is in `world.violations`, or raised if something broke off."""
        self.world.run(self._story)

    async def _story(self) -> None:
        world, stage = self.world, Stage(self.world, self.told)
        for node in world.nodes.values():
            node.boot()
        names = [name for name, _ in world.first]
        options: Any = PATIENCE
        async with (
            world.client(*names, **options) as one,
            world.client(*names, **options) as two,
            world.client(*names, **options) as three,
        ):
            operator = Operator(stage, three, changes_nodes=self._changes_nodes)
            parts = [*Clients(stage, one).parts(), *Clients(stage, two).parts()]
            parts += [*operator.parts(), *Nemesis(stage).parts()]
            tasks = [asyncio.ensure_future(part) for part in parts]
            await asyncio.sleep(self._seconds)
            stage.is_over = True
            await asyncio.gather(*tasks)
        self._heal()
        await ServersJudge(world, self.told).judge()

    def _heal(self) -> None:
        world = self.world
        world.note("heals")
        world.wires.heal()
        for node in world.nodes.values():
            node.machine.bucket_faults.is_down = False
            node.machine.disk.hook = None
            node.boot_if_down()
