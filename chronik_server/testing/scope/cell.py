"""One node over all its lives, as a machine: it is given an input, and shows what came of it.

Place: over `loop` and `testimony`; `cells` makes and replays them. Promise: the node is the
product's own, with its log on a simulated disk; what waits for a disk or a worker waits for an
input of its own. Invariant: equal inputs, equal views: a cell has no clock, no chance and no
neighbour but its inputs.

    start, peer, gone           a life begins; a connection begins, or ends
    hear, sync, work            a message; one group of frames; one piece of blocking work
    clock                       so much time passes here
    crash, torn                 the power goes; it goes between a write and its sync
    rot, wipe                   (down) the last bytes written are damaged; the disk is exchanged
    ask                         what a leader is asked for: a record, a read, members, the lead ...
    prune                       the files that segments cover go
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from chronik_server.raft.consensus import Role
from chronik_server.raft.leader import LeaderRole
from chronik_server.raft.messages import Message, decode, encode
from chronik_server.raft.node import RaftNode
from chronik_server.raft.raftos_consensus import RaftosConsensus
from chronik_server.raft.settings import RaftSettings
from chronik_server.testing.scope.loop import StepLoop
from chronik_server.testing.scope.marks import mark_of
from chronik_server.testing.scope.testimony import Testimony
from chronik_server.testing.scope.views import Came, Content, Input, View
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError, UnavailableError
from chronik_store.format.control import AddSegment, Members, Seal, decode_command
from chronik_store.format.entry import Entry, EntryKind
from chronik_store.replica import Snapshot
from chronik_store.testing.cluster_log import (
    SteppedCommitter,
    batch,
    open_cluster_log,
    segment_of,
)
from chronik_store.testing.crash import CrashError, MortalThreads
from chronik_store.testing.simulated_disk import SimulatedDisk

GROUP: Final = "events/0"
BEAT, AGE, SILENCE = 2.5, 2.1, 10.5
"""Past a beat and its patience; past stickiness; past everybody's patience."""
SETTINGS: Final = RaftSettings(
    heartbeat_seconds=1.0,
    election_seconds_min=2.0,
    election_seconds_max=10.0,
    lost_seconds=2.0,
    check_quorum_seconds=15.0,
    commit_notice_seconds=0.0,
    snapshot_retry_seconds=1.0,
    batch_bytes=400,
    window_messages=2,
)


class _Clock:
    def __init__(self, loop: StepLoop) -> None:
        self.monotonic = loop.time

    def time_us(self) -> int:
        return 1_700_000_000_000_000  # equal entries, whenever they were made

    def sleep(self, _seconds: float) -> None:
        raise AssertionError("nothing sleeps on the loop")


class _Entropy:
    """Patience is always the longest: who shall ask is given silence."""

    def token_bytes(self, count: int) -> bytes:
        return bytes(count)

    def uniform(self, _low: float, high: float) -> float:
        return high


