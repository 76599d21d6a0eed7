"""The consumer: records of a topic as they come, read ahead, with durable cursors.

Place: a face of the client, over `routing`. Promise: each partition's records come in offset
order, none left out; with a cursor, `commit` remembers durably what was handed out, so a crash
repeats records and loses none. Invariant: at most two answers of each partition wait here, as
they came: they are taken apart when they are handed out, while the next one is on its way. The
next one is asked for before what came is handed out, so that the node is at work meanwhile.

A consumer is one reader: partitions are not shared out among several. Give each its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import repeat
from operator import length_hint
from types import TracebackType
from typing import Final, Literal, NamedTuple, Self

from chronik_server.client.fetching import batches_of, pieces
from chronik_server.client.patience import milliseconds
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
from chronik_store.arguments import check_offset
from chronik_store.errors import (
    ChronikError,
    ConfigError,
    CorruptionError,
    LogClosedError,
    TopicNotFoundError,
    UnavailableError,
)
from chronik_store.format.checksum import Buffer
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.model import StoredRecord, Tier

ANSWERS_AHEAD = 2
IDLE_SECONDS = 30.0
"""So long after somebody has asked for records more of them are waited for at the end of a topic: a
consumer that was abandoned does not poll for ever, and one that is asked again goes on at once.
"""
_NEW: Final = tuple.__new__
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


class Taken(NamedTuple):
    """A verified answer, of which [offset, stop) is to be handed out."""

    lane: PartitionLane
    batches: list[StoredBatch]
    offset: int
    stop: int
    tier: Tier

    def runs(self) -> Iterator[Run]:
        """Its records, a piece at a time, which counts as handed out when it is given."""
        lane, batches, offset, stop, tier = self
        for records in pieces(batches, offset, stop):
            if lane.left:
                return
            lane.end, lane.rest = records[-1].offset + 1, iter(())
            yield Run(lane.partition, records, tier)
        lane.taken = None

    def each(self) -> Iterator[Iterator[Consumed]]:
        """The same; each record counts as handed out when it is drawn."""
        lane = self.lane
        for partition, records, tier in self.runs():
            lane.rest = iter(records)
            fields = zip(repeat(partition), lane.rest, repeat(tier), strict=False)
            yield map(_NEW, repeat(Consumed), fields)  # what `_make` does, in half the time


class PartitionLane:
    """One partition: a task that fetches, what it has fetched, and what is being handed out."""

    def __init__(self, partition: int, offset: int, stop: int | None) -> None:
        self.partition = partition
        self.offset = offset  # to be fetched next
        self.stop = stop
        self.ready: deque[_Answer] = deque()
        self.task: asyncio.Task[None] | None = None
        self.taken: Taken | None = None
        self.rest: Iterator[StoredRecord] = iter(())  # of the piece that is being handed out
        self.end = offset  # of that piece
        self.behind_since: float | None = None  # nothing came, though there is more
        self.left = False  # somebody has called seek
        self.failed: ChronikError | None = None  # why nothing more is fetched

    @property
    def handed_out(self) -> int:
        """Everything below has been iterated."""
        return self.end - length_hint(self.rest)

    @property
    def at_end(self) -> bool:
        return self.stop is not None and self.offset >= self.stop

    def next(self) -> Taken | None:
        """What is to be handed out now; None when it has not come yet. An answer of which somebody
        took a part and went away is given again, without that part.
        """
        taken, self.taken = self.taken, None
        if taken is not None and self.handed_out < taken.stop:
            self.taken = taken._replace(offset=self.handed_out)
        while self.taken is None and self.ready:
            self.taken = _opened(self, self.ready.popleft())
        return self.taken

    def leave(self) -> None:
        """Nothing more of this is handed out."""
        self.left = True
        deque(self.rest, maxlen=0)


class AsyncConsumer:
    """Made by `AsyncClient.consumer`; iterate it. `async with` stops its fetching. For one task.

    Iterating raises what a fetch met and could not repeat: OffsetOutOfRangeError where retention
    overtook it, CorruptionError, UnavailableError after `retry_seconds`. That partition goes on
    after a `seek`. An answer that was damaged on its way is CorruptionError as well; whoever
    iterates again gets its records from the node once more.

    Nobody has to close one that follows: when it has not been asked for half a minute it waits for
    no more records, and does again when it is asked.

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
        _check_start(start, since_us, cursor)
        self.topic = topic
        self._router = router
        self._partitions = tuple(partitions)
        self._start = start
        self._since_us = since_us
        self._cursor = cursor
        self._follow = follow
        self._fetch_bytes = fetch_bytes
        self._wait_ms = milliseconds(wait_seconds, "wait_seconds")
        self._lanes: dict[int, PartitionLane] = {}
        self._arrived = asyncio.Event()
        self._committed: dict[int, int] = {}
        self._closed = False
        self._asking = 0
        """Callers who wait for records now."""
        self._asked_at = 0.0

    # --- where to begin --------------------------------------------------------------------------

    async def _open(self) -> None:
        lanes = {}  # all of them or, if it fails or is given up, none
        for number in self._partitions:
            offset, end = await self._place(number)
            lanes[number] = PartitionLane(number, offset, None if self._follow else end)
        self._check_open()
        self._lanes.update(lanes)
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
        """Go on from `offset` in a partition; what was read ahead there is dropped.

        TopicNotFoundError for a partition that this consumer does not read; OffsetOutOfRangeError
        for what can be no offset, LogClosedError after `close`.
        """
        check_offset(offset, "offset")
        self._check_open()
        if partition not in self._partitions:
            raise TopicNotFoundError(
                f"this consumer reads {self.topic!r} in partitions "
                f"{', '.join(map(str, self._partitions)) or 'none'}, not {partition}",
                topic=self.topic,
            )
        if not self._lanes:
            await self._open()
        old = self._lanes[partition]
        old.leave()
        await _cancel(old)
        lane = self._lanes[partition] = PartitionLane(partition, offset, old.stop)
        self._begin(lane)

    def _begin(self, lane: PartitionLane) -> None:
        """Fetch, unless that is being done, or there is nothing to fetch or no room."""
        self._asked_at = asyncio.get_running_loop().time()
        is_at_work = lane.task is not None and not lane.task.done()
        if not (is_at_work or lane.at_end or lane.failed or len(lane.ready) >= ANSWERS_AHEAD):
            lane.task = asyncio.create_task(self._fetch_on(lane))

    # --- reading ahead ---------------------------------------------------------------------------

    async def _fetch_on(self, lane: PartitionLane) -> None:
        """Ends when there is no room, or nobody has asked for long: no task works, and keeps alive,
        for a consumer that nobody iterates.
        """
        try:
            while not (lane.at_end or len(lane.ready) >= ANSWERS_AHEAD or self._is_idle()):
                await self._fetch(lane)
        except ChronikError as error:
            lane.failed = error
        finally:
            self._arrived.set()

    def _is_idle(self) -> bool:
        now = asyncio.get_running_loop().time()
        return not self._asking and now - self._asked_at > IDLE_SECONDS

    async def _fetch(self, lane: PartitionLane) -> None:
        question = Fetch(
            self.topic,
            lane.partition,
            lane.offset,
            max_bytes=self._fetch_bytes,
            wait_ms=self._wait_ms if self._follow else 0,
        )
        response = await self._router.ask_leader((self.topic, lane.partition), question)
        if len(response.payload):
            lane.behind_since = None
            lane.ready.append(_Answer(lane.offset, response.payload, response.message))
            lane.offset = response.message.next_offset
            # A turn later: the next question is on its way then.
            asyncio.get_running_loop().call_soon(self._arrived.set)
        elif not question.wait_ms:
            await self._wait_for_the_rest(lane)

    async def _wait_for_the_rest(self, lane: PartitionLane) -> None:
        """The node that answers knows of less than the one that said where the end is. A leader
        will know of it, if there is one before the patience is at its end.
        """
        options, now = self._router.options, asyncio.get_running_loop().time()
        if lane.behind_since is None:
            lane.behind_since = now
        elif now - lane.behind_since >= options.retry_seconds:
            raise UnavailableError(
                f"{self.topic}/{lane.partition} ends at offset {lane.offset} for the node that "
                f"answers now, and at {lane.stop} for the one that was asked first: too few of its "
                "nodes are up to know the rest"
            )
        await asyncio.sleep(options.backoff_seconds_max)

    # --- handing out -----------------------------------------------------------------------------

    async def __aiter__(self) -> AsyncIterator[Consumed]:
        """Records as they come, partition by partition as answers arrive."""
        while (taken := await self.take()) is not None:
            for piece in taken.each():
                for consumed in piece:
                    yield consumed

    async def runs(self) -> AsyncIterator[Run]:
        """The same, records that came together at a time: faster. Whoever commits means the whole
        run.
        """
        while (taken := await self.take()) is not None:
            for run in taken.runs():
                yield run

    async def take_run(self) -> Run | None:
        """The next of `runs`; None at the end."""
        taken = await self.take()
        return None if taken is None else next(taken.runs())

    async def take(self) -> Taken | None:
        """The next answer, of which nothing counts as handed out yet; None at the end."""
        self._check_open()
        if not self._lanes:
            await self._open()
        await asyncio.sleep(0)  # while answers are ready, more come in all the same
        while True:
            self._check_open()
            self._arrived.clear()
            for lane in list(self._lanes.values()):
                try:
                    taken = lane.next()
                except CorruptionError:
                    await self.seek(lane.partition, lane.handed_out)
                    raise
                self._begin(lane)
                if taken is not None:
                    # To the end of the row: one that is always ready does not starve others.
                    self._lanes[lane.partition] = self._lanes.pop(lane.partition)
                    return taken
            for lane in self._lanes.values():
                if lane.failed is not None:
                    raise lane.failed
            if all(lane.at_end and not lane.ready for lane in self._lanes.values()):
                return None
            await self._arrival()

    async def _arrival(self) -> None:
        self._asking += 1
        try:
            await self._arrived.wait()
        finally:
            self._asking -= 1
            self._asked_at = asyncio.get_running_loop().time()

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

    def _check_open(self) -> None:
        if self._closed:
            raise LogClosedError("this consumer is closed; make another")

    async def close(self) -> None:
        """Stop reading ahead. Commits nothing. Idempotent. Who waits for records, or asks for more,
        gets LogClosedError; what was handed out may still be committed.
        """
        self._closed = True
        self._arrived.set()
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


