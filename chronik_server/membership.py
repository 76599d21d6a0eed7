"""The verbs about nodes and leaders: describe, add, remove, transfer.

Place: under `raft_backend`, over `metadata_group`. Promise: adding and removing record a wish and
return once it is committed; the reconcilers do the rest. What a person most likely did not mean is
refused: a used-up id, the last node, a removal that would leave too few nodes to decide anything.
Invariant: the node that leads the metadata answers; the others name it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from chronik_server import metadata_commands as commands
from chronik_server.addresses import Address, parse_reachable
from chronik_server.backend import NodeIdentity
from chronik_server.config import check_node_id
from chronik_server.metadata import Metadata
from chronik_server.metadata_group import MetadataGroup
from chronik_server.protocol.cluster import ClusterDescription, NodeInfo
from chronik_server.protocol.topics import NODES_MAX
from chronik_server.raft_partition import RaftPartition
from chronik_store.errors import ChronikError, ConfigError, UnavailableError

BEHIND_ENTRIES_MAX = 10_000
"""So far behind a node is not given a partition to lead: appends would wait for it."""

SUCCESSOR_SECONDS = 1.0
"""So long after its leadership has ended a node waits to hear of the next leader."""


class Membership:
    """See the module. Belongs to the event loop."""

    def __init__(
        self,
        group: MetadataGroup,
        identity: NodeIdentity,
        *,
        hints: dict[str, Address],
        is_connected: Callable[[str], bool],
    ) -> None:
        self._group = group
        self._identity = identity
        self._hints = hints
        self._is_connected = is_connected

    @property
    def _state(self) -> Metadata:
        return self._group.state

    def _must_lead(self) -> None:
        part = self._group.part
        if not part.consensus.is_ready:
            raise part.not_leader()
        if not self._group.is_current or not self._state.nodes:
            raise UnavailableError("the cluster's nodes are not known here yet; ask again")

    def describe(self) -> ClusterDescription:
        """The registry, or what the settings say until it is there."""
        found = [
            NodeInfo(node.node_id, node.address, node.node_uuid, node.state)
            for node in self._state.nodes.values()
        ] or [NodeInfo(node_id, str(address)) for node_id, address in self._hints.items()]
        cluster_id, node_id, _, _ = self._identity
        leader = self._group.part.consensus.leader
        nodes = tuple(sorted(found, key=lambda node: node.node_id))
        bucket = self._state.bucket
        digest, url = ("", "") if bucket is None else (bucket.digest, bucket.url)
        return ClusterDescription(cluster_id, node_id, nodes, leader, bucket=digest, bucket_url=url)

    async def add(self, node_id: str, address: str) -> None:
        """Let a node join under an id that nobody had; or tell where a known one is now."""
        check_node_id(node_id)
        address = str(parse_reachable(address, what="a node's address"))
        self._must_lead()
        known = self._state.nodes.get(node_id)
        has_moved = known is not None and known.address != address
        if known is not None and (
            known.state == "removed" or (known.state == "leaving" and not has_moved)
        ):
            raise ConfigError(
                f"node {node_id} {'was removed' if known.state == 'removed' else 'is leaving'}: "
                "an id is used once, so let it join under a new one, with an empty directory"
            )
        if known is None:
            for other in self._state.nodes.values():
                if other.address == address and other.state != "removed":
                    raise ConfigError(f"{address} is the address of node {other.node_id}")
            if len(self._state.nodes) >= NODES_MAX:
                raise ConfigError(f"a cluster has at most {NODES_MAX} nodes, removed ones included")
            await self._group.command(commands.AdmitNode(node_id, address))
        elif has_moved:
            await self._group.command(commands.MoveNode(node_id, address))

    async def remove(self, node_id: str) -> None:
        """Let a node leave: its partitions move first, if it or others still have them."""
        self._must_lead()
        state = self._state.state_of(node_id)
        if state is None:
            known = ", ".join(sorted(self._state.nodes))
            raise ConfigError(f"there is no node {node_id!r} (nodes: {known})")
        if state in {"leaving", "removed"}:
            return
        staying = [node for node in self._state.nodes_in("member") if node != node_id]
        if not staying:
            raise ConfigError(f"node {node_id} is the last one: stop it instead")
        own = self._identity.node_id
        away = [node for node in staying if node != own and not self._is_connected(node)]
        if state == "member" and 2 * len(away) >= len(staying):
            raise UnavailableError(
                f"without node {node_id} the nodes that are away ({', '.join(away)}) would be too "
                "many for a majority: bring them back, or remove them first"
            )
        await self._group.command(commands.RetireNode(node_id))

    async def transfer(self, part: RaftPartition, to: str | None) -> None:
        """Hand a group over to a voter that is connected and has almost all of it."""
        status = part.consensus.status()
        if not part.consensus.is_ready:
            raise part.not_leader()
        own = self._identity.node_id
        if to == own:
            return
        able = {
            each.peer: each.match_index
            for each in status.peers
            if each.peer in status.voters
            and not each.is_suspect
            and not each.is_full
            and self._is_connected(each.peer)
            and status.last_index - each.match_index <= BEHIND_ENTRIES_MAX
        }
        if to is None and able:
            to = max(able, key=lambda peer: (able[peer], peer))
        if to is None:
            raise UnavailableError(
                "no other voter is connected and up to date", durability="not_durable"
            )
        if to not in status.voters:
            raise ConfigError(
                f"node {to} cannot lead {part}: it has no vote there ({', '.join(status.voters)})"
            )
        if to not in able:
            raise UnavailableError(
                f"node {to} is away, too far behind to lead, or its disk is full; ask again later"
            )
        try:
            await part.consensus.transfer(to)
        except TimeoutError as error:
            raise UnavailableError(f"{to} did not take over in time") from error
        except ChronikError as error:
            raise part.translated(error) from error
        # Our part ends when the other asks for votes, of which ours may be one that it needs.
        with suppress(TimeoutError):
            async with asyncio.timeout(SUCCESSOR_SECONDS):
                while part.consensus.leader in {None, own}:  # noqa: ASYNC110 (it has no event)
                    await asyncio.sleep(0.01)
