"""Where a consumer begins and goes on: what is no place is refused, no end is told in silence."""

import asyncio
import dataclasses

import pytest

from chronik_server.protocol.data import Offsets
from chronik_store.errors import (
    ConfigError,
    OffsetOutOfRangeError,
    TopicNotFoundError,
    UnavailableError,
)
from tests.server.client.test_consumer_runs import filled, take_all
from tests.server.serving import QUICK, connected, run


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("start", [51, {0: 51}])
def test_a_start_past_the_end_is_an_error_and_no_empty_answer(tmp_path, start, follow):
    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, 1, 50)
            async with await client.consumer("events", start=start, follow=follow) as consumer:
                with pytest.raises(OffsetOutOfRangeError, match="51 is outside"):
                    await consumer.take_run()

    run(main())


@pytest.mark.parametrize("start", [{"0": 20}, {0: "20"}, {0: -1}, {0: None}, True, -1, [0]])
def test_a_start_that_is_no_place_is_refused_and_not_taken_for_another(tmp_path, start):
    """Positions out of JSON have text for partitions: all of them began at the start again."""

    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, 1, 50)
            with pytest.raises(ConfigError, match="a mapping of partitions to offsets"):
                await client.consumer("events", start=start)
            async with await client.consumer("events", start={0: 49, 7: 1}) as consumer:
                run = await consumer.take_run()
                assert [49] == [record.offset for record in run.records]

    run(main())


def test_a_seek_past_the_end_is_an_error_until_the_log_has_got_there(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, 1, 50)
            async with await client.consumer("events") as consumer:
                await consumer.seek(0, 50)
                assert await consumer.take_run() is None, "the end is no error"
                await consumer.seek(0, 60)
                with pytest.raises(OffsetOutOfRangeError, match="60 is outside"):
                    await consumer.take_run()
                await client.append("events", [b"more"] * 20)
                for offset in (60, 70):  # behind where it ends, and there by now
                    await consumer.seek(0, offset)
                    assert await consumer.take_run() is None
                await consumer.seek(0, 49)
                run = await consumer.take_run()
                assert [49] == [record.offset for record in run.records]

    run(main())


@pytest.mark.parametrize("given_up", [True, False], ids=["given up", "failed"])
def test_a_consumer_that_could_not_begin_begins_anew(tmp_path, given_up):
    async def main():
        options = dataclasses.replace(QUICK, retry_seconds=0.2)
        async with connected(tmp_path, options=options) as (server, client):
            await filled(client, 2, 50)
            offsets, in_its_way = server.handlers.by_message[Offsets], [True]

            async def away(message, payload):
                if message.partition == 1 and in_its_way:
                    if not given_up:
                        raise UnavailableError("not now")
                    await asyncio.sleep(60)
                return await offsets(message, payload)

            server.handlers.by_message[Offsets] = away
            consumer = await client.consumer("events")
            if given_up:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await consumer.take()
            else:
                with pytest.raises(UnavailableError):
                    await consumer.take()
            in_its_way.clear()
            found = []
            async with asyncio.timeout(5):
                await take_all(consumer, found)
            await consumer.close()
            return found

    assert [(number, place) for number in range(2) for place in range(50)] == sorted(run(main()))


def test_seek_says_what_cannot_be_meant(tmp_path):
    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, 2, 50)
            async with await client.consumer("events") as consumer:
                with pytest.raises(TopicNotFoundError, match="partitions 0, 1, not 7"):
                    await consumer.seek(7, 0)
                with pytest.raises(OffsetOutOfRangeError):
                    await consumer.seek(1, -1)
                return [found.record.offset async for found in consumer]

    assert 100 == len(run(main()))


WRONG = [
    {"start": "middle"}, {"start": None}, {"start": -1}, {"start": True},
    {"start": "latest", "since": 5}, {"cursor": "c", "since": 5}, {"cursor": "c", "start": 3},
]  # fmt: skip


@pytest.mark.parametrize("arguments", WRONG, ids=str)
def test_where_a_consumer_begins_is_said_once_and_in_known_words(tmp_path, arguments):
    async def main():
        async with connected(tmp_path) as (_, client):
            await filled(client, 1, 50)
            with pytest.raises(ConfigError):
                await client.consumer("events", **arguments)

    run(main())