class Cell:
    """See the module. members: while a log names none."""

    def __init__(self, name: str, members: Members) -> None:
        self.name, self._members = name, members
        self._disk = SimulatedDisk()
        self._loop = StepLoop()
        self._is_up = self._is_wiped = False
        self._life = 0
        self._works: deque[Callable[[], None]] = deque()
        self._sent: list[tuple[str, bytes, bytes]] = []
        self._told: list[tuple[Any, ...]] = []
        self._open: list[tuple[Any, ...]] = []
        """What was asked and is not answered."""
        self._facts = Testimony()
        self._log: tuple[Content, ...] = ()
        self._log_key: tuple[int, ...] = ()
        self._changes: tuple[tuple[int, Members], ...] = ()

    def give(self, given: Input) -> Came:
        """One input; what came of it."""
        self.feed(given)
        view = self._view()
        group = self._group if self._is_up else None
        mark = mark_of(group, self._works, self._is_wiped, self._open, view, self._facts.mark())
        return Came(mark, view, tuple(self._sent), tuple(self._told))

    def feed(self, given: Input) -> None:
        """The same, and nobody looks: of an input that was given to another cell before."""
        asyncio.set_event_loop(self._loop)  # raftos's timers ask for it
        self._sent, self._told = [], []
        try:
            getattr(self, f"_{given[0]}")(*given[1:])
            self._loop.drain()
            if self._is_up:
                self._read_log()
        except CrashError:
            self._ends("kept")
        asyncio.set_event_loop(None)
        self._facts.wrong += self._loop.errors
        self._loop.errors = []

    # --- lives -----------------------------------------------------------------------------------

    def _start(self, *peers: tuple[str, str]) -> None:
        self._life += 1
        self._loop, self._works, self._is_up = StepLoop(), deque(), True
        asyncio.set_event_loop(self._loop)
        env = Environment(
            clock=_Clock(self._loop), entropy=_Entropy(), threads=MortalThreads(), fs=self._disk
        )
        self._committer = SteppedCommitter()
        self._core, self._replica = open_cluster_log(
            env, self._committer, dispatch=self._dispatch, owner=f"test/{self.name}"
        )
        if self._is_wiped:
            self._replica.set_suspect(True)
            self._committer.flush()
        self._is_wiped = False
        self._node = RaftNode(
            self.name,
            boot_id=boot_id(self.name, self._life),
            transport=self,
            on_fatal=self._failed,
            settings=SETTINGS,
            env=env,
            loop=self._loop,
            offload=lambda work, done: self._works.append(partial(_worked, work, done)),
        )
        made = self._node.add_group(
            GROUP,
            self._replica,
            members=self._members,
            snapshot_source=self._snapshot,
            may_vote=lambda: (*self._members.voters, *self._members.learners),
        )
        self._consensus = cast("RaftosConsensus", made)
        self._group = self._consensus.raft
        self._consensus.on_role(self._took_role)
        self._consensus.on_commit(self._shows)
        self._facts.came_back(self._replica)
        self._consensus.start()
        for peer, boot in peers:
            self._peer(peer, boot)

    def _dispatch(self, call: Callable[[], None]) -> None:
        self._loop.call_soon(call)

    def _snapshot(self) -> Snapshot:
        self._replica.load_producers(self._core.manifest.next.index, ())
        return self._replica.snapshot()

    def _failed(self, _group_id: str, error: BaseException) -> None:
        self._facts.wrong.append(f"cannot go on: {error!r}")

    def _crash(self) -> None:
        self._ends("lost")

    def _torn(self) -> None:
        def die(_number: int, operation: str, path: str) -> None:
            if operation == "sync_data":
                raise CrashError(f"{self.name} died before the sync of {path}")

        self._disk.hook = die
        self._committer.step()
        raise CrashError("there was nothing to sync")

    def _ends(self, mode: str) -> None:
        if not self._is_up:
            return
        self._is_up = False
        self._node._is_stopped, self._group.is_running = True, False
        self._group.state.stop()
        self._loop = StepLoop()  # nothing that the dead one had scheduled is run
        self._works.clear()
        self._open.clear()
        if mode == "kept":
            self._facts.forget_disk(damaged=False)
        self._disk = self._disk.crash("kept" if mode == "kept" else "lost", random.Random(0))

    def _rot(self) -> None:
        for path in reversed([p for p in self._disk.paths("/data/wal") if p.endswith(".log")]):
            used = len(self._disk.peek(path).rstrip(b"\0"))
            if used:
                self._disk.flip_bit(path, used - 1)
                break
        self._facts.forget_disk(damaged=True)

    def _wipe(self) -> None:
        self._disk, self._is_wiped = SimulatedDisk(), True
        self._facts.forget_disk(damaged=True)

    # --- what reaches it -------------------------------------------------------------------------

    def _peer(self, peer: str, boot: str) -> None:
        self._node.peer_up(peer, boot)
        self._node.liveness._peers[peer].is_up = True  # beats between nodes are not played here

    def _gone(self, peer: str) -> None:
        self._node.peer_down(peer)

    def _hear(self, sender: str, head: bytes, payload: bytes) -> None:
        message = decode(head, payload)
        self._facts.hears(message)
        self._node.receive(sender, GROUP, message)

    def _sync(self) -> None:
        hard = self._replica.hard_state
        self._committer.step()
        self._facts.on_disk(self._replica, hard)

    def _work(self) -> None:
        self._works.popleft()()

    def _clock(self, seconds: float) -> None:
        self._loop.advance(seconds)

    # --- what it is asked for --------------------------------------------------------------------

    def _ask(self, what: str, *details: Any) -> None:
        try:
            future = self._asked(what, *details)
        except ChronikError as error:
            self._told.append((what, type(error).__name__))
        else:
            self._open.append((what, *details))
            future.add_done_callback(partial(self._answered, what, details))

    def _asked(self, what: str, *details: Any) -> asyncio.Future[Any]:
        consensus, manifest = self._consensus, self._core.manifest
        if what == "record":
            return consensus.propose([batch(details[0])])
        if what == "read":
            return consensus.read_barrier()
        if what == "members":
            return consensus.change_members(Members(*details))
        if what == "lead":
            return consensus.transfer(details[0])
        if what == "seal":
            return consensus.propose([Seal(manifest.open_first_index, "admin", 0)])
        assert what == "list", what
        if not manifest.sealed:
            raise UnavailableError("nothing is sealed yet")
        return consensus.propose([AddSegment(segment_of(manifest.sealed[0]))])

    def _answered(self, what: str, details: tuple[Any, ...], future: asyncio.Future[Any]) -> None:
        self._open.remove((what, *details))
        error = future.exception()
        if error is not None:
            self._told.append((what, type(error).__name__))
        elif what == "record":
            self._facts.acknowledges(future.result().index, details[0])
        else:
            self._told.append((what, *details, future.result() if what == "read" else None))

    def _prune(self) -> None:
        wal, base, hard = self._core.wal, self._core.manifest.next.index, self._replica.hard_state
        wal.rotate()
        going = [each for each in wal.files()[:-1] if each.last_index <= base]
        if going:
            wal.remove_files(going[-1].seq)
        self._facts.on_disk(self._replica, hard)

    # --- what leaves it, and what it is ----------------------------------------------------------

    def send(self, peer: str, _group_id: str, message: Message) -> None:
        """The transport."""
        head, parts = encode(message)
        self._sent.append((peer, head, b"".join(parts)))
        self._facts.says(self.name, peer, message, self._replica)

    def _took_role(self, role: Role, term: int) -> None:
        if role is Role.LEADER:
            self._facts.led.add(term)

    def _shows(self, index: int) -> None:
        if self._is_up:
            self._read_log()
            self._facts.shows(
                index, self._replica.first_index, self._log, self._replica.current_term
            )

    def _read_log(self) -> None:
        replica = self._replica
        key = (self._life, replica.last_ticket, replica.first_index)
        if key == self._log_key:
            return
        self._log_key = key
        first, found = replica.first_index, list[Entry]()
        while first + len(found) <= replica.last_index:
            found += replica.entries(first + len(found), 1 << 20)
        self._log = tuple((entry.header.term, entry.encode()) for entry in found)
        self._changes = tuple(
            (entry.header.index, cast("Members", decode_command(entry.header.kind, entry.payload)))
            for entry in found
            if entry.header.kind == EntryKind.MEMBERS
        )

    def _view(self) -> View:
        replica, group, facts = self._replica, self._group, self._facts
        if self._is_up:
            facts.goes_by(group.members, self._changes)
        role = group.state
        return View(
            is_up=self._is_up,
            is_suspect=replica.suspect,
            life=self._life,
            role=str(group.role),
            is_ready=self._is_up and self._consensus.is_ready,
            term=replica.current_term,
            first=replica.first_index,
            log=self._log,
            durable=replica.durable_index,
            commit=replica.commit_index,
            counted=role.commit_index if isinstance(role, LeaderRole) else 0,
            members=group.members,
            changes=self._changes,
            sync_waits=self._is_up and bool(self._committer.targets),
            work_waits=bool(self._works),
            led=frozenset(facts.led),
            shown=tuple(facts.shown),
            acked=tuple(facts.acked),
            wrong=tuple(facts.wrong),
        )


def boot_id(name: str, life: int) -> str:
    """Of the `life`th life of a node."""
    return f"{name}.{life}"


def _worked(work: Callable[[], Any], done: Callable[[Any], None]) -> None:
    try:
        result = work()
    except (ChronikError, IndexError) as error:
        result = error
    done(result)
