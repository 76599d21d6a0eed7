"""One partition of a cluster, as this node can serve it.

Place: a `PartitionBackend` over one log and its consensus. Promise: an append is acknowledged only
when it is committed (acks "quorum"), or durable at the leader (acks "leader"); reads show
committed records only, from any node, with how stale they may be; only a leader that a quorum
has confirmed since says that an offset is outside the log (protocol 4). Invariant: records and
commands enter through `Consensus`, on the event loop: only the pipeline's threads have a door.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from chronik_server.backend import FetchOptions
from chronik_server.bundle_upkeep import BundleUpkeep
from chronik_server.errors import NotLeaderError, UnknownOutcomeError
from chronik_server.partition_commands import PartitionCommands
from chronik_server.partition_reads import PartitionReads
from chronik_server.protocol.cluster import GroupRole, PartitionRole
from chronik_server.protocol.data import Acks, CursorPlace, Fetched, OffsetsFound
from chronik_server.raft import errors as raft
from chronik_server.raft.consensus import Consensus, Proposed, Role
from chronik_store.aio import AsyncPartitionLog
from chronik_store.errors import (
    BackpressureError,
    ChronikError,
    DiskFullError,
    LogPoisonedError,
    OffsetOutOfRangeError,
    UnavailableError,
)
from chronik_store.format.checksum import Buffer
from chronik_store.format.record_batch import RecordBatch
from chronik_store.log_core import LogCore
from chronik_store.model import AppendResult, BundlesFound, BundlesRebuilt, SearchResult

T = TypeVar("T")
logger = logging.getLogger("chronik_server.raft_partition")

ROOM_SECONDS = 0.05
"""How often a full queue is looked at again."""


class RaftPartition:
    """See the module. Belongs to the event loop.

    on_full: called when an append is refused since this node's disk takes no records.
    """

    def __init__(
        self,
        topic: str,
        number: int,
        log: AsyncPartitionLog,
        core: LogCore,
        consensus: Consensus,
        *,
        address_of: Callable[[str], str | None],
        staleness_seconds: Callable[[], float | None],
        on_full: Callable[[RaftPartition], None],
        bundles: BundleUpkeep,
    ) -> None:
        self.consensus = consensus
        self._on_full = on_full
        self.core = core
        self.log = log
        self._topic = topic
        self._number = number
        self._bundles = bundles
        self._reads = PartitionReads(log)
        self._commands = PartitionCommands(log, core, consensus)
        self._address_of = address_of
        self._staleness_seconds = staleness_seconds
        self._order = asyncio.Lock()
        self._was_duplicate = False  # of the newest proposal

    def __str__(self) -> str:
        return f"{self._topic}/{self._number}"

    # --- writing ---------------------------------------------------------------------------------

    async def produce(
        self, batch: RecordBatch, acks: Acks, expected_offset: int | None
    ) -> AppendResult:
        """See `PartitionBackend`."""
        async with self._order:  # a producer's batches keep the order in which it sent them
            committed = await self._queued(batch, expected_offset)
        end = self.core.end_offset
        if acks == "none":
            committed.add_done_callback(_look_at)
            return AppendResult(0, 0)
        if acks == "leader":
            await self._durable_here(committed)
            if not committed.done():
                return AppendResult(end - batch.record_count, end)
        try:
            found = await committed
        except ChronikError as error:
            raise self.translated(error) from error
        return AppendResult(found.base_offset, found.end_offset, found.duplicate)

    def produce_nowait(
        self,
        batch: RecordBatch,
        acks: Acks,
        expected_offset: int | None,
        done: Callable[[AppendResult | BaseException], None],
    ) -> bool:
        """See `PartitionBackend`."""
        if acks != "quorum" or expected_offset is not None or self._order.locked():
            return False
        self._must_lead()
        if self._pause_seconds(batch):
            return False

        def told(outcome: Proposed | ChronikError) -> None:
            if isinstance(outcome, Proposed):
                _, _, base_offset, end_offset, duplicate = outcome
                done(AppendResult(base_offset, end_offset, duplicate))
            else:
                done(self.translated(outcome))

        try:
            self.consensus.propose_batch(batch, told)
        except BackpressureError:
            return False
        except (raft.NotLeaderError, LogPoisonedError) as error:
            raise self.translated(error) from error
        return True

    async def _queued(
        self, batch: RecordBatch, expected_offset: int | None
    ) -> asyncio.Future[Proposed]:
        """Propose as soon as there is room; a short disk slows appends down, never the loop."""
        self._must_lead()
        pause = self._pause_seconds(batch)
        if pause:
            await asyncio.sleep(pause)
        while True:
            try:
                return self._propose(batch, expected_offset)
            except BackpressureError:
                await asyncio.sleep(ROOM_SECONDS)

    def _pause_seconds(self, batch: RecordBatch) -> float:
        try:
            return self.core.guard.pause_seconds(batch.nbytes)
        except DiskFullError:
            self._on_full(self)
            raise

    def _propose(self, batch: RecordBatch, expected_offset: int | None) -> asyncio.Future[Proposed]:
        if not self.consensus.is_ready:
            raise self.not_leader()
        before = self.core.end_offset
        try:
            committed = self.consensus.propose([batch], expected_offset=expected_offset)
            self._was_duplicate = self.core.end_offset == before
            return committed
        except (raft.NotLeaderError, LogPoisonedError) as error:
            raise self.translated(error) from error

    async def _durable_here(self, committed: asyncio.Future[Proposed]) -> None:
        """Return when it is on this disk, or sooner when it is committed. A retry that shares
        the outcome of its original waits for that.
        """
        replica = self.core.replica
        assert replica is not None
        if self._was_duplicate:
            await asyncio.wait((committed,))
            return
        synced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        replica.when_synced(
            replica.last_ticket, lambda: None if synced.done() else synced.set_result(None)
        )
        committed.add_done_callback(_look_at)
        await asyncio.wait((synced, committed), return_when=asyncio.FIRST_COMPLETED)

    async def commit_cursor(self, name: str, next_offset: int, *, reset: bool) -> None:
        """See `PartitionBackend`."""
        self._must_lead()
        try:
            self._reads.check_committed(next_offset)
        except OffsetOutOfRangeError as error:
            raise await self._outside(error) from error
        await self._commanded(self._commands.commit_cursor(name, next_offset, reset=reset))

    async def delete_cursor(self, name: str) -> bool:
        """See `PartitionBackend`."""
        self._must_lead()
        return await self._commanded(self._commands.delete_cursor(name))

    async def seal(self) -> int:
        """See `PartitionBackend`."""
        self._must_lead()
        return await self._commanded(self._commands.seal())

    async def drop_before(self, offset: int) -> None:
        """See `PartitionBackend`."""
        self._must_lead()
        try:
            await self._commanded(self._commands.drop_before(offset))
        except OffsetOutOfRangeError as error:
            raise await self._outside(error) from error

    async def find_bundles(self, offset: int, *, everything: bool) -> BundlesFound:
        """See `PartitionBackend`."""
        self._must_lead()
        return await self._bundles.find(self.core, offset, everything=everything)

    async def rebuild_bundles(self, keys: Sequence[str]) -> BundlesRebuilt:
        """See `PartitionBackend`. Who leads by then goes on with what waits, if asked."""
        self._must_lead()
        found = await self._bundles.rebuild(self.core, keys)
        if found.waiting:
            self._must_lead()
        return found

    async def _commanded(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except ChronikError as error:
            raise self.translated(error) from error

    # --- reading ---------------------------------------------------------------------------------

    async def fetch(self, offset: int, options: FetchOptions) -> tuple[Fetched, list[Buffer]]:
        """See `PartitionBackend`."""
        if options.consistency == "linearizable":
            try:
                await self.consensus.read_barrier()
            except UnavailableError as error:
                raise self.not_leader() from error  # nothing was to be stored: ask who leads now
        try:
            return await self._reads.fetch(offset, options, staleness_ms=self._staleness_ms())
        except OffsetOutOfRangeError as error:
            raise await self._outside(error) from error

    async def _outside(self, error: OffsetOutOfRangeError) -> ChronikError:
        """What was read elsewhere is committed, though this node has not heard of it yet, its own
        disk has not got it, or another leads by now; and what was dropped here may be there in a
        topic of the same name that was made since: a leader asks a quorum before it says so.
        """
        with contextlib.suppress(UnavailableError):
            await self.consensus.read_barrier()
            line = self.log.watermarks
            if not line.start <= error.offset <= line.committed:
                return error
        if error.offset < error.first_offset:
            return self.not_leader()
        return UnavailableError(
            f"{self._topic}/{self._number} is known to offset {error.end_offset} here; "
            f"{error.offset} may be committed: ask the leader, or again",
            durability="not_durable",
        )

    async def offsets(self, timestamp_us: int | None) -> OffsetsFound:
        """See `PartitionBackend`."""
        return await self._reads.offsets(
            timestamp_us, topic_id=self.topic_id, staleness_ms=self._staleness_ms()
        )

    async def cursor(self, name: str) -> CursorPlace:
        """See `PartitionBackend`."""
        return await self._reads.cursor(name, staleness_ms=self._staleness_ms())

    def _staleness_ms(self) -> int | None:
        """How long ago this node heard its leader; None: it leads, and knows what is committed."""
        seconds = None if self.consensus.is_ready else self._staleness_seconds()
        return None if seconds is None else round(seconds * 1000)

    async def search(self, query: str, options: dict[str, Any]) -> SearchResult:
        """Search this partition alone."""
        return await self.log.search(query, **options)

    def role(self) -> PartitionRole:
        """See `PartitionBackend`."""
        consensus = self.consensus
        roles: dict[Role, GroupRole] = {
            Role.LEADER: "leader", Role.CANDIDATE: "candidate",
            Role.FOLLOWER: "follower" if consensus.has_vote else "learner",
        }  # fmt: skip
        return PartitionRole(
            self._topic,
            self._number,
            roles.get(consensus.role, "none"),
            consensus.term,
            consensus.leader,
        )

    # --- whom else to ask ------------------------------------------------------------------------

    def _must_lead(self) -> None:
        if not self.consensus.is_ready:
            raise self.not_leader()

    @property
    def topic_id(self) -> str:
        """See `PartitionBackend`."""
        return self.core.identity.topic_id

    @property
    def doubt(self) -> str:
        """Why this copy elects nobody, if that is because it may lack something."""
        replica = self.core.replica
        if replica is None or not replica.suspect:
            return ""
        return (
            ". The copy of this one may lack what was acknowledged (see its log), so it has no "
            "vote until it has caught up with a leader; if none is sure of its copy, they elect "
            "once all of them are here"
        )

    def not_leader(self) -> NotLeaderError:
        """Names the leader, if it is known."""
        leader = self.consensus.leader
        return NotLeaderError(
            f"{self} is led by {leader}"
            if leader
            else f"{self} is led by nobody that this node knows of: it is being elected, or too "
            f"many of its nodes are down for a majority{self.doubt}",
            node_id=leader,
            address=None if leader is None else self._address_of(leader),
        )

    def translated(self, error: ChronikError) -> ChronikError:
        """What consensus says, as it goes over the wire."""
        if isinstance(error, raft.NotLeaderError):
            return self.not_leader()
        if isinstance(error, raft.OutcomeUnknownError):
            return UnknownOutcomeError(str(error))
        if isinstance(error, LogPoisonedError):
            # This process ends. Whoever leads next takes it, or knows that it is stored.
            if error.durability == "unknown":
                return UnknownOutcomeError(str(error))
            return NotLeaderError(
                f"{self}: the log of this node has ended, and so does the node ({error.cause}): "
                "ask again, another one will lead"
            )
        return error


def _look_at(future: asyncio.Future[Proposed]) -> None:
    """Nobody waits for it: its error is logged, not lost."""
    if not future.cancelled() and (error := future.exception()) is not None:
        logger.warning("an append that nobody waits for failed: %s", error)
