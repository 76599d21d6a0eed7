"""A consumer keeps offsets of one topic: in another of its name it does not go on from those."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chronik_server.client import AsyncClient
from chronik_server.client.routing import Lane, Router
from chronik_server.protocol.data import Offsets
from chronik_server.protocol.events import Response
from chronik_store.errors import TopicNotFoundError
from tests.server.cluster.nodes import clustered
from tests.server.serving import QUICK, connected, run

OLD = "ab" * 16
Connected = Callable[[Path], AbstractAsyncContextManager[AsyncClient]]


@asynccontextmanager
async def to_a_server(path: Path) -> AsyncIterator[AsyncClient]:
    async with connected(path) as (_, client):
        yield client


@asynccontextmanager
async def to_a_cluster(path: Path) -> AsyncIterator[AsyncClient]:
    async with (
        clustered(path, 1) as (node,),
        AsyncClient(node.address, options=QUICK) as client,
    ):
        yield client


both = pytest.mark.parametrize("to", [to_a_server, to_a_cluster])


async def values(consumer: Any, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        taken = await consumer.take_run()
        found += [record.value for record in taken.records]
    return found


@both
def test_one_that_follows_is_told_that_its_topic_is_gone(to: Connected, tmp_path: Path) -> None:
    """It went on in the new one, without the records before the offset that it had got to."""

    async def main() -> None:
        async with to(tmp_path) as client:
            await client.create_topic("x")
            await client.append("x", [b"old 0", b"old 1"])
            async with await client.consumer(
                "x", cursor="c", follow=True, wait_seconds=0.2
            ) as consumer:
                assert [b"old 0", b"old 1"] == await values(consumer, 2)
                await client.delete_topic("x")
                made = await client.create_topic("x")
                await client.append("x", [b"new 0", b"new 1", b"new 2"])

                # What reads ahead may have asked before the other one was made.
                with pytest.raises(TopicNotFoundError, match=r"under its name since|no topic 'x'"):
                    await consumer.take_run()
                with pytest.raises(TopicNotFoundError, match="under its name since"):
                    await consumer.commit()
                assert consumer.topic_id != made.topic_id
            assert await client.cursor_offset("x", "c") is None

            async with await client.consumer("x", cursor="c") as consumer:
                assert [b"new 0", b"new 1", b"new 2"] == await values(consumer, 3)
                assert consumer.topic_id == made.topic_id
                await consumer.commit()
            assert 3 == await client.cursor_offset("x", "c")

    run(main())


@both
def test_one_whose_topic_was_deleted_is_told_so(to: Connected, tmp_path: Path) -> None:
    async def main() -> None:
        async with to(tmp_path) as client:
            await client.create_topic("x")
            await client.append("x", [b"old"])
            async with await client.consumer("x", follow=True, wait_seconds=0.2) as consumer:
                assert [b"old"] == await values(consumer, 1)
                await client.delete_topic("x")
                with pytest.raises(TopicNotFoundError, match="no topic 'x'"):
                    await consumer.take_run()

    run(main())


def answering(monkeypatch: pytest.MonkeyPatch, ids: dict[int, str | None]) -> list[str | None]:
    """The n-th answer about offsets says that it is of this topic. Which ones were asked for."""
    plain, asked = Router.ask_leader, []

    async def ask_leader(
        self: Router, lane: Lane, message: Any, *rest: Any, **options: Any
    ) -> Response:
        response = await plain(self, lane, message, *rest, **options)
        asked.append(message.topic_id)
        if isinstance(message, Offsets) and len(asked) in ids:
            told = dataclasses.replace(response.message, topic_id=ids[len(asked)])
            return response._replace(message=told)
        return response

    monkeypatch.setattr(Router, "ask_leader", ask_leader)
    return asked


@both
def test_one_that_begins_takes_no_offsets_of_two_topics(
    to: Connected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first node that is asked has not heard of the old one's end, the second has."""

    async def main() -> None:
        async with to(tmp_path) as client:
            topic_id = (await client.create_topic("x", partitions=2)).topic_id
            for partition in range(2):
                await client.append("x", [b"new"], partition=partition)
            asked = answering(monkeypatch, {1: OLD})
            async with await client.consumer("x") as consumer:
                assert [b"new", b"new"] == await values(consumer, 2)
                assert topic_id == consumer.topic_id
            # What was refused for the old one's sake was never answered.
            assert [None, None, topic_id] == asked[:3]

    run(main())


def test_a_server_that_does_not_say_is_read_by_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of an older version."""

    async def main() -> None:
        async with to_a_server(tmp_path) as client:
            await client.create_topic("x")
            await client.append("x", [b"one"])
            asked = answering(monkeypatch, {1: None})
            async with await client.consumer("x") as consumer:
                assert [b"one"] == await values(consumer, 1)
            assert {None} == set(asked)

    run(main())
