"""The narrow interface between the server and its consensus engine.

Place: handlers code against it; `RaftosConsensus` and `LocalConsensus` stand behind it. Promise: a
proposal ends in exactly one of three ways: refused before anything was staged, answered after
`committed` has moved over it here, or unknown. Invariant: everything but `door` is used on the
event loop that owns the group; no type of the engine shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from chronik_store.control_path import CommandDoor
from chronik_store.errors import ChronikError
from chronik_store.format.control import Command, Members
from chronik_store.format.record_batch import RecordBatch
from chronik_store.replica import Snapshot

Payload = RecordBatch | Command
"""What becomes one entry."""


class Role(StrEnum):
    """What a replica is in its group."""

    LEADER = "leader"
    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    STOPPED = "stopped"


class Proposed(NamedTuple):
    """Committed: `index` of the last entry, offsets [base_offset, end_offset) of all records.

    duplicate: a retry of an idempotent producer; these are its original's places (term 0: so old
    that this log does not know it any more).
    """

    index: int  # type: ignore[assignment]
    term: int
    base_offset: int
    end_offset: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """A peer as the leader sees it. mode: "probe", "replicate" or "snapshot"."""

    peer: str
    match_index: int
    next_index: int
    mode: str
    is_alive: bool
    is_suspect: bool
    is_full: bool = False


@dataclass(frozen=True, slots=True)
class ConsensusStatus:
    """One replica at one moment; indexes are inclusive. peers: the leader's view, else empty."""

    group_id: str
    role: Role
    term: int
    leader: str | None
    voters: tuple[str, ...]
    learners: tuple[str, ...]
    first_index: int
    last_index: int
    durable_index: int
    commit_index: int
    is_suspect: bool
    peers: tuple[PeerStatus, ...]


Done = Callable[[Proposed | ChronikError], None]
"""Takes the outcome of a proposal, once; called on the event loop, and not to raise."""


def resolving(future: asyncio.Future[Proposed]) -> Done:
    """A `Done` that hands the outcome to a future; nobody may be waiting for it any more."""

    def done(outcome: Proposed | ChronikError) -> None:
        if future.done():
            return
        if isinstance(outcome, Proposed):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)

    return done


class Consensus(Protocol):
    """One group's replica in this process."""

    @property
    def group_id(self) -> str: ...
    @property
    def role(self) -> Role: ...
    @property
    def leader(self) -> str | None:
        """Node id of the leader that this node knows of."""
        ...

    @property
    def has_vote(self) -> bool:
        """A voter of the group, as far as its log here says; a learner only follows."""
        ...

    @property
    def leader_heard_at(self) -> float:
        """When another node was last heard to lead, in this life; loop time, -inf if never."""
        ...

    @property
    def term(self) -> int: ...
    @property
    def is_ready(self) -> bool:
        """Leads, and an entry of its own term is committed: it may take records (protocol 3)."""
        ...

    @property
    def commit_index(self) -> int:
        """Inclusive: what a quorum holds and this disk too."""
        ...

    @property
    def door(self) -> CommandDoor:
        """How the pipeline's threads propose commands. Thread-safe."""
        ...

    def start(self) -> None: ...
    def stop(self) -> None:
        """Take part no more. What waits for an outcome learns that it is unknown. Idempotent."""
        ...

    def propose(
        self,
        payloads: Sequence[Payload],
        *,
        term: int | None = None,
        expected_offset: int | None = None,
    ) -> asyncio.Future[Proposed]:
        """Append entries, in order, all or none. `term`: only if it is still the current one;
        `expected_offset`: only if the log, tail included, ends there.

        Raises at once, with nothing staged: NotLeaderError, BackpressureError, FencedError,
        OffsetConflictError, ProducerSequenceError, LogPoisonedError. The future: Proposed, or
        OutcomeUnknownError.
        """
        ...

    def propose_batch(self, batch: RecordBatch, done: Done) -> None:
        """`propose` of one batch without a future: most of all proposals. `done` may be called
        before this returns, when the batch is the duplicate of a committed one.
        """
        ...

    def on_commit(self, callback: Callable[[int], None]) -> None:
        """Call back with `commit_index` after it has moved."""
        ...

    def on_role(self, callback: Callable[[Role, int], None]) -> None:
        """Call back with (role, term) after each change."""
        ...

    def read_barrier(self) -> asyncio.Future[int]:
        """The index that a read which starts now must see, once this replica has it and a quorum
        has confirmed the leader. NotLeaderError at once; OutcomeUnknownError.
        """
        ...

    def snapshot(self) -> Snapshot:
        """What a new member would begin with. UnavailableError while it cannot be told."""
        ...

    def transfer(self, target: str) -> asyncio.Future[None]:
        """Hand leadership over. NotLeaderError, ConfigError (no voter); TimeoutError."""
        ...

    def change_members(self, members: Members) -> asyncio.Future[Proposed]:
        """One change at a time, one voter at a time, learners first (protocol 12).

        ConfigError for any other change, BackpressureError while one is pending, NotLeaderError.
        """
        ...

    def status(self) -> ConsensusStatus: ...
