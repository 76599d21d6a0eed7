"""Clients of a cluster in trouble: they append, read, follow, search, and remember every answer.

Place: over `player`; a story has two of them, on connections of their own. Promise: each
answer is held against what was told before. Invariant: a client that is refused tries another day.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from chronik_server.client import AsyncClient, AsyncConsumer, Run
from chronik_server.testing.servers.player import Failed, Player, Stage
from chronik_server.testing.servers.told import Topic
from chronik_store.errors import (
    ChronikError,
    OffsetConflictError,
    OffsetOutOfRangeError,
    TopicNotFoundError,
)
from chronik_store.model import StoredRecord

WORDS = 3
FOUND_MAX = 10_000


class Clients(Player):
    """What one connection is used for."""

    def __init__(self, stage: Stage, client: AsyncClient) -> None:
        super().__init__(stage)
        self._client = client

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """What they do side by side."""
        found = [
            self.again(self.append, 5.0),
            self.again(self.append, 5.0),
            self.again(self.read, 4.0),
            self.again(self.follow, 2.0),
            self.again(self.move_cursor, 1.0),
        ]
        if self.world.log.indexing_enabled:
            found.append(self.again(self.search, 2.0))
        return found

    async def append(self) -> None:
        """Some records, with one of the ways to ask for it."""
        found = self.some_lane()
        if found is None:
            return
        (topic, partition), rng = found, self.rng
        values = self.told.offer(topic, partition, rng.randint(1, 4), rng.choice((0, 50, 900)))
        expected = topic.lanes[partition].end if rng.random() < 0.1 else None
        acks: Any = "leader" if expected is None and rng.random() < 0.1 else "quorum"
        call = self._client.append(
            topic.name, values, partition=partition, expected_offset=expected, acks=acks
        )
        try:
            placed = await self.allowed(call, topic, OffsetConflictError)
        except Failed as failed:
            if failed.error.durability == "not_durable":
                self.told.refused(values)
            raise
        if acks == "quorum":
            if expected is not None and placed.base_offset != expected:
                self.world.violate(f"appended at {placed.base_offset}, not at {expected}")
            self.told.acknowledged_at(topic, partition, placed.base_offset, values)

    async def read(self) -> None:
        """From somewhere on, strictly or not."""
        found = self.some_lane()
        if found is None:
            return
        (topic, partition), rng = found, self.rng
        lane = topic.lanes[partition]
        known, is_strict = lane.end, rng.random() < 0.4
        from_any = not is_strict and rng.random() < 0.4
        offset = max(0, known - 1) if is_strict else rng.randint(0, known)
        call = self._client.read(
            topic.name,
            offset,
            partition=partition,
            consistency="linearizable" if is_strict else "committed",
            from_any=from_any,
            wait_seconds=rng.choice((0.0, 0.0, 0.5)),
        )
        try:
            answer = await self.allowed(call, topic, OffsetOutOfRangeError)
        except Failed as failed:
            self._check_range(topic, partition, failed.error, None if from_any else known)
            raise
        self.events["reads"] += 1
        if is_strict and topic.state == "alive" and offset + len(answer.records) < known:
            self.world.violate(f"{topic}/{partition} has {known}; from {offset} on: {answer}")
        if is_strict or not self._are_of_namesake(topic, answer.records):
            self.told.seen(topic, partition, offset, answer.records)

    def _check_range(
        self, topic: Topic, partition: int, error: ChronikError, known: int | None
    ) -> None:
        if isinstance(error, OffsetOutOfRangeError) and topic.state == "alive":
            if known is not None and error.offset >= error.end_offset and error.end_offset < known:
                self.world.violate(f"{topic}/{partition} has {known}, and: {error}")
            if topic.lanes[partition].start <= error.offset < error.first_offset:
                self.world.violate(f"{topic}/{partition} was not cut off: {error}")

    def _are_of_namesake(self, topic: Topic, records: Sequence[StoredRecord]) -> bool:
        """By a node that has not heard of its end."""
        is_so = any(self.told.is_of_namesake(topic, bytes(each.value or b"")) for each in records)
        self.events["stale namesake reads"] += is_so
        return is_so

    async def follow(self) -> None:
        """A whole topic for a while, over everything that befalls the cluster."""
        found = self.some_lane()
        if found is None:
            return
        topic, numbers = found[0], range(len(found[0].lanes))
        places = {number: topic.lanes[number].start for number in numbers}
        follower = await self._client.consumer(
            topic.name, partitions=numbers, start=dict(places), follow=True, wait_seconds=1.0
        )
        end = asyncio.get_running_loop().time() + self.rng.uniform(1.0, 10.0)
        try:
            async with follower, asyncio.timeout_at(end):
                while not self.stage.is_over:
                    run = await self._followed(follower, topic)
                    if run is None:
                        return
                    self.told.seen_in(topic, run.partition, places[run.partition], run.records)
                    places[run.partition] += len(run.records)
                    self.events["records followed"] += len(run.records)
        except TimeoutError:
            return
        except Failed as failed:
            if isinstance(failed.error, OffsetOutOfRangeError) and topic.state == "alive":
                self._check_cut(topic, failed.error)
            raise

    async def _followed(self, follower: AsyncConsumer, topic: Topic) -> Run | None:
        """What comes next. None: it reads an older topic, by a node that had not heard of its
        end; who reads this one is never told that it is not there.
        """

        def is_of_another() -> bool:
            return follower.topic_id not in {None, topic.topic_id}

        async def taken() -> Run | None:
            try:
                return await follower.take_run()
            except (TopicNotFoundError, OffsetOutOfRangeError):
                if not is_of_another():
                    raise
            return None

        run: Run | None = await self.allowed(taken(), topic, OffsetOutOfRangeError)
        if is_of_another():
            self.events["stale namesake reads"] += 1
            return None
        return run

    def _check_cut(self, topic: Topic, error: OffsetOutOfRangeError) -> None:
        if not any(lane.start > error.offset for lane in topic.lanes):
            self.world.violate(f"{topic}: nothing was cut off: {error}")

    async def move_cursor(self) -> None:
        """To anywhere that is there."""
        found = self.some_lane()
        if found is None:
            return
        topic, partition = found
        lane = topic.lanes[partition]
        if not lane.end:
            return
        to = self.rng.randint(0, lane.end)
        lane.cursors.add(to)
        call = self._client.commit_cursor(topic.name, "c", to, partition=partition, reset=True)
        await self.allowed(call, topic)
        self.events["cursors moved"] += 1

    async def search(self) -> None:
        """One of the words that stand in all records, over all partitions."""
        found = self.some_lane()
        if found is None:
            return
        topic, word = found[0], f"w{self.rng.randrange(WORDS)}"
        call = self._client.search(topic.name, word, limit=FOUND_MAX, deadline_seconds=2.0)
        known = [dict(lane.at) for lane in topic.lanes]
        answer = await self.allowed(call, topic)
        found_in = {part.partition for part in answer.coverage}
        if topic.state != "alive" or found_in != set(range(len(known))):
            return  # it is gone, or the node that answered has not heard of it yet
        if self._are_of_namesake(topic, [hit.record for hit in answer]):
            return
        self.events["searches"] += 1
        hits = set()
        for hit in answer:
            hits.add((hit.partition, hit.offset))
            self.told.seen(topic, hit.partition, hit.offset, [hit.record])
            if word.encode() not in bytes(hit.record.value or b"").split():
                self.world.violate(f"{word} is not in {hit}")
        for part in answer.coverage:
            for low, high in part.searched:
                start = topic.lanes[part.partition].start
                for offset, value in known[part.partition].items():
                    is_there = max(start, low) <= offset < high
                    is_meant = is_there and word.encode() in value.split()
                    if is_meant and (part.partition, offset) not in hits:
                        self.world.violate(f"{topic}/{part.partition}: no {word} at {offset}")
