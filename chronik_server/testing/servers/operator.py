"""Who runs a cluster in trouble: topics come and go, so do nodes; leaders are handed over.

Place: over `player`. Promise: what was begun and is not known to be done is asked for
again. Invariant: a topic is made anew only when the one before it is known to be deleted; a cluster
keeps three nodes at least.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from chronik_server.client import AsyncClient
from chronik_server.testing.servers.kinds import Kind
from chronik_server.testing.servers.player import Failed, Player, Stage
from chronik_server.testing.servers.told import Topic
from chronik_store.errors import ConfigError, TopicNotFoundError

NAMES = ("a", "b", "c")
PARTITIONS = (1, 1, 2, 3, 8)
MEMBERS_MIN = 3


class Operator(Player):
    """See the module. Its verbs go by a client of their own."""

    def __init__(self, stage: Stage, client: AsyncClient, kind: Kind) -> None:
        super().__init__(stage)
        self._client = client
        self._kind = kind
        self.leaving = ""
        """The node that was asked to leave last."""

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """What is done side by side."""
        found = [self.again(self.make_or_delete, 1.0), self.again(self.do_something, 0.7)]
        if self._kind.changes_nodes:
            found.append(self.again(self.change_nodes, 0.3))
        return found

    # --- topics ----------------------------------------------------------------------------------

    async def make_or_delete(self) -> None:
        """One of the names: a topic where there is none, or its end."""
        name = self.rng.choice(NAMES)
        known = [each for each in self.told.topics if each.name == name]
        if not known or known[-1].state == "gone":
            await self._make(name)
        elif known[-1].state == "ending" or self.rng.random() < 0.3:
            await self._delete(known[-1])

    async def _make(self, name: str) -> None:
        partitions = self.told.limbo.setdefault(name, self.rng.choice(PARTITIONS))
        replicas = self.rng.choice((None, None, 1, 2, 3))
        if replicas is not None:
            replicas = min(replicas, self._kind.copies_max)
        call = self._client.create_topic(
            name, partitions=partitions, replicas=replicas, exist_ok=True
        )
        made = await self.allowed(call, None, ConfigError)  # so few nodes have joined yet
        self.events["topics made"] += 1
        self.told.made(name, made.topic_id, len(made.partitions))

    async def _delete(self, topic: Topic) -> None:
        was_asked = topic.state == "ending"
        topic.state = "ending"
        try:
            await self.allowed(self._client.delete_topic(topic.name), None)
        except Failed as failed:
            if not isinstance(failed.error, TopicNotFoundError):
                raise
            if not was_asked:
                self.world.violate(f"{topic} is there, and is not found: {failed.error}")
        self.events["topics deleted"] += 1
        topic.state = "gone"

    # --- leaders, segments, questions ------------------------------------------------------------

    async def do_something(self) -> None:
        """Any of it."""
        deeds: tuple[Callable[[], Awaitable[None]], ...] = (
            self._hand_over,
            self._hand_over_metadata,
            self._seal,
            self._drop,
            self._ask,
        )
        await self.rng.choice(deeds)()

    async def _hand_over(self) -> None:
        found = self.some_lane()
        if found is not None:
            call = self._client.transfer_leader(found[0].name, partition=found[1])
            await self.allowed(call, found[0], ConfigError)  # it has no other voter
            self.events["hand-overs"] += 1

    async def _hand_over_metadata(self) -> None:
        await self.allowed(self._client.transfer_leader(""), None, ConfigError)
        self.events["hand-overs"] += 1

    async def _seal(self) -> None:
        found = self.some_lane()
        if found is not None:
            await self.allowed(self._client.seal(found[0].name, partition=found[1]), found[0])

    async def _drop(self) -> None:
        found = self.some_lane()
        if found is not None and self.rng.random() < 0.3:
            topic, partition = found
            lane = topic.lanes[partition]
            offset = self.rng.randint(0, lane.end)
            lane.start = max(lane.start, offset)
            call = self._client.drop_before(topic.name, offset, partition=partition)
            await self.allowed(call, topic)
            self.events["drops"] += 1

    async def _ask(self) -> None:
        client = self._client
        call: Callable[[], Awaitable[Any]] = self.rng.choice(
            (client.cluster, client.topics, client.status, client.run_pipeline_once, client.ping)
        )
        await self.allowed(call(), None)

    # --- nodes -----------------------------------------------------------------------------------

    async def change_nodes(self) -> None:
        """One joins, or one is asked to leave; the next one when it has left."""
        found = await self.allowed(self._client.cluster(), None)
        states = {node.node_id: node.state for node in found.nodes}
        if states.get(self.leaving) == "member":
            await self._remove(self.leaving)  # it was not heard
            return
        members = sorted(name for name, state in states.items() if state == "member")
        if len(states) == len(members) + list(states.values()).count("removed"):
            if len(members) <= MEMBERS_MIN or self.rng.random() < 0.5:
                self._add()
            else:
                await self._remove(self.rng.choice(members))

    def _add(self) -> None:
        joined = [name for name in self.world.nodes if name.startswith("j")]
        if all(self.world.nodes[name].was_member for name in joined):
            self.world.add(f"j{len(joined) + 1}", join=list(self.world.nodes)).boot()
            self.events["nodes joining"] += 1

    async def _remove(self, name: str) -> None:
        self.leaving = name
        await self.allowed(self._client.remove_node(name), None, ConfigError)
        self.events["nodes leaving"] += 1
