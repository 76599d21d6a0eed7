"""`Consensus` over one group.

Place: what the server holds; in front of `group`. Promise: see `Consensus`. Invariant: it decides
nothing: it checks what the caller may ask, and asks the current role.
"""

from __future__ import annotations

import asyncio
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
from chronik_server.raft.group import RaftGroup
from chronik_server.raft.leader import LeaderRole
from chronik_store.control_path import CommandDoor
from chronik_store.errors import ConfigError
from chronik_store.format.control import Members
from chronik_store.format.record_batch import RecordBatch
from chronik_store.replica import Snapshot


class RaftosConsensus:
    """A replica that takes part in its group through raftos's skeleton."""

    def __init__(self, group: RaftGroup) -> None:
        self.raft = group
        self._door = ConsensusDoor(self, group.node.threads)

    # --- what it is ------------------------------------------------------------------------------

    @property
    def group_id(self) -> str:
        return self.raft.group_id

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where everything of this group runs."""
        return self.raft.loop

    @property
    def role(self) -> Role:
        return self.raft.role

    @property
    def leader(self) -> str | None:
        return self.raft.leader

    @property
    def has_vote(self) -> bool:
        return self.raft.id in self.raft.voters

    @property
    def leader_heard_at(self) -> float:
        return self.raft.leader_heard_at()

    @property
    def term(self) -> int:
        return self.raft.term

    @property
    def is_ready(self) -> bool:
        role = self.raft.state
        return isinstance(role, LeaderRole) and self.raft.is_running and role.is_ready

    @property
    def commit_index(self) -> int:
        return self.raft.replica.commit_index

    @property
    def door(self) -> CommandDoor:
        return self._door

    def start(self) -> None:
        self.raft.node.watch(self.raft.peers)
        self.raft.start()

    def stop(self) -> None:
        self.raft.stop()

    def on_commit(self, callback: Callable[[int], None]) -> None:
        self.raft.on_commit.append(callback)

    def on_role(self, callback: Callable[[Role, int], None]) -> None:
        self.raft.on_role.append(callback)

    # --- what it does ----------------------------------------------------------------------------

    def propose(
        self,
        payloads: Sequence[Payload],
        *,
        term: int | None = None,
        expected_offset: int | None = None,
    ) -> asyncio.Future[Proposed]:
        role = self._leader_role()
        if not payloads:
            raise ValueError("nothing is proposed")
        if term is not None and term != self.raft.term:
            raise NotLeaderError(
                f"term {term} has passed; this group is in {self.raft.term}", leader=self.leader
            )
        future: asyncio.Future[Proposed] = self.loop.create_future()
        role.propose(payloads, resolving(future), expected_offset)
        return future

    def propose_batch(self, batch: RecordBatch, done: Done) -> None:
        self._leader_role().propose((batch,), done)

    def read_barrier(self) -> asyncio.Future[int]:
        return self._leader_role().read_barrier()

    def snapshot(self) -> Snapshot:
        return self.raft.replica.snapshot()

    def transfer(self, target: str) -> asyncio.Future[None]:
        role = self._leader_role()
        if target == self.raft.id or target not in self.raft.voters:
            raise ConfigError(
                f"{target} cannot take over {self.group_id}: it is not another voter of it "
                f"({', '.join(self.raft.voters)})"
            )
        return role.transfer.begin(target)

    def change_members(self, members: Members) -> asyncio.Future[Proposed]:
        role = self._leader_role()
        self._check_change(self.raft.members, members, role)
        self.raft.node.watch((*members.voters, *members.learners))
        future: asyncio.Future[Proposed] = self.loop.create_future()
        role.change_members(members, resolving(future))
        return future

    def _check_change(self, now: Members, wanted: Members, role: LeaderRole) -> None:
        """One voter's difference, and a new voter has learned everything first (protocol 12)."""
        changed = set(now.voters) ^ set(wanted.voters)
        named = (*wanted.voters, *wanted.learners)
        if not wanted.voters or len(set(named)) != len(named):
            raise ConfigError("a group needs a voter, and names each member once")
        if len(changed) > 1:
            raise ConfigError(
                f"{len(changed)} voters would change at once ({', '.join(sorted(changed))}): "
                "quorums of the old and the new set must meet, so change one after the other"
            )
        for name in changed - set(now.voters):
            progress = role.replication.peers.get(name)
            behind = progress is None or progress.match_index < role.noop_index
            if name not in now.learners or behind:
                raise ConfigError(
                    f"{name} must be a learner that has caught up before it is a voter"
                )

    def _leader_role(self) -> LeaderRole:
        role = self.raft.state
        if not self.raft.is_running or not isinstance(role, LeaderRole):
            raise NotLeaderError(
                f"{self.raft.id} does not lead {self.group_id}; "
                f"{self.leader or 'nobody that it knows of'} does",
                leader=self.leader,
            )
        return role

    def status(self) -> ConsensusStatus:
        raft = self.raft
        replica, role = raft.replica, raft.state
        return ConsensusStatus(
            group_id=raft.group_id,
            role=raft.role,
            term=raft.term,
            leader=raft.leader,
            voters=raft.members.voters,
            learners=raft.members.learners,
            first_index=replica.first_index,
            last_index=replica.last_index,
            durable_index=replica.durable_index,
            commit_index=replica.commit_index,
            is_suspect=replica.suspect,
            peers=role.peers_status() if isinstance(role, LeaderRole) else (),
        )
