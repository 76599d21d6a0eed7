"""A seek that is given up is done, or it is not: nothing is passed over, and nobody spins."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from chronik_server.client import AsyncClient
from chronik_server.client.consumer import AsyncConsumer
from chronik_server.client.partition_lane import PartitionLane
from chronik_store.errors import CorruptionError, LogClosedError
from tests.server.serving import QUICK, connected, run


async def begun(client: AsyncClient, **settings: Any) -> AsyncConsumer:
    """A consumer of a hundred records, of which three are handed out."""
    await client.create_topic("events")
    await client.append("events", [b"%d" % number for number in range(100)])
    consumer = await client.consumer("events", follow=True, **settings)
    offsets = []
    async for item in consumer:
        offsets.append(item.record.offset)
        if len(offsets) == 3:
            break
    assert [0, 1, 2] == offsets
    return consumer


async def given_up(seeking: Any) -> None:
    """As by `asyncio.timeout`, while it waits for what is read ahead to end."""
    task = asyncio.create_task(seeking)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_seek_that_is_given_up_leaves_a_consumer_that_goes_on(tmp_path: Path) -> None:
    """It went round and round without asking its node for anything."""

    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            consumer = await begun(client)
            await given_up(consumer.seek(0, 50))
            assert {0: 50} == consumer.positions()
            found = await asyncio.wait_for(consumer.take_run(), 5)
            assert found is not None
            assert 50 == found.records[0].offset
            await consumer.close()

    run(main())


def test_a_cursor_does_not_pass_over_what_was_read_ahead_of_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            consumer = await begun(client, cursor="reader")
            await given_up(consumer.seek(0, 3))  # to where it stands: all the rest was here
            await consumer.commit()
            assert 3 == await client.cursor_offset("events", "reader")
            await consumer.close()

    run(main())


def test_who_gives_up_as_damage_is_found_gets_the_records_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was damaged on its way is fetched again by a seek of the consumer's own."""

    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            await client.append("events", b"first")
            consumer = await client.consumer("events", follow=True)
            assert await consumer.take_run() is not None
            await client.append("events", b"second")
            real, found = PartitionLane.next, asyncio.Event()

            def damaged(lane: PartitionLane) -> Any:
                if not lane.ready or found.is_set():
                    return real(lane)
                lane.ready.popleft()
                found.set()
                raise CorruptionError("damaged on its way")

            monkeypatch.setattr(PartitionLane, "next", damaged)
            taking = asyncio.create_task(consumer.take_run())
            await found.wait()
            taking.cancel()
            with pytest.raises((asyncio.CancelledError, CorruptionError)):
                await taking
            again = await asyncio.wait_for(consumer.take_run(), 5)
            assert again is not None
            assert [b"second"] == [record.value for record in again.records]
            await consumer.close()

    run(main())


def test_a_consumer_that_is_closed_during_a_seek_fetches_nothing_more(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            consumer = await begun(client)
            seeking = asyncio.create_task(consumer.seek(0, 50))
            await asyncio.sleep(0)
            await consumer.close()
            await seeking
            await asyncio.sleep(0)
            with pytest.raises(LogClosedError):
                await consumer.take_run()
            names = [getattr(task.get_coro(), "__name__", "") for task in asyncio.all_tasks()]
            assert "_fetch_on" not in names

    run(main())


def test_one_that_follows_without_a_wait_goes_on_when_nothing_comes(tmp_path: Path) -> None:
    """Of a topic that was idle for `retry_seconds` it said that too few nodes were up."""

    async def main() -> None:
        options = dataclasses.replace(QUICK, retry_seconds=0.3)
        async with connected(tmp_path, options=options) as (_, client):
            await client.create_topic("events")
            async with await client.consumer("events", follow=True, wait_seconds=0) as consumer:
                waiting = asyncio.create_task(consumer.take_run())
                await asyncio.sleep(1.2)
                assert not waiting.done()
                await client.append("events", b"late")
                found = await asyncio.wait_for(waiting, 5)
                assert found is not None
                assert [b"late"] == [record.value for record in found.records]

    run(main())
