"""`Consensus` of one node: its own quorum.

Place: beside the engine. No server runs on it: one without peers has logs without a Raft side
(`local_backend`). It shows that the interface needs no engine. Promise: the same interface and
outcomes, with raftos not even imported. Invariant: each start is a term of its own, begun by a
NOOP; committed = durable.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from chronik_server.raft.consensus import (
    ConsensusStatus,
    Done,
    Payload,
    Proposed,
    Role,
    resolving,
)
from chronik_server.raft.door import ConsensusDoor
from chronik_server.raft.errors import NotLeaderError
from chronik_server.raft.proposals import Proposals
from chronik_store.control_path import CommandDoor
from chronik_store.errors import BackpressureError, ConfigError
from chronik_store.format.control import Members, Noop
from chronik_store.format.record_batch import RecordBatch
from chronik_store.replica import Replica, Snapshot
from chronik_store.threads import SystemThreads, Threads


class LocalConsensus:
    """See the module. Not thread-safe: the event loop's.

    on_fatal(group_id, error): the log is poisoned; end the process.
    """

    def __init__(
        self,
        group_id: str,
        node_id: str,
        replica: Replica,
        *,
        on_fatal: Callable[[str, BaseException], None],
        loop: asyncio.AbstractEventLoop | None = None,
        queue_bytes: int = 64 << 20,
        threads: Threads = SystemThreads(),  # noqa: B008 (it has no state)
    ) -> None:
        self.group_id = group_id
        self.loop = loop if loop is not None else asyncio.get_running_loop()
        self._node_id = node_id
        self._replica = replica
        self._queue_bytes = queue_bytes
        self._proposals = Proposals()
        self._role = Role.STOPPED
        self._noop_index = 0
        self._shown_commit = replica.commit_index
        self._door = ConsensusDoor(self, threads)
        self._on_commit: list[Callable[[int], None]] = []
        self._on_role: list[Callable[[Role, int], None]] = []
        replica.on_poisoned(lambda error: on_fatal(group_id, error))

    @property
    def role(self) -> Role:
        return self._role

    @property
    def has_vote(self) -> bool:
        return True

    @property
    def leader(self) -> str | None:
        return self._node_id if self._role is Role.LEADER else None

    @property
    def leader_heard_at(self) -> float:
        return -math.inf

    @property
    def term(self) -> int:
        return self._replica.hard_state[0]

    @property
    def is_ready(self) -> bool:
        return self._role is Role.LEADER and 0 < self._noop_index <= self.commit_index

    @property
    def commit_index(self) -> int:
        return self._replica.commit_index

    @property
    def door(self) -> CommandDoor:
        return self._door

    def start(self) -> None:
        self._replica.save_hard_state(self.term + 1, self._node_id)
        self._noop_index = self._replica.propose(self.term, [Noop()]).index
        self._set_role(Role.LEADER)
        self._await_disk()

    def stop(self) -> None:
        if self._role is Role.LEADER:
            self._set_role(Role.STOPPED)
            self._proposals.abandon("the group was stopped", None)

    def propose(
        self,
        payloads: Sequence[Payload],
        *,
        term: int | None = None,
        expected_offset: int | None = None,
    ) -> asyncio.Future[Proposed]:
        self._check_leads()
        if not payloads:
            raise ValueError("nothing is proposed")
        if term is not None and term != self.term:
            raise NotLeaderError(f"term {term} has passed", leader=self.leader)
        self._check_room()
        future: asyncio.Future[Proposed] = self.loop.create_future()
        self._stage(payloads, resolving(future), expected_offset)
        return future

    def propose_batch(self, batch: RecordBatch, done: Done) -> None:
        self._check_leads()
        self._check_room()
        self._stage((batch,), done, None)

    def _stage(self, payloads: Sequence[Payload], done: Done, expected_offset: int | None) -> None:
        staged = self._replica.propose(self.term, payloads, expected_offset=expected_offset)
        self._proposals.wait(staged, self.term, 0, done)
        self._await_disk()

    def on_commit(self, callback: Callable[[int], None]) -> None:
        self._on_commit.append(callback)

    def on_role(self, callback: Callable[[Role, int], None]) -> None:
        self._on_role.append(callback)

    def read_barrier(self) -> asyncio.Future[int]:
        self._check_leads()
        future: asyncio.Future[int] = self.loop.create_future()
        future.set_result(self.commit_index)
        return future

    def snapshot(self) -> Snapshot:
        return self._replica.snapshot()

    def transfer(self, target: str) -> asyncio.Future[None]:
        raise ConfigError(f"{target} cannot take over: {self.group_id} has one node")

    def change_members(self, members: Members) -> asyncio.Future[Proposed]:
        raise ConfigError(f"{members} cannot join: this server runs without peers")

    def status(self) -> ConsensusStatus:
        replica = self._replica
        return ConsensusStatus(
            group_id=self.group_id,
            role=self._role,
            term=self.term,
            leader=self.leader,
            voters=(self._node_id,),
            learners=(),
            first_index=replica.first_index,
            last_index=replica.last_index,
            durable_index=replica.durable_index,
            commit_index=replica.commit_index,
            is_suspect=replica.suspect,
            peers=(),
        )

    def _check_leads(self) -> None:
        if self._role is not Role.LEADER:
            raise NotLeaderError(f"{self.group_id} is stopped", leader=None)

    def _check_room(self) -> None:
        if self._replica.pending_bytes > self._queue_bytes:
            raise BackpressureError(
                f"{self._replica.pending_bytes} bytes wait for the disk; append again in a moment"
            )

    def _set_role(self, role: Role) -> None:
        self._role = role
        for callback in self._on_role:
            callback(role, self.term)

    def _await_disk(self) -> None:
        self._replica.when_synced(self._replica.last_ticket, self._synced)

    def _synced(self) -> None:
        if self._role is not Role.LEADER:
            return
        self._replica.advance_commit(self._replica.durable_index)
        index = self._replica.commit_index
        self._proposals.committed(index, self._replica.known_term)
        if index > self._shown_commit:
            self._shown_commit = index
            for callback in self._on_commit:
                callback(index)
