"""A node whose newest checkpoint is damaged, on the strength of which older files were pruned."""

from __future__ import annotations

import asyncio
from pathlib import Path

from chronik_server.addresses import parse_address
from chronik_server.client import AsyncClient
from tests.server.cluster.nodes import InProcess, clustered, servers, start
from tests.server.serving import QUICK, run

FIRST = "wal_00000000000000000002.log"


async def piped(node: InProcess) -> None:
    """Upload, publish and prune, as far as it is this node's to do."""
    for _ in range(3):
        await asyncio.to_thread(node.backend._store.run_pipeline_once)


def unpruned(path: Path) -> list[Path]:
    return list(path.glob(f"*/wal/x/0/{FIRST}"))


def segments(node: InProcess) -> int:
    part = node.backend.known_partition("x", 0)
    return 0 if part is None else len(part.core.manifest.segments)


def test_it_begins_anew_and_does_not_fold_what_is_left_into_a_state_that_never_was(
    tmp_path: Path,
) -> None:
    """It voted again with the end of the log and no segments: as leader it said that the records
    were in no tier. A log without any readable checkpoint did not know its own id, refused every
    snapshot, and had no vote for good.
    """

    async def main() -> None:
        async with (
            clustered(tmp_path, 3) as nodes,
            AsyncClient(servers(nodes), options=QUICK) as client,
        ):
            peers = tuple((node.node_id, parse_address(node.address)) for node in nodes)
            await client.create_topic("x")
            await client.append("x", [b"%d" % number for number in range(100)])
            await client.seal("x")
            wal = tmp_path / "3" / "wal" / "x" / "0"
            for _ in range(50):
                for node in nodes:
                    await piped(node)
                if not unpruned(tmp_path):
                    break
                await asyncio.sleep(0.1)
            assert [1, 1, 1] == [segments(node) for node in nodes]
            assert not unpruned(tmp_path)
            await nodes[2].server.stop()
            newest = max(wal.glob("wal_*.log"))
            data = bytearray(newest.read_bytes())
            data[400] ^= 0xFF
            newest.write_bytes(data)
            nodes[2] = await start(tmp_path, "3", peers)
            for _ in range(100):
                if segments(nodes[2]) == 1:
                    break
                await asyncio.sleep(0.1)
            part = nodes[2].backend.known_partition("x", 0)
            assert part is not None
            assert segments(nodes[2]) == 1
            assert "suspect" == part.core.recovery.verdict

    run(main())
