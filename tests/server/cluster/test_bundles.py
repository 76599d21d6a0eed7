"""Search bundles built anew in a cluster: by whoever leads, and by the next one what is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chronik_server.client import AsyncClient
from chronik_server.errors import NotLeaderError
from chronik_store.model import BundlesFound, BundlesRebuilt
from tests.server.cluster.nodes import InProcess, clustered, servers
from tests.server.serving import QUICK, run

SEGMENTS = 6


@asynccontextmanager
async def indexed(path: Path) -> AsyncIterator[tuple[list[InProcess], AsyncClient]]:
    """Three nodes; a topic of some segments, with their bundles in the bucket."""
    async with (
        clustered(path, 3) as nodes,
        AsyncClient(servers(nodes), options=QUICK) as client,
    ):
        await client.create_topic("x")
        for _ in range(SEGMENTS):
            await client.append("x", [b"needle %d" % number for number in range(10)])
            await client.seal("x")
        while len(await keys(client)) < SEGMENTS:
            node = await leader(nodes)
            await asyncio.to_thread(node.backend._store.run_pipeline_once)
        yield nodes, client


async def keys(client: AsyncClient) -> tuple[str, ...]:
    return (await client.find_bundles("x", everything=True)).keys


async def leader(nodes: list[InProcess]) -> InProcess:
    while True:
        for node in nodes:
            if node.leads("x"):
                return node
        await asyncio.sleep(0.02)


def part_of(node: InProcess) -> Any:
    return node.backend.known_partition("x", 0)


def wanted_of(node: InProcess) -> frozenset[str]:
    lane = node.backend._store._assembly.pipeline._lanes.get(("x", 0))
    return frozenset() if lane is None else lane.rebuild


def test_only_the_leader_finds_and_builds_and_the_others_name_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with indexed(tmp_path) as (nodes, client):
            first = await keys(client)
            lead = await leader(nodes)
            for node in nodes:
                if node is lead:
                    continue
                part = part_of(node)
                for call in (
                    lambda part=part: part.find_bundles(0, everything=True),
                    lambda part=part: part.rebuild_bundles(first),
                ):
                    with pytest.raises(NotLeaderError) as caught:
                        await call()
                    assert lead.address == caught.value.address
                assert not wanted_of(node), "it would build them once it leads, unasked"
            assert first == await keys(client)
            (tmp_path / "bucket" / first[2]).unlink()
            assert BundlesFound((first[2],)) == await client.find_bundles("x")
            assert BundlesRebuilt(1) == await client.rebuild_bundles("x", first[2:3])
            assert BundlesFound(()) == await client.find_bundles("x")
            again = await keys(client)
            assert [2] == [at for at in range(SEGMENTS) if again[at] != first[at]]
            found = await client.search("x", "needle", require_complete=True)
            assert 10 * SEGMENTS == found.total

    run(main())


def test_who_comes_to_lead_half_way_builds_what_is_left_and_nothing_twice(tmp_path: Path) -> None:
    async def main() -> None:
        async with indexed(tmp_path) as (nodes, client):
            first = await keys(client)
            begun = await client.rebuild_bundles("x", first)
            assert BundlesRebuilt(4, first[4:]) == begun
            built = (await keys(client))[:4]
            lead = await leader(nodes)
            other = next(node for node in nodes if node is not lead)
            await client.transfer_leader("x", to=other.node_id)
            assert BundlesRebuilt(SEGMENTS) == await client.rebuild_bundles("x", first)
            assert other.leads("x")
            assert built == (await keys(client))[:4]
            assert not set(first) & set(await keys(client))

    run(main())


def test_who_loses_the_lead_while_it_builds_names_the_next(tmp_path: Path) -> None:
    """It has built nothing more by then: a run ends where it next looks at its term."""

    async def main() -> None:
        async with indexed(tmp_path) as (nodes, client):
            first = await keys(client)
            lead = await leader(nodes)
            other = next(node for node in nodes if node is not lead)
            part, bundles = part_of(lead), part_of(lead)._bundles
            step = bundles.rebuild

            async def deposed(core: Any, wanted: Any) -> BundlesRebuilt:
                await client.transfer_leader("x", to=other.node_id)
                found: BundlesRebuilt = await step(core, wanted)
                return found

            bundles.rebuild = deposed
            with pytest.raises(NotLeaderError):
                await part.rebuild_bundles(first)
            bundles.rebuild = step
            assert first == await keys(client)
            assert BundlesRebuilt(4, first[4:]) == await client.rebuild_bundles("x", first)

    run(main())
