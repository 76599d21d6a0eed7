"""A server of one node: every partition of one data directory, its own quorum.

Place: a `Backend` over `chronik_store.aio`. Promise: what the embedded library promises, over the
wire; acks "leader" and "quorum" mean the same here. A log that has failed takes nothing until it is
opened again, which no client can do: whoever made this is told, and ends. Invariant: the store is
opened and closed by whoever made this; nothing here blocks the event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from chronik_server.addresses import parse_address
from chronik_server.backend import Check, FetchOptions, Link, NodeIdentity, fault_of
from chronik_server.bundle_upkeep import BundleUpkeep
from chronik_server.errors import UnauthenticatedError, made_anew
from chronik_server.partition_reads import PartitionReads
from chronik_server.protocol.cluster import (
    ClusterDescription,
    NodeInfo,
    PartitionRole,
    StatusFound,
)
from chronik_server.protocol.data import Acks, CursorPlace, Fetched, OffsetsFound, Search
from chronik_server.protocol.greeting import PeerIdentity
from chronik_server.protocol.topics import CreateTopic, PartitionPlace, TopicDescription
from chronik_server.turn import Turn
from chronik_store.aio import AsyncLogStore, AsyncPartitionLog
from chronik_store.errors import (
    ConfigError,
    LogClosedError,
    TopicNotFoundError,
    UnavailableError,
)
from chronik_store.format.checksum import Buffer
from chronik_store.format.record_batch import RecordBatch
from chronik_store.log_core import LogCore
from chronik_store.log_store import LogStore
from chronik_store.model import (
    AppendResult,
    BundlesFound,
    BundlesRebuilt,
    PipelineReport,
    SearchResult,
    TopicInfo,
)
from chronik_store.replicated import core_of

logger = logging.getLogger("chronik_server.local")


class LocalPartition:
    """One partition of a store that is its own quorum."""

    def __init__(
        self, backend: LocalBackend, log: AsyncPartitionLog, topic: str, number: int
    ) -> None:
        self.topic_id = log.topic_id
        self._backend = backend
        self._log = log
        self._reads = PartitionReads(log)
        self._topic = topic
        self._number = number
        self._order = asyncio.Lock()

    async def produce(
        self, batch: RecordBatch, acks: Acks, expected_offset: int | None
    ) -> AppendResult:
        """See `PartitionBackend`."""
        async with self._order:  # a producer's batches keep the order in which it sent them
            future = await self._log.enqueue(batch, expected_offset=expected_offset)
        if acks != "none":
            return await future
        future.add_done_callback(self._look_at)
        return AppendResult(0, 0)

    def produce_nowait(
        self,
        batch: RecordBatch,
        acks: Acks,
        expected_offset: int | None,
        done: Callable[[AppendResult | BaseException], None],
    ) -> bool:
        """See `PartitionBackend`: the log hands out a place only to who waits."""
        return False

    def _look_at(self, future: asyncio.Future[AppendResult]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            logger.warning("%s/%d: an append that nobody waits for failed: %s",
                           self._topic, self._number, error)  # fmt: skip

    async def fetch(self, offset: int, options: FetchOptions) -> tuple[Fetched, list[Buffer]]:
        """See `PartitionBackend`."""
        return await self._reads.fetch(offset, options)

    async def offsets(self, timestamp_us: int | None) -> OffsetsFound:
        """See `PartitionBackend`."""
        return await self._reads.offsets(timestamp_us, topic_id=self.topic_id)

    async def cursor(self, name: str) -> CursorPlace:
        """See `PartitionBackend`."""
        return await self._reads.cursor(name)

    async def commit_cursor(self, name: str, next_offset: int, *, reset: bool) -> None:
        """See `PartitionBackend`."""
        self._reads.check_committed(next_offset)
        await self._log.cursor(name).commit(next_offset, reset=reset)

    async def delete_cursor(self, name: str) -> bool:
        """See `PartitionBackend`."""
        cursor = self._log.cursor(name)
        existed = cursor.committed_offset is not None
        await cursor.delete()
        return existed

    async def seal(self) -> int:
        """See `PartitionBackend`."""
        return await self._log.seal()

    async def drop_before(self, offset: int) -> None:
        """See `PartitionBackend`."""
        await self._log.drop_before(offset)

    async def find_bundles(self, offset: int, *, everything: bool) -> BundlesFound:
        """See `PartitionBackend`."""
        core = await self._backend.core(self._topic, self._number)
        return await self._backend.bundles.find(core, offset, everything=everything)

    async def rebuild_bundles(self, keys: Sequence[str]) -> BundlesRebuilt:
        """See `PartitionBackend`."""
        core = await self._backend.core(self._topic, self._number)
        return await self._backend.bundles.rebuild(core, keys)

    async def search(self, query: str, options: dict[str, Any]) -> SearchResult:
        """Search this partition alone."""
        return await self._log.search(query, **options)

    def role(self) -> PartitionRole:
        """A log that is its own quorum is always led here."""
        return PartitionRole(self._topic, self._number, "leader", 0, self._backend.identity.node_id)


class _Opening:
    """Of a partition that is being opened: who asked first goes on first, so that appends that came
    one behind the other stay in that order.
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.waiting = 0


