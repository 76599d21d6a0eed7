"""One node of a cluster: a metadata group, and one group for each partition.

Place: a `Backend` over `chronik_store.replicated` and `raft`. Promise: topics and nodes are what
the metadata group has committed, on every node; whatever needs the leader names it. Invariant: a
partition's group runs here exactly while metadata says that this node has a replica of it; its
group id carries the topic's id, so a namesake's votes never count (protocol 6).
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from chronik_server import metadata
from chronik_server.addresses import Address
from chronik_server.backend import Check, Link, NodeIdentity
from chronik_server.client.options import ClientOptions
from chronik_server.config import ServerConfig
from chronik_server.errors import UnauthenticatedError
from chronik_server.local_backend import search_options
from chronik_server.metadata import METADATA_TOPIC, MakeTopic
from chronik_server.metadata_group import MetadataGroup
from chronik_server.peers import PeerLinks
from chronik_server.protocol.cluster import ClusterDescription, NodeInfo, StatusFound
from chronik_server.protocol.data import Search
from chronik_server.protocol.greeting import PeerIdentity
from chronik_server.protocol.topics import CreateTopic, PartitionPlace, TopicDescription
from chronik_server.raft.node import RaftNode
from chronik_server.raft_partition import RaftPartition
from chronik_store.aio import AsyncLogStore
from chronik_store.clock import Entropy
from chronik_store.environment import Environment
from chronik_store.errors import (
    ChronikError,
    ConfigError,
    IdentityMismatchError,
    TopicExistsError,
    TopicNotFoundError,
    UnavailableError,
)
from chronik_store.format.checksum import Buffer, content_hash
from chronik_store.format.control import Members
from chronik_store.log_store import LogStore
from chronik_store.model import PipelineReport, SearchResult, TopicInfo
from chronik_store.objectstore.layout import check_topic_name
from chronik_store.replicated import core_of, install_topic, snapshot_of

T = TypeVar("T")
logger = logging.getLogger("chronik_server.cluster")

HAND_OVER_SECONDS = 2.0
NEVER_SECONDS = 1e9
CURRENT_SECONDS = 1.0
"""A node that heard the metadata leader so lately knows the topics of a moment ago."""


class RaftBackend:
    """See the module. Belongs to the event loop on which it is made."""

    def __init__(
        self,
        config: ServerConfig,
        store: LogStore,
        identity: NodeIdentity,
        *,
        env: Environment,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.identity = identity
        self._config = config
        self._store = store
        self._face = AsyncLogStore(store)
        self._entropy: Entropy = env.entropy
        self._loop = asyncio.get_running_loop()
        self._addresses: dict[str, Address] = dict(config.peers)
        self._partitions: dict[tuple[str, int], RaftPartition] = {}
        self._groups: dict[str, str] = {}  # topic name -> topic id, of what runs here
        self._meta: MetadataGroup | None = None
        own = PeerIdentity(
            identity.cluster_id, identity.node_id, identity.node_uuid, identity.boot_id
        )
        options = ClientOptions(token=config.auth_token, tls=config.tls)
        self._peers = PeerLinks(own, self._addresses, options, self._check_peer)
        self._raft = RaftNode(
            identity.node_id,
            boot_id=identity.boot_id,
            transport=self._peers,
            env=env,
            loop=self._loop,
            on_fatal=lambda _group, error: on_fatal(error),
        )
        self._peers.raft = self._raft

    async def _run(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        call = functools.partial(function, *arguments, **options)
        return await self._loop.run_in_executor(None, call)

    # --- life ------------------------------------------------------------------------------------

    async def start(self, address: str) -> None:
        """See `Backend`."""
        cluster_id = self.identity.cluster_id
        topic = MakeTopic(
            METADATA_TOPIC,
            content_hash(f"{cluster_id} topic".encode()) * 2,
            (content_hash(f"{cluster_id} log".encode()) * 2,),
            tuple(sorted(self._addresses)),
        )
        await self._open_topic(topic)
        self._meta = MetadataGroup(
            self._partitions.pop((METADATA_TOPIC, 0)),
            self._addresses,
            reconcile=self._reconcile,
            nodes=self._nodes,
        )
        self._raft.start()
        self._peers.start()
        self._meta.start()

    async def close(self) -> None:
        """See `Backend`."""
        if self._meta is not None:
            await self._meta.stop()
            await self._hand_over(self._meta.part)
        self._raft.stop()
        await self._peers.close()
        await self._face.close()

    async def _hand_over(self, meta: RaftPartition) -> None:
        """Give what is led to nodes that are there, so that nobody waits for an election."""
        led = [part for part in (*self._partitions.values(), meta)
               if part.consensus.is_ready]  # fmt: skip
        calls = [self._transfer(part, None) for part in led]
        if calls:
            pending = asyncio.gather(*calls, return_exceptions=True)
            try:
                await asyncio.wait_for(pending, HAND_OVER_SECONDS)
            except TimeoutError:
                logger.info("some partitions could not be handed over in time")

    async def _transfer(self, part: RaftPartition, to: str | None) -> None:
        voters = part.consensus.status().voters
        others = [v for v in voters if v != self.identity.node_id and self._peers.is_connected(v)]
        if to is None and not others:
            raise UnavailableError("no other voter is connected")
        try:
            await part.consensus.transfer(others[0] if to is None else to)
        except TimeoutError as error:
            raise UnavailableError(f"{to or others[0]} did not take over in time") from error
        except ChronikError as error:
            raise part.translated(error) from error

    # --- what runs here --------------------------------------------------------------------------

    @property
    def _metadata(self) -> MetadataGroup:
        assert self._meta is not None, "the backend is started"
        return self._meta

    def _nodes(self) -> tuple[PeerIdentity, ...]:
        return (self._peers.own, *self._peers.known.values())

    async def _reconcile(self) -> None:
        wanted = {
            name: topic
            for name, topic in self._metadata.state.topics.items()
            if self.identity.node_id in topic.replicas
        }
        for name, topic_id in list(self._groups.items()):
            if name not in wanted or wanted[name].topic_id != topic_id:
                await self._close_topic(name)
        for name, topic in wanted.items():
            if name not in self._groups:
                await self._open_topic(topic)
                self._groups[name] = topic.topic_id

    async def _open_topic(self, topic: MakeTopic) -> None:
        await self._run(install_topic, self._store, topic.name, topic.topic_id, topic.log_ids)
        members = Members(topic.replicas, ())
        for number in range(topic.partitions):
            if (topic.name, number) in self._partitions:
                continue
            log = await self._run(self._store.partition, topic.name, number)
            core = core_of(log)
            assert core.replica is not None
            group_id = f"{topic.topic_id}/{number}"
            consensus = self._raft.add_group(
                group_id,
                core.replica,
                members=members,
                snapshot_source=functools.partial(snapshot_of, self._store, log),
            )
            core.control.door = consensus.door
            self._partitions[topic.name, number] = RaftPartition(
                topic.name,
                number,
                await self._face.partition(topic.name, number),
                core,
                consensus,
                address_of=self._address_of,
                staleness_seconds=functools.partial(self._staleness, group_id),
            )
            consensus.start()

    async def _close_topic(self, name: str) -> None:
        topic_id = self._groups.pop(name)
        for key in [key for key in self._partitions if key[0] == name]:
            del self._partitions[key]
            self._raft.remove_group(f"{topic_id}/{key[1]}")
        await self._run(self._store.delete_topic, name)

    # --- topics ----------------------------------------------------------------------------------

    async def create_topic(self, request: CreateTopic) -> TopicDescription:
        """See `Backend`."""
        check_topic_name(request.topic)
        if request.topic == METADATA_TOPIC:
            raise ConfigError(f"{METADATA_TOPIC} is the cluster's own")
        meta = self._metadata.part
        if not meta.consensus.is_ready:
            raise meta.not_leader()
        nodes = sorted(self._addresses)
        if request.replicas not in {None, len(nodes)}:
            raise ConfigError(
                f"replicas is {request.replicas}; every node of this cluster keeps one "
                f"({len(nodes)})"
            )
        known = self._metadata.state.topics.get(request.topic)
        if known is None:
            fresh = self._entropy.token_bytes
            command = MakeTopic(
                request.topic,
                fresh(16).hex(),
                tuple(fresh(16).hex() for _ in range(request.partitions)),
                tuple(nodes),
            )
            await self._metadata.command(command)
            known = self._metadata.state.topics[request.topic]
            if known != command and not request.exist_ok:
                raise TopicExistsError(f"topic {request.topic!r} exists", topic=request.topic)
        elif not request.exist_ok:
            raise TopicExistsError(
                f"topic {request.topic!r} exists with {known.partitions} partitions",
                topic=request.topic,
            )
        return self._described(known)

    async def delete_topic(self, topic: str) -> None:
        """See `Backend`."""
        meta = self._metadata.part
        if not meta.consensus.is_ready:
            raise meta.not_leader()
        await self._metadata.command(metadata.DropTopic(self._topic(topic).topic_id))

    def _topic(self, name: str) -> MakeTopic:
        topic = self._metadata.state.topics.get(name)
        if topic is None:
            meta = self._metadata.part
            if not meta.consensus.is_ready:
                raise meta.not_leader()  # it may just have been created: its leader knows
            if self._metadata.state.offset < meta.log.watermarks.committed:
                raise UnavailableError("this node is still reading the cluster's topics")
            known = ", ".join(sorted(self._metadata.state.topics)[:20]) or "none"
            raise TopicNotFoundError(f"no topic {name!r} here (topics: {known})", topic=name)
        return topic

    async def topics(self) -> tuple[TopicInfo, ...]:
        """See `Backend`."""
        return tuple(
            TopicInfo(topic.name, topic.topic_id, topic.partitions)
            for _, topic in sorted(self._metadata.state.topics.items())
        )

    async def describe_topic(self, topic: str) -> TopicDescription:
        """See `Backend`."""
        return self._described(self._topic(topic))

    def _described(self, topic: MakeTopic) -> TopicDescription:
        places = []
        for number in range(topic.partitions):
            part = self._partitions.get((topic.name, number))
            leader = None if part is None else part.consensus.leader
            places.append(
                PartitionPlace(
                    number,
                    leader,
                    None if leader is None else self._address_of(leader),
                    0 if part is None else part.consensus.term,
                    topic.replicas,
                )
            )
        return TopicDescription(topic.name, topic.topic_id, tuple(places))

    # --- partitions ------------------------------------------------------------------------------

    def known_partition(self, topic: str, partition: int) -> RaftPartition | None:
        """See `Backend`."""
        return self._partitions.get((topic, partition))

    async def partition(self, topic: str, partition: int) -> RaftPartition:
        """See `Backend`."""
        found = self._partitions.get((topic, partition))
        if found is not None:
            return found
        known = self._topic(topic)
        if not 0 <= partition < known.partitions:
            raise TopicNotFoundError(
                f"topic {topic!r} has partitions 0 to {known.partitions - 1}, not {partition}",
                topic=topic,
            )
        raise UnavailableError(f"{topic}/{partition} is being opened here; ask again")

    def _staleness(self, group_id: str) -> float:
        """Seconds since this node heard from the group's leader."""
        consensus = self._raft.group(group_id)
        if consensus is None:
            return NEVER_SECONDS
        heard = self._raft.liveness.confirmed_at(consensus.leader, group_id, consensus.term)
        return min(NEVER_SECONDS, max(0.0, self._loop.time() - heard))

    def _address_of(self, node_id: str) -> str | None:
        address = self._addresses.get(node_id)
        return None if address is None else str(address)

    async def search(self, request: Search) -> SearchResult:
        """See `Backend`."""
        options = search_options(request)
        if request.partition is None:
            self._topic(request.topic)
            return await self._face.search(request.topic, request.query, **options)
        found = await self.partition(request.topic, request.partition)
        return await found.search(request.query, options)

    # --- the node --------------------------------------------------------------------------------

    async def status(self, topic: str | None) -> StatusFound:
        """See `Backend`."""
        status = await self._face.status()
        parts = tuple(
            part
            for part in status.partitions
            if part.topic != METADATA_TOPIC and topic in {None, part.topic}
        )
        if topic is not None and not parts:
            self._topic(topic)
        roles = tuple(
            part.role() for key, part in sorted(self._partitions.items()) if topic in {None, key[0]}
        )
        return StatusFound(
            dataclasses.replace(status, partitions=parts), roles, self.identity.node_id
        )

    async def run_pipeline(self) -> PipelineReport:
        """See `Backend`."""
        return await self._face.run_pipeline_once()

    async def describe_cluster(self) -> ClusterDescription:
        """See `Backend`."""
        nodes = []
        for node_id, address in sorted(self._addresses.items()):
            known = self._metadata.state.nodes.get(node_id)
            uuid = None if known is None else known.node_uuid
            nodes.append(NodeInfo(node_id, str(address), uuid))
        leader = self._metadata.part.consensus.leader
        cluster_id, node_id, _, _ = self.identity
        return ClusterDescription(cluster_id, node_id, tuple(nodes), leader)

    async def add_node(self, node_id: str, address: str) -> None:
        """See `Backend`."""
        raise ConfigError("the nodes of this cluster are those of CHRONIK_PEERS")

    async def remove_node(self, node_id: str) -> None:
        """See `Backend`."""
        raise ConfigError("the nodes of this cluster are those of CHRONIK_PEERS")

    async def transfer_leader(self, topic: str, partition: int, to: str | None) -> None:
        """See `Backend`."""
        part = self._metadata.part if not topic else await self.partition(topic, partition)
        if not part.consensus.is_ready:
            raise part.not_leader()
        await self._transfer(part, to)

    async def checks(self) -> tuple[Check, ...]:
        """See `Backend`."""
        status = await self._face.status()
        faults = [f"{p.topic}/{p.partition}: {p.last_error}" for p in status.partitions
                  if p.last_error is not None]  # fmt: skip
        leaderless = [
            f"{topic}/{number}"
            for (topic, number), part in self._partitions.items()
            if part.consensus.leader is None
        ]
        meta = "" if self._metadata.part.consensus.leader else "nobody leads the cluster's metadata"
        return (
            Check("log", "; ".join((*faults, *status.unavailable))),
            Check("metadata", meta),
            Check("leaders", "nobody leads " + ", ".join(leaderless) if leaderless else ""),
        )

    # --- peers -----------------------------------------------------------------------------------

    def _check_peer(self, peer: PeerIdentity) -> None:
        """A node of this cluster, and the directory that its id belongs to (protocol 12)."""
        if peer.cluster_id != self.identity.cluster_id:
            raise IdentityMismatchError(
                f"node {peer.node_id} is of cluster {peer.cluster_id}, not of "
                f"{self.identity.cluster_id}"
            )
        if peer.node_id not in self._addresses or peer.node_id == self.identity.node_id:
            raise UnauthenticatedError(f"{peer.node_id} is no other node of this cluster")
        known = self._metadata.state.nodes.get(peer.node_id)
        if known is not None and known.node_uuid != peer.node_uuid:
            raise IdentityMismatchError(
                f"node id {peer.node_id} belongs to directory {known.node_uuid}: a node that lost "
                "its disk comes back under a new id"
            )

    def greet(self, peer: PeerIdentity, link: Link) -> PeerIdentity:
        """See `Backend`."""
        self._check_peer(peer)
        self._loop.call_soon(self._peers.joined, peer, link)  # behind the welcome
        return self._peers.own

    def lost(self, peer: PeerIdentity, link: Link) -> None:
        """See `Backend`."""
        self._peers.left(peer, link)

    def told(self, peer: PeerIdentity, message: Any, payload: Buffer) -> None:
        """See `Backend`."""
        self._peers.receive(peer.node_id, message, payload)
