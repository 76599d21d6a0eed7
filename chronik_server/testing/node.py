"""One life of one node: the real roles over the real log, on a simulated disk.

Place: made by `world` at each start of a node. Promise: what the product waits for comes from the
virtual loop, in an order that the seed decides; a crash of the disk ends this node, nothing else.
Invariant: once `is_up` is false nothing of this life reaches the disk or the network.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from chronik_server.raft.group import RaftGroup
from chronik_server.raft.leader import LeaderRole
from chronik_server.raft.messages import Message
from chronik_server.raft.node import RaftNode
from chronik_server.raft.raftos_consensus import RaftosConsensus
from chronik_server.testing.tiering import NodeTiering
from chronik_server.testing.virtual_loop import VirtualLoop
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError
from chronik_store.replica import Snapshot
from chronik_store.testing.cluster_log import SteppedCommitter, open_cluster_log
from chronik_store.testing.crash import CrashError, MortalThreads

if TYPE_CHECKING:
    from chronik_server.testing.world import World

GROUP = "events/0"
EPOCH_US = 1_700_000_000_000_000


class SeededClock:
    """Wall clock of one node: skewed by what the world says, and driven by the loop."""

    def __init__(self, loop: VirtualLoop, skew: dict[str, float], name: str) -> None:
        self._loop = loop
        self._skew = skew
        self._name = name

    def monotonic(self) -> float:
        return self._loop.time()

    def time_us(self) -> int:
        return EPOCH_US + int((self._loop.time() + self._skew.get(self._name, 0.0)) * 1e6)

    def sleep(self, _seconds: float) -> None:
        raise AssertionError("nothing sleeps on the loop")


class SeededEntropy:
    """Chance of one node."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def token_bytes(self, count: int) -> bytes:
        return self._rng.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._rng.uniform(low, high)


class Node:
    """See the module. Errors: those of an open log that will not be opened."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.is_up = True
        self.failure: BaseException | None = None
        """Why it cannot go on; a process would have ended."""
        self.disk = world.disks[name]
        rng = random.Random(world.rng.random())
        self.env = Environment(
            clock=SeededClock(world.loop, world.skew, name),
            entropy=SeededEntropy(rng),
            threads=MortalThreads(),
            fs=self.disk,
        )
        self.committer = SteppedCommitter(self._schedule)
        self.core, self.replica = open_cluster_log(
            self.env,
            self.committer,
            dispatch=self._dispatch,
            owner=f"test/{name}",
            config=world.config,
            file_bytes=world.file_bytes,
            tail_bytes=world.tail_bytes,
        )
        self.boot_id = rng.randbytes(8).hex()
        self.raft = RaftNode(
            name,
            boot_id=self.boot_id,
            transport=self,
            on_fatal=self._fatal,
            settings=world.settings,
            env=self.env,
            loop=world.loop,
            offload=self._offload,
        )
        made = self.raft.add_group(
            GROUP,
            self.replica,
            members=world.first_members,
            may_vote=tuple,  # nobody but whom a log of these worlds names
            snapshot_source=self._snapshot,
        )
        self.consensus = cast("RaftosConsensus", made)
        self.group: RaftGroup = self.consensus.raft
        self.consensus.on_role(lambda role, term: world.judge.role_taken(self, role, term))
        self.consensus.on_commit(self._committed)
        self.tiering = NodeTiering(self) if world.is_tiered else None

    def _committed(self, index: int) -> None:
        self.world.judge.commit_shown(self, index)
        if self.tiering is not None:
            self.world.witness.committed(self)

    # --- what the product asks for ---------------------------------------------------------------

    def send(self, peer: str, group_id: str, message: Message) -> None:
        """The transport."""
        self.world.send(self, peer, group_id, message)

    def _dispatch(self, call: Callable[[], None]) -> None:
        self.world.loop.call_soon(call)

    def _schedule(self, step: Callable[[], None]) -> None:
        delay = self.world.rng.choice(self.world.network.disk_delays)
        self.world.loop.call_later(delay, self._disk_step, step)

    def _disk_step(self, step: Callable[[], None]) -> None:
        if self.is_up:
            with self.world.mortal(self):
                step()
                self.world.note(self.name, f"synced up to {self.replica.durable_index}")
                self.world.judge.look(self)

    def _offload(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        def run() -> None:
            if not self.is_up:
                return
            with self.world.mortal(self):
                try:
                    result = work()
                except (ChronikError, IndexError) as error:
                    result = error
                done(result)

        self.world.loop.call_later(0.001, run)

    def _snapshot(self) -> Snapshot:
        """As from the last segment's footer: no client of the simulation is idempotent."""
        self.replica.load_producers(self.core.manifest.next.index, ())
        return self.replica.snapshot()

    def _fatal(self, _group_id: str, error: BaseException) -> None:
        self.failure = error
        self.world.note(self.name, f"cannot go on: {error!r}")
        if isinstance(error, AssertionError):
            self.world.judge.violate(f"assertion on {self.name}: {error}")

    # --- what the world does to it ---------------------------------------------------------------

    def receive(self, sender: str, group_id: str, message: Message) -> None:
        """A message has arrived."""
        if self.is_up:
            with self.world.mortal(self):
                self.raft.receive(sender, group_id, message)
                self.world.judge.look(self)

    def end(self) -> None:
        """No goodbye: the timers of the dead are silenced, nothing of them may reach the disk."""
        self.is_up = False
        self.raft._is_stopped = True
        self.group.is_running = False
        self.group.state.stop()
        self.raft.liveness.stop()

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.name} {'up' if self.is_up else 'down'} {self.group.role} "
            f"term {self.group.term} last {self.replica.last_index} "
            f"commit {self.replica.commit_index}"
        )


class Mortal:
    """A crash of the simulated disk ends this node, and nothing else."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if isinstance(error, CrashError):
            self._node.world.crash(self._node.name)
            return True
        return False


def role_of(node: Node) -> LeaderRole:
    """The role of a node that leads."""
    assert isinstance(node.group.state, LeaderRole)
    return node.group.state
