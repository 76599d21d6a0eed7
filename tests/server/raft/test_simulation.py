"""The group in a hostile world: seeds, faults, and what must hold whatever happens.

A failing seed prints itself: `one_run(seed)` replays it. `RAFT_SEEDS=first:last` runs others.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any

import pytest

from chronik_server.raft.errors import NotLeaderError, OutcomeUnknownError
from chronik_store.errors import (
    BackpressureError,
    ConfigError,
    LogPoisonedError,
    UnavailableError,
)
from chronik_store.format.control import Members, Seal
from chronik_store.testing.simulated_disk import SimulatedDisk
from tests.server.raft.tiering import add_segment, prune
from tests.server.raft.world import Network, World
from tests.store.cluster_log import batch

SIZES = (3, 5, 4, 2)
REFUSALS = (UnavailableError, ConfigError, BackpressureError, LogPoisonedError, TimeoutError)
HOSTILE: dict[str, Any] = {
    "loss": 0.03,
    "repeat": 0.03,
    "late": 0.1,
    "delays": (0.001, 0.002, 0.005, 0.01, 0.03),
    "disk_delays": (0.001, 0.002, 0.005, 0.03, 0.1),
}


async def client(world: World, name: str, end: float) -> None:
    """Proposes to whoever says that it leads; remembers what was acknowledged."""
    count = 0
    loop, rng = world.loop, world.rng
    while loop.time() < end:
        leaders = [n for n in world.nodes.values() if n.is_up and n.consensus.is_ready]
        if not leaders:
            await asyncio.sleep(0.02)
            continue
        node = rng.choice(leaders)
        count += 1
        payload = batch(*[f"{name}/{count}/{n}".encode() for n in range(rng.randint(1, 4))])
        try:
            with world.mortal(node):
                done = await asyncio.wait_for(node.consensus.propose([payload]), 1)
                world.acked.append((done.index, payload.buffer))
        except (NotLeaderError, OutcomeUnknownError, LogPoisonedError, BackpressureError):
            await asyncio.sleep(0.02)
        except TimeoutError:
            pass
        if rng.random() < 0.3:
            await asyncio.sleep(rng.uniform(0, 0.1))


async def reader(world: World, end: float) -> None:
    """A linearizable read sees everything that was acknowledged before it began."""
    while world.loop.time() < end:
        await asyncio.sleep(world.rng.uniform(0.02, 0.2))
        leaders = [n for n in world.nodes.values() if n.is_up and n.consensus.is_ready]
        if not leaders:
            continue
        node = world.rng.choice(leaders)
        highest = max((index for index, _ in world.acked), default=0)
        with suppress(NotLeaderError, OutcomeUnknownError, TimeoutError):
            seen = await asyncio.wait_for(node.consensus.read_barrier(), 1)
            world.stats["reads"] += 1
            if seen < highest:
                world.violate(f"a read at {node.name} saw {seen}, {highest} was acknowledged")


async def tierer(world: World, end: float) -> None:
    """Seals, lists segments and prunes, so that laggards need snapshots."""
    while world.loop.time() < end:
        await asyncio.sleep(world.rng.uniform(0.1, 0.6))
        leader = world.leader()
        if leader is not None:
            manifest = leader.core.manifest
            seal = Seal(manifest.open_first_index, "admin", 0)
            command = add_segment(leader) if manifest.sealed else seal
            with world.mortal(leader), suppress(*REFUSALS):
                await asyncio.wait_for(leader.consensus.propose([command]), 1)
        node = world.nodes[world.rng.choice(world.names)]
        if node.is_up:
            with world.mortal(node), suppress(LogPoisonedError, UnavailableError):
                before = node.replica.first_index
                prune(node)
                world.stats["prunes"] += node.replica.first_index > before


async def changer(world: World, end: float) -> None:
    """Members come as learners, become voters, and go."""
    rng = world.rng
    while world.loop.time() < end:
        await asyncio.sleep(rng.uniform(0.2, 1.0))
        leader = world.leader()
        if leader is None:
            continue
        members = leader.group.members
        voters, learners = set(members.voters), set(members.learners)
        name = rng.choice(world.names)
        if name in learners:
            learners.discard(name)
            voters.add(name)
        elif name not in voters:
            learners.add(name)
        elif len(voters) > 2:
            voters.discard(name)
        wanted = Members(tuple(sorted(voters)), tuple(sorted(learners)))
        with world.mortal(leader), suppress(*REFUSALS):
            await asyncio.wait_for(leader.consensus.change_members(wanted), 1)
            world.stats["member changes"] += 1


async def nemesis(world: World, end: float) -> None:
    rng, loop = world.rng, world.loop
    while loop.time() < end:
        await asyncio.sleep(rng.uniform(0.05, 1.0))
        name = rng.choice(world.names)
        dice = rng.random()
        if dice < 0.3:
            world.crash(name)
        elif dice < 0.45:
            world.crash_in_disk_call(name, rng.randint(1, 6))
        elif dice < 0.52:
            for each in world.names:  # the power goes
                world.crash(each, rng.choice(["lost", "any"]))
        elif dice < 0.7:
            some = rng.sample(world.names, rng.randint(1, len(world.names) // 2))
            one_way = rng.random() < 0.3
            world.isolate(*some)
            if one_way:
                world.network.cut = {pair for pair in world.network.cut if pair[0] in some}
            world.stats["partitions"] += 1
        elif dice < 0.8:
            leader = world.leader()
            if leader is not None and len(world.names) > 1:
                with suppress(NotLeaderError, ConfigError):
                    others = [n for n in world.names if n != leader.name]
                    future = leader.consensus.transfer(rng.choice(others))
                    future.add_done_callback(lambda f: f.cancelled() or f.exception())
                    world.stats["transfers"] += 1
        else:
            world.heal()
        use_the_time_down(world)


def may_damage(world: World, name: str) -> bool:
    """One node at a time, and only where the others can elect without it: else the group waits for
    an operator, which is right and no finding.
    """
    before = world.nodes.get(world.damaged)
    recovered = before is None or (before.is_up and not before.replica.suspect)
    fixed = world.names == list(world.first_members.voters)
    return fixed and len(world.names) >= 3 and (recovered or world.damaged == name)


def use_the_time_down(world: World) -> None:
    """Some of the dead come back, one of them perhaps with a damaged disk."""
    rng = world.rng
    for each in world.names:
        if not world.nodes[each].is_up and rng.random() < 0.6:
            if rng.random() < 0.1 and may_damage(world, each):
                world.damage(each)
                world.damaged = each
            world.boot(each)


def one_run(seed: int, seconds: float = 10.0) -> World:
    """One world, from boot to convergence. Equal seeds run equally."""
    changes = seed % 5 == 4
    names = ["n1", "n2", "n3"] if changes else SIZES[seed % len(SIZES)]
    world = World(
        names,
        seed=seed,
        network=Network(**HOSTILE),
        file_bytes=16 << 10,
        tail_bytes=4 << 10,
        skew={"n1": 5000.0, "n2": -5000.0},
    )
    with world:
        if changes:
            world.names += ["n4", "n5"]
            for name in ("n4", "n5"):
                world.disks[name] = SimulatedDisk(seed=seed)
        world.boot_all()
        end = world.loop.time() + seconds
        parts = [client(world, f"c{n}", end) for n in range(4)]
        parts += [nemesis(world, end), reader(world, end), tierer(world, end)]
        if changes:
            parts.append(changer(world, end))
        everything = asyncio.gather(*parts)
        world.loop.run_until_complete(everything)
        world.heal()
        world.network = Network(cut=world.network.cut)
        for name in world.names:
            node = world.nodes[name]
            node.disk.hook = None
            if not node.is_up:
                world.boot(name)
        try:
            world.commit(b"healed")
            world.until(world.converged, 10)
        except AssertionError as error:
            world.violate(f"liveness: {error}")
        world.check_logs()
        world.violations += world.loop.errors
        world.stats["acked"] = len(world.acked)
    return world


def seeds() -> range:
    first, _, last = os.environ.get("RAFT_SEEDS", "0:8").partition(":")
    return range(int(first), int(last))


@pytest.mark.parametrize("seed", seeds())
def test_nothing_that_was_acknowledged_is_lost_in_a_hostile_world(seed: int) -> None:
    world = one_run(seed)

    assert [] == world.violations, f"replay: one_run({seed})"


def test_equal_seeds_run_equally() -> None:
    first, second = one_run(3, seconds=4), one_run(3, seconds=4)

    assert first.stats == second.stats
    assert first.committed == second.committed
