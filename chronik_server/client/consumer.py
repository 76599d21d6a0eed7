"""The consumer: records of a topic as they come, read ahead, with durable cursors.

Place: a face of the client, over `routing`. Promise: each partition's records come in offset
order, none left out, and of one topic, though another be made under its name; who follows all of a
topic reads the partitions that it gets later, too, from their start; with a cursor,
`commit` remembers durably what was handed out, so a crash repeats records and loses none.
Invariant: at most two answers of each partition wait here, as they came: they are taken apart when
they are handed out, while the next one is on its way. The next one is asked for before what came
is handed out, so that the node is at work meanwhile.

A consumer is one reader: partitions are not shared out among several. Give each its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import chain
from types import TracebackType
from typing import Final, Literal, Self

from chronik_server.client.partition_lane import Answer, Consumed, PartitionLane, Run, Taken
from chronik_server.client.patience import milliseconds
from chronik_server.client.routing import Backoff, Router
from chronik_server.protocol.data import (
    CommitCursor,
    CursorPlace,
    Fetch,
    GetCursor,
    Offsets,
    OffsetsFound,
)
from chronik_server.protocol.topics import DescribeTopic, TopicDescription
from chronik_store.arguments import check_offset
from chronik_store.errors import (
    ChronikError,
    ConfigError,
    LogClosedError,
    TopicNotFoundError,
    UnavailableError,
)

logger = logging.getLogger("chronik_server.client")

ANSWERS_AHEAD = 2
LOOK_SECONDS: Final = 30.0
"""Between looks whether the topic has more partitions by now, while somebody follows all of them.
"""
IDLE_SECONDS = 30.0
"""So long after somebody has asked for records more of them are waited for at the end of a topic: a
consumer that was abandoned does not poll for ever, and one that is asked again goes on at once.
"""
Start = Literal["earliest", "latest"] | int | Mapping[int, int]


class AsyncConsumer:
    """Made by `AsyncClient.consumer`; iterate it. `async with` stops its fetching. For one task.

    Iterating raises what a fetch met and could not repeat: OffsetOutOfRangeError where retention
    overtook it, CorruptionError, UnavailableError after `retry_seconds`. That partition goes on
    after a `seek`. TopicNotFoundError when the topic was deleted, also if another one was made
    under its name: the offsets of that are others; make a new consumer for it. An answer that was
    damaged on its way is CorruptionError as well, and one that this version cannot read
    FutureVersionError; whoever iterates again gets its records from the node once more.

    Nobody has to close one that follows: when it has not been asked for half a minute it waits for
    no more records, and does again when it is asked.

    start: "earliest", "latest", an offset of every partition, or {partition: offset}; since_us: a
    time instead; cursor: the name of a durable position instead. follow: wait for more at the end.
    is_whole: these are all partitions of the topic, and who follows reads those that come later.
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
        is_whole: bool = False,
    ) -> None:
        _check_start(start, since_us, cursor)
        self.topic = topic
        self.topic_id: str | None = None
        """Of the topic that is read, once that has begun; namesakes differ in it."""
        self._router = router
        self._partitions = tuple(partitions)
        self._start = start
        self._since_us = since_us
        self._cursor = cursor
        self._follow = follow
        self._grows = follow and is_whole
        self._look_at = asyncio.get_running_loop().time() + LOOK_SECONDS
        self._looking: asyncio.Task[None] | None = None
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
        backoff = Backoff(self._router)
        lanes: dict[int, PartitionLane] | None = None
        while lanes is None:
            try:
                lanes = await self._begun()
            except TopicNotFoundError as error:
                if self.topic_id is None:
                    raise
                await backoff.pause(error)  # the first to answer had not heard of its end
        self._check_open()
        self._lanes.update(lanes)
        for lane in self._lanes.values():
            self._begin(lane)

    async def _begun(self) -> dict[int, PartitionLane]:
        """All of them or, if it fails or is given up, none; of one topic."""
        self.topic_id = None
        lanes = {}
        for number in self._partitions:
            offset, end = await self._place(number)
            lanes[number] = PartitionLane(number, offset, None if self._follow else end)
        return lanes

    async def _place(self, number: int, *, is_new: bool = False) -> tuple[int, int]:
        """Where to begin in a partition, and where it ends now. is_new: the topic had it not yet
        when the others were begun.
        """
        lane = (self.topic, number)
        question = Offsets(self.topic, number, self._since_us, self.topic_id)
        found: OffsetsFound = (await self._router.ask_leader(lane, question)).message
        line, self.topic_id = found.watermarks, found.topic_id
        if self._cursor is not None:
            asked = GetCursor(self.topic, number, self._cursor, self.topic_id)
            place: CursorPlace = (await self._router.ask_leader(lane, asked)).message
            offset = line.start if place.offset is None else place.offset
            self._committed[number] = offset
            return offset, line.committed
        if self._since_us is not None:
            return line.committed if found.offset is None else found.offset, line.committed
        start = self._start
        if isinstance(start, Mapping):
            return start.get(number, line.start), line.committed
        if is_new:
            return line.start, line.committed
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
        lane = self._lanes[partition] = PartitionLane(partition, offset, old.stop)
        self._begin(lane)
        # Last: given up here, the seek is done all the same, not half of it.
        await _cancel(old.task)

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
                self._look_now_and_then()
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
            topic_id=self.topic_id,
        )
        response = await self._router.ask_leader((self.topic, lane.partition), question)
        lane.is_past_end = False
        if len(response.payload):
            lane.behind_since = None
            lane.ready.append(Answer(lane.offset, response.payload, response.message))
            lane.offset = response.message.next_offset
            # A turn later: the next question is on its way then.
            asyncio.get_running_loop().call_soon(self._arrived.set)
        elif not self._follow:
            if not lane.at_end:
                await self._wait_for_the_rest(lane)
        elif not question.wait_ms:  # nor does the node wait: asked without a pause it has no other
            await asyncio.sleep(self._router.options.backoff_seconds_max)

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

    # --- partitions that come later --------------------------------------------------------------

    def _look_now_and_then(self) -> None:
        loop = asyncio.get_running_loop()
        if self._grows and loop.time() >= self._look_at:
            self._look_at = loop.time() + LOOK_SECONDS
            if self._looking is None or self._looking.done():
                self._looking = loop.create_task(self._look())

    async def _look(self) -> None:
        try:
            answer = await self._router.ask_any(DescribeTopic(self.topic))
            found: TopicDescription = answer.message
            if self.topic_id not in {None, found.topic_id}:
                return  # whoever fetches is told so
            for number in range(len(self._partitions), len(found.partitions)):
                offset, _ = await self._place(number, is_new=True)
                self._check_open()
                self._partitions = (*self._partitions, number)
                lane = self._lanes[number] = PartitionLane(number, offset, None)
                self._begin(lane)
        except ChronikError as error:
            logger.debug("how many partitions %s has is asked again: %s", self.topic, error)

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
                except ChronikError:  # nothing of this answer was handed out: it is asked for again
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
                message = CommitCursor(
                    self.topic, number, self._cursor, offset, topic_id=self.topic_id
                )
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
        await _cancel(self._looking)
        for lane in self._lanes.values():
            await _cancel(lane.task)

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
    numbers = chain.from_iterable(start.items()) if isinstance(start, Mapping) else (start,)
    if start not in ("earliest", "latest") and not all(map(_is_number, numbers)):
        raise ConfigError(
            f"start is {start!r}: use 'earliest', 'latest', an offset, or a mapping of partitions "
            "to offsets"
        )
    if cursor is not None and (start != "earliest" or since_us is not None):
        raise ConfigError("a cursor says where to begin: leave out start and since")
    if since_us is not None and start != "earliest":
        raise ConfigError("since says where to begin: leave out start")


def _is_number(value: object) -> bool:
    """Of an offset or a partition. Those of JSON, {"0": 5}, would be taken for other partitions."""
    return type(value) is int and value >= 0


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
