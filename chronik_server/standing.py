"""How a node of a cluster stands: its partitions, and what is wrong with them.

Place: under `raft_backend`; what `status` and the health checks of one node answer. Promise: what
could not be opened or run here is said with its reason, once. Invariant: other nodes are not asked.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable

from chronik_server.backend import Check, fault_of
from chronik_server.hosting import Hosting
from chronik_server.metadata import METADATA_TOPIC
from chronik_server.metadata_group import MetadataGroup
from chronik_server.protocol.cluster import StatusFound
from chronik_store.each_partition import damage_of
from chronik_store.log_store import LogStore
from chronik_store.model import StoreStatus


class Standing:
    """See the module. Belongs to the event loop."""

    def __init__(
        self, store: LogStore, hosting: Hosting, group: MetadataGroup, node_id: str
    ) -> None:
        self._store = store
        self._hosting = hosting
        self._group = group
        self._node_id = node_id

    async def status(self, topic: str | None) -> StatusFound:
        """Of the partitions of one topic, or of all; those of the metadata are not shown."""
        status = await self._of_store()
        parts = tuple(
            part
            for part in status.partitions
            if part.topic != METADATA_TOPIC and topic in {None, part.topic}
        )
        roles = tuple(
            part.role()
            for key, part in sorted(self._hosting.partitions.items())
            if topic in {None, key[0]}
        )
        found = dataclasses.replace(
            status,
            partitions=parts,
            unavailable=self._unavailable(status),
            damaged=_each_once(status.damaged, damage_of(self._hosting.unopened.values())),
        )
        return StatusFound(found, roles, self._node_id)

    async def checks(self) -> tuple[Check, ...]:
        """See `Backend.checks`."""
        status = await self._of_store()
        faults = filter(None, map(fault_of, status.partitions))
        leaderless = [
            f"{topic}/{number}{part.doubt}"
            for (topic, number), part in self._hosting.partitions.items()
            if part.consensus.leader is None
        ]
        return (
            Check("log", "; ".join((*faults, *self._unavailable(status)))),
            Check("metadata", self._metadata_fault()),
            Check("leaders", "nobody leads " + ", ".join(leaderless) if leaderless else ""),
        )

    async def _of_store(self) -> StoreStatus:
        return await asyncio.get_running_loop().run_in_executor(None, self._store.status)

    def _unavailable(self, status: StoreStatus) -> tuple[str, ...]:
        return _each_once(status.unavailable, map(str, self._hosting.unopened.values()))

    def _metadata_fault(self) -> str:
        if self._group.part.consensus.leader is None:
            return "nobody leads the cluster's metadata"
        state = self._group.state.state_of(self._node_id)
        return "" if state == "member" else f"this node is {state or 'not known to the cluster'}"


def _each_once(of_store: Iterable[str], of_groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*of_store, *of_groups)))
