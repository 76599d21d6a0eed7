"""A topic gets more partitions while nodes serve it: clients that knew it, nodes that were away."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from chronik_server.addresses import parse_address
from chronik_server.client import AsyncClient
from chronik_server.metadata import Metadata
from chronik_server.protocol.topics import TopicDescription
from chronik_store.errors import TopicExistsError, TopicNotFoundError
from tests.server.cluster.nodes import InProcess, clustered, servers, start
from tests.server.serving import QUICK, run


async def until_it_has(node: InProcess, topic: str, partition: int, end: int) -> None:
    """A node runs a partition, has a vote in it, and knows so much of it to be committed."""
    while True:
        part = node.backend.known_partition(topic, partition)
        if part is not None and part.log.watermarks.committed >= end:
            assert not part.core.replica.suspect
            return
        await asyncio.sleep(0.02)


def newest_state(nodes: list[InProcess]) -> Metadata:
    """Of the node that leads the metadata, which has applied what it has answered."""
    groups = [node.backend._group for node in nodes]
    (state,) = [each.state for each in groups if each.part.consensus.is_ready]
    assert isinstance(state, Metadata)
    return state


def test_a_client_that_knew_the_topic_appends_reads_and_searches_what_is_new(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with (
            clustered(tmp_path, 3) as nodes,
            AsyncClient(servers(nodes), options=QUICK) as old,
            AsyncClient(servers(nodes), options=QUICK) as other,
        ):
            made = await old.create_topic("events", partitions=2)
            for number in range(2):
                await old.append("events", b"found before", partition=number)
            with pytest.raises(TopicNotFoundError, match="0 to 1, not 3"):
                await old.append("events", b"too early", partition=3)
            with pytest.raises(TopicExistsError):
                await other.create_topic("events", partitions=4)
            grown = await other.create_topic("events", partitions=4, exist_ok=True)
            assert (made.topic_id, 4) == (grown.topic_id, len(grown.partitions))

            for number in range(4):
                await old.append("events", b"found behind", partition=number)
            assert b"found behind" == (await old.read("events", 0, partition=3)).records[0].value
            for node in nodes:
                for number, end in enumerate((2, 2, 1, 1)):
                    await until_it_has(node, "events", number, end)
            found = await old.search("events", "found", require_complete=True)
            assert (6, {0, 1, 2, 3}) == (found.total, {hit.partition for hit in found.hits})
            assert [4] == [info.partitions for info in await old.topics()]
            for node in nodes:
                async with AsyncClient(node.address, options=QUICK) as client:
                    status = await client.status("events")
                assert [0, 1, 2, 3] == [part.partition for part in status.store.partitions]
                assert {made.topic_id} == {part.topic_id for part in status.store.partitions}

    run(main())


def test_asked_for_again_or_for_fewer_nothing_changes(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            clustered(tmp_path, 1) as nodes,
            AsyncClient(servers(nodes), options=QUICK) as client,
        ):
            await client.create_topic("events", partitions=2)
            for wanted in (3, 3, 2, 1):
                found = await client.create_topic("events", partitions=wanted, exist_ok=True)
                assert 3 == len(found.partitions)

    run(main())


def test_many_growths_at_once_end_in_the_widest(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            clustered(tmp_path, 2) as nodes,
            AsyncClient(nodes[0].address, options=QUICK) as one,
            AsyncClient(nodes[1].address, options=QUICK) as two,
        ):
            await one.create_topic("events")
            wanted = (2, 5, 3, 5, 4, 5, 2, 3)
            found = await asyncio.gather(
                *(
                    client.create_topic("events", partitions=count, exist_ok=True)
                    for client, count in zip((one, two) * 4, wanted, strict=True)
                )
            )
            assert all(
                len(each.partitions) >= count for each, count in zip(found, wanted, strict=True)
            )
            assert 5 == len((await one.describe_topic("events")).partitions)
            state = newest_state(nodes)
            assert 5 == len(set(state.topics["events"].log_ids))
            counted = Counter(node for place in state.places() for node in place.replicas)
            assert counted == state.load
            for number in range(5):
                assert 0 == (await two.append("events", b"x", partition=number)).base_offset

    run(main())


def test_a_deletion_and_a_growth_at_once_end_in_one_of_the_two(tmp_path: Path) -> None:
    """The topic is gone, or another one of that name has all that was asked for."""

    async def main() -> None:
        async with (
            clustered(tmp_path, 2) as nodes,
            AsyncClient(nodes[0].address, options=QUICK) as one,
            AsyncClient(nodes[1].address, options=QUICK) as two,
        ):
            ends = set()
            for turn in range(6):
                name = f"t{turn}"
                old = await one.create_topic(name)
                calls = [
                    one.create_topic(name, partitions=3, exist_ok=True),
                    two.delete_topic(name),
                ]
                if turn % 2:
                    calls.reverse()
                found = await asyncio.gather(*calls)
                grown = next(each for each in found if isinstance(each, TopicDescription))
                assert 3 == len(grown.partitions)
                left = newest_state(nodes).topics.get(name)
                if left is None:
                    assert old.topic_id == grown.topic_id
                    ends.add("deleted")
                    continue
                assert (grown.topic_id, 3) == (left.topic_id, left.partitions)
                assert old.topic_id != left.topic_id
                ends.add("made anew")
                for number in range(3):
                    await one.append(name, b"x", partition=number)
            assert ends

    run(main())


def test_a_node_that_was_away_has_its_part_of_it_when_it_is_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with clustered(tmp_path, 3) as nodes:
            peers = tuple((node.node_id, parse_address(node.address)) for node in nodes)
            async with AsyncClient(servers(nodes), options=QUICK) as client:
                await client.create_topic("events", partitions=2)
                for number in range(2):
                    await client.append("events", b"before", partition=number)
                away = nodes[2]
                await away.server.stop()
                grown = await client.create_topic("events", partitions=4, exist_ok=True)
                places = [place.replicas for place in grown.partitions]
                assert [("1", "2", "3")] * 4 == places
                for number in range(4):
                    await client.append("events", b"meanwhile", partition=number)
                nodes[2] = await start(tmp_path, "3", peers)
                for number, end in enumerate((2, 2, 1, 1)):
                    await until_it_has(nodes[2], "events", number, end)
                await client.create_topic("events", partitions=5, exist_ok=True)
                await client.append("events", b"behind", partition=4)
                await until_it_has(nodes[2], "events", 4, 1)

    run(main())


def test_nodes_that_all_restart_have_them_and_what_was_said_in_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with clustered(tmp_path, 3) as nodes:
            peers = tuple((node.node_id, parse_address(node.address)) for node in nodes)
            async with AsyncClient(servers(nodes), options=QUICK) as client:
                made = await client.create_topic("events")
                await client.create_topic("events", partitions=3, exist_ok=True)
                for number in range(3):
                    await client.append("events", b"kept", partition=number)
            for node in nodes:
                await node.server.stop()
            nodes[:] = [await start(tmp_path, node_id, peers) for node_id, _ in peers]
            async with AsyncClient(servers(nodes), options=QUICK) as client:
                for number in range(3):
                    found = await client.read(
                        "events", 0, partition=number, consistency="linearizable"
                    )
                    assert [b"kept"] == [record.value for record in found]
                    assert 1 == (await client.append("events", b"x", partition=number)).base_offset
                for node in nodes:
                    for number in range(3):
                        await until_it_has(node, "events", number, 2)
                described = await client.describe_topic("events")
                assert (made.topic_id, 3) == (described.topic_id, len(described.partitions))

    run(main())


@pytest.mark.parametrize("replicas", [1, None], ids=["one copy", "all"])
def test_what_was_added_is_deleted_with_its_topic(tmp_path: Path, replicas: int | None) -> None:
    async def main() -> None:
        async with (
            clustered(tmp_path, 2) as nodes,
            AsyncClient(servers(nodes), options=QUICK) as client,
        ):
            await client.create_topic("events", replicas=replicas)
            await client.create_topic("events", partitions=3, exist_ok=True)
            for number in range(3):
                await client.append("events", b"x" * 100, partition=number)
                await client.seal("events", partition=number)
            for node in nodes:
                async with AsyncClient(node.address, options=QUICK) as there:
                    await there.run_pipeline_once()
            bucket = tmp_path / "bucket"
            assert {"0", "1", "2"} == {path.name for path in bucket.glob("segments/events/*")}
            await client.delete_topic("events")

            def left() -> list[Path]:
                wals = [path for node in "12" for path in (tmp_path / node).glob("wal/events/*")]
                objects = [each for each in bucket.rglob("*") if "/events/" in str(each)]
                return [*wals, *(each for each in objects if each.is_file())]

            while left():  # noqa: ASYNC110 (`run` bounds it)
                await asyncio.sleep(0.05)
            await client.create_topic("events", partitions=3)
            for number in range(3):
                assert 0 == (await client.append("events", b"y", partition=number)).base_offset

    run(main())
