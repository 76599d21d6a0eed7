"""What a person gets wrong about nodes and leaders: what is said then, and how soon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chronik_server import control
from chronik_server.addresses import Address, parse_address
from chronik_server.backend import NodeRemovedError, StoppedError
from chronik_server.client import AsyncClient
from chronik_server.config import ServerConfig
from chronik_server.node import _join, open_backend
from chronik_server.protocol.cluster import ClusterDescription, NodeInfo
from chronik_store.config import LogConfig
from chronik_store.environment import Environment
from chronik_store.errors import ConfigError
from tests.ports import free_port
from tests.server.cluster import nodes as nodes_module
from tests.server.cluster.nodes import clustered, servers
from tests.server.serving import QUICK, run


def test_a_node_that_waits_for_the_cluster_it_joins_ends_when_it_is_asked_to(
    tmp_path: Path,
) -> None:
    """Ctrl-C did nothing for 30 s, after which it ended with an error."""
    config = ServerConfig(
        data_dir=f"{tmp_path}/4", node_id="4", join=(Address("127.0.0.1", free_port()),)
    )

    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, stop.set)
        log = LogConfig(object_store=f"file://{tmp_path}/bucket")
        opening = open_backend(config, log, lambda _: None, env=Environment(), stop=stop)
        with pytest.raises(StoppedError):
            await asyncio.wait_for(opening, 10)

    run(main())
    assert [] == list(tmp_path.iterdir())


def test_an_id_that_was_removed_is_used_up_and_not_one_whose_disk_is_lost(tmp_path: Path) -> None:
    """It told to remove the node that had been removed."""
    config = ServerConfig(data_dir=f"{tmp_path}/4", node_id="4")
    removed = NodeInfo("4", "127.0.0.1:7411", "5" * 32, "removed")
    found = ClusterDescription("c" * 32, "1", (removed,), "1")

    async def main() -> None:
        with pytest.raises(ConfigError, match="node id 4 is used up"):
            await _join(config, LogConfig(), lambda _: None, Environment(), found)

    run(main())


def test_a_node_that_cannot_lead_is_told_of_the_topic_by_its_name(tmp_path: Path) -> None:
    """It said the topic's id, which no command takes."""

    async def main() -> None:
        async with (
            clustered(tmp_path, 1) as nodes,
            AsyncClient(servers(nodes), options=QUICK) as client,
        ):
            await client.create_topic("x")
            await client.append("x", [b"a"])
            with pytest.raises(ConfigError, match=r"node 9 cannot lead x/0: .* \(1\)"):
                await client.transfer_leader("x", to="9")

    run(main())


def test_a_node_that_was_removed_while_it_was_away_ends_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody called it any more, and it waited for a leader for good, without a word."""
    ended: list[BaseException] = []
    monkeypatch.setattr(nodes_module, "_failed", ended.append)
    monkeypatch.setattr(control, "ASK_SECONDS", 0.1)

    async def main() -> None:
        async with (
            clustered(tmp_path, 3) as nodes,
            AsyncClient(servers(nodes[:2]), options=QUICK) as client,
        ):
            await client.create_topic("x")
            peers = tuple((node.node_id, parse_address(node.address)) for node in nodes)
            known = (await client.cluster()).nodes
            while any(node.node_uuid is None for node in known):
                await asyncio.sleep(0.05)
                known = (await client.cluster()).nodes
            await nodes[2].server.stop()
            await client.remove_node("3")
            while known[2].state != "removed":
                await asyncio.sleep(0.05)
                known = (await client.cluster()).nodes
            back = await nodes_module.start(tmp_path, "3", peers)
            try:
                for _ in range(200):
                    if ended:
                        break
                    await asyncio.sleep(0.05)
            finally:
                await back.server.stop()

    run(main())
    assert {type(error) for error in ended} == {NodeRemovedError}
