"""The client for asyncio: the verbs of a cluster, under the names of the embedded library.

Place: the face of `client`, over `routing`. Promise: results, errors and their meaning are those
of `chronik_store`; any reachable node is enough to begin; a call follows the leader and is
repeated where that can do no harm. An error of the server is never returned as success.
"""

from __future__ import annotations

import datetime as dt
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self, cast

from chronik_server.addresses import Address
from chronik_server.client.consumer import AsyncConsumer, Start
from chronik_server.client.fetching import records_of, search_result_of
from chronik_server.client.options import ClientOptions, addresses_of
from chronik_server.client.outgoing import OutgoingLane
from chronik_server.client.overlapping import Overlapping
from chronik_server.client.patience import milliseconds
from chronik_server.client.producer import AsyncProducer
from chronik_server.client.routing import ANY, Backoff, Lane, Router, may_have_happened
from chronik_server.client.upkeep import Upkeep
from chronik_server.errors import UnknownOutcomeError
from chronik_server.protocol import data
from chronik_server.protocol.topics import (
    CreateTopic,
    DeleteTopic,
    DescribeTopic,
    ListTopics,
    TopicDescription,
    Topics,
)
from chronik_store.arguments import check_count, check_offset
from chronik_store.batching import Appendable, Batching
from chronik_store.clock import Clock, Entropy, SystemClock, SystemEntropy
from chronik_store.config import LogConfig
from chronik_store.errors import ChronikError, ConfigError, UnavailableError
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import (
    AppendResult,
    FetchResult,
    SearchResult,
    TopicInfo,
    Watermarks,
    to_us,
)

LANES_KEPT = 1024
"""Partitions of which it is remembered how to append, though nothing is on its way there; and
topics of which it is remembered how many they have.
"""


