"""Nodes of one group on virtual time: the real roles, the real replica, simulated disks.

A network that loses, repeats, delays and reorders; partitions, also one-way; crashes that lose what
was not synced, at any disk call; checkers that look at every step.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from chronik_server.raft.consensus import Proposed, Role
from chronik_server.raft.errors import NotLeaderError, OutcomeUnknownError
from chronik_server.raft.leader import LeaderRole
from chronik_server.raft.messages import Message, decode, encode
from chronik_server.raft.node import RaftNode
from chronik_server.raft.settings import RaftSettings
from chronik_store.config import LogConfig
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError
from chronik_store.format.control import Members
from chronik_store.replica import Snapshot
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.disk_faults import crash_at
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk
from tests.server.raft.virtual_loop import VirtualLoop
from tests.store.cluster_log import SteppedCommitter, batch, open_cluster_log

GROUP = "events/0"
HANG_UP_SECONDS = 0.002
"""From the end of a process to the end of its connections."""
SETTINGS = RaftSettings(
    heartbeat_seconds=0.1,
    election_seconds_min=0.3,
    election_seconds_max=0.6,
    lost_seconds=0.12,
    check_quorum_seconds=0.5,
    snapshot_retry_seconds=0.5,
    batch_bytes=2000,
    window_bytes=8000,
    window_messages=4,
)


@dataclass
class Network:
    """What happens to a message. Delays in seconds."""

    loss: float = 0.0
    repeat: float = 0.0
    late: float = 0.0
    delays: tuple[float, ...] = (0.001,)
    disk_delays: tuple[float, ...] = (0.001,)
    cut: set[tuple[str, str]] = field(default_factory=set)
    drop: Callable[[str, str, Message], bool] | None = None


class SeededClock:
    """Wall clock of one node: skewed, and driven by the loop."""

    def __init__(self, loop: VirtualLoop, skew_seconds: float) -> None:
        self._loop = loop
        self._skew_seconds = skew_seconds

    def monotonic(self) -> float:
        return self._loop.time()

    def time_us(self) -> int:
        return 1_700_000_000_000_000 + int((self._loop.time() + self._skew_seconds) * 1e6)

    def sleep(self, _seconds: float) -> None:
        raise AssertionError("nothing sleeps on the loop")


class SeededEntropy:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def token_bytes(self, count: int) -> bytes:
        return self._rng.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._rng.uniform(low, high)


class Node:
    """One life of one node."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.is_up = True
        self.disk = world.disks[name]
        rng = random.Random(world.rng.random())
        self.env = Environment(
            clock=SeededClock(world.loop, world.skew.get(name, 0.0)),
            entropy=SeededEntropy(rng),
            threads=MortalThreads(),
            fs=self.disk,
        )
        self.committer = SteppedCommitter(self._schedule)
        self.core, self.replica = open_cluster_log(
            self.env,
            self.committer,
            dispatch=world.loop.call_soon,
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
        self.consensus: Any = self.raft.add_group(
            GROUP,
            self.replica,
            members=world.first_members,
            snapshot_source=self._snapshot,
        )
        self.group = self.consensus.raft
        self.consensus.on_role(lambda role, term: world.watch_role(self, role, term))
        self.consensus.on_commit(lambda index: world.watch_commit(self, index))

    def send(self, peer: str, group_id: str, message: Message) -> None:
        self.world.send(self, peer, group_id, message)

    def _schedule(self, step: Callable[[], None]) -> None:
        delay = self.world.rng.choice(self.world.network.disk_delays)
        self.world.loop.call_later(delay, self._disk_step, step)

    def _disk_step(self, step: Callable[[], None]) -> None:
        if self.is_up:
            with self.world.mortal(self):
                step()

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
        if isinstance(error, AssertionError):
            self.world.violate(f"assertion on {self.name}: {error}")

    def receive(self, sender: str, group_id: str, message: Message) -> None:
        if self.is_up:
            with self.world.mortal(self):
                self.raft.receive(sender, group_id, message)


class _Mortal:
    """A crash of the simulated disk ends this node, and nothing else."""

    def __init__(self, world: World, node: Node) -> None:
        self._world, self._node = world, node

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if isinstance(error, CrashError):
            self._world.crash(self._node.name)
            return True
        return False


class World:
    """See the module. `violations` is what the checkers found."""

    def __init__(
        self,
        names: Iterable[str] | int = 3,
        *,
        seed: int = 0,
        network: Network | None = None,
        learners: Iterable[str] = (),
        settings: RaftSettings = SETTINGS,
        config: LogConfig | None = None,
        file_bytes: int = 1 << 20,
        tail_bytes: int = 1 << 20,
        skew: dict[str, float] | None = None,
    ) -> None:
        if isinstance(names, int):
            names = [f"n{n + 1}" for n in range(names)]
        self.names = [*names, *learners]
        self.first_members = Members(tuple(names), tuple(learners))
        self.rng = random.Random(seed)
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)  # raftos's timers ask for it
        self.network = network or Network()
        self.settings, self.config = settings, config or LogConfig()
        self.file_bytes, self.tail_bytes = file_bytes, tail_bytes
        self.skew = skew or {}
        self.disks = {name: SimulatedDisk(seed=self.rng.randrange(1 << 30)) for name in self.names}
        self.nodes: dict[str, Node] = {}
        self.violations: list[str] = []
        self.stats: Counter[str] = Counter()
        self.leaders: dict[int, str] = {}
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.seen_commit: dict[str, int] = {}
        self.acked: list[tuple[int, bytes]] = []
        self.log: list[tuple[str, str, Message]] = []
        self.keep_log = False
        self.damaged = ""

    # --- nodes -----------------------------------------------------------------------------------

    def mortal(self, node: Node) -> _Mortal:
        return _Mortal(self, node)

    def boot(self, name: str) -> Node:
        node = Node(self, name)
        self.nodes[name] = node
        self.seen_commit[name] = node.replica.commit_index
        node.raft.start()
        node.consensus.start()
        for other in self.nodes.values():
            if other is not node and other.is_up:
                other.raft.peer_up(name, node.boot_id)
                node.raft.peer_up(other.name, other.boot_id)
        return node

    def boot_all(self) -> None:
        for name in self.names:
            self.boot(name)

    def crash(self, name: str, mode: str = "any") -> None:
        node = self.nodes[name]
        if not node.is_up:
            return
        node.is_up = False
        # No goodbye: timers of the dead are silenced, nothing of it may reach the disk.
        node.raft._is_stopped = True
        node.group.is_running = False
        node.group.state.stop()
        node.raft.liveness.stop()
        self.disks[name] = node.disk.crash(mode)
        self.stats["crashes"] += 1
        if self.stats["crashes"] % 2:  # the others are told by their connections, or by silence
            self.loop.call_later(HANG_UP_SECONDS, self._hang_up, node)

    def _hang_up(self, dead: Node) -> None:
        for other in self.nodes.values():
            if other.is_up and self.nodes[dead.name] is dead:
                other.raft.peer_down(dead.name)

    def crash_in_disk_call(self, name: str, calls: int) -> None:
        """At one of the next calls to its disk."""
        node = self.nodes[name]
        if node.is_up:
            node.disk.hook = crash_at(node.disk.calls + calls)

    def close(self) -> None:
        for node in self.nodes.values():
            if node.is_up:
                self.crash(node.name)
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()
        asyncio.set_event_loop(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- network ---------------------------------------------------------------------------------

    def send(self, node: Node, peer: str, group_id: str, message: Message) -> None:
        if not node.is_up:
            return
        net, rng = self.network, self.rng
        self.stats["messages"] += 1
        if self.keep_log:
            self.log.append((node.name, peer, message))
        if (node.name, peer) in net.cut or (net.loss and rng.random() < net.loss):
            return
        if net.drop is not None and net.drop(node.name, peer, message):
            return
        head, parts = encode(message)
        payload = b"".join(parts)
        for _ in range(2 if net.repeat and rng.random() < net.repeat else 1):
            delay = rng.choice(net.delays)
            if net.late and rng.random() < net.late:
                delay += rng.uniform(0.05, 0.8)
            self.loop.call_later(delay, self._arrive, node, peer, group_id, head, payload)

    def _arrive(self, sender: Node, peer: str, group_id: str, head: bytes, payload: bytes) -> None:
        target = self.nodes.get(peer)
        if target is None or not target.is_up or (sender.name, peer) in self.network.cut:
            return
        if self.nodes[sender.name] is not sender:
            return  # its connection died with it
        target.receive(sender.name, group_id, decode(head, payload))

    def isolate(self, *names: str) -> None:
        """Cut these off from all others, both ways."""
        for name in names:
            for other in self.names:
                if other not in names:
                    self.network.cut |= {(name, other), (other, name)}

    def heal(self) -> None:
        self.network.cut.clear()

    # --- looking ---------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        self.loop.run_for(seconds)

    def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Step until it holds; AssertionError when it does not in time."""
        end = self.loop.time() + seconds
        while not condition():
            assert self.loop.time() < end, f"not within {seconds} s: {self.describe()}"
            self.loop.run_for(0.005)
        return condition()

    def describe(self) -> str:
        return "; ".join(
            f"{n.name} {'up' if n.is_up else 'down'} {n.group.role} term {n.group.term} "
            f"last {n.replica.last_index} commit {n.replica.commit_index}"
            for n in self.nodes.values()
        )

    def leader(self) -> Node | None:
        """The leader of the highest term that is ready."""
        ready = [n for n in self.nodes.values() if n.is_up and n.consensus.is_ready]
        return max(ready, key=lambda n: n.group.term, default=None)

    def elect(self) -> Node:
        found = self.until(self.leader)
        assert isinstance(found, Node)
        return found

    def propose(self, node: Node, *values: bytes, **options: Any) -> asyncio.Future[Proposed]:
        future: asyncio.Future[Proposed] = node.consensus.propose([batch(*values, **options)])
        return future

    def commit(self, *values: bytes) -> Proposed:
        """Through whoever leads, until it is answered."""
        end = self.loop.time() + 20
        while self.loop.time() < end:
            node = self.leader()
            if node is None:
                self.run(0.02)
                continue
            future = self.propose(node, *values)
            with suppress(NotLeaderError, OutcomeUnknownError):
                return self.loop.run_until_complete(asyncio.wait_for(future, 5))
        raise AssertionError(f"nothing commits: {self.describe()}")

    def converged(self) -> bool:
        leader = self.leader()
        members = self.names if leader is None else [leader.name, *leader.group.peers]
        up = [self.nodes[name] for name in members if self.nodes[name].is_up]
        return len({(n.replica.last_index, n.replica.commit_index) for n in up}) == 1

    def damage(self, name: str) -> None:
        """Turn a bit over in what a node that is down has on its disk."""
        disk = self.disks[name]
        files = [path for path in disk.paths("/data/wal") if path.endswith(".log")]
        path = self.rng.choice(files)
        data = disk.peek(path)
        disk.flip_bit(path, self.rng.randrange(len(data)), self.rng.randrange(8))
        self.stats["damages"] += 1

    # --- checkers --------------------------------------------------------------------------------

    def violate(self, what: str) -> None:
        self.violations.append(f"{self.loop.time():.3f} s: {what}")

    def watch_role(self, node: Node, role: Role, term: int) -> None:
        if role is not Role.LEADER or not node.is_up:
            return
        self.stats["elections"] += 1
        if self.leaders.setdefault(term, node.name) != node.name:
            self.violate(f"election safety: {self.leaders[term]} and {node.name} lead {term}")
        for index, content in self.committed.items():
            if index >= node.replica.first_index and self._entry(node, index) != content:
                self.violate(f"leader completeness: {node.name} lacks committed entry {index}")

    def _entry(self, node: Node, index: int) -> tuple[int, bytes] | None:
        if index > node.replica.last_index:
            return None
        hook, node.disk.hook = node.disk.hook, None  # looking is no call of the product
        try:
            entry = node.replica.entries(index, 1)[0]
        finally:
            node.disk.hook = hook
        return entry.header.term, entry.encode()

    def watch_commit(self, node: Node, index: int) -> None:
        """State machine safety: one entry per index, for ever; and no commit without the disk."""
        if not node.is_up:
            return
        if index > node.replica.durable_index and index >= node.replica.first_index:
            self.violate(f"{node.name} shows {index}, durable is {node.replica.durable_index}")
        first = max(self.seen_commit[node.name] + 1, node.replica.first_index)
        for at in range(first, index + 1):
            content = self._entry(node, at)
            if content is None or self.committed.setdefault(at, content) != content:
                self.violate(f"state machine safety: {node.name} differs at {at}")
        self.seen_commit[node.name] = index

    def check_logs(self) -> None:
        """Log matching over all nodes, and that every acknowledged entry is everywhere."""
        leader = self.leader()
        members = self.names if leader is None else [leader.name, *leader.group.peers]
        for node in (self.nodes[name] for name in members):
            for index, content in self.committed.items():
                shown = node.replica.first_index <= index <= node.replica.commit_index
                if shown and self._entry(node, index) != content:
                    self.violate(f"log matching: {node.name} differs at {index}")
            for index, payload in self.acked:
                entry = self._entry(node, index) if index >= node.replica.first_index else None
                if index >= node.replica.first_index and (
                    entry is None or not entry[1].endswith(payload)
                ):
                    self.violate(f"acknowledged durability: {node.name} lacks {index}")


def role_of(node: Node) -> LeaderRole:
    assert isinstance(node.group.state, LeaderRole)
    return node.group.state
