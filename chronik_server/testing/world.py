"""Nodes of one group on virtual time: the real roles, the real log, simulated disks, one network.

Place: over `node`, `network` and `judge`; stories and tests make one and play with it. Promise:
messages are lost, repeated, late and out of order as `network` says; nodes lose power, are killed,
die inside a disk call, lose or damage their disks; equal seeds and equal calls play equally.
Invariant: chance comes from `rng` alone, time from `loop`.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Self

from chronik_server.raft.consensus import Proposed
from chronik_server.raft.errors import NotLeaderError, OutcomeUnknownError
from chronik_server.raft.messages import InstallSnapshot, Message, decode, encode
from chronik_server.raft.settings import RaftSettings
from chronik_server.testing.judge import Judge
from chronik_server.testing.network import Network
from chronik_server.testing.node import Mortal, Node, SeededClock
from chronik_server.testing.tiering import NodeTiering
from chronik_server.testing.virtual_loop import VirtualLoop
from chronik_server.testing.witness import Witness
from chronik_store.config import LogConfig
from chronik_store.format.control import Members
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.testing.cluster_log import LOG_ID, PATHS, TOPIC_ID, batch
from chronik_store.testing.crash import CrashError, CrashMode
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.wal.chain import (
    Opening,
    list_files,
    possible_starts,
    read_opening,
    select_chain,
)
from chronik_store.wal.settings import WalIdentity

HANG_UP_SECONDS: Final = 0.002
"""From the end of a process to the end of its connections."""
TRACE_EVENTS: Final = 10_000
SETTINGS: Final = RaftSettings(
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


class World:
    """See the module. `violations` is what the judge found."""

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
        is_tiered: bool = False,
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
        """Seconds by which the wall clock of a node is ahead; may change at any time."""
        self.disks: dict[str, SimulatedDisk] = {}
        for name in self.names:
            self.new_disk(name)
        self.nodes: dict[str, Node] = {}
        self.judge = Judge(self.nodes, self.loop.time)
        self.is_tiered = is_tiered
        """Nodes have a pipeline towards `bucket`, and `witness` looks at it."""
        self.bucket = MemoryObjectStore(clock=SeededClock(self.loop, {}, "bucket"))
        self.witness = Witness(self.bucket, self.judge, self.nodes)
        self._tierings: list[NodeTiering] = []
        self.events: Counter[str] = Counter()
        """What has befallen it, by kind."""
        self.log: list[tuple[str, str, Message]] = []
        self.keep_log = False
        self._ends = 0
        self._empty: set[str] = set()
        self._flips: dict[str, list[tuple[str, int, int]]] = {}
        self._trace: deque[str] = deque(maxlen=TRACE_EVENTS)
        self._digest = hashlib.blake2b(digest_size=16)

    # --- what happened ---------------------------------------------------------------------------

    @property
    def violations(self) -> list[str]:
        """What must not be and is."""
        return self.judge.violations

    @property
    def trace(self) -> list[str]:
        """The newest events, oldest first."""
        return list(self._trace)

    @property
    def trace_hash(self) -> str:
        """Of all events: equal seeds, equal hashes."""
        return self._digest.hexdigest()

    def note(self, who: str, what: str) -> None:
        """Add an event to the trace."""
        line = f"{self.loop.time():.6f} {who} {what}"
        self._trace.append(line)
        self._digest.update(line.encode())

    # --- lives -----------------------------------------------------------------------------------

    def mortal(self, node: Node) -> Mortal:
        """Within this, a crash of the node's disk ends the node."""
        return Mortal(node)

    def boot(self, name: str) -> Node:
        """Start a node. FutureVersionError: damage says so, nothing was changed, it stays down."""
        node = Node(self, name)
        self.nodes[name] = node
        if node.tiering is not None:
            self._tierings.append(node.tiering)
        self._flips.pop(name, None)
        if name in self._empty:  # as the server does it with a log that is gone from one disk
            self._empty.discard(name)
            node.replica.set_suspect(True)
            node.committer.flush()
        verdict = node.core.recovery.verdict
        self.note(name, f"starts: {verdict}, up to {node.replica.last_index}")
        self.events[f"opens: {verdict}"] += 1
        self.judge.started(node)
        node.raft.start()
        node.consensus.start()
        for other in self.nodes.values():
            if other is not node and other.is_up:
                other.raft.peer_up(name, node.boot_id)
                node.raft.peer_up(other.name, other.boot_id)
        return node

    def boot_all(self) -> None:
        """Start every node."""
        for name in self.names:
            self.boot(name)

    def new_disk(self, name: str) -> None:
        """An empty one, for a node that is down or new."""
        self.disks[name] = SimulatedDisk(seed=self.rng.randrange(1 << 30))

    def crash(self, name: str, mode: CrashMode = "any") -> None:
        """The node loses power; what was not synced is lost, kept or torn."""
        if self._end(name, f"loses power ({mode})"):
            self.disks[name] = self.nodes[name].disk.crash(mode)

    def kill(self, name: str) -> None:
        """The process ends; the page cache stays."""
        if self._end(name, "is killed"):
            self.disks[name] = self.nodes[name].disk.kill()

    def _end(self, name: str, how: str) -> bool:
        node = self.nodes[name]
        if not node.is_up:
            return False
        node.end()
        self.note(name, how)
        self.judge.ended(node)
        self._ends += 1
        if self._ends % 2:  # the others are told by their connections, or by silence
            self.loop.call_later(HANG_UP_SECONDS, self._hang_up, node)
        return True

    def _hang_up(self, dead: Node) -> None:
        for other in self.nodes.values():
            if other.is_up and self.nodes[dead.name] is dead:
                other.raft.peer_down(dead.name)

    def close(self) -> None:
        """End everything."""
        for node in self.nodes.values():
            self.crash(node.name)
        for tiering in self._tierings:
            tiering.blocking.end()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()
        asyncio.set_event_loop(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- disks -----------------------------------------------------------------------------------

    def crash_in_disk_call(self, name: str, calls: int) -> None:
        """At one of the next calls to its disk."""
        node, left = self.nodes[name], calls

        def hook(_number: int, operation: str, path: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                self.events["deaths in a disk call"] += 1
                raise CrashError(f"{name} crashed in {operation} {path}")

        if node.is_up:
            node.disk.hook = hook

    def fail_sync(self, name: str) -> None:
        """The next sync of its disk fails: the process must end, not knowing what is there."""
        node = self.nodes[name]
        if node.is_up:
            node.disk.hook = fail_next("sync_data", errno.EIO)

    def damage(self, name: str) -> None:
        """Turn a bit over in what a node that is down has on its disk."""
        disk = self.disks[name]
        files = [path for path in disk.paths("/data/wal") if path.endswith(".log")]
        path = self.rng.choice(files)
        self.flip(name, path, self.rng.randrange(len(disk.peek(path))), self.rng.randrange(8))

    def damage_what_is_covered(self, name: str) -> None:
        """The same in a file that the segments cover, if it has any: that must cost nothing."""
        disk, who = self.disks[name], WalIdentity("events", 0, TOPIC_ID, f"test/{name}", LOG_ID)
        seqs, _ = list_files(disk, PATHS.wal)
        line = select_chain([read_opening(disk, PATHS.wal, seq, who) for seq in seqs])
        covered = [
            place
            for place, opening in enumerate(line.files)
            if opening in possible_starts(line.files) and _is_in_segments(opening, line.files[-1])
        ]
        if line.findings or not covered:
            return
        path = self.rng.choice(line.files[: covered[-1]]).path
        self.events["damaged files that segments cover"] += 1
        self._flip(name, path, self.rng.randrange(len(disk.peek(path))), self.rng.randrange(8))

    def flip(self, name: str, path: str, position: int, bit: int) -> None:
        """This one: the node may have lost what it held."""
        self._flip(name, path, position, bit)
        self.judge.damaged(name)

    def _flip(self, name: str, path: str, position: int, bit: int) -> None:
        self.disks[name].flip_bit(path, position, bit)
        self._flips.setdefault(name, []).append((path, position, bit))
        self.note(name, f"is damaged: {path} byte {position} bit {bit}")

    def repair(self, name: str) -> None:
        """Turn over again what was turned over: a node that would not start has changed nothing."""
        for flip in self._flips.pop(name, []):
            self.disks[name].flip_bit(*flip)

    def lose_disk(self, name: str) -> None:
        """A node that is down comes back with an empty disk, and is told so."""
        self.new_disk(name)
        self._empty.add(name)
        self._flips.pop(name, None)
        self.note(name, "lost its disk")
        self.judge.damaged(name)

    # --- network ---------------------------------------------------------------------------------

    def send(self, node: Node, peer: str, group_id: str, message: Message) -> None:
        """From a node that is up: on its way, or lost."""
        if not node.is_up:
            return
        net, rng, events = self.network, self.rng, self.events
        self.judge.sent(node, peer, message)
        events["messages"] += 1
        events["snapshots"] += isinstance(message, InstallSnapshot)
        if self.keep_log:
            self.log.append((node.name, peer, message))
        if (node.name, peer) in net.cut:
            return
        if net.loss and rng.random() < net.loss:
            events["messages lost"] += 1
            return
        if net.drop is not None and net.drop(node.name, peer, message):
            return
        head, parts = encode(message)
        payload = b"".join(parts)
        for copy in range(2 if net.repeat and rng.random() < net.repeat else 1):
            delay = rng.choice(net.delays)
            if net.late and rng.random() < net.late:
                events["messages late"] += 1
                delay += rng.uniform(0.05, 0.8)
            events["messages repeated"] += copy
            self.loop.call_later(delay, self._arrive, node, peer, group_id, head, payload)

    def _arrive(self, sender: Node, peer: str, group_id: str, head: bytes, payload: bytes) -> None:
        target = self.nodes.get(peer)
        if target is None or not target.is_up or (sender.name, peer) in self.network.cut:
            return
        if self.nodes[sender.name] is not sender:
            return  # its connection died with it
        message = decode(head, payload)
        self.note(peer, f"hears {message.KIND} of {sender.name}, {len(payload)} bytes")
        target.receive(sender.name, group_id, message)

    def isolate(self, *names: str) -> None:
        """Cut these off from all others, both ways."""
        for name in names:
            for other in self.names:
                if other not in names:
                    self.network.cut |= {(name, other), (other, name)}

    def heal(self) -> None:
        """No partition any more."""
        self.network.cut.clear()

    # --- looking ---------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.run_for(seconds)

    def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Step until it holds; AssertionError when it does not in time."""
        end = self.loop.time() + seconds
        while not condition():
            assert self.loop.time() < end, f"not within {seconds} s: {self.describe()}"
            self.loop.run_for(0.005)
        return condition()

    def describe(self) -> str:
        """All nodes on one line."""
        return "; ".join(node.describe() for node in self.nodes.values())

    def leader(self) -> Node | None:
        """The leader of the highest term that is ready."""
        ready = [n for n in self.nodes.values() if n.is_up and n.consensus.is_ready]
        return max(ready, key=lambda n: n.group.term, default=None)

    def elect(self) -> Node:
        """Wait for a leader."""
        found = self.until(self.leader)
        assert isinstance(found, Node)
        return found

    def propose(self, node: Node, *values: bytes, **options: Any) -> asyncio.Future[Proposed]:
        """One batch, at this node."""
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

    def members(self) -> list[Node]:
        """Those that the leader goes by; all nodes while nobody leads."""
        leader = self.leader()
        names = self.names if leader is None else [leader.name, *leader.group.peers]
        return [self.nodes[name] for name in names]

    def converged(self) -> bool:
        """All members that are up hold and show the same."""
        up = [node for node in self.members() if node.is_up]
        return len({(n.replica.last_index, n.replica.commit_index) for n in up}) == 1

    def check_logs(self) -> None:
        """The judge looks at everything once more."""
        self.judge.check_logs(self.members())


def _is_in_segments(start: Opening, newest: Opening) -> bool:
    """All that stood before this file, by the newest file's checkpoint."""
    assert start.checkpoint is not None
    assert newest.checkpoint is not None
    return start.checkpoint.base.index <= newest.checkpoint.manifest.next.index