class AsyncClient(Upkeep):
    """A client of one cluster (or of one server). `async with` closes it.

    Belongs to the event loop that first uses it: not thread-safe; `Client` is. servers:
    "host:port,host:port", or a list of such: any nodes of the cluster.

    What may be asked again is asked again for `options.retry_seconds`; then a call raises what it
    met last: NotLeaderError (nobody leads), ConnectionLostError, UnavailableError, DiskFullError,
    BackpressureError. At once: UnauthenticatedError, ProtocolError, InternalError (a defect of the
    server), LogClosedError after `close`, and what each call names. Errors of a write carry
    `durability`.
    """

    def __init__(
        self,
        servers: str | Sequence[str | Address],
        *,
        options: ClientOptions = ClientOptions(),  # noqa: B008 (frozen)
        clock: Clock | None = None,
        entropy: Entropy | None = None,
    ) -> None:
        addresses = addresses_of(servers)
        self.router = Router(addresses, options, clock or SystemClock(), entropy or SystemEntropy())
        self.batching = Batching(LogConfig(), self.router.clock)
        self._appends: dict[tuple[Lane, data.Acks], Overlapping] = {}
        self._grown: dict[str, tuple[str, int]] = {}
        """Ids of topics, and how many partitions they had when this client asked for so many."""
        self._writers: weakref.WeakSet[AsyncProducer | OutgoingLane] = weakref.WeakSet()

    # --- topics ----------------------------------------------------------------------------------

    async def create_topic(
        self, name: str, *, partitions: int = 1, exist_ok: bool = False, replicas: int | None = None
    ) -> TopicDescription:
        """Create a topic; committed by a quorum when it returns. TopicExistsError if it is there.

        exist_ok: accept that, and add partitions if it has fewer than asked for. Without it nothing
        is asked again that may have been done: ConnectionLostError or UnavailableError then.
        replicas: how many nodes keep each partition; of a topic that is there, as many as before.
        ConfigError for a name that cannot stand in a path, or numbers that the cluster cannot keep.
        """
        message = CreateTopic(name, partitions, exist_ok, replicas)
        answer = await self.router.ask_any(message, repeatable=exist_ok)
        self.router.forget(name)
        made: TopicDescription = answer.message
        if exist_ok:  # who has heard of a topic that was made knows of all that it was made with
            if len(self._grown) >= LANES_KEPT:
                del self._grown[next(iter(self._grown))]
            self._grown[name] = (made.topic_id, len(made.partitions))
        return made

    async def delete_topic(self, name: str) -> None:
        """Delete a topic with all its records, on every node and in the bucket.

        Committed when it returns; files and objects follow. TopicNotFoundError.
        """
        await self.router.ask_any(DeleteTopic(name), repeatable=False)
        self.router.forget(name)
        self._grown.pop(name, None)

    async def topics(self) -> tuple[TopicInfo, ...]:
        """The topics, by name, as far as the answering node knows."""
        return cast("Topics", (await self.router.ask_any(ListTopics())).message).topics

    async def describe_topic(self, name: str) -> TopicDescription:
        """A topic's partitions and who leads them, as far as the answering node knows; never fewer
        than this client has asked for: it is waited until the node has heard of that.

        TopicNotFoundError.
        """
        backoff = Backoff(self.router)
        while True:
            answer = await self.router.ask_any(DescribeTopic(name))
            found: TopicDescription = answer.message
            topic_id, least = self._grown.get(name, ("", 0))
            count = len(found.partitions)
            if count >= least or found.topic_id != topic_id:
                return found
            await backoff.pause(
                UnavailableError(
                    f"the node that answers knows of {count} partitions of {name!r}, and there are "
                    f"{least}: it has not heard of the others yet"
                )
            )

    # --- writing ---------------------------------------------------------------------------------

    async def append(
        self,
        topic: str,
        records: Appendable,
        *,
        partition: int = 0,
        expected_offset: int | None = None,
        acks: data.Acks = "quorum",
    ) -> AppendResult:
        """Append records together, all or nothing; returns when a quorum has them on disk.

        acks: "leader" waits for the leader's disk alone, and a failover may take the records back;
        "none" waits for nothing. Failed attempts are repeated without storing anything twice; a
        RecordBatch that has a producer keeps it: ProducerSequenceError, as of the library. With
        `expected_offset` nothing is repeated whose outcome is unknown: UnknownOutcomeError then;
        OffsetConflictError when the log does not end there. RecordTooLargeError. Calls that overlap
        share batches. A wait that is given up takes nothing back.
        """
        lane = _lane_of(topic, partition)
        if expected_offset is not None:
            check_offset(expected_offset, "expected_offset")
            batch = self.batching.batch(records)
            if batch is not None:
                return await self._append_at(lane, batch, expected_offset, acks)
            answer = None
        else:
            answer = self._overlapping(lane, acks).append(records)
        if answer is not None:
            return await answer
        end = (await self.watermarks(topic, partition=partition)).committed
        return AppendResult(end, end)

    def _overlapping(self, lane: Lane, acks: data.Acks) -> Overlapping:
        found = self._appends.get((lane, acks))
        if found is None:
            if len(self._appends) >= LANES_KEPT:  # topics come and go
                self._appends = {at: each for at, each in self._appends.items() if each.is_busy}
            found = self._appends[lane, acks] = Overlapping(self.router, self.batching, lane, acks)
        return found

    async def _append_at(
        self, lane: Lane, batch: RecordBatch, expected_offset: int, acks: data.Acks
    ) -> AppendResult:
        if acks == "none":
            raise ConfigError('expected_offset needs an answer: use acks "leader" or "quorum"')
        message = data.Produce(lane[0], lane[1], acks, expected_offset)
        try:
            answer = await self.router.ask_leader(lane, message, batch.buffer, repeatable=False)
        except ChronikError as error:
            if not error.retriable or not may_have_happened(error):
                raise
            raise UnknownOutcomeError(
                f"what became of a compare-and-append at {expected_offset} is not known ({error}); "
                "read the end of the log to see"
            ) from error
        found: data.Produced = answer.message
        return AppendResult(found.base_offset, found.end_offset, found.duplicate)

    async def producer(
        self,
        topic: str,
        *,
        acks: data.Acks = "quorum",
        linger_seconds: float = 0.005,
        batch_bytes: int = 256 << 10,
        buffer_bytes: int = 64 << 20,
        compression: Literal["none", "zstd"] = "none",
    ) -> AsyncProducer:
        """A producer for all partitions of a topic: batches, lingers, partitions by key.

        linger_seconds: how long a record waits for company; batch_bytes: a batch that big goes at
        once; buffer_bytes: what may wait unacknowledged. Partitions that the topic gets later are
        used after half a minute at most, and at once when they are named. TopicNotFoundError.
        """
        described = await self.describe_topic(topic)
        producer = AsyncProducer(
            self.router,
            topic,
            len(described.partitions),
            acks=acks,
            linger_seconds=linger_seconds,
            batch_bytes=batch_bytes,
            buffer_bytes=buffer_bytes,
            compression=compression,
        )
        self._writers.add(producer)
        return producer

    def outgoing_lane(self, lane: Lane) -> OutgoingLane:
        """For who makes batches of its own: they keep their order; `close` sees them through."""
        found = OutgoingLane(self.router, lane, "quorum")
        self._writers.add(found)
        return found

    # --- reading ---------------------------------------------------------------------------------

    async def read(
        self,
        topic: str,
        offset: int,
        *,
        partition: int = 0,
        max_records: int = 1000,
        max_bytes: int = 1 << 20,
        min_bytes: int = 1,
        wait_seconds: float = 0.0,
        consistency: data.Consistency = "committed",
        from_any: bool = False,
    ) -> FetchResult:
        """As `PartitionLog.read`: committed records from `offset` on, waiting for `min_bytes`.

        At the end: empty, after up to `wait_seconds`. consistency "linearizable": the leader has a
        quorum confirm that it leads before it answers. from_any: any node may answer, with what it
        knows to be committed. OffsetOutOfRangeError, TopicNotFoundError, CorruptionError.
        """
        check_offset(offset, "offset")
        check_count(max_records, "max_records")
        wait_ms = milliseconds(wait_seconds, "wait_seconds")
        question = data.Fetch(topic, partition, offset, max_bytes, min_bytes, wait_ms, consistency)
        if from_any:
            answer = await self.router.ask_any(question, lane=ANY)
        else:
            answer = await self.router.ask_leader((topic, partition), question)
        found: data.Fetched = answer.message
        records = tuple(records_of(answer.payload, offset, max_records))
        following = records[-1].offset + 1 if records else offset
        return FetchResult(records, following, found.tier, found.elapsed_us / 1_000_000)

    async def consumer(
        self,
        topic: str,
        *,
        partitions: Sequence[int] | None = None,
        start: Start = "earliest",
        since: dt.datetime | int | None = None,
        cursor: str | None = None,
        follow: bool = False,
        fetch_bytes: int = 1 << 20,
        wait_seconds: float = 5.0,
    ) -> AsyncConsumer:
        """A consumer of some or all partitions of a topic: reads ahead, follows, has a cursor. Who
        follows all of them reads those that come later as well, from their start.

        start: "earliest", "latest", an offset or one for each partition; since: aware datetime or
        microseconds since 1970 UTC instead; cursor: a durable position's name instead.
        TopicNotFoundError, ConfigError.
        """
        is_whole = partitions is None
        if partitions is None:
            partitions = range(len((await self.describe_topic(topic)).partitions))
        return AsyncConsumer(
            self.router,
            topic,
            partitions,
            start=start,
            since_us=None if since is None else to_us(since),
            cursor=cursor,
            follow=follow,
            fetch_bytes=fetch_bytes,
            wait_seconds=wait_seconds,
            is_whole=is_whole,
        )

    async def watermarks(self, topic: str, *, partition: int = 0) -> Watermarks:
        """The plot line of a partition, at its leader. TopicNotFoundError."""
        return (await self._offsets(topic, partition, None)).watermarks

    async def staleness_seconds(self, topic: str, *, partition: int = 0) -> float | None:
        """None: its leader answers. Else nobody is known to lead it, and this long ago the node
        that answers heard who did: it may know less than was acknowledged.
        """
        found = await self._offsets(topic, partition, None)
        return None if found.staleness_ms is None else found.staleness_ms / 1000

    async def offset_for_timestamp(
        self, topic: str, time: dt.datetime | int, *, partition: int = 0
    ) -> int | None:
        """As `PartitionLog.offset_for_timestamp`."""
        return (await self._offsets(topic, partition, to_us(time))).offset

    async def _offsets(self, topic: str, partition: int, time_us: int | None) -> data.OffsetsFound:
        question = data.Offsets(topic, partition, time_us)
        answer = await self.router.ask_leader((topic, partition), question)
        return cast("data.OffsetsFound", answer.message)

    async def search(
        self,
        topic: str,
        query: str,
        *,
        partition: int | None = None,
        since: dt.datetime | int | None = None,
        until: dt.datetime | int | None = None,
        start: int | None = None,
        stop: int | None = None,
        limit: int = 10,
        order: data.Order = "newest",
        deadline_seconds: float | None = None,
        require_complete: bool = False,
    ) -> SearchResult:
        """As `LogStore.search`: all partitions merged, or one, as one node sees them.

        Times are aware datetimes or microseconds since 1970 UTC. QueryError, TopicNotFoundError;
        UnavailableError when `require_complete` and something could not be searched.
        """
        check_offset(start or 0, "start")
        check_offset(stop or 0, "stop")
        deadline_ms = None
        if deadline_seconds is not None:
            deadline_ms = milliseconds(deadline_seconds, "deadline_seconds")
        question = data.Search(
            topic,
            query,
            partition,
            None if since is None else to_us(since),
            None if until is None else to_us(until),
            start,
            stop,
            limit,
            order,
            deadline_ms,
            require_complete,
        )
        answer = await self.router.ask_any(question)
        return search_result_of(topic, answer.message, answer.payload)

    # --- cursors ---------------------------------------------------------------------------------

    async def cursor_offset(self, topic: str, name: str, *, partition: int = 0) -> int | None:
        """Where a named reader stands; None if it was never committed."""
        question = data.GetCursor(topic, partition, name)
        answer = await self.router.ask_leader((topic, partition), question)
        return cast("data.CursorPlace", answer.message).offset

    async def commit_cursor(
        self, topic: str, name: str, next_offset: int, *, partition: int = 0, reset: bool = False
    ) -> None:
        """As `Cursor.commit`: durable, and replicated, when it returns."""
        check_offset(next_offset, "next_offset")
        message = data.CommitCursor(topic, partition, name, next_offset, reset)
        await self.router.ask_leader((topic, partition), message)

    async def delete_cursor(self, topic: str, name: str, *, partition: int = 0) -> bool:
        """Forget a cursor; False if there was none."""
        message = data.DeleteCursor(topic, partition, name)
        answer = await self.router.ask_leader((topic, partition), message)
        return cast("data.CursorDeleted", answer.message).existed

    # --- life ------------------------------------------------------------------------------------

    async def close(self) -> None:
        """See appends through, those of its producers as well; then hang up. Idempotent.

        Other calls that are under way end with LogClosedError.
        """
        for writer in [*self._writers, *self._appends.values()]:
            await writer.close()
        await self.router.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _lane_of(topic: str, partition: int) -> Lane:
    """ConfigError for what only equals one, as True does 1: it would be the one of all others."""
    for value, kind in ((topic, str), (partition, int)):
        if type(value) is not kind:
            raise ConfigError(
                f"this cannot be asked: {value!r:.80} is no {kind.__name__}",
                durability="not_durable",
            )
    return topic, partition
