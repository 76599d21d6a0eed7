"""What must hold when everything is healed: judged through clients, and behind the nodes' backs.

Place: under `story`. Promise: within JUDGE_SECONDS of virtual time all of it holds, or the
run is violated: every topic takes appends and has every fact, on each node that holds it; each
group has the members that are wished for; what was deleted is nowhere; what is in the bucket is
listed, whole, and once. Invariant: looks only; the one thing that it writes is a record for each
partition.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from chronik_server.backend import Check
from chronik_server.client import AsyncClient
from chronik_server.group_changes import committed_members
from chronik_server.metadata import METADATA_TOPIC, Place
from chronik_server.placement import is_reached, metadata_wish, next_wish
from chronik_server.testing.servers.letting_go import LettingGo
from chronik_server.testing.servers.told import Lane, Told, Topic
from chronik_server.testing.servers.world import URL, ServerNode, ServersWorld
from chronik_store import replicated
from chronik_store.bucket_log import open_bucket
from chronik_store.errors import ChronikError, OffsetOutOfRangeError
from chronik_store.format.control import Members

JUDGE_SECONDS = 120.0
LOOK_SECONDS = 0.5
REST_SKEW_SECONDS = 50_000.0
"""Ahead of all stamps in the logs, some of which were made by clocks that were wrong by hours."""
PATIENCE = {"connect_seconds": 2.0, "request_seconds": 5.0, "retry_seconds": 30.0}


class ServersJudge:
    """See the module. operate: what an operator does, again and again, before nodes are started."""

    def __init__(
        self, world: ServersWorld, told: Told, operate: Callable[[], None] = lambda: None
    ) -> None:
        self._world, self._told = world, told
        self._letting_go = LettingGo(world, told)
        self._operate = operate
        self._faults: dict[str, str] = {}
        self._deadline = 0.0
        self._strays_seen: set[str] = set()

    async def judge(self) -> None:
        """All of it, until something does not come to be in time."""
        self._deadline = asyncio.get_running_loop().time() + JUDGE_SECONDS
        with contextlib.suppress(_LateError):
            await self._judge()

    async def _judge(self) -> None:
        world = self._world
        await self._until(self._all_serve, "every node serves all that it holds")
        async with world.client(**PATIENCE) as client:
            await self._settle_topics(client)
            for topic in self._told.alive():
                for partition in range(len(topic.lanes)):
                    await self._works(client, topic, partition)
            for node in self._nodes():
                await self._has_everything(node)
        for node in self._nodes():
            node.kill()
            node.set_clock(REST_SKEW_SECONDS)
        await self._until(self._all_serve, "every node serves once more")
        await self._until(self._at_rest, "all is tiered, and what was deleted is gone")
        await self._until(self._bucket_amiss, "the bucket has everything, once")
        await self._until(self._all_ready, "every node is ready, as its health listener says")
        async with world.client(**PATIENCE) as client:
            for topic in self._told.alive():
                for partition in range(len(topic.lanes)):
                    await self._works(client, topic, partition)
        world.events["stray objects"] += len(self._strays_seen)

    async def _until(self, look: Callable[[], Awaitable[str] | str], what: str) -> None:
        while True:
            found = look()
            amiss = found if isinstance(found, str) else await found
            if not amiss:
                return
            if asyncio.get_running_loop().time() > self._deadline:
                self._world.violate(f"liveness: {what}: {amiss}")
                raise _LateError
            self._operate()
            for node in self._world.nodes.values():
                node.boot_if_down()
            await asyncio.sleep(LOOK_SECONDS)

    def _nodes(self) -> list[ServerNode]:
        return [node for node in self._world.nodes.values() if not node.was_removed]

    def _all_serve(self) -> str:
        for node in self._nodes():
            if node.server is None:
                return f"{node.name} does not serve ({node.ended})"
            backend: Any = node.server.backend
            hosting, state = backend._hosting, backend._group.state
            if hosting.unopened:
                return f"{node.name} cannot open {hosting.unopened}"
            if not backend._group.is_current:
                return f"{node.name} reads the metadata"
            if backend._group.part.core.replica.suspect:
                return f"the metadata of {node.name} is suspect"
            if state.state_of(node.name) != "member":
                return f"{node.name} is {state.state_of(node.name)}"
            for topic in state.topics.values():
                for number, place in enumerate(topic.places):
                    part = hosting.running(topic, number)
                    if node.name in place.holders and part is None:
                        return f"{node.name} does not run {topic.name}/{number}"
                    if part is not None and part.core.replica.suspect:
                        return f"{part} is suspect on {node.name}"
                    if part is not None and part.consensus.leader is None:
                        return f"nobody leads {part}, as {node.name} sees it"
        return ""

    async def _settle_topics(self, client: AsyncClient) -> None:
        """What was begun is ended, and the list of topics is what was told."""
        told = self._told
        for topic in told.topics:
            if topic.state == "ending":
                try:
                    await client.delete_topic(topic.name)
                except LookupError:
                    pass
                topic.state = "gone"
        for name, partitions in list(told.limbo.items()):
            made = await client.create_topic(name, partitions=partitions, exist_ok=True)
            told.made(name, made.topic_id, len(made.partitions))

        async def amiss() -> str:
            found = {each.topic_id for each in await client.topics()}
            wanted = {topic.topic_id for topic in told.alive()}
            return "" if found == wanted else f"{sorted(found)}, not {sorted(wanted)}"

        await self._until(amiss, "the topics are those that were made")

    async def _works(self, client: AsyncClient, topic: Topic, partition: int) -> None:
        values = self._told.offer(topic, partition, 1, 0)
        try:
            found = await client.append(topic.name, values, partition=partition)
            self._told.acknowledged_at(topic, partition, found.base_offset, values)
            await client.seal(topic.name, partition=partition)
            place = await client.cursor_offset(topic.name, "c", partition=partition)
        except ChronikError as error:
            self._world.violate(f"{topic}/{partition} does not work: {error!r}")
            return
        if place not in {None, *self._told.cursors(topic.name, partition)}:
            self._world.violate(f"{topic}/{partition}: cursor at {place}, which nobody has set")

    async def _has_everything(self, node: ServerNode) -> None:
        """Each record of each partition that this node holds, as it sees it itself."""
        if node.server is None:
            if not node.was_removed:  # it may have heard of that while others were looked at
                self._world.violate(f"{node.name} has ended: {node.ended}")
            return
        backend: Any = node.server.backend
        async with self._world.client(node.name, **PATIENCE) as client:
            for topic in self._told.alive():
                for partition, lane in enumerate(topic.lanes):
                    part = backend.known_partition(topic.name, partition)
                    if part is not None:
                        lacks = functools.partial(_lacks, part, lane.end)
                        await self._until(lacks, f"{node.name} knows of all of {part}")
                        await self._scan(client, node, topic, partition)

    async def _scan(
        self, client: AsyncClient, node: ServerNode, topic: Topic, partition: int
    ) -> None:
        lane = topic.lanes[partition]
        offset = lane.start
        while offset < lane.end:
            try:
                found = await client.read(topic.name, offset, partition=partition, from_any=True)
            except ChronikError as error:
                if isinstance(error, OffsetOutOfRangeError) and offset < lane.start:
                    offset = lane.start  # it has gone by now
                    continue
                self._world.violate(f"{topic}/{partition} at {offset} on {node.name}: {error!r}")
                return
            if not found.records:
                self._world.violate(f"{topic}/{partition} ends at {offset} on {node.name}")
                return
            self._told.seen(topic, partition, offset, found.records)
            offset = found.next_offset

    # --- behind their backs ----------------------------------------------------------------------

    def _at_rest(self) -> str:
        alive = {topic.topic_id for topic in self._told.alive()}
        for node in self._nodes():
            if node.server is None:
                return f"{node.name} does not serve ({node.ended})"
            backend: Any = node.server.backend
            if backend._group.state.deleting:
                return f"{node.name} still knows of deleted topics"
            for found in replicated.local_partitions(backend._store):
                topic = backend._group.state.topic_of(found.topic_id)
                if found.topic == METADATA_TOPIC:
                    continue
                if topic is None or found.topic_id not in alive:
                    return f"{node.name} still has {found}"
                if node.name not in topic.places[found.partition].holders:
                    return f"{node.name} still has {found}, which has moved away"
            if amiss := _misplaced(backend):
                return amiss
            for part in backend._hosting.partitions.values():
                manifest = part.core.manifest
                if part.consensus.is_ready and (
                    manifest.intents or manifest.garbage or manifest.sealed
                ):
                    return (
                        f"{part} is not tiered, as {node.name} sees it: {part.core.status()}, "
                        f"intents {manifest.intents}, garbage {manifest.garbage}"
                    )
                now_us = node.machine.environment.clock.time_us()
                if part.consensus.is_ready and (amiss := self._letting_go.lacks(manifest, now_us)):
                    return f"{part}, as {node.name} sees it: {amiss}"
        return ""

    def _all_ready(self) -> str:
        for node in self._nodes():
            node.ask(lambda backend: backend.checks(), functools.partial(self._heard, node.name))
        names = {node.name for node in self._nodes()}
        faults = [f"{name}: {fault}" for name, fault in sorted(self._faults.items()) if fault]
        faults += [f"{name} says nothing" for name in sorted(names - set(self._faults))]
        return ", ".join(faults)

    def _heard(self, name: str, checks: Sequence[Check]) -> None:
        self._faults[name] = "; ".join(
            f"{each.name}: {each.fault}" for each in checks if each.fault
        )

    def _bucket_amiss(self) -> str:
        for topic in self._told.alive():
            for partition, lane in enumerate(topic.lanes):
                amiss = self._lane_amiss(topic, partition, lane)
                if amiss:
                    return amiss
        return ", ".join(self._strays())

    def _lane_amiss(self, topic: Topic, partition: int, lane: Lane) -> str:
        env = self._world.outsider
        try:
            with open_bucket(URL, topic=topic.name, partition=partition, env=env) as log:
                for finding in log.verify(bucket=True).findings:
                    if finding.severity == "note" and self._world.events["clock jumps"]:
                        # Put so late that the log had given it up, by a clock that was ahead.
                        self._strays_seen.add(finding.where)
                    else:
                        return f"{topic}/{partition}: {finding}"
                start = max(lane.start, log.watermarks.start)
                records = list(log.scan(start))
        except ChronikError as error:
            return f"{topic}/{partition}: {error!r}"
        if start > lane.start:
            self._world.violate(f"{topic}/{partition} begins at {start}, not at {lane.start}")
        self._told.seen(topic, partition, start, records)
        end = start + len(records)
        return "" if end >= lane.end else f"{topic}/{partition} ends at {end}, not at {lane.end}"

    def _strays(self) -> Iterator[str]:
        """Objects of topics that nobody has. (`verify` looks among those of the others.)"""
        names = {topic.name for topic in self._told.alive()} | {METADATA_TOPIC}
        for prefix in ("segments/", "indexes/", "manifests/"):
            for key in (each.key for each in self._world.bucket.list(prefix)):
                if key.endswith(".tombstone") and self._may_leave_tombstones():
                    self._strays_seen.add(key)
                elif key.split("/")[1] not in names or key.endswith(".tombstone"):
                    yield key

    def _may_leave_tombstones(self) -> bool:
        """A node that was removed, and has not heard of the end; a store of its own, which it keeps
        from whoever restored it.
        """
        return bool(self._world.events["nodes leaving"] or self._world.events["conversions"])


def _misplaced(backend: Any) -> str:
    """Of the groups that this node leads, and of the wishes that it knows of."""
    state, meta = backend._group.state, backend._group.part
    wish = next_wish(state, state.nodes_in("member"))
    if wish is not None:
        return f"{wish.topic.name}/{wish.partition} is not on {wish.replicas}, nor is that wished"
    wanted: list[tuple[Any, Callable[[Members], Members]]] = [
        (meta, functools.partial(metadata_wish, state))
    ]
    for (name, number), part in backend._hosting.partitions.items():
        place = state.topics[name].places[number]
        if not place.is_settled:
            return f"{part} is to be on {place.replicas}, and may be on {set(place.holders)}"
        wanted.append((part, functools.partial(_all_of, place)))
    for part, wished in wanted:
        now = committed_members(part)
        if part.consensus.is_ready and (now is None or not is_reached(now, wished(now))):
            return f"the members of {part} are {now}, and not as wished"
    return ""


def _all_of(place: Place, _now: Members) -> Members:
    return Members(place.replicas, ())


class _LateError(Exception):
    """There is no use in looking at what comes behind it."""


def _lacks(part: Any, end: int) -> str:
    known = part.log.watermarks.committed
    return "" if known >= end else f"{known} of {end}"