class LocalBackend:
    """A `Backend` over one embedded store.

    on_fatal: called when a log that was asked for has failed: the process must end.
    """

    has_peers = False

    def __init__(
        self,
        store: LogStore,
        identity: NodeIdentity,
        *,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._on_fatal = on_fatal
        self._has_ended = False
        self._opened = store
        self._store = AsyncLogStore(store)
        self.bundles = BundleUpkeep(store)
        self.identity = identity
        self.turn = Turn(asyncio.get_running_loop())
        self._address = ""
        self._reached_at: str | None = None
        self._partitions: dict[tuple[str, int], LocalPartition] = {}
        self._deleting: Counter[str] = Counter()
        self._deletions = 0
        self._opening: dict[tuple[str, int], _Opening] = {}

    async def start(self, address: str) -> None:
        """See `Backend`."""
        self._address = address
        if not parse_address(address).is_everywhere:  # else it is where it was asked
            self._reached_at = address

    # --- topics ----------------------------------------------------------------------------------

    async def create_topic(self, request: CreateTopic) -> TopicDescription:
        """See `Backend`."""
        if request.replicas not in {None, 1}:
            raise ConfigError(f"replicas is {request.replicas}; a server of one node keeps one")
        info = await self._store.create_topic(
            request.topic, partitions=request.partitions, exist_ok=request.exist_ok
        )
        return self._described(info)

    async def delete_topic(self, topic: str) -> None:
        """See `Backend`."""
        self._deleting[topic] += 1
        self._forget(topic)
        try:
            await self._store.delete_topic(topic)
        finally:
            self._deleting[topic] -= 1
            if not self._deleting[topic]:
                del self._deleting[topic]
            self._forget(topic)

    def _forget(self, topic: str) -> None:
        self._deletions += 1
        for key in [key for key in self._partitions if key[0] == topic]:
            del self._partitions[key]

    async def topics(self) -> tuple[TopicInfo, ...]:
        """See `Backend`."""
        return await self._store.topics()

    async def describe_topic(self, topic: str) -> TopicDescription:
        """See `Backend`."""
        return self._described(await self._info(topic))

    async def _info(self, topic: str) -> TopicInfo:
        for info in await self._store.topics():
            if info.name == topic:
                return info
        raise TopicNotFoundError(f"no topic {topic!r} here; create it first", topic=topic)

    def _described(self, info: TopicInfo) -> TopicDescription:
        node = self.identity.node_id
        places = tuple(
            PartitionPlace(number, node, self._reached_at, 0, (node,))
            for number in range(info.partitions)
        )
        return TopicDescription(info.name, info.topic_id, places)

    # --- partitions ------------------------------------------------------------------------------

    def known_partition(self, topic: str, partition: int) -> LocalPartition | None:
        """See `Backend`. None as long as somebody waits for it, whom nobody overtakes."""
        key = topic, partition
        return None if key in self._opening else self._partitions.get(key)

    async def partition(
        self, topic: str, partition: int, topic_id: str | None = None
    ) -> LocalPartition:
        """See `Backend`."""
        found = await self._partition(topic, partition)
        if topic_id not in {None, found.topic_id}:
            raise made_anew(topic)
        return found

    async def _partition(self, topic: str, partition: int) -> LocalPartition:
        key = topic, partition
        found = self.known_partition(topic, partition)
        if found is not None:
            return found
        opening = self._opening.setdefault(key, _Opening())
        opening.waiting += 1
        try:
            async with opening.turn:
                return self._partitions.get(key) or await self._open(topic, partition)
        finally:
            opening.waiting -= 1
            if not opening.waiting:
                del self._opening[key]

    async def _open(self, topic: str, partition: int) -> LocalPartition:
        before = self._deletions
        log = await self._store.partition(topic, partition)
        await self._watch(topic, partition)
        found = LocalPartition(self, log, topic, partition)
        if before == self._deletions and not self._deleting[topic]:
            self._partitions[topic, partition] = found
        # Else it may be a log that is closed by now: it is not kept for the next topic.
        return found

    async def _watch(self, topic: str, partition: int) -> None:
        try:
            core = await self.core(topic, partition)
        except (TopicNotFoundError, LogClosedError):
            return  # it was deleted meanwhile
        look = functools.partial(self._look_whether_failed, core)
        core.watch.add_listener(look)
        look()  # it may have been so before

    def _look_whether_failed(self, core: LogCore) -> None:
        """Called from the log's threads, for each group of appends."""
        if core.wal.poisoned is not None:
            self.turn.from_thread(functools.partial(self._has_failed, core))

    def _has_failed(self, core: LogCore) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        name, cause = f"{core.identity.topic}/{core.identity.partition}", core.wal.poisoned
        logger.critical("%s: %r; this process must end", name, cause)
        self._on_fatal(
            UnavailableError(
                f"the log of {name} has failed ({cause!r}): look at the disk, then start it again"
            )
        )

    async def core(self, topic: str, partition: int) -> LogCore:
        """Of a partition, opened if need be."""
        loop = asyncio.get_running_loop()
        return core_of(await loop.run_in_executor(None, self._opened.partition, topic, partition))

    async def search(self, request: Search) -> SearchResult:
        """See `Backend`."""
        options = search_options(request)
        if request.partition is None:
            return await self._store.search(request.topic, request.query, **options)
        found = await self.partition(request.topic, request.partition)
        return await found.search(request.query, options)

    # --- the node --------------------------------------------------------------------------------

    async def status(self, topic: str | None) -> StatusFound:
        """See `Backend`."""
        status = await asyncio.get_running_loop().run_in_executor(None, self._opened.status)
        parts = tuple(part for part in status.partitions if topic in {None, part.topic})
        if topic is not None and not parts:
            await self._info(topic)  # one of which nothing can be opened is there all the same
        node = self.identity.node_id
        roles = tuple(PartitionRole(p.topic, p.partition, "leader", 0, node) for p in parts)
        return StatusFound(dataclasses.replace(status, partitions=parts), roles, node)

    async def run_pipeline(self) -> PipelineReport:
        """See `Backend`."""
        return await self._store.run_pipeline_once()

    async def describe_cluster(self) -> ClusterDescription:
        """See `Backend`."""
        cluster_id, node_id, node_uuid, _ = self.identity
        nodes = (NodeInfo(node_id, self._address, node_uuid),)
        return ClusterDescription(cluster_id, node_id, nodes, node_id, alone=True)

    async def add_node(self, node_id: str, address: str) -> None:
        """See `Backend`."""
        raise self._alone()

    async def remove_node(self, node_id: str) -> None:
        """See `Backend`."""
        raise self._alone()

    async def transfer_leader(self, topic: str, partition: int, to: str | None) -> None:
        """See `Backend`."""
        raise self._alone()

    @staticmethod
    def _alone() -> ConfigError:
        return ConfigError("this server has a data directory of its own and is in no cluster")

    def greet(self, peer: PeerIdentity, link: Link) -> PeerIdentity:
        """See `Backend`."""
        raise UnauthenticatedError(f"this server is in no cluster; node {peer.node_id} called it")

    def lost(self, peer: PeerIdentity, link: Link) -> None:
        """See `Backend`."""

    def told(self, peer: PeerIdentity, link: Link, message: Any, payload: Buffer) -> None:
        """See `Backend`."""

    async def checks(self) -> tuple[Check, ...]:
        """See `Backend`."""
        status = await asyncio.get_running_loop().run_in_executor(None, self._opened.status)
        faulty = [part for part in status.partitions if fault_of(part)]
        stuck = [fault_of(part) for part in faulty if not part.writable]
        tiering = [fault_of(part) for part in faulty if part.writable]
        return Check("wal", "; ".join((*stuck, *status.unavailable))), Check(
            "tiering", "; ".join(tiering)
        )

    async def hand_over(self) -> None:
        """See `Backend`: there is nobody else."""

    async def close(self) -> None:
        """See `Backend`."""
        await self._store.close()


def search_options(request: Search) -> dict[str, Any]:
    """The keyword arguments of `PartitionLog.search` that a request means."""
    deadline = request.deadline_ms
    return {
        "since": request.since_us,
        "until": request.until_us,
        "start": request.start,
        "stop": request.stop,
        "limit": request.limit,
        "order": request.order,
        "deadline_seconds": None if deadline is None else deadline / 1000,
        "require_complete": request.require_complete,
    }
