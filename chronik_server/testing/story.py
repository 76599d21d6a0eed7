"""A group in a hostile world, from its boot to its healing: clients, a nemesis, and what must hold.

Place: over `world`; `playing` and tests/server/raft play one for each seed. Promise: each client
accepts exactly the errors that the room documents for what it does, and tells the judge every
answer; when all is healed the group commits again, and its logs are equal. Invariant: what happens
is drawn from the seed alone.

Sizes 2 to 5; in one of five stories members come as learners, become voters, and go.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from chronik_server.raft.consensus import Proposed, resolving
from chronik_server.raft.errors import NotLeaderError, OutcomeUnknownError
from chronik_server.testing.network import Network
from chronik_server.testing.node import Node
from chronik_server.testing.world import World
from chronik_store.config import LogConfig
from chronik_store.errors import (
    BackpressureError,
    ConfigError,
    FutureVersionError,
    LogPoisonedError,
    UnavailableError,
)
from chronik_store.format.control import Members, Seal
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import PipelineReport
from chronik_store.testing.cluster_log import batch
from chronik_store.testing.crash import CrashMode

SIZES: Final = (3, 5, 4, 2)
REFUSALS: Final = (UnavailableError, ConfigError, BackpressureError, LogPoisonedError, TimeoutError)
MODES: Final[tuple[CrashMode, ...]] = ("lost", "kept", "torn", "any")
HOSTILE: Final[dict[str, Any]] = {
    "loss": 0.03,
    "repeat": 0.03,
    "late": 0.1,
    "delays": (0.001, 0.002, 0.005, 0.01, 0.03),
    "disk_delays": (0.001, 0.002, 0.005, 0.03, 0.1),
    "bucket_delays": (0.001, 0.005, 0.02, 0.1),
    "bucket_loss": 0.03,
}
SKEWS: Final = (-7200.0, -5000.0, -1.0, 0.0, 30.0, 5000.0)
CLIENTS: Final = 4
REST_SKEW_SECONDS: Final = 50_000.0
RUNS_MAX: Final = 100


class ClusterStory:
    """The story of one seed. `world` tells what came of it, `acknowledged` how many records."""

    def __init__(self, seed: int, *, seconds: float = 10.0) -> None:
        self.changes = seed % 5 == 4
        self.acknowledged = 0
        self.world = World(
            3 if self.changes else SIZES[seed % len(SIZES)],
            seed=seed,
            network=Network(**HOSTILE),
            file_bytes=16 << 10,
            tail_bytes=4 << 10,
            skew={"n1": 5000.0, "n2": -5000.0},
            config=_config(random.Random(f"{seed}/config")),
            is_tiered=True,
        )
        if self.changes:
            for name in ("n4", "n5"):
                self.world.names.append(name)
                self.world.new_disk(name)
        self._end = seconds
        self._damaged = ""
        self._refused: set[str] = set()

    def run(self) -> World:
        """Play it. What is wrong is in `world.violations`, or raised if the product broke off."""
        world = self.world
        with world:
            world.boot_all()
            parts: list[Coroutine[Any, Any, None]] = [self.client(f"c{n}") for n in range(CLIENTS)]
            parts += [self.nemesis(), self.reader(), self.tierer()]
            if self.changes:
                parts.append(self.changer())
            world.loop.run_until_complete(_together(parts))
            self.heal()
        return world

    def heal(self) -> None:
        """No more faults: the group commits again, and every member has everything."""
        world = self.world
        world.note("world", "heals")
        world.heal()
        world.network = Network()
        for name in world.names:
            node = world.nodes[name]
            node.disk.hook = None
            if node.failure is not None:
                world.kill(name)
            if not node.is_up:
                world.repair(name)
                world.boot(name)
        try:
            world.commit(b"healed")
            world.until(world.converged, 10)
        except AssertionError as error:
            world.judge.violate(f"liveness: {error}")
        world.check_logs()
        self.rest()
        for what in world.loop.errors:
            world.judge.violate(what)

    def rest(self) -> None:
        """All is tiered, published and collected. Stamps in the log are wrong by hours: the clocks
        of new lives are ahead of all of them.
        """
        world = self.world
        for name in world.names:
            world.kill(name)
            world.skew[name] = REST_SKEW_SECONDS
            world.boot(name)
        try:
            leader = world.elect()
            world.commit(b"at rest")
            for _ in range(RUNS_MAX):
                report = self._run_on_all(leader)
                assert report.errors == (), report.errors
                manifest = leader.core.manifest
                if report.idle and not (manifest.garbage or manifest.intents or manifest.sealed):
                    break
                world.run(0.2)
            else:
                raise AssertionError(f"the pipeline does not come to rest: {leader.core.status()}")
            world.witness.check_rest(leader)
        except AssertionError as error:
            world.judge.violate(f"liveness: {error}")
        world.check_logs()

    def _run_on_all(self, leader: Node) -> PipelineReport:
        """One pass on each member; the leader's report."""
        runs = [node.tiering for node in self.world.members() if node.tiering is not None]
        for run in runs:
            run.start_run()
        self.world.until(lambda: not any(run.blocking.is_busy for run in runs))
        assert leader.tiering is not None
        assert leader.tiering.report is not None
        return leader.tiering.report

    def _is_on(self) -> bool:
        return self.world.loop.time() < self._end

    def _some_leader(self) -> Node | None:
        """Any of those that say that they lead."""
        leaders = [n for n in self.world.nodes.values() if n.is_up and n.consensus.is_ready]
        return self.world.rng.choice(leaders) if leaders else None

    # --- clients ---------------------------------------------------------------------------------

    async def client(self, name: str) -> None:
        """Proposes to whoever says that it leads; remembers what was acknowledged."""
        world, rng, count = self.world, self.world.rng, 0
        while self._is_on():
            node = self._some_leader()
            if node is None:
                await asyncio.sleep(0.02)
                continue
            count += 1
            values = [f"{name}/{count}/{n}".encode() for n in range(rng.randint(1, 4))]
            payload = batch(*values)
            try:
                with world.mortal(node):
                    done = await asyncio.wait_for(self._proposed(node, payload), 1)
                    world.judge.acknowledged(done.index, payload.buffer)
                    self.acknowledged += len(values)
            except (NotLeaderError, OutcomeUnknownError, LogPoisonedError, BackpressureError):
                await asyncio.sleep(0.02)
            except TimeoutError:
                pass
            if rng.random() < 0.3:
                await asyncio.sleep(rng.uniform(0, 0.1))

    def _proposed(self, node: Node, payload: RecordBatch) -> asyncio.Future[Proposed]:
        """By either door: both are used by the server."""
        if self.world.rng.random() < 0.5:
            return node.consensus.propose([payload])
        future: asyncio.Future[Proposed] = self.world.loop.create_future()
        node.consensus.propose_batch(payload, resolving(future))
        return future

    async def reader(self) -> None:
        """A linearizable read sees everything that was acknowledged before it began."""
        world = self.world
        while self._is_on():
            await asyncio.sleep(world.rng.uniform(0.02, 0.2))
            node = self._some_leader()
            if node is None:
                continue
            highest = world.judge.highest_acked
            with suppress(NotLeaderError, OutcomeUnknownError, TimeoutError):
                seen = await asyncio.wait_for(node.consensus.read_barrier(), 1)
                world.events["reads"] += 1
                world.judge.read(node, seen, highest)

    async def tierer(self) -> None:
        """Seals, and has pipelines run: of whoever leads mostly, and of others, who prune."""
        world, rng = self.world, self.world.rng
        while self._is_on():
            await asyncio.sleep(rng.uniform(0.05, 0.3))
            leader = self._some_leader()
            if leader is not None and rng.random() < 0.3:
                seal = Seal(leader.core.manifest.open_first_index, "admin", 0)
                with world.mortal(leader), suppress(*REFUSALS):
                    await asyncio.wait_for(leader.consensus.propose([seal]), 1)
            node = leader if leader is not None and rng.random() < 0.7 else self._any_node()
            if node.is_up and node.failure is None and node.tiering is not None:
                node.tiering.start_run()

    def _any_node(self) -> Node:
        return self.world.nodes[self.world.rng.choice(self.world.names)]

    async def changer(self) -> None:
        """Members come as learners, become voters, and go."""
        world, rng = self.world, self.world.rng
        while self._is_on():
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
            elif len(voters) > 1:
                voters.discard(name)
            wanted = Members(tuple(sorted(voters)), tuple(sorted(learners)))
            with world.mortal(leader), suppress(*REFUSALS):
                await asyncio.wait_for(leader.consensus.change_members(wanted), 1)
                world.events["member changes"] += 1

    # --- the nemesis -----------------------------------------------------------------------------

    async def nemesis(self) -> None:
        """Something bad every half second; some of the dead come back each time."""
        world, rng = self.world, self.world.rng
        while self._is_on():
            await asyncio.sleep(rng.uniform(0.05, 1.0))
            self._strike(rng.choice(world.names))
            for name in world.names:
                if world.nodes[name].failure is not None:
                    world.kill(name)
                if not world.nodes[name].is_up and rng.random() < 0.6:
                    self._bring_back(name)

    def _strike(self, name: str) -> None:
        world, rng = self.world, self.world.rng
        dice = rng.random()
        if dice < 0.22:
            self._loses_power(name)
        elif dice < 0.30:
            world.events["kills"] += world.nodes[name].is_up
            world.kill(name)
        elif dice < 0.45:
            world.crash_in_disk_call(name, rng.randint(1, 6))
        elif dice < 0.49:
            world.events["disk errors"] += world.nodes[name].is_up
            world.fail_sync(name)
        elif dice < 0.55:
            world.events["power losses of all"] += 1
            for each in world.names:
                self._loses_power(each)
        elif dice < 0.71:
            self._partition()
        elif dice < 0.79:
            self._hand_over()
        elif dice < 0.83:
            world.events["clock jumps"] += 1
            world.skew[name] = rng.choice(SKEWS)
        elif dice < 0.87:
            world.events["bucket outages"] += 1
            world.network.bucket_cut = {name} if rng.random() < 0.5 else set(world.names)
        else:
            world.note("world", "no partition any more")
            world.heal()
            world.network.bucket_cut = set()

    def _loses_power(self, name: str) -> None:
        self.world.events["power losses"] += self.world.nodes[name].is_up
        self.world.crash(name, self.world.rng.choice(MODES))

    def _partition(self) -> None:
        world, rng = self.world, self.world.rng
        some = rng.sample(world.names, rng.randint(1, len(world.names) // 2))
        world.isolate(*some)
        one_way = rng.random() < 0.3
        if one_way:
            world.network.cut = {pair for pair in world.network.cut if pair[0] in some}
        world.events["partitions"] += 1
        world.note("world", f"cuts off {some}{', one way' if one_way else ''}")

    def _hand_over(self) -> None:
        world = self.world
        leader = world.leader()
        if leader is None:
            return
        with suppress(NotLeaderError, ConfigError):
            others = [name for name in world.names if name != leader.name]
            future = leader.consensus.transfer(world.rng.choice(others))
            future.add_done_callback(lambda f: f.cancelled() or f.exception())
            world.events["hand-overs"] += 1

    def _may_damage(self, name: str) -> bool:
        """One node at a time, and only where the others can elect without it: else the group waits
        for an operator, which is right and no finding.
        """
        world = self.world
        before = world.nodes.get(self._damaged)
        recovered = before is None or (before.is_up and not before.replica.suspect)
        fixed = world.names == list(world.first_members.voters)
        return fixed and len(world.names) >= 3 and (recovered or self._damaged == name)

    def _bring_back(self, name: str) -> None:
        """Up again, perhaps with a damaged disk, or an empty one."""
        world, rng = self.world, self.world.rng
        if rng.random() < 0.1 and self._may_damage(name) and name not in self._refused:
            self._damaged = name
            if rng.random() < 0.3:
                world.events["lost disks"] += 1
                world.lose_disk(name)
            else:
                world.events["damaged disks"] += 1
                world.damage(name)
        elif rng.random() < 0.15 and name not in self._refused:
            world.damage_what_is_covered(name)
        try:
            world.boot(name)
        except FutureVersionError:
            # The bit was one of a version: the node says so and changes nothing. It stays away
            # until the bit is turned back, when all is healed.
            self._refused.add(name)
            world.events["opens: refused"] += 1
            world.note(name, "will not start")


def _config(rng: random.Random) -> LogConfig:
    """Small segments; and what a bucket is used for differs from story to story."""
    return LogConfig(
        segment_bytes=rng.choice((1500, 4000)),
        segment_age_seconds=rng.choice((0.5, 3.0)),
        indexing_enabled=False,
        garbage_seconds=rng.choice((0.0, 0.5)),
        retention_bytes=rng.choice((None, None, 6000)),
        upload=rng.choice(("leader", "leader", "all")),
        disk_reserve_bytes=0,
        disk_throttle_bytes=0,
    )


async def _together(parts: list[Coroutine[Any, Any, None]]) -> None:
    """All of them; the first one that fails ends the story."""
    await asyncio.gather(*parts)
