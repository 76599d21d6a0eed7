"""A topic gets more partitions while a producer and a consumer of all of it are at work."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from chronik_server.client import AsyncClient, async_client, consumer, producer
from chronik_server.client.partitioning import partition_of
from chronik_server.client.routing import Router
from chronik_server.errors import ConnectionLostError
from chronik_server.protocol.events import Response
from chronik_server.protocol.topics import DescribeTopic
from chronik_store.errors import TopicNotFoundError, UnavailableError
from tests.server.client.test_one_topic import Connected, both, values
from tests.server.serving import ONCE, QUICK, connected, run, serving

KEY = b"a"
assert partition_of(KEY, 2) != partition_of(KEY, 4) >= 2


async def grow(client: AsyncClient, partitions: int) -> None:
    await client.create_topic("x", partitions=partitions, exist_ok=True)


def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(consumer, "LOOK_SECONDS", 0.05)


@both
def test_a_producer_appends_where_it_is_told_to(to: Connected, tmp_path: Path) -> None:
    """It kept saying that there was no such partition."""

    async def main() -> None:
        async with to(tmp_path) as client:
            await client.create_topic("x", partitions=2)
            async with await client.producer("x") as one:
                with pytest.raises(TopicNotFoundError, match="0 to 1, not 3"):
                    await one.append(b"early", partition=3)
                with pytest.raises(TopicNotFoundError, match="0 to 1, not -1"):
                    await one.append(b"nowhere", partition=-1)
                await grow(client, 4)
                with pytest.raises(TopicNotFoundError):
                    one.append_nowait(b"not known yet", partition=3)
                assert (3, 0) == await one.append(b"a", partition=3)
                assert (2, 0) == await one.append_nowait(b"b", partition=2)
                assert partition_of(KEY, 4) == (await one.append(b"c", KEY)).partition
                with pytest.raises(TopicNotFoundError, match="0 to 3, not 4"):
                    await one.append(b"early", partition=4)

    run(main())


def test_a_client_that_makes_topics_for_ever_remembers_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_client, "LANES_KEPT", 2)

    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            for name in "abcd":
                await client.create_topic(name)
            assert {} == client._grown
            for name in "abcd":
                made = await client.create_topic(name, partitions=2, exist_ok=True)
            assert ["c", "d"] == list(client._grown)
            assert (made.topic_id, 2) == client._grown["d"]
            await client.delete_topic("d")
            assert ["c"] == list(client._grown)

    run(main())


def test_who_has_added_partitions_is_not_told_of_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a node that has not heard of it yet: what reads all of the topic would leave some out."""
    plain, stale = Router.ask_any, list[Response]()

    async def ask_any(self: Router, message: Any, **options: Any) -> Response:
        if isinstance(message, DescribeTopic) and stale:
            return stale.pop()
        return await plain(self, message, **options)

    monkeypatch.setattr(Router, "ask_any", ask_any)

    async def main() -> None:
        async with (
            serving(tmp_path) as (_, address),
            AsyncClient(address, options=QUICK) as client,
        ):
            await client.create_topic("x", partitions=2)
            before = await client.router.ask_any(DescribeTopic("x"))
            await grow(client, 4)
            await client.append("x", [b"new"], partition=3)
            stale.extend([before] * 2)
            assert 4 == len((await client.describe_topic("x")).partitions)
            stale.append(before)
            async with await client.consumer("x") as consumer:
                assert [b"new"] == await values(consumer, 1)
            stale.append(before)
            async with await client.producer("x") as producer:
                assert 4 == producer.partitions
            assert [] == stale

            async with AsyncClient(address, options=ONCE) as impatient:
                await grow(impatient, 4)
                stale.append(before)
                with pytest.raises(UnavailableError, match="2 partitions of 'x', and there are 4"):
                    await impatient.describe_topic("x")
            await client.delete_topic("x")
            await client.create_topic("x")
            assert 1 == len((await client.describe_topic("x")).partitions)

    run(main())


