"""Real processes, killed with SIGKILL: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from chronik_server.client import AsyncClient, ClientOptions
from chronik_store.errors import ChronikError
from tests.cluster.three_nodes import OPTIONS, Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 100))


async def all_values(client: AsyncClient, topic: str, partition: int, end: int) -> list[bytes]:
    """Every record below `end`, as the node that the client knows has it."""
    values: list[bytes] = []
    while len(values) < end:
        found = await client.read(
            topic, len(values), partition=partition, max_records=10_000, wait_seconds=5,
            from_any=True,
        )  # fmt: skip
        values += [record.value for record in found]
    return values


async def eventually(check: Any, seconds: float = 30) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not check():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.2)


def test_records_reach_the_bucket_once_and_are_read_from_every_node(tmp_path: Path) -> None:
    async def main(cluster: Cluster) -> None:
        sent: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
        async with AsyncClient(cluster.servers, options=OPTIONS) as client:
            await client.create_topic("events", partitions=3)
            for number in range(5000):
                sent[number % 3].append(b"message number %d" % number)
            for partition, values in sent.items():
                for first in range(0, len(values), 100):
                    await client.append("events", values[first : first + 100], partition=partition)
                await client.seal("events", partition=partition)

        def tiered(partition: int) -> list[tuple[int, int]]:
            names = cluster.objects(f"segments/events/{partition}")
            return sorted((int(name[:20]), int(name[21:41])) for name in names)

        def covered() -> bool:
            return all(tiered(p) and tiered(p)[-1][1] == len(sent[p]) for p in sent)

        await eventually(covered)
        for partition, values in sent.items():
            ranges = tiered(partition)
            assert [0, *(end for _, end in ranges)] == [*(base for base, _ in ranges), len(values)]
        await eventually(
            lambda: all(cluster.objects(f"indexes/events/partition-{p}") for p in sent)
        )
        for address in cluster.addresses.values():
            async with AsyncClient(address, options=OPTIONS) as client:
                for partition, values in sent.items():
                    assert values == await all_values(client, "events", partition, len(values))
                assert 1 == (await client.search("events", "4999", require_complete=True)).total

    with Cluster(tmp_path) as cluster:
        run(main(cluster))


def test_a_killed_leader_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async def main(cluster: Cluster) -> None:
        acknowledged: dict[int, bytes] = {}
        pauses: list[float] = []
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with AsyncClient(cluster.servers, options=OPTIONS) as client:
            await client.create_topic("events")

            async def load(worker: int) -> None:
                number, last = 0, loop.time()
                while not done.is_set():
                    value = b"%d-%d" % (worker, number)
                    result = await client.append("events", value)
                    acknowledged[result.base_offset] = value
                    pauses.append(loop.time() - last)
                    number, last = number + 1, loop.time()

            workers = [asyncio.create_task(load(worker)) for worker in range(8)]
            await eventually(lambda: len(acknowledged) > 200)
            leader = (await client.describe_topic("events")).partitions[0].leader
            assert leader is not None
            cluster.kill(leader)
            before = len(acknowledged)
            await eventually(lambda: len(acknowledged) > before + 200)
            cluster.start(leader)
            await asyncio.sleep(1)
            done.set()
            await asyncio.gather(*workers)
            end = (await client.watermarks("events")).committed
        assert max(pauses) < 6
        for address in cluster.addresses.values():
            async with AsyncClient(address, options=OPTIONS) as client:
                values = await all_values(client, "events", 0, end)
                assert len(values) == len(set(values))
                assert acknowledged == {offset: values[offset] for offset in acknowledged}

    with Cluster(tmp_path) as cluster:
        run(main(cluster))


def test_a_cluster_killed_whole_comes_back_with_everything(tmp_path: Path) -> None:
    """What the project exists for: the replicated log is the log on disk."""

    async def fill(cluster: Cluster) -> None:
        async with AsyncClient(cluster.servers, options=OPTIONS) as client:
            await client.create_topic("events", partitions=2)
            for number in range(50):
                await client.append("events", b"%d" % number, partition=number % 2)
            await client.commit_cursor("events", "reader", 10)

    async def look(cluster: Cluster) -> None:
        async with AsyncClient(cluster.servers, options=OPTIONS) as client:
            assert ["events"] == [topic.name for topic in await client.topics()]
            for partition in (0, 1):
                await client.append("events", b"after", partition=partition)
                expected = [b"%d" % number for number in range(50) if number % 2 == partition]
                found = await all_values(client, "events", partition, len(expected) + 1)
                assert [*expected, b"after"] == found
            assert 10 == await client.cursor_offset("events", "reader")

    with Cluster(tmp_path) as cluster:
        run(fill(cluster))
        for node in cluster.addresses:
            cluster.kill(node)
        for node in cluster.addresses:
            cluster.start(node)
        run(look(cluster))


def test_without_a_quorum_nothing_is_acknowledged_and_reads_go_on(tmp_path: Path) -> None:
    async def main(cluster: Cluster) -> None:
        async with AsyncClient(cluster.servers, options=OPTIONS) as client:
            await client.create_topic("events")
            await client.append("events", [b"a", b"b"])
            await asyncio.sleep(1)
        for node in ("2", "3"):
            cluster.kill(node)
        options = ClientOptions(connect_seconds=1, request_seconds=2, retry_seconds=3)
        async with AsyncClient(cluster.addresses["1"], options=options) as client:
            assert [b"a", b"b"] == await all_values(client, "events", 0, 2)
            with pytest.raises(ChronikError) as caught:
                await client.append("events", b"lost?")
            assert caught.value.durability in {"unknown", "not_durable"}
            with pytest.raises(ChronikError):
                await client.create_topic("more")
        cluster.start("2")
        async with AsyncClient(cluster.servers, options=OPTIONS) as client:
            await client.append("events", b"c")
            assert b"c" in [record.value for record in await client.read("events", 0)]

    with Cluster(tmp_path) as cluster:
        run(main(cluster))


def test_a_node_stops_gracefully_and_hands_over(tmp_path: Path) -> None:
    async def main(cluster: Cluster) -> None:
        async with AsyncClient(cluster.servers, options=OPTIONS) as client:
            await client.create_topic("events")
            await client.append("events", b"a")
            leader = (await client.describe_topic("events")).partitions[0].leader
            assert leader is not None
            assert 0 == await asyncio.to_thread(cluster.kill, leader, signal.SIGTERM)
            assert 1 == (await client.append("events", b"b")).base_offset

    with Cluster(tmp_path) as cluster:
        run(main(cluster))


def test_a_node_far_behind_begins_at_the_bucket_even_under_a_leader_that_restarted(
    tmp_path: Path,
) -> None:
    """Its WAL files are gone everywhere: it gets a manifest, and reads the rest from the bucket."""

    async def fill(cluster: Cluster) -> None:
        async with AsyncClient(cluster.servers, options=OPTIONS) as client:
            await client.create_topic("events")
            await client.append("events", b"first")
            await asyncio.sleep(1)
            cluster.kill("3")
            for number in range(30):
                await client.append("events", [b"%d-%d" % (number, n) for n in range(100)])
            await client.seal("events")
            await asyncio.sleep(3)

    async def look(cluster: Cluster) -> None:
        async with AsyncClient(cluster.addresses["3"], options=OPTIONS) as client:
            values = await all_values(client, "events", 0, 3001)
            assert (b"first", b"29-99") == (values[0], values[-1])

    with Cluster(tmp_path) as cluster:
        run(fill(cluster))
        for node in ("1", "2"):
            cluster.kill(node)
        for node in cluster.addresses:
            cluster.start(node)
        run(look(cluster))
