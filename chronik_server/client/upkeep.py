"""What an operator asks of a cluster: its state, its nodes, its leaders, its pipeline.

Place: a part of `AsyncClient`, over `routing`. Promise: as of the client. Invariant: each call is
one question; what is only begun when it is answered says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from chronik_server.client.routing import Router
from chronik_server.protocol import cluster
from chronik_server.protocol.greeting import Ping, Pong
from chronik_store.arguments import check_offset
from chronik_store.model import BundlesFound, BundlesRebuilt, PipelineReport


class Upkeep:
    """See the module. Errors: those of `AsyncClient`, and what each call names."""

    router: Router

    async def seal(self, topic: str, *, partition: int = 0) -> int:
        """As `PartitionLog.seal`."""
        answer = await self.router.ask_leader((topic, partition), cluster.Seal(topic, partition))
        return cast("cluster.Sealed", answer.message).offset

    async def drop_before(self, topic: str, offset: int, *, partition: int = 0) -> None:
        """As `PartitionLog.drop_before`."""
        check_offset(offset, "offset")
        message = cluster.DropBefore(topic, partition, offset)
        await self.router.ask_leader((topic, partition), message)

    async def run_pipeline_once(self) -> PipelineReport:
        """One pipeline step on some node, for what it leads; errors are in the report."""
        answer = await self.router.ask_any(cluster.RunPipeline())
        return cast("cluster.PipelineRun", answer.message).report

    async def find_bundles(
        self, topic: str, offset: int = 0, *, partition: int = 0, everything: bool = False
    ) -> BundlesFound:
        """Keys of search bundles that are lost or damaged in the bucket, as the leader finds them.

        It looks for some seconds, from the segment of `offset` on: `next_offset` says where to go
        on, None that this was all. everything: those that are sound, too. ConfigError where
        indexing is off.
        """
        check_offset(offset, "offset")
        question = cluster.FindBundles(topic, partition, offset, everything)
        answer = await self.router.ask_leader((topic, partition), question)
        return cast("BundlesFound", answer.message)

    async def rebuild_bundles(
        self, topic: str, keys: Sequence[str], *, partition: int = 0
    ) -> BundlesRebuilt:
        """Have the leader build these search bundles anew: a bounded step, of minutes perhaps. Ask
        again with what it leaves `waiting`, until that is empty or `errors` stay.

        keys: at most 1000, of `find_bundles`. Repeatable; what was asked for is built also when
        nobody asks on, unless another node comes to lead. ConfigError: these are no such keys.
        """
        message = cluster.RebuildBundles(topic, partition, tuple(keys))
        answer = await self.router.ask_leader((topic, partition), message)
        return cast("BundlesRebuilt", answer.message)

    async def status(self, topic: str | None = None) -> cluster.StatusFound:
        """What one node says of itself and of its partitions. TopicNotFoundError."""
        answer = await self.router.ask_any(cluster.Status(topic))
        return cast("cluster.StatusFound", answer.message)

    async def cluster(self) -> cluster.ClusterDescription:
        """The nodes."""
        answer = await self.router.ask_any(cluster.DescribeCluster())
        return cast("cluster.ClusterDescription", answer.message)

    async def add_node(self, node_id: str, address: str) -> None:
        """Let a node join under an id that nobody had; or tell where a known one is now.

        address: HOST:PORT. Committed when it returns; copies follow. ConfigError when the id has
        left before, the address is another's, or the server is in no cluster.
        """
        await self.router.ask_any(cluster.AddNode(node_id, address))

    async def remove_node(self, node_id: str) -> None:
        """Let a node leave: its copies move to others first. Committed when it returns, not done.

        ConfigError when there is none of this id, or no other; UnavailableError when so many of
        the others are away that they would be no majority.
        """
        await self.router.ask_any(cluster.RemoveNode(node_id))

    async def transfer_leader(
        self, topic: str, *, partition: int = 0, to: str | None = None
    ) -> None:
        """Hand a partition's leadership over, to that node or to any that is connected. The empty
        topic is the cluster's metadata.

        The new one has every entry before it starts. ConfigError when `to` is no other voter;
        UnavailableError when it did not take over in time: the old leader goes on.
        """
        message = cluster.TransferLeader(topic, partition, to)
        if topic:
            await self.router.ask_leader((topic, partition), message, repeatable=to is not None)
        else:  # it has no description to look its leader up in
            await self.router.ask_any(message, repeatable=to is not None)

    async def ping(self) -> int:
        """Some node's wall clock, microseconds since 1970 UTC."""
        found: Pong = (await self.router.ask_any(Ping())).message
        return found.time_us
