"""The consumer: records of a topic as they come, read ahead, with durable cursors.

Place: a face of the client, over `routing`. Promise: each partition's records come in offset
order, none left out; with a cursor, `commit` remembers durably what was handed out, so a crash
repeats records and loses none. Invariant: at most two answers of each partition wait here, as
they came: they are taken apart when they are handed out, while the next one is on its way.

A consumer is one reader: partitions are not shared out among several. Give each its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Literal, NamedTuple, Self

from chronik_server.client.fetching import records_of
from chronik_server.client.routing import Router
from chronik_server.protocol.data import (
    CommitCursor,
    CursorPlace,
    Fetch,
    Fetched,
    GetCursor,
    Offsets,
    OffsetsFound,
)
from chronik_store.errors import ChronikError, ConfigError, CorruptionError
from chronik_store.format.checksum import Buffer
from chronik_store.model import StoredRecord, Tier

ANSWERS_AHEAD = 2
Start = Literal["earliest", "latest"] | int | Mapping[int, int]


class Consumed(NamedTuple):
    """A record, the partition it is from, and the tier that gave it."""

    partition: int
    record: StoredRecord
    tier: Tier


class Run(NamedTuple):
    """Records of one partition that came together, in offset order; at least one."""

    partition: int
    records: list[StoredRecord]
    tier: Tier


class _Answer(NamedTuple):
    offset: int
    payload: Buffer
    found: Fetched


class PartitionLane:
    """One partition: a task that fetches, and what it has fetched."""

    def __init__(self, partition: int, offset: int, stop: int | None) -> None:
        self.partition = partition
        self.offset = offset  # to be fetched next
        self.handed_out = offset  # everything below has been iterated
        self.stop = stop
        self.ready: deque[_Answer] = deque()
        self.room = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.left = False  # somebody has called seek

    @property
    def at_end(self) -> bool:
        return self.stop is not None and self.offset >= self.stop


class AsyncConsumer:
    """Made by `AsyncClient.consumer`; iterate it. `async with` stops its fetching. For one task.

    Iterating raises what a fetch met and could not repeat: OffsetOutOfRangeError where retention
    overtook it, CorruptionError, UnavailableError after `retry_seconds`.

    start: "earliest", "latest", an offset of every partition, or {partition: offset}; since_us: a
    time instead; cursor: the name of a durable position instead. follow: wait for more at the end.
    """

    def __init__(
        self,
        router: Router,
        topic: str,
        partitions: Sequence[int],
        *,
        start: Start = "earliest",
        since_us: int | None = None,
        cursor: str | None = None,
        follow: bool = False,
        fetch_bytes: int = 1 << 20,
        wait_seconds: float = 5.0,
    ) -> None:
        if cursor is not None and (start != "earliest" or since_us is not None):
            raise ConfigError("a cursor says where to begin: leave out start and since_us")
        self.topic = topic
        self._router = router
        self._partitions = tuple(partitions)
        self._start = start
        self._since_us = since_us
        self._cursor = cursor
        self._follow = follow
        self._fetch_bytes = fetch_bytes
        self._wait_ms = int(wait_seconds * 1000)
        self._lanes: dict[int, PartitionLane] = {}
        self._arrived = asyncio.Event()
        self._failed: ChronikError | None = None
        self._committed: dict[int, int] = {}

    # --- where to begin --------------------------------------------------------------------------

    async def _open(self) -> None:
        for number in self._partitions:
            offset, end = await self._place(number)
            self._lanes[number] = PartitionLane(number, offset, None if self._follow else end)
        for lane in self._lanes.values():
            self._begin(lane)

    async def _place(self, number: int) -> tuple[int, int]:
        """Where to begin in a partition, and where it ends now."""
        lane = (self.topic, number)
        question = Offsets(self.topic, number, self._since_us)
        found: OffsetsFound = (await self._router.ask_leader(lane, question)).message
        line = found.watermarks
        if self._cursor is not None:
            asked = GetCursor(self.topic, number, self._cursor)
            place: CursorPlace = (await self._router.ask_leader(lane, asked)).message
            offset = line.start if place.offset is None else place.offset
            self._committed[number] = offset
            return offset, line.committed
        if self._since_us is not None:
            return line.committed if found.offset is None else found.offset, line.committed
        start = self._start
        if isinstance(start, Mapping):
            return start.get(number, line.start), line.committed
        if isinstance(start, int):
            return start, line.committed
        return (line.start if start == "earliest" else line.committed), line.committed

    async def seek(self, partition: int, offset: int) -> None:
        """Go on from `offset` in a partition; what was read ahead there is dropped."""
        if not self._lanes:
            await self._open()
        old = self._lanes[partition]
        old.left = True
        await _cancel(old)
        lane = self._lanes[partition] = PartitionLane(partition, offset, old.stop)
        self._begin(lane)

    def _begin(self, lane: PartitionLane) -> None:
        lane.task = asyncio.create_task(self._fetch_on(lane))

    # --- reading ahead ---------------------------------------------------------------------------

    async def _fetch_on(self, lane: PartitionLane) -> None:
        try:
            while not lane.at_end:
                while len(lane.ready) >= ANSWERS_AHEAD:
                    lane.room.clear()
                    await lane.room.wait()
                await self._fetch(lane)
        except ChronikError as error:
            if self._failed is None:
                self._failed = error
        finally:
            self._arrived.set()

    async def _fetch(self, lane: PartitionLane) -> None:
        question = Fetch(
            self.topic,
            lane.partition,
            lane.offset,
            max_bytes=self._fetch_bytes,
            wait_ms=self._wait_ms if self._follow else 0,
        )
        seconds = self._router.options.request_seconds + self._wait_ms / 1000
        response = await self._router.ask_leader(
            (self.topic, lane.partition), question, timeout_seconds=seconds
        )
        if len(response.payload):
            lane.ready.append(_Answer(lane.offset, response.payload, response.message))
            lane.offset = response.message.next_offset
            self._arrived.set()

    # --- handing out -----------------------------------------------------------------------------

    async def __aiter__(self) -> AsyncIterator[Consumed]:
        """Records as they come, partition by partition as answers arrive."""
        while (taken := await self.take()) is not None:
            lane, (partition, records, tier) = taken
            for record in records:
                if lane.left:
                    break
                lane.handed_out = record.offset + 1
                yield Consumed(partition, record, tier)

    async def runs(self) -> AsyncIterator[Run]:
        """The same, all records of an answer at a time: several times as fast. Whoever commits
        means the whole run.
        """
        while (run := await self.take_run()) is not None:
            yield run

    async def take_run(self) -> Run | None:
        """The next of `runs`; None at the end."""
        taken = await self.take()
        if taken is None:
            return None
        lane, run = taken
        lane.handed_out = run.records[-1].offset + 1
        return run

    async def take(self) -> tuple[PartitionLane, Run] | None:
        """The next run and where it came from, with nothing of it handed out yet; None at the
        end. Whoever takes sets `handed_out` as it goes, and looks whether it has `left`.
        """
        if not self._lanes:
            await self._open()
        while True:
            self._arrived.clear()
            for lane in list(self._lanes.values()):
                while lane.ready:
                    answer = lane.ready.popleft()
                    lane.room.set()
                    records = _records(lane, answer)
                    if records:
                        # To the end of the row: one that is always ready does not starve others.
                        self._lanes[lane.partition] = self._lanes.pop(lane.partition)
                        return lane, Run(lane.partition, records, answer.found.tier)
            if self._failed is not None:
                raise self._failed
            if all(lane.at_end and not lane.ready for lane in self._lanes.values()):
                return None
            await self._arrived.wait()

    def positions(self) -> dict[int, int]:
        """Of each partition, the offset behind the last record handed out."""
        return {number: lane.handed_out for number, lane in self._lanes.items()}

    async def commit(self) -> None:
        """Remember durably, under the cursor's name, everything handed out so far as done."""
        if self._cursor is None:
            raise ConfigError("this consumer has no cursor: name one when you make it")
        for number, offset in self.positions().items():
            if self._committed.get(number) != offset:
                message = CommitCursor(self.topic, number, self._cursor, offset)
                await self._router.ask_leader((self.topic, number), message)
                self._committed[number] = offset

    async def close(self) -> None:
        """Stop reading ahead. Commits nothing. Idempotent."""
        for lane in self._lanes.values():
            await _cancel(lane)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _records(lane: PartitionLane, answer: _Answer) -> list[StoredRecord]:
    limit = 1 << 62 if lane.stop is None else lane.stop - answer.offset
    records = records_of(answer.payload, answer.offset, limit)
    ended = records[-1].offset + 1 if records else answer.offset
    if ended != min(answer.found.next_offset, answer.offset + limit):
        raise CorruptionError(
            f"an answer ends at offset {ended} and says that {answer.found.next_offset} is next",
            offset_range=(answer.offset, answer.found.next_offset),
        )
    return records


async def _cancel(lane: PartitionLane) -> None:
    if lane.task is not None:
        lane.task.cancel()
        await asyncio.gather(lane.task, return_exceptions=True)
