"""The producer: many records in, few batches out, each acknowledged once.

Place: a face of the client, over `outgoing`. Promise: a record's future gets its place when a
quorum has it on disk (or what `acks` says); failed attempts are repeated without storing anything
twice; what is wrong with one record is not the others' error; partitions that the topic gets later
are used after a while, and at once where one is named. Invariant: not more than
`buffer_bytes` wait here; records of one partition keep the order in which they were given.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Literal, NamedTuple, Self, get_args

from chronik_server.client.outgoing import OutgoingLane, Sent, outcome
from chronik_server.client.partitioning import partition_of
from chronik_server.client.routing import Router
from chronik_server.protocol.data import Acks, Offsets
from chronik_server.protocol.topics import DescribeTopic, TopicDescription
from chronik_store.arguments import check_count, check_seconds
from chronik_store.errors import (
    BackpressureError,
    ChronikError,
    ConfigError,
    LogClosedError,
    TopicNotFoundError,
)
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import AppendResult, Record

logger = logging.getLogger("chronik_server.client")

RECORD_COST_BYTES = 64
"""What a waiting record weighs beside its bytes."""
LOOK_SECONDS: Final = 30.0
"""Between looks how many partitions the topic has by now, while records are given."""


class Placed(NamedTuple):
    """Where a record is. offset -1 with acks "none": nobody said."""

    partition: int
    offset: int


class _Gathering:
    """Records of one partition that wait for company."""

    __slots__ = ("futures", "records", "size_bytes", "timer")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.futures: list[asyncio.Future[Placed]] = []
        self.size_bytes = 0
        self.timer: asyncio.TimerHandle | None = None


class AsyncProducer:
    """Made by `AsyncClient.producer`; `async with` flushes and closes it. Not thread-safe.

    linger_seconds: how long a record waits for company. batch_bytes: a batch that big goes at
    once. buffer_bytes: what may wait here unacknowledged before `append` waits and
    `append_nowait` raises BackpressureError. Errors are in each record's future, with their
    `durability`; those that can be repeated have been, without storing anything twice.
    """

    def __init__(
        self,
        router: Router,
        topic: str,
        partitions: int,
        *,
        acks: Acks = "quorum",
        linger_seconds: float = 0.005,
        batch_bytes: int = 256 << 10,
        buffer_bytes: int = 64 << 20,
        compression: Literal["none", "zstd"] = "none",
    ) -> None:
        if acks not in get_args(Acks) or compression not in ("none", "zstd"):
            raise ConfigError(
                f"acks is {acks!r}, compression {compression!r}; use {', '.join(get_args(Acks))}, "
                "and none or zstd"
            )
        check_seconds(linger_seconds, "linger_seconds")
        check_count(batch_bytes, "batch_bytes")
        check_count(buffer_bytes, "buffer_bytes")
        self.topic = topic
        self.partitions = partitions
        self._router = router
        self._acks: Acks = acks
        self._linger_seconds = linger_seconds
        self._batch_bytes = batch_bytes
        self._buffer_bytes = buffer_bytes
        self._compression: Literal["none", "zstd"] = compression
        self._loop = asyncio.get_running_loop()
        self._gathering: dict[int, _Gathering] = {}
        self._lanes: dict[int, OutgoingLane] = {}
        self._room = asyncio.Event()
        self._gathered_bytes = 0
        self._batches = 0
        self._look_at = self._loop.time() + LOOK_SECONDS
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    async def append(
        self,
        value: bytes | Record,
        key: bytes | None = None,
        *,
        partition: int | None = None,
    ) -> Placed:
        """Append one record and wait until it is acknowledged. Waits while the buffer is full."""
        return await (await self.enqueue(value, key, partition=partition))

    async def enqueue(
        self,
        value: bytes | Record,
        key: bytes | None = None,
        *,
        partition: int | None = None,
    ) -> asyncio.Future[Placed]:
        """As `append`, but returns once the record has its place in the queue. TopicNotFoundError
        for a partition that the topic has not (yet).
        """
        while True:
            try:
                if partition is not None and partition >= self.partitions:
                    await self._find(partition)
                return self.append_nowait(value, key, partition=partition)
            except BackpressureError:
                self._room.clear()
                self._dispatch_all()  # what gathers would wait for company that has no room
                await self._room.wait()

    def append_nowait(
        self,
        value: bytes | Record,
        key: bytes | None = None,
        *,
        partition: int | None = None,
    ) -> asyncio.Future[Placed]:
        """Queue one record; the future gets its place. BackpressureError when the buffer is full.

        partition None: by the key (see `partitioning`), or any if it has none. TopicNotFoundError
        for a partition that this producer does not know of.
        """
        if self._closed:
            raise LogClosedError("this producer is closed", durability="not_durable")
        record = value if isinstance(value, Record) else Record(value, key)
        if self.buffered_bytes > self._buffer_bytes:
            raise BackpressureError(
                f"{self.buffered_bytes} bytes wait for their acknowledgement (buffer_bytes is "
                f"{self._buffer_bytes})"
            )
        number = self._choose(record) if partition is None else partition
        if not 0 <= number < self.partitions:
            error = TopicNotFoundError(
                f"topic {self.topic!r} has partitions 0 to {self.partitions - 1}, not {number}",
                topic=self.topic,
            )
            error.durability = "not_durable"
            raise error
        gathering = self._gathering.get(number)
        if gathering is None:
            gathering = self._gathering[number] = _Gathering()
            gathering.timer = self._loop.call_later(self._linger_seconds, self._dispatch, number)
        future: asyncio.Future[Placed] = self._loop.create_future()
        size = len(record.value) + len(record.key or b"") + RECORD_COST_BYTES
        gathering.records.append(record)
        gathering.futures.append(future)
        gathering.size_bytes += size
        self._gathered_bytes += size
        if gathering.size_bytes >= self._batch_bytes:
            self._dispatch(number)
        return future

    @property
    def buffered_bytes(self) -> int:
        """What waits here for its acknowledgement."""
        return self._gathered_bytes + sum(lane.queued_bytes for lane in self._lanes.values())

    def _choose(self, record: Record) -> int:
        """By the key. Those without one gather in one partition until a batch is made."""
        if record.key is not None:
            return partition_of(record.key, self.partitions)
        return self._batches % self.partitions

    # --- how many partitions there are ------------------------------------------------------------

    async def _find(self, partition: int) -> None:
        """Get to know of a partition. TopicNotFoundError, from who knows, if there is none such."""
        await self._router.ask_leader((self.topic, partition), Offsets(self.topic, partition))
        self._take_notice(await self._describe(), partition + 1)

    async def _describe(self) -> TopicDescription:
        found: TopicDescription = (await self._router.ask_any(DescribeTopic(self.topic))).message
        return found

    def _take_notice(self, found: TopicDescription, known: int = 0) -> None:
        self.partitions = max(self.partitions, known, len(found.partitions))

    def _look_now_and_then(self) -> None:
        now = self._loop.time()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            if self._looking is None or self._looking.done():
                self._looking = self._loop.create_task(self._look())

    async def _look(self) -> None:
        try:
            self._take_notice(await self._describe())
        except ChronikError as error:
            logger.debug("how many partitions %s has is asked again: %s", self.topic, error)

    # --- on their way -----------------------------------------------------------------------------

    def _dispatch_all(self) -> None:
        for number in list(self._gathering):
            self._dispatch(number)

    def _dispatch(self, number: int) -> None:
        """Make a batch of what has gathered for a partition and send it off."""
        gathering = self._gathering.pop(number, None)
        if gathering is None:
            return
        assert gathering.timer is not None
        gathering.timer.cancel()
        self._batches += 1
        self._look_now_and_then()
        self._gathered_bytes -= gathering.size_bytes
        records, futures = gathering.records, gathering.futures
        lane = self._lane(number)
        try:
            batch = self._batch(records)
        except (TypeError, ValueError):
            # What is wrong with one is none of the others' business.
            for alone, future in self._one_by_one(records, futures):
                self._tell(number, lane.submit(alone), [future])
            self._room.set()  # a record that nobody can send takes none of it any more
            return

        def parts() -> list[Sent]:
            found = []
            for alone, future in self._one_by_one(records, futures):
                found.append((alone, self._loop.create_future()))
                self._tell(number, found[-1][1], [future])
            return found

        self._tell(number, lane.submit(batch, parts if len(records) > 1 else None), futures)

    def _tell(
        self,
        partition: int,
        sent: asyncio.Future[AppendResult],
        futures: list[asyncio.Future[Placed]],
    ) -> None:
        """Once the batch has its outcome. Until then it keeps this producer, as maybe nobody else
        does: a client that closes sees through what its producers have.
        """

        def told(done: asyncio.Future[AppendResult], _keeps: AsyncProducer = self) -> None:
            _hand_out(partition, done, futures)

        sent.add_done_callback(told)

    def _batch(self, records: list[Record]) -> RecordBatch:
        now_us = self._router.clock.time_us()
        return RecordBatch.from_records(records, now_us=now_us, compression=self._compression)

    def _one_by_one(
        self, records: list[Record], futures: list[asyncio.Future[Placed]]
    ) -> Iterator[tuple[RecordBatch, asyncio.Future[Placed]]]:
        """A batch for each record; who can have none is told why."""
        for record, future in zip(records, futures, strict=True):
            try:
                batch = self._batch([record])
            except (TypeError, ValueError) as error:
                if not future.done():
                    future.set_exception(error)
            else:
                yield batch, future

    def _lane(self, number: int) -> OutgoingLane:
        lane = self._lanes.get(number)
        if lane is None:
            lane = self._lanes[number] = OutgoingLane(
                self._router, (self.topic, number), self._acks
            )
            lane.on_room = self._room.set
        return lane

    async def flush(self) -> None:
        """Return when everything given so far has its outcome; errors are in the futures."""
        self._dispatch_all()
        await asyncio.gather(*(lane.flush() for lane in self._lanes.values()))

    async def close(self) -> None:
        """Flush, then take nothing more. Idempotent."""
        await self.flush()
        self._closed = True
        await self.flush()  # what was given meanwhile
        if self._looking is not None:
            self._looking.cancel()
        for lane in self._lanes.values():
            await lane.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _hand_out(
    partition: int, done: asyncio.Future[AppendResult], futures: list[asyncio.Future[Placed]]
) -> None:
    """Tell each record of a batch its place, or what became of all of them."""
    found = outcome(done)
    if isinstance(found, BaseException):
        for future in futures:
            if not future.done():
                future.set_exception(found)
        return
    base = found.base_offset
    for place, future in enumerate(futures):
        if not future.done():
            future.set_result(Placed(partition, base + place if base >= 0 else -1))
