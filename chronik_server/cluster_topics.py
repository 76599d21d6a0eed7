"""The verbs about topics in a cluster, and search over partitions that are on several nodes.

Place: under `raft_backend`, over `metadata_group` and `hosting`. Promise: a topic exists once its
command is committed; a partition that this node does not have is named with its leader, and
searched where it is. Invariant: "there is no such topic" is said by the leader of the metadata
only, when a quorum has confirmed that it leads, and it has applied all that it knows of.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from chronik_server import metadata_commands as commands
from chronik_server.addresses import parse_address
from chronik_server.calling import client_of
from chronik_server.client import ClientOptions
from chronik_server.errors import CertificateError, NotLeaderError, made_anew
from chronik_server.hosting import Hosting
from chronik_server.local_backend import search_options
from chronik_server.metadata import METADATA_TOPIC, Topic, group_of
from chronik_server.metadata_group import MetadataGroup
from chronik_server.placement import COPIES_DEFAULT, place_topic
from chronik_server.protocol.data import Search
from chronik_server.protocol.topics import CreateTopic, PartitionPlace, TopicDescription
from chronik_server.raft.node import RaftNode
from chronik_server.raft_partition import RaftPartition
from chronik_store.environment import Environment
from chronik_store.errors import (
    ChronikError,
    ConfigError,
    TopicExistsError,
    TopicNotFoundError,
    UnavailableError,
)
from chronik_store.model import Coverage, SearchResult, TopicInfo
from chronik_store.objectstore.layout import check_topic_name
from chronik_store.search.searcher import merge_results

GRACE_SECONDS = 1.0
"""So much longer than a search's deadline, which they keep themselves, other nodes have for their
part: less than whoever asked waits before he gives up the connection, and all that he asked on it.
"""
REASON_MAX = 200
"""Signs of the reason for a gap."""
OFFSET_MAX = (1 << 63) - 1
"""Where a range ends of which nobody says how far it goes."""


class ClusterTopics:
    """See the module. Belongs to the event loop."""

    def __init__(
        self,
        group: MetadataGroup,
        hosting: Hosting,
        raft: RaftNode,
        *,
        env: Environment,
        address_of: Callable[[str], str | None],
        is_connected: Callable[[str], bool],
        options: ClientOptions,
        name_is_free: Callable[[str], Awaitable[None]],
    ) -> None:
        self._group = group
        self._hosting = hosting
        self._raft = raft
        self._env = env
        self._address_of = address_of
        self._is_connected = is_connected
        self._options = options
        self._name_is_free = name_is_free

    # --- create, delete --------------------------------------------------------------------------

    def _must_lead(self) -> None:
        meta = self._group.part
        if not meta.consensus.is_ready:
            raise meta.not_leader()
        self._must_have_read()

    def _must_have_read(self) -> None:
        """What this node knows to be committed of the metadata, and that is something: the first
        record there is a node.
        """
        if not self._group.is_current or not self._group.state.nodes:
            raise UnavailableError(
                "the cluster's topics are not known here yet; ask again", durability="not_durable"
            )

    async def create(self, request: CreateTopic) -> TopicDescription:
        """See `Backend`."""
        check_topic_name(request.topic)
        if request.topic == METADATA_TOPIC:
            raise ConfigError(f"{METADATA_TOPIC} is the cluster's own")
        self._must_lead()
        await self._name_is_free(request.topic)
        known = self._group.state.topics.get(request.topic)
        if known is None:
            command = self._command(request)
            await self._group.command(command)
            await self._name_is_free(request.topic)  # one more may have come and gone meanwhile
            known = self._group.state.topics.get(request.topic)
            if known is None:
                raise UnavailableError(f"topic {request.topic!r} was deleted at once; ask again")
            if known.topic_id == command.topic_id:
                return self.described(known)
        if not request.exist_ok:
            raise TopicExistsError(
                f"topic {request.topic!r} exists with {_partitions(known.partitions)}",
                topic=request.topic,
            )
        return self.described(await self._grown(known, request.partitions))

    async def _grown(self, topic: Topic, partitions: int) -> Topic:
        """With so many at least. Who adds some at once comes before or behind: then it is looked
        how many are missing.
        """
        while topic.partitions < partitions:
            added = partitions - topic.partitions
            await self._group.command(
                commands.GrowTopic(
                    topic.topic_id,
                    topic.partitions,
                    self._new_ids(added),
                    self._placement(added, topic.copies),
                )
            )
            found = self._group.state.topic_of(topic.topic_id)
            if found is None:
                raise UnavailableError(f"topic {topic.name!r} was deleted at once; ask again")
            topic = found
        return topic

    def _command(self, request: CreateTopic) -> commands.MakeTopic:
        count = len(self._group.state.nodes_in("member"))
        if request.replicas is not None and request.replicas > count:
            raise ConfigError(f"replicas is {request.replicas}; this cluster has {count} node(s)")
        copies = request.replicas or COPIES_DEFAULT
        (topic_id,) = self._new_ids(1)
        return commands.MakeTopic(
            request.topic,
            topic_id,
            self._new_ids(request.partitions),
            copies,
            self._placement(request.partitions, copies),
        )

    def _new_ids(self, count: int) -> tuple[str, ...]:
        return tuple(self._env.entropy.token_bytes(16).hex() for _ in range(count))

    def _placement(self, partitions: int, copies: int) -> tuple[tuple[str, ...], ...]:
        """Of new partitions, on the nodes that have least."""
        state = self._group.state
        nodes = state.nodes_in("member")
        away = {n for n in nodes if n != self._raft.node_id and not self._is_connected(n)}
        return place_topic(partitions, copies, nodes, state.load, away)

    async def delete(self, topic: str) -> None:
        """See `Backend`."""
        self._must_lead()
        await self._group.command(commands.DropTopic((await self.topic(topic)).topic_id))

    # --- look ------------------------------------------------------------------------------------

    async def topic(self, name: str, topic_id: str | None = None) -> Topic:
        """Of that name; the one that is meant, if an id is given. TopicNotFoundError only from who
        knows; else NotLeaderError, UnavailableError.
        """
        topic = self._known(name, topic_id)
        if topic is None:
            await self._must_know()
            topic = self._known(name, topic_id)
        if topic is None:
            if name in self._group.state.topics:
                raise made_anew(name)
            known = ", ".join(sorted(self._group.state.topics)[:20]) or "none"
            raise TopicNotFoundError(f"no topic {name!r} here (topics: {known})", topic=name)
        return topic

    def _known(self, name: str, topic_id: str | None) -> Topic | None:
        found = self._group.state.topics.get(name)
        return found if found is not None and topic_id in {None, found.topic_id} else None

    async def _must_know(self) -> None:
        """Nobody else says what there is not: it may just have been created. Nor does a leader,
        until a quorum has confirmed that it still is: it may have been cut off, and replaced.
        """
        meta = self._group.part
        if not meta.consensus.is_ready:
            raise meta.not_leader()
        try:
            await meta.consensus.read_barrier()
        except UnavailableError as error:
            raise meta.not_leader() from error
        self._must_have_read()

    def list_all(self) -> tuple[TopicInfo, ...]:
        """By name. UnavailableError: not known yet."""
        self._must_have_read()
        return tuple(
            TopicInfo(topic.name, topic.topic_id, topic.partitions)
            for _, topic in sorted(self._group.state.topics.items())
        )

    def described(self, topic: Topic) -> TopicDescription:
        """With the leaders as far as this node knows."""
        places = []
        for number, place in enumerate(topic.places):
            leader, term = self.leader_of(topic, number)
            address = None if leader is None else self._address_of(leader)
            places.append(PartitionPlace(number, leader, address, term, place.replicas))
        return TopicDescription(topic.name, topic.topic_id, tuple(places))

    def leader_of(self, topic: Topic, partition: int) -> tuple[str | None, int]:
        """(node, term), from the group if it runs here, else from what nodes say they lead."""
        part = self._hosting.running(topic, partition)
        if part is not None and self._hears_leader(part):
            return part.consensus.leader, part.consensus.term
        claim = self._raft.liveness.claimant(group_of(topic.topic_id, partition))
        return (None, 0) if claim is None else claim

    def _hears_leader(self, part: RaftPartition) -> bool:
        """A learner never elects, so it would name one that is dead for ever."""
        leader = part.consensus.leader
        return leader is not None and (
            leader == self._raft.node_id or not self._raft.liveness.is_silent(leader)
        )

    async def partition(self, name: str, number: int, topic_id: str | None = None) -> RaftPartition:
        """Of this node; NotLeaderError names who leads one that is elsewhere."""
        topic = await self.topic(name, topic_id)
        found = self._hosting.running(topic, number)
        if found is not None:
            return found
        if not 0 <= number < topic.partitions:
            await self._must_know()
            if self._group.state.topics.get(name) is not topic:
                return await self.partition(name, number, topic_id)  # a namesake has been created
            raise TopicNotFoundError(
                f"topic {name!r} has partitions 0 to {topic.partitions - 1}, not {number}",
                topic=name,
            )
        place = topic.places[number]
        if self._raft.node_id in place.holders:
            fault = self._hosting.unopened.get((name, number))
            raise UnavailableError(
                f"{name}/{number} is being opened here; ask again"
                if fault is None
                else f"{name}/{number} cannot be opened here: {fault}",
                durability="not_durable",
            )
        leader, _ = self.leader_of(topic, number)
        raise NotLeaderError(
            f"{name}/{number} is on other nodes ({', '.join(place.replicas)}), led by "
            f"{leader or 'nobody that this node knows of'}",
            node_id=leader,
            address=None if leader is None else self._address_of(leader),
        )

    # --- search ----------------------------------------------------------------------------------

    async def search(self, request: Search) -> SearchResult:
        """Partitions that are here are searched here, the others where they are; merged."""
        topic = await self.topic(request.topic)
        numbers = range(topic.partitions) if request.partition is None else [request.partition]
        loop = asyncio.get_running_loop()
        begun = loop.time()
        options = search_options(request)
        if request.partition is None and request.require_complete and not _is_empty(options):
            self._must_know_all(topic)
        results: list[SearchResult] = []

        def merged() -> SearchResult:
            elapsed = loop.time() - begun
            return merge_results(
                results, limit=request.limit, order=request.order, elapsed_seconds=elapsed
            )

        async def search(number: int) -> None:
            results.append(await self._search(topic, number, request.query, options))
            if sum(map(len, results)) > 2 * request.limit:  # no longer than they can be among them
                results[:] = [merged()]

        await asyncio.gather(*map(search, numbers))
        return merged()

    def _must_know_all(self, topic: Topic) -> None:
        """Who is not told of more partitions cannot say that it has searched all of them."""
        if not self._hears_leader(self._group.part):
            raise UnavailableError(
                "this node hears nobody who leads the cluster's metadata: "
                f"{topic.name!r} may have more partitions by now than it knows of; ask another, or "
                "for what there is without `require_complete`"
            )

    async def _search(
        self, topic: Topic, number: int, query: str, options: dict[str, Any]
    ) -> SearchResult:
        """Where it is. What cannot be asked about now is a gap of the answer, unless everything is
        wanted.
        """
        if not 0 <= number < topic.partitions:
            part = await self.partition(topic.name, number)  # refused, or there by now
            return await part.search(query, options)
        here = self._hosting.running(topic, number)
        is_mine = self._raft.node_id in topic.places[number].holders
        if here is not None or (is_mine and (topic.name, number) not in self._hosting.unopened):
            part = await self.partition(topic.name, number)
            return await part.search(query, options)
        limit = options["deadline_seconds"] + GRACE_SECONDS
        try:
            async with asyncio.timeout(limit):
                return await self._search_elsewhere(topic, number, query, options)
        except TimeoutError:
            fault: ChronikError = UnavailableError(
                f"{topic.name}/{number} is on other nodes, which have not answered for {limit:g} s"
            )
        except TopicNotFoundError as error:
            fault = UnavailableError(f"this node has not heard yet what became of it: {error}")
        except ChronikError as error:
            fault = error
        missing, is_empty = _wanted(options), _is_empty(options)
        if not fault.retriable or (options["require_complete"] and not is_empty):
            raise fault
        gap = Coverage((), (missing,), number, (str(fault)[:REASON_MAX],))
        covered = Coverage((), (), number) if is_empty else gap
        return SearchResult((), 0, is_empty, (covered,), (), 0.0)

    async def _search_elsewhere(
        self, topic: Topic, number: int, query: str, options: dict[str, Any]
    ) -> SearchResult:
        last: ChronikError | None = None
        once = dataclasses.replace(self._options, retry_seconds=0.0)
        for node in self._askable(topic, number):
            address = self._address_of(node)
            if address is None:
                continue
            servers = (parse_address(address),)
            own = self._raft.node_id
            async with client_of(self._env, servers, once, node_id=own) as client:
                try:
                    return await client.search(topic.name, query, partition=number, **options)
                except CertificateError as error:
                    last = UnavailableError(str(error))  # not the asker's: a node is out of reach
                except ChronikError as error:
                    last = error
        raise last or UnavailableError(
            f"{topic.name}/{number} is on nodes that this one cannot reach"
        )

    def _askable(self, topic: Topic, number: int) -> list[str]:
        """Its leader first: it has all that is committed. Who is away is asked last."""
        leader, _ = self.leader_of(topic, number)
        nodes = [node for node in topic.places[number].replicas if node != leader]
        found = nodes if leader is None else [leader, *nodes]
        return sorted(found, key=lambda node: not self._is_connected(node))


def _wanted(options: dict[str, Any]) -> tuple[int, int]:
    """Which offsets are to be searched."""
    stop: int | None = options["stop"]
    return options["start"] or 0, OFFSET_MAX if stop is None else stop


def _is_empty(options: dict[str, Any]) -> bool:
    """None are."""
    start, stop = _wanted(options)
    return stop <= start


def _partitions(count: int) -> str:
    return f"{count} partition" + ("" if count == 1 else "s")
