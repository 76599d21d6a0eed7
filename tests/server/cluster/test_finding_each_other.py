"""Nodes that start again find each other by their own logs, however little they know to be
committed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from chronik_server.addresses import parse_address
from chronik_server.client import AsyncClient
from chronik_store.wal.wal import Wal
from tests.server.cluster.nodes import clustered, servers, start
from tests.server.serving import QUICK, run

NOTHING = property(lambda _: 0, lambda _, __: None)
"""What is known to be committed when a log is opened."""


def test_9_nodes_whose_marks_were_lost_are_told_of_each_other_by_entries_of_any_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All were killed before a mark said what is committed: none knows a registry, and none was
    given addresses.
    """

    async def main() -> None:
        async with (
            clustered(tmp_path, 3) as nodes,
            AsyncClient(servers(nodes), options=QUICK) as client,
        ):
            await client.create_topic("x")
            await client.append("x", [b"before"])
            addresses = {node.node_id: parse_address(node.address) for node in nodes}
        monkeypatch.setattr(Wal, "recovery_commit_index", NOTHING, raising=False)
        again = [await start(tmp_path, each, ((each, addresses[each]),)) for each in addresses]
        try:
            async with AsyncClient(servers(again), options=QUICK) as client:
                assert (await client.append("x", [b"after"])).base_offset == 1
        finally:
            for node in again:
                await node.server.stop()

    run(main())
