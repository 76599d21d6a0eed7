"""One function for each verb: request and payload in, response and payload out.

Place: between `session` (a connection's requests) and `backend` (what stands behind them).
Promise: what is wrong with a request is a typed error, and a batch that is taken can be read.
Invariant: no state of its own, but for the order in which large batches came.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from chronik_server.answer_room import Share
from chronik_server.backend import Backend, FetchOptions, PartitionBackend
from chronik_server.protocol import cluster, data, greeting, topics
from chronik_server.protocol.data import NOTE_BYTES_MAX, PATHS_MAX, REASONS_MAX
from chronik_store.clock import Clock
from chronik_store.errors import ChronikError, ConfigError, CorruptionError, RecordTooLargeError
from chronik_store.format.checksum import Buffer
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import AppendResult, Coverage, SearchResult

Answer = tuple[Any, Buffer | list[Buffer]]
_Reading = data.Fetch | data.Offsets | data.GetCursor | data.CommitCursor
"""What a reader says who means one topic, and none that is made under its name later."""
Handler = Callable[[Any, Any], Awaitable[Answer]]
"""Of a message and its payload; of what is COUNTED, which has none, and the room for its answer."""
COUNTED = frozenset(
    {
        data.Fetch,
        data.Search,
        topics.ListTopics,
        topics.DescribeTopic,
        cluster.Status,
        cluster.FindBundles,
    }
)
"""What is answered with records, or with as much as there are topics, partitions and bundles."""
ANSWER_BYTES = 1 << 20
"""What an answer is taken for until it is there, when nothing says before how long it will be."""
SOON_BYTES, SOON_BYTES_WITH_HEADERS = 1 << 20, 1 << 17
"""Up to here, unpacked, a batch is checked in a twentieth of a second, whatever it holds."""
_NOTHING = b""
SEARCH_SECONDS_MAX = 3e8
"""Ten years: a setting without a limit, as a number that fits into a message."""


class Handlers:
    """The verbs of one node, by the class of their request."""

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        *,
        batch_bytes_max: int,
        fetch_bytes_max: int,
        search_seconds: float,
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._batch_bytes_max = batch_bytes_max
        self._fetch_bytes_max = fetch_bytes_max
        self._checking = asyncio.Lock()
        self.search_ms = int(min(search_seconds, SEARCH_SECONDS_MAX) * 1000)
        self.by_message: dict[type, Handler] = {
            greeting.Ping: self._ping,
            topics.CreateTopic: self._create_topic,
            topics.DeleteTopic: self._delete_topic,
            topics.ListTopics: self._list_topics,
            topics.DescribeTopic: self._describe_topic,
            data.Produce: self._produce,
            data.Fetch: self._fetch,
            data.Offsets: self._offsets,
            data.GetCursor: self._get_cursor,
            data.CommitCursor: self._commit_cursor,
            data.DeleteCursor: self._delete_cursor,
            data.Search: self._search,
            cluster.Status: self._status,
            cluster.Seal: self._seal,
            cluster.DropBefore: self._drop_before,
            cluster.RunPipeline: self._run_pipeline,
            cluster.FindBundles: self._find_bundles,
            cluster.RebuildBundles: self._rebuild_bundles,
            cluster.DescribeCluster: self._describe_cluster,
            cluster.AddNode: self._add_node,
            cluster.RemoveNode: self._remove_node,
            cluster.TransferLeader: self._transfer_leader,
        }

    async def _partition(
        self, topic: str, partition: int, topic_id: str | None = None
    ) -> PartitionBackend:
        known = self._backend.known_partition(topic, partition)
        if known is not None and (topic_id is None or topic_id == known.topic_id):
            return known
        return await self._backend.partition(topic, partition, topic_id)

    async def _read_from(self, asked: _Reading) -> PartitionBackend:
        return await self._partition(asked.topic, asked.partition, asked.topic_id)

    # --- records ---------------------------------------------------------------------------------

    async def _produce(self, request: data.Produce, payload: Buffer) -> Answer:
        batch = self._opened(payload)
        async with self._checking:  # a large one keeps the place in which it came
            if _is_soon_checked(batch):
                _check(batch)
            else:
                await asyncio.get_running_loop().run_in_executor(None, _check, batch)
        try:
            partition = await self._partition(request.topic, request.partition)
        except ChronikError as error:
            error.durability = "not_durable"  # nobody has seen the batch but this handler
            raise
        result = await partition.produce(batch, request.acks, request.expected_offset)
        return data.Produced(*result), _NOTHING

    def append(
        self,
        request: data.Produce,
        payload: Buffer,
        done: Callable[[AppendResult | BaseException], None],
    ) -> bool:
        """Begin a produce that needs no task; False: it is to be asked as any other request."""
        partition = self._backend.known_partition(request.topic, request.partition)
        if partition is None or request.acks != "quorum":
            return False
        batch = self._opened(payload)
        if not _is_soon_checked(batch):
            return False
        _check(batch)
        return partition.produce_nowait(batch, request.acks, request.expected_offset, done)

    def _opened(self, payload: Buffer) -> RecordBatch:
        """The batch that came as payload, of which only the header has been looked at.

        RecordTooLargeError over the limit, also of what a compressed one unpacks to.
        """
        try:
            batch = RecordBatch.from_buffer(payload, verify=False)
        except CorruptionError as error:
            error.durability = "not_durable"
            raise
        size = max(batch.nbytes, batch.raw_bytes)
        if size > self._batch_bytes_max:
            raise RecordTooLargeError(
                f"a batch of {size} bytes; this server takes {self._batch_bytes_max}",
                size_bytes=size,
                limit_bytes=self._batch_bytes_max,
            )
        return batch

    async def _fetch(self, request: data.Fetch, room: Share) -> Answer:
        """Records; `room` counts them."""
        partition = await self._read_from(request)
        options = FetchOptions(
            min(request.max_bytes, self._fetch_bytes_max),
            request.min_bytes,
            request.wait_ms / 1000,
            request.consistency,
            room,
        )
        found, buffers = await partition.fetch(request.offset, options)
        return found, buffers

    async def _offsets(self, request: data.Offsets, _: Buffer) -> Answer:
        partition = await self._read_from(request)
        return await partition.offsets(request.timestamp_us), _NOTHING

    async def _get_cursor(self, request: data.GetCursor, _: Buffer) -> Answer:
        partition = await self._read_from(request)
        return await partition.cursor(request.name), _NOTHING

    async def _commit_cursor(self, request: data.CommitCursor, _: Buffer) -> Answer:
        partition = await self._read_from(request)
        await partition.commit_cursor(request.name, request.next_offset, reset=request.reset)
        return topics.Done(), _NOTHING

    async def _delete_cursor(self, request: data.DeleteCursor, _: Buffer) -> Answer:
        partition = await self._partition(request.topic, request.partition)
        return data.CursorDeleted(await partition.delete_cursor(request.name)), _NOTHING

    async def _search(self, request: data.Search, room: Share) -> Answer:
        """Hits with their records; `room` counts them."""
        if request.deadline_ms is None:  # said in the welcome; the other nodes keep it, too
            request = dataclasses.replace(request, deadline_ms=self.search_ms)
        await room.take(ANSWER_BYTES, more=False)
        found, payload = _searched(await self._backend.search(request))
        room.keep(len(payload))
        return found, payload

    # --- topics ----------------------------------------------------------------------------------

    async def _create_topic(self, request: topics.CreateTopic, _: Buffer) -> Answer:
        return await self._backend.create_topic(request), _NOTHING

    async def _delete_topic(self, request: topics.DeleteTopic, _: Buffer) -> Answer:
        await self._backend.delete_topic(request.topic)
        return topics.Done(), _NOTHING

    async def _list_topics(self, _: topics.ListTopics, room: Share) -> Answer:
        await room.take(ANSWER_BYTES, more=False)
        return topics.Topics(await self._backend.topics()), _NOTHING

    async def _describe_topic(self, request: topics.DescribeTopic, room: Share) -> Answer:
        await room.take(ANSWER_BYTES, more=False)
        return await self._backend.describe_topic(request.topic), _NOTHING

    # --- upkeep ----------------------------------------------------------------------------------

    async def _ping(self, _: greeting.Ping, __: Buffer) -> Answer:
        return greeting.Pong(self._clock.time_us()), _NOTHING

    async def _status(self, request: cluster.Status, room: Share) -> Answer:
        await room.take(ANSWER_BYTES, more=False)
        return await self._backend.status(request.topic), _NOTHING

    async def _seal(self, request: cluster.Seal, _: Buffer) -> Answer:
        partition = await self._partition(request.topic, request.partition)
        return cluster.Sealed(await partition.seal()), _NOTHING

    async def _drop_before(self, request: cluster.DropBefore, _: Buffer) -> Answer:
        partition = await self._partition(request.topic, request.partition)
        await partition.drop_before(request.offset)
        return topics.Done(), _NOTHING

    async def _run_pipeline(self, _: cluster.RunPipeline, __: Buffer) -> Answer:
        return cluster.PipelineRun(await self._backend.run_pipeline()), _NOTHING

    async def _find_bundles(self, request: cluster.FindBundles, room: Share) -> Answer:
        partition = await self._partition(request.topic, request.partition)
        await room.take(ANSWER_BYTES, more=False)
        found = await partition.find_bundles(request.offset, everything=request.everything)
        return found, _NOTHING

    async def _rebuild_bundles(self, request: cluster.RebuildBundles, _: Buffer) -> Answer:
        partition = await self._partition(request.topic, request.partition)
        return await partition.rebuild_bundles(request.keys), _NOTHING

    async def _describe_cluster(self, _: cluster.DescribeCluster, __: Buffer) -> Answer:
        return await self._backend.describe_cluster(), _NOTHING

    async def _add_node(self, request: cluster.AddNode, _: Buffer) -> Answer:
        if not request.node_id or not request.address:
            raise ConfigError("a node has an id and an address")
        await self._backend.add_node(request.node_id, request.address)
        return topics.Done(), _NOTHING

    async def _remove_node(self, request: cluster.RemoveNode, _: Buffer) -> Answer:
        await self._backend.remove_node(request.node_id)
        return topics.Done(), _NOTHING

    async def _transfer_leader(self, request: cluster.TransferLeader, _: Buffer) -> Answer:
        await self._backend.transfer_leader(request.topic, request.partition, request.to)
        return topics.Done(), _NOTHING


def _told(part: Coverage) -> Coverage:
    """A bucket that is away is a reason for each of a hundred bundles: some of them will do."""
    reasons = [_short(reason) for reason in part.reasons[:REASONS_MAX]]
    left = len(part.reasons) - len(reasons)
    if left:
        reasons[-1] = f"and {left + 1} more"
    return dataclasses.replace(part, reasons=tuple(reasons))


def _short(text: str) -> str:
    raw = text.encode("utf-8", "replace")
    return raw[:NOTE_BYTES_MAX].decode("utf-8", "ignore")


def _is_soon_checked(batch: RecordBatch) -> bool:
    """Others are checked where they do not hold up the event loop."""
    return batch.raw_bytes <= (SOON_BYTES_WITH_HEADERS if batch.has_headers else SOON_BYTES)


def _check(batch: RecordBatch) -> None:
    """It is as it was sent, and no reader of it will ever fail. What cannot be read would stop its
    partition's index, and whoever follows it, for good.
    """
    try:
        batch.verify()
    except CorruptionError as error:
        error.durability = "not_durable"
        raise


def _searched(result: SearchResult) -> tuple[data.Searched, Buffer]:
    found = data.Searched(
        total=result.total,
        total_is_exact=result.total_is_exact,
        elapsed_us=round(result.elapsed_seconds * 1_000_000),
        hits=tuple(data.Hit(hit.partition, hit.offset, hit.score) for hit in result.hits),
        coverage=tuple(map(_told, result.coverage)),
        unknown_paths=tuple(map(_short, result.unknown_paths[:PATHS_MAX])),
    )
    if not result.hits:
        return found, _NOTHING
    batch = RecordBatch.from_records([hit.record for hit in result.hits])
    return found, batch.buffer
