"""A group follows a wish from one node to five and back, on virtual time, while nodes die.

Each node drives the group when it leads it, by what it knows of the wish, which may be old.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest

from chronik_server.group_changes import MemberSteps
from chronik_server.placement import is_reached
from chronik_server.raft.errors import NotLeaderError, OutcomeUnknownError
from chronik_server.testing.network import Network
from chronik_server.testing.node import Node
from chronik_server.testing.world import World
from chronik_store.errors import ChronikError
from chronik_store.format.control import Members

NODES = ["n1", "n2", "n3", "n4", "n5"]
WISHES = [
    Members(("n1",), ()),
    Members(("n1", "n2", "n3"), ()),
    Members(("n1", "n2", "n3", "n4", "n5"), ()),
    Members(("n3", "n4", "n5"), ()),
    Members(("n4",), ("n5",)),
    Members(("n1", "n2", "n4"), ()),
]


class Growth:
    """The wish as each node knows it, and what each does about it when it leads."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.known = dict.fromkeys(NODES, 0)
        self.newest = 0

    def boot(self, name: str) -> None:
        node = self.world.boot(name)
        self.world.loop.create_task(self._drive(node))

    async def _drive(self, node: Node) -> None:
        steps = MemberSteps(node.name, lambda peer: self.world.nodes[peer].is_up)
        while node.is_up:
            await asyncio.sleep(0.1)
            now = self.members(node)
            if now is None:
                continue
            wish = WISHES[self.known[node.name]]
            if is_reached(now, wish):
                self.known[node.name] = self.newest  # it reads on
            else:
                with self.world.mortal(node), suppress(TimeoutError):
                    await asyncio.wait_for(steps.advance(node.consensus, now, wish), 2)

    @staticmethod
    def members(node: Node) -> Members | None:
        """Committed ones of a leader, as `committed_members` tells them."""
        if not node.is_up or not node.consensus.is_ready:
            return None
        named = node.replica.members
        committed = named is not None and named[0] <= node.replica.commit_index
        return named[1] if committed and named is not None else None

    def reached(self) -> bool:
        leader = self.world.leader()
        now = None if leader is None else self.members(leader)
        return now is not None and is_reached(now, WISHES[self.newest])


async def append(world: World, stop: asyncio.Event) -> None:
    number = 0
    while not stop.is_set():
        await asyncio.sleep(0.03)
        leader = world.leader()
        if leader is None:
            continue
        value = b"value %d" % number
        number += 1
        with world.mortal(leader), suppress(ChronikError):
            proposed = world.propose(leader, value)
            try:
                placed = await asyncio.wait_for(proposed, 3)
            except (TimeoutError, NotLeaderError, OutcomeUnknownError):
                continue
            entry = leader.replica.entries(placed.index, 1)[0] if leader.is_up else None
            if entry is not None:
                world.judge.acknowledged(placed.index, entry.encode()[64:])


async def trouble(growth: Growth, rng: random.Random, stop: asyncio.Event) -> None:
    """One node at a time dies, or is cut off, and comes back: never more than a quorum bears."""
    world = growth.world
    while not stop.is_set():
        await asyncio.sleep(rng.uniform(0.5, 2.0))
        name = rng.choice(NODES)
        if rng.random() < 0.6:
            world.crash(name)
            await asyncio.sleep(rng.uniform(0.1, 1.5))
            growth.boot(name)
        else:
            world.isolate(name)
            await asyncio.sleep(rng.uniform(0.1, 1.5))
            world.heal()


@pytest.mark.parametrize("seed", range(12))
def test_a_group_follows_its_wish_and_keeps_what_it_acknowledged(seed: int) -> None:
    rng = random.Random(seed)
    network = Network(late=0.02, repeat=0.02, delays=(0.001, 0.005), disk_delays=(0.001, 0.01))
    with World(["n1"], learners=(), seed=seed, network=network) as world:
        begin_with(world)
        growth = Growth(world)
        for name in NODES:
            growth.boot(name)
        stop = asyncio.Event()
        tasks: list[asyncio.Task[Any]] = [
            world.loop.create_task(append(world, stop)),
            world.loop.create_task(trouble(growth, rng, stop)),
        ]
        for newest in range(1, len(WISHES)):
            growth.newest = newest
            for name in rng.sample(NODES, 3):
                growth.known[name] = newest  # the others know an older wish, and act on it
            world.run(rng.uniform(0.0, 1.0))
            growth.known = dict.fromkeys(NODES, newest)
            world.until(growth.reached, 120)
        stop.set()
        world.run(5)
        world.until(growth.reached, 60)
        world.until(world.converged, 60)
        world.check_logs()

        assert [] == world.violations
        assert [] == world.loop.errors
        assert len(world.judge.acked) > 30
        assert all(task.done() for task in tasks)


def begin_with(world: World) -> None:
    """The first members are one node; the disks of the others are there and empty."""
    for name in NODES[1:]:
        world.new_disk(name)
    world.names = list(NODES)
