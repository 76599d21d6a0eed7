"""One node of a cluster: a metadata group, and a group for each partition that is placed here.

Place: a `Backend` over `hosting`, `cluster_topics`, `membership` and `control`, which it puts
together. Promise: topics and nodes are what the metadata group has committed, on every node;
whatever needs the leader names it. Invariant: addresses never reach a vote: who a peer is, its
greeting proves, against the registry's binding of ids and directories (protocol 12).
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

from chronik_server.addresses import Address, parse_address, parse_reachable
from chronik_server.backend import Check, Link, NodeIdentity, NodeRemovedError
from chronik_server.calling import client_of
from chronik_server.client import ClientOptions
from chronik_server.cluster_topics import ClusterTopics
from chronik_server.config import ServerConfig
from chronik_server.control import Control
from chronik_server.errors import UnauthenticatedError
from chronik_server.giving_way import GivingWay
from chronik_server.group_changes import GroupChanges, MemberSteps
from chronik_server.handing_over import hand_over
from chronik_server.hosting import Hosting
from chronik_server.joining import addresses_in, addresses_told, describe, topics_found
from chronik_server.leader_spread import LeaderSpread
from chronik_server.membership import Membership
from chronik_server.metadata import Metadata, Topic, metadata_topic
from chronik_server.metadata_commands import MakeTopic
from chronik_server.metadata_group import MetadataGroup
from chronik_server.peers import PeerLinks
from chronik_server.placement import Handover
from chronik_server.protocol.cluster import ClusterDescription, NodeReport, StatusFound
from chronik_server.protocol.data import Search
from chronik_server.protocol.greeting import PeerIdentity
from chronik_server.protocol.topics import CreateTopic, TopicDescription
from chronik_server.raft.node import RaftNode
from chronik_server.raft_partition import RaftPartition
from chronik_server.shared_bucket import SharedBucket
from chronik_server.standing import Standing
from chronik_server.steward import Steward
from chronik_server.turn import Turn
from chronik_store import replicated
from chronik_store.aio import AsyncLogStore
from chronik_store.environment import Environment
from chronik_store.errors import ConfigError, IdentityMismatchError
from chronik_store.format.checksum import Buffer
from chronik_store.log_store import LogStore
from chronik_store.model import PipelineReport, SearchResult, TopicInfo

logger = logging.getLogger("chronik_server.cluster")

HAND_OVER_SECONDS = 2.0
"""For what could not be handed over before clients were seen off."""


class RaftBackend:
    """See the module. Belongs to the event loop on which it is made.

    hints: where nodes are, as far as is known before the registry is read. first: the voters of
    the metadata's group while its log names none; nobody when this node joins a cluster.
    """

    has_peers = True

    def __init__(
        self,
        config: ServerConfig,
        store: LogStore,
        identity: NodeIdentity,
        *,
        hints: dict[str, Address],
        first: tuple[str, ...],
        env: Environment,
        turn: Turn,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.identity = identity
        self.turn = turn
        self._config = config
        self._store = store
        self._first = first
        self._env = env
        self._face = AsyncLogStore(store)
        self._loop = asyncio.get_running_loop()
        self._on_fatal = on_fatal
        self._hints = hints
        own = PeerIdentity(
            identity.cluster_id, identity.node_id, identity.node_uuid, identity.boot_id
        )
        self._options = ClientOptions(token=config.auth_token, tls=config.tls)
        self._peers = PeerLinks(own, self._options, self._check_peer, self._take, turn)
        self._raft = RaftNode(
            identity.node_id,
            boot_id=identity.boot_id,
            transport=self._peers,
            env=env,
            loop=self._loop,
            turn=turn,
            on_fatal=lambda _group, error: on_fatal(error),
        )
        self._peers.raft = self._raft
        self._giving_way = GivingWay(self._give, self._loop.time)
        self._hosting = Hosting(
            store,
            self._face,
            self._raft,
            address_of=self._address_of,
            on_full=self._giving_way.refused,
        )
        self._group: MetadataGroup
        self._standing: Standing
        self._control: Control
        self._steward: Steward
        self._topics: ClusterTopics
        self._membership: Membership

    # --- life ------------------------------------------------------------------------------------

    async def start(self, address: str) -> None:
        """See `Backend`."""
        part = await self._hosting.open_metadata(
            metadata_topic(self.identity.cluster_id, self._first)
        )
        node_id, is_connected = self.identity.node_id, self._peers.is_connected
        own_address = dict(self._config.peers).get(node_id) or _reachable(parse_address(address))
        replica = part.core.replica
        assert replica is not None, "logs of a node have a Raft side"
        if replica.members is None:
            await self._look_around(own_address)
        told = await self._loop.run_in_executor(None, addresses_told, replica)
        self._hints = {**self._hosting.rolls.addresses, **told, **self._hints}
        self._group = MetadataGroup(
            part, folded=self._folded, reconcile=self._reconcile, on_fatal=self._on_fatal
        )
        self._standing = Standing(self._store, self._hosting, self._group, node_id)
        self._steward = Steward(
            self._group,
            MemberSteps(node_id, is_connected),
            node_id=node_id,
            first={
                node: str(own_address if node == node_id else self._hints[node])
                for node in self._first
            },
            found=self._found,
            acted_on=lambda: self._hosting.acted_on,
            greeted=lambda: (self._peers.own, *self._peers.known.values()),
            is_connected=is_connected,
            sweep=self._sweep,
            now=self._loop.time,
        )
        self._membership = Membership(
            self._group, self.identity, hints=self._hints, is_connected=is_connected
        )
        self._topics = ClusterTopics(
            self._group,
            self._hosting,
            self._raft,
            env=self._env,
            address_of=self._address_of,
            is_connected=is_connected,
            options=self._options,
            name_is_free=self._steward.name_is_free,
        )
        self._control = Control(
            node_id=node_id,
            own_address=own_address,
            hints=self._hints,
            entrances=self._config.join,
            group=self._group,
            hosting=self._hosting,
            peers=self._peers,
            changes=GroupChanges(MemberSteps(node_id, is_connected)),
            steward=self._steward,
            spread=LeaderSpread(
                is_there=lambda node: node == node_id or is_connected(node),
                leader_of=self._leader_of,
                hand_over=self._hand_over_to,
                now=self._loop.time,
            ),
            bucket=SharedBucket(self._group, self._store, on_fatal=self._on_fatal),
            options=dataclasses.replace(self._options, retry_seconds=5.0),
            env=self._env,
            add_node=self._membership.add,
            on_removed=self._removed,
        )
        self._raft.start()
        self._control.start()
        self._group.start()

    async def _look_around(self, own_address: Address | None) -> None:
        """A directory whose log names no members yet needs to be told where the cluster is."""
        join = self._config.join
        if not self._first and not join:
            raise ConfigError(
                f"node {self.identity.node_id} has not joined its cluster yet: give --join "
                "HOST:PORT, any node of it"
            )
        if own_address is None:
            raise ConfigError(
                f"others cannot connect to {self._config.listen}: say with --advertise HOST:PORT "
                "where they reach this node"
            )
        if join and not self._hints:
            self._hints.update(addresses_in(await describe(self._config, self._env)))

    def _folded(self, state: Metadata) -> None:
        self._control.folded(state)

    async def _reconcile(self, state: Metadata) -> None:
        await self._control.follow(state)

    def _removed(self) -> None:
        self._on_fatal(
            NodeRemovedError(
                f"node {self.identity.node_id} was removed from the cluster; its directory "
                f"{self._config.data_dir} is of no more use"
            )
        )

    async def hand_over(self) -> None:
        """See `Backend`."""
        if hasattr(self, "_control"):
            # Whoever has not come to its turn is served as before, so there is no hurry.
            seconds = self._config.shutdown_seconds
            await hand_over(self._hosting.partitions.values(), self._give, seconds)

    async def close(self) -> None:
        """See `Backend`."""
        if hasattr(self, "_control"):
            await self._control.stop()
            await self._group.stop()
            left = (*self._hosting.partitions.values(), self._group.part)
            failed = await hand_over(left, self._give, HAND_OVER_SECONDS)
            if failed is None:
                logger.warning("some partitions could not be handed over in time")
            for part, error in failed or ():
                logger.warning("%s is not handed over: %s", part, error)
            await self._hosting.settle()
        await self._giving_way.stop()
        self._raft.stop()
        await self._peers.close()
        await self._face.close()

    async def _give(self, part: RaftPartition) -> None:
        await self._membership.transfer(part, None)

    # --- topics and partitions -------------------------------------------------------------------

    async def create_topic(self, request: CreateTopic) -> TopicDescription:
        """See `Backend`."""
        return await self._topics.create(request)

    async def delete_topic(self, topic: str) -> None:
        """See `Backend`."""
        await self._topics.delete(topic)

    async def topics(self) -> tuple[TopicInfo, ...]:
        """See `Backend`."""
        return self._topics.list_all()

    async def describe_topic(self, topic: str) -> TopicDescription:
        """See `Backend`."""
        return self._topics.described(await self._topics.topic(topic))

    def known_partition(self, topic: str, partition: int) -> RaftPartition | None:
        """See `Backend`."""
        known = self._group.state.topics.get(topic)
        return None if known is None else self._hosting.running(known, partition)

    async def partition(
        self, topic: str, partition: int, topic_id: str | None = None
    ) -> RaftPartition:
        """See `Backend`."""
        return await self._topics.partition(topic, partition, topic_id)

    async def search(self, request: Search) -> SearchResult:
        """See `Backend`."""
        return await self._topics.search(request)

    async def _found(self) -> tuple[MakeTopic, ...]:
        found = functools.partial(topics_found, self._store, self.identity.node_id)
        return await self._loop.run_in_executor(None, found)

    async def _sweep(self, topic: Topic) -> None:
        sweep = functools.partial(
            replicated.sweep_topic, self._store, topic.name, topic.topic_id, topic.log_ids
        )
        await self._loop.run_in_executor(None, sweep)

    # --- the node --------------------------------------------------------------------------------

    async def status(self, topic: str | None) -> StatusFound:
        """See `Backend`."""
        found = await self._standing.status(topic)
        if topic is not None and not found.store.partitions:
            await self._topics.topic(topic)  # raises if there is none
        return found

    async def run_pipeline(self) -> PipelineReport:
        """See `Backend`."""
        return await self._face.run_pipeline_once()

    async def describe_cluster(self) -> ClusterDescription:
        """See `Backend`."""
        return self._membership.describe()

    async def add_node(self, node_id: str, address: str) -> None:
        """See `Backend`."""
        self._control.hear(node_id, parse_reachable(address, what="a node's address"))
        await self._membership.add(node_id, address)

    async def remove_node(self, node_id: str) -> None:
        """See `Backend`."""
        await self._membership.remove(node_id)

    async def transfer_leader(self, topic: str, partition: int, to: str | None) -> None:
        """See `Backend`."""
        part = self._group.part if not topic else await self.partition(topic, partition)
        await self._membership.transfer(part, to)

    def _leader_of(self, group_id: str) -> str | None:
        consensus = self._raft.group(group_id)
        if consensus is not None and consensus.is_ready:
            return self.identity.node_id
        claim = self._raft.liveness.claimant(group_id)
        return None if claim is None else claim[0]

    async def _hand_over_to(self, found: Handover) -> None:
        """Ask the leader of a partition to let another lead it."""
        if found.leader == self.identity.node_id:
            await self.transfer_leader(found.topic, found.partition, found.to)
            return
        once, leader = dataclasses.replace(self._options, retry_seconds=0.0), found.leader
        servers, own = self._control.addresses_of(leader), self.identity.node_id
        async with client_of(self._env, servers, once, node_id=own) as client:
            await client.transfer_leader(found.topic, partition=found.partition, to=found.to)

    async def checks(self) -> tuple[Check, ...]:
        """See `Backend`."""
        return await self._standing.checks()

    def _address_of(self, node_id: str) -> str | None:
        found = self._control.addresses_of(node_id)
        return str(found[0]) if found else None

    # --- peers -----------------------------------------------------------------------------------

    def _check_peer(self, peer: PeerIdentity) -> None:
        """A node of this cluster, and the directory that its id belongs to (protocol 12)."""
        if peer.cluster_id != self.identity.cluster_id:
            raise IdentityMismatchError(
                f"node {peer.node_id} is of cluster {peer.cluster_id}, not of "
                f"{self.identity.cluster_id}"
            )
        if not self._peers.follows(peer.node_id):
            raise UnauthenticatedError(f"{peer.node_id} is no other node of this cluster")
        known = self._group.state.nodes.get(peer.node_id)
        if known is not None and known.node_uuid not in {None, peer.node_uuid}:
            raise IdentityMismatchError(
                f"node id {peer.node_id} belongs to directory {known.node_uuid}: a node that lost "
                "its disk comes back under a new id"
            )
        self._peers.check_only(peer)

    def _take(self, sender: str, report: NodeReport) -> None:
        self._steward.take(sender, report)

    def greet(self, peer: PeerIdentity, link: Link) -> PeerIdentity:
        """See `Backend`."""
        self._check_peer(peer)
        self._loop.call_soon(self._peers.joined, peer, link)  # behind the welcome
        return self._peers.own

    def lost(self, peer: PeerIdentity, link: Link) -> None:
        """See `Backend`."""
        self._peers.left(peer, link)

    def told(self, peer: PeerIdentity, link: Link, message: Any, payload: Buffer) -> None:
        """See `Backend`."""
        self._peers.receive(peer.node_id, link, message, payload)


def _reachable(address: Address) -> Address | None:
    return None if address.is_everywhere else address
