"""The hosting of one node over a real directory, and the metadata that it follows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from chronik_server.hosting import Hosting
from chronik_server.metadata import Metadata, group_of
from chronik_server.metadata_commands import (
    Command,
    MakeTopic,
    PlacePartition,
    SettlePartition,
)
from chronik_server.raft.node import RaftNode
from chronik_store import LogConfig
from chronik_store.aio import AsyncLogStore
from chronik_store.environment import Environment
from chronik_store.log_store import LogStore
from chronik_store.replicated import has_partition, open_as_node

CLUSTER, A, B, LOG = "ee" * 16, "aa" * 16, "bb" * 16, "cc" * 16
EVENTS = MakeTopic("events", A, (LOG, "dd" * 16), 2, (("1", "2"), ("2", "3")))


class Silence:
    """A transport to nowhere."""

    def send(self, peer: str, group_id: str, message: object) -> None:
        """Lost."""


class Here:
    """Node "1" over a directory."""

    def __init__(self, store: LogStore) -> None:
        self.store = store
        self.raft = RaftNode(
            "1", boot_id="f0" * 16, transport=Silence(), on_fatal=lambda _group, error: None
        )
        self.face = AsyncLogStore(store)
        self.hosting = Hosting(
            store, self.face, self.raft, address_of=lambda _node: None, on_full=lambda _part: None
        )

    def holds(self, name: str, partition: int) -> bool:
        return has_partition(self.store, name, partition)

    def runs(self, topic_id: str, partition: int) -> bool:
        return self.raft.group(group_of(topic_id, partition)) is not None


def on_node(path: Path, *acts: Callable[[Here], Awaitable[None]]) -> None:
    """Each act in a life of its own of the same node."""

    async def live(act: Callable[[Here], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()

        def dispatch(call: Callable[[], None]) -> None:
            loop.call_soon_threadsafe(call)

        def opener() -> LogStore:
            return open_as_node(
                path / "1", cluster_id=CLUSTER, node_id="1", env=Environment(),
                dispatch=dispatch,
                config=LogConfig(object_store=f"file://{path}/bucket", pipeline_enabled=False),
            )  # fmt: skip

        here = Here(await loop.run_in_executor(None, opener))
        try:
            await act(here)
        finally:
            here.raft.stop()
            await here.face.close()

    for act in acts:
        asyncio.run(live(act))


def fold(*commands: Command) -> Metadata:
    state = Metadata()
    for command in commands:
        state.apply(command, state.offset)
    return state


MOVED: tuple[Command, ...] = (EVENTS, PlacePartition(A, 0, ("2", "3")), SettlePartition(A, 0, 1))
"""Partition 0 was here, and has left."""
BACK: tuple[Command, ...] = (*MOVED, PlacePartition(A, 0, ("1", "2")))