@both
def test_a_producer_that_chooses_takes_notice_after_a_while(
    to: Connected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with to(tmp_path) as client:
            await client.create_topic("x", partitions=2)
            async with await client.producer("x", linger_seconds=0.0) as one:
                assert partition_of(KEY, 2) == (await one.append(b"a", KEY)).partition
                await grow(client, 4)
                soon(monkeypatch)
                one._look_at = 0.0
                while partition_of(KEY, 4) != (await one.append(b"b", KEY)).partition:
                    pass
                assert {0, 1, 2, 3} == {(await one.append(b"c")).partition for _ in range(8)}

    run(main())


@pytest.mark.parametrize("start", ["earliest", "latest", 0, {0: 0, 1: 0}])
def test_a_consumer_of_all_that_follows_reads_what_is_new_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Any
) -> None:
    soon(monkeypatch)

    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("x", partitions=2)
            await client.append("x", [b"old"])
            async with (
                await client.consumer("x", start=start, follow=True, wait_seconds=0.1) as whole,
                await client.consumer(
                    "x", partitions=[0, 1], start=start, follow=True, wait_seconds=0.1
                ) as some,
            ):
                took = [asyncio.ensure_future(each.take_run()) for each in (whole, some)]
                await asyncio.sleep(0.05)
                await grow(client, 4)
                await client.append("x", [b"new"], partition=3)
                if start == "latest":
                    assert (3, b"new") == ((run := await took[0]).partition, run.records[0].value)
                    assert not took[1].done()
                else:
                    assert [b"old"] == [each.value for each in (await took[0]).records]
                    assert [b"old"] == [each.value for each in (await took[1]).records]
                    assert [b"new"] == await values(whole, 1)
                assert {0, 1, 2, 3} == set(whole.positions())
                assert 1 == whole.positions()[3]
                await whole.seek(3, 0)
                assert [b"new"] == await values(whole, 1)
                assert {0, 1} == set(some.positions())

    run(main())


@both
def test_a_cursor_has_a_place_in_what_is_new(
    to: Connected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch)

    async def main() -> None:
        async with to(tmp_path) as client:
            await client.create_topic("x")
            await client.append("x", [b"a"])
            async with await client.consumer(
                "x", cursor="c", follow=True, wait_seconds=0.1
            ) as all_:
                assert [b"a"] == await values(all_, 1)
                await grow(client, 2)
                await client.append("x", [b"b", b"c"], partition=1)
                assert [b"b", b"c"] == await values(all_, 2)
                await all_.commit()
            assert (1, 2) == (
                await client.cursor_offset("x", "c"),
                await client.cursor_offset("x", "c", partition=1),
            )

    run(main())


def test_who_cannot_be_asked_how_many_there_are_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch)
    plain, failures = Router.ask_any, [ConnectionLostError("once"), ConnectionLostError("twice")]

    async def ask_any(self: Router, message: Any, **options: Any) -> Any:
        if isinstance(message, DescribeTopic) and is_growing and failures:
            raise failures.pop()
        return await plain(self, message, **options)

    monkeypatch.setattr(Router, "ask_any", ask_any)
    is_growing = False

    async def main() -> None:
        nonlocal is_growing
        async with connected(tmp_path) as (_, client):
            await client.create_topic("x")
            async with (
                await client.producer("x", linger_seconds=0.0) as one,
                await client.consumer("x", follow=True, wait_seconds=0.1) as whole,
            ):
                await one.append(b"first")
                assert [b"first"] == await values(whole, 1)
                is_growing = True
                await grow(client, 2)
                while 1 != (await one.append(b"more")).partition:
                    pass
                while 1 not in whole.positions():
                    await whole.take_run()
                assert [] == failures

    run(main())


def test_one_that_is_closed_looks_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soon(monkeypatch)
    asked = asyncio.Event()
    plain = Router.ask_any

    async def ask_any(self: Router, message: Any, **options: Any) -> Any:
        if isinstance(message, DescribeTopic) and is_at_work:
            asked.set()
            await asyncio.sleep(3600)
        return await plain(self, message, **options)

    monkeypatch.setattr(Router, "ask_any", ask_any)
    is_at_work = False

    async def main() -> None:
        nonlocal is_at_work
        async with connected(tmp_path) as (_, client):
            await client.create_topic("x")
            one = await client.producer("x", linger_seconds=0.0)
            await one.append(b"first")
            whole = await client.consumer("x", follow=True, wait_seconds=0.1)
            assert [b"first"] == await values(whole, 1)
            is_at_work = True
            for _ in range(2):
                await asyncio.sleep(0.06)
                await one.append(b"more")
            await asked.wait()
            await whole.close()
            await one.close()
            await asyncio.sleep(0)
            left = [each for each in asyncio.all_tasks() if "_look" in repr(each.get_coro())]
            assert [] == left

    run(main())
