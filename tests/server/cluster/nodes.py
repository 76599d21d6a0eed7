"""Nodes of a cluster in this process, on free ports of loopback, for one test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from chronik_server import raft_backend
from chronik_server.addresses import Address
from chronik_server.config import ServerConfig
from chronik_server.node import open_backend
from chronik_server.raft import RaftSettings
from chronik_server.raft.node import RaftNode
from chronik_server.raft_backend import RaftBackend
from chronik_server.server import Server
from chronik_store.clock import SystemClock
from chronik_store.config import LogConfig
from chronik_store.environment import Environment
from tests.ports import free_ports

ALONE = RaftSettings(
    heartbeat_seconds=0.05, election_seconds_min=0.1, election_seconds_max=0.2, lost_seconds=0.1
)
"""For a node that nobody else could be late for: it waits for no other one to speak."""
TOGETHER = RaftSettings(
    heartbeat_seconds=0.1, election_seconds_min=0.4, election_seconds_max=0.8, lost_seconds=0.2,
    check_quorum_seconds=0.8,
)  # fmt: skip
"""For nodes that share a process: what holds one up holds up all."""


@dataclass
class InProcess:
    """One node."""

    node_id: str
    address: str
    server: Server
    backend: Any
    """A RaftBackend; tests look behind its face."""

    def leads(self, topic: str) -> bool:
        part = self.backend.known_partition(topic, 0)
        return part is not None and bool(part.consensus.is_ready)


def _failed(error: BaseException) -> None:
    raise AssertionError("a node would end its process") from error


async def start(
    path: Path, node_id: str, peers: tuple[tuple[str, Address], ...], **settings: Any
) -> InProcess:
    """A node of the cluster that begins with these."""
    log = LogConfig(
        object_store=f"file://{path}/bucket", pipeline_enabled=False,
        disk_reserve_bytes=0, disk_throttle_bytes=0,
    )  # fmt: skip
    config = ServerConfig(
        data_dir=f"{path}/{node_id}", node_id=node_id, listen=dict(peers)[node_id], peers=peers,
        shutdown_seconds=2.0, **settings,
    )  # fmt: skip
    raft = partial(RaftNode, settings=ALONE if len(peers) == 1 else TOGETHER)
    with mock.patch.object(raft_backend, "RaftNode", raft):
        backend = await open_backend(config, log, _failed, env=Environment())
    assert isinstance(backend, RaftBackend)
    server = Server(backend, config, clock=SystemClock(), batch_bytes_max=log.batch_bytes_max)
    return InProcess(node_id, str(await server.start()), server, backend)


@asynccontextmanager
async def clustered(path: Path, count: int, **settings: Any) -> AsyncIterator[list[InProcess]]:
    """So many nodes, stopped at the end if the test has not."""
    peers = tuple(
        (str(number), Address("127.0.0.1", port))
        for number, port in enumerate(free_ports(count), start=1)
    )
    nodes = [await start(path, node_id, peers, **settings) for node_id, _ in peers]
    try:
        yield nodes
    finally:
        for node in nodes:
            await node.server.stop()


def servers(nodes: list[InProcess]) -> str:
    """As a client takes them."""
    return ",".join(node.address for node in nodes)
