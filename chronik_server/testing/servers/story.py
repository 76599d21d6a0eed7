"""A cluster of whole servers in a hostile world: clients, an operator, a nemesis, and a judgement.

Place: over `world` and those who play with it; `playing` plays one for each seed.
Promise: when all is healed everything acknowledged is on each node that should have it, what was
deleted is nowhere, and the cluster works on. Invariant: what happens is drawn from the seed.

What differs from story to story is in `kinds`.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from chronik_server.testing.servers.clients import Clients
from chronik_server.testing.servers.converting import Converting
from chronik_server.testing.servers.cramping import Cramping
from chronik_server.testing.servers.judge import ServersJudge
from chronik_server.testing.servers.kinds import kind_of
from chronik_server.testing.servers.letting_go import LettingGo
from chronik_server.testing.servers.looking import Looking
from chronik_server.testing.servers.nemesis import Nemesis
from chronik_server.testing.servers.operator import Operator
from chronik_server.testing.servers.player import Stage
from chronik_server.testing.servers.rot import Rot
from chronik_server.testing.servers.told import Told
from chronik_server.testing.servers.world import ServersWorld
from chronik_store.testing.worlds.rotten_bucket import RottenBucket

PATIENCE: Final = {"connect_seconds": 1.0, "request_seconds": 2.0, "retry_seconds": 4.0}
DELAYS: Final = ((0.0002, 0.0005), (0.0005, 0.002, 0.01), (0.001, 0.03, 0.1))


class ServersStory:
    """The story of one seed. seconds: of virtual time, until all is healed."""

    def __init__(self, seed: int, *, seconds: float = 20.0) -> None:
        self.kind = kind = kind_of(seed)
        self.world = ServersWorld(
            [f"n{n + 1}" for n in range(kind.size)],
            seed=seed,
            log=kind.log,
            is_cluster=not kind.is_converted,
        )
        self._rotten = RottenBucket(self.world.bucket)
        if kind.rots or kind.wears:
            self.world.served = self._rotten
        self.world.wires.delays = self.world.rng.choice(DELAYS)
        self.told = Told(self.world.violate)
        self._seconds = seconds

    def run(self) -> None:
        """Play it. What is wrong is in `world.violations`, or raised if something broke off."""
        with LettingGo(self.world, self.told).watched():
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
            parts = [*Clients(stage, one).parts(), *Clients(stage, two).parts()]
            parts += [*Operator(stage, three, self.kind).parts()]
            parts += [*Nemesis(stage, self.kind.skews).parts()]
            more = self._more(stage)
            parts += [part for each in more for part in each.parts()]
            tasks = [asyncio.ensure_future(part) for part in parts]
            await asyncio.sleep(self._seconds)
            stage.is_over = True
            await asyncio.gather(*tasks)
        self._heal()
        for each in more:
            each.heal()
        operate = [each.mend for each in more if isinstance(each, Rot)]
        await ServersJudge(world, self.told, *operate).judge()

    def _more(self, stage: Stage) -> list[Rot | Cramping | Converting | Looking]:
        """Who plays in stories of this kind alone."""
        found: list[Rot | Cramping | Converting | Looking] = []
        if self.kind.rots or self.kind.wears:
            found.append(Rot(stage, self._rotten, in_use=self.kind.wears))
        if self.kind.is_cramped:
            found.append(Cramping(stage))
        if self.kind.is_converted:
            found.append(Converting(stage))
        if self.kind.rots or self.kind.is_cramped or self.kind.retains:
            found.append(Looking(stage))
        return found

    def _heal(self) -> None:
        world = self.world
        world.note("heals")
        world.wires.heal()
        for node in world.nodes.values():
            node.machine.bucket_faults.is_down = False
            node.machine.disk.hook = None
            node.boot_if_down()