def _check_start(start: Start, since_us: int | None, cursor: str | None) -> None:
    """ConfigError unless exactly one of the three says where to begin."""
    is_offset = type(start) is int and start >= 0
    if not (is_offset or isinstance(start, Mapping) or start in ("earliest", "latest")):
        raise ConfigError(
            f"start is {start!r}: use 'earliest', 'latest', an offset, or a mapping of partitions "
            "to offsets"
        )
    if cursor is not None and (start != "earliest" or since_us is not None):
        raise ConfigError("a cursor says where to begin: leave out start and since")
    if since_us is not None and start != "earliest":
        raise ConfigError("since says where to begin: leave out start")


def _opened(lane: PartitionLane, answer: _Answer) -> Taken | None:
    """An answer, verified; None when nothing of it is wanted."""
    offset, payload, found = answer
    stop = found.next_offset if lane.stop is None else min(lane.stop, found.next_offset)
    batches = batches_of(payload, offset)
    ended = batches[-1].end_offset if batches else offset
    if ended != found.next_offset:
        raise CorruptionError(
            f"an answer ends at offset {ended} and says that {found.next_offset} is next",
            offset_range=(offset, found.next_offset),
        )
    return Taken(lane, batches, offset, stop, found.tier) if offset < stop else None


async def _cancel(lane: PartitionLane) -> None:
    if lane.task is not None:
        lane.task.cancel()
        await asyncio.gather(lane.task, return_exceptions=True)
