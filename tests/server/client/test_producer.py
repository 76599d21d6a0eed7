"""What is wrong with one record of a batch is not the others' error, nor anybody's wait."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from chronik_server.client import AsyncClient
from chronik_server.client.producer import Placed
from chronik_server.protocol.data import Produce
from chronik_store.errors import (
    BackpressureError,
    LogClosedError,
    RecordTooLargeError,
    TopicNotFoundError,
    UnavailableError,
)
from chronik_store.model import Record
from tests.server.serving import LOG, connected, run

SMALL = LOG.replace(record_bytes_max=1900, batch_bytes_max=2000)


async def stored(client: AsyncClient) -> list[bytes]:
    return [record.value for record in await client.read("events", 0, max_records=100_000)]


def test_room_that_a_batch_took_which_cannot_be_made_is_given_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            producer = await client.producer("events", buffer_bytes=1000)
            wrong = await producer.enqueue("s" * 2000)  # type: ignore[arg-type]
            good = await asyncio.wait_for(producer.enqueue(b"good"), 5)
            assert (0, 0) == await good
            with pytest.raises(TypeError):
                await wrong
            await producer.close()

    run(main())


HEADLESS = Record(b"x", None, None, (("h", "text"),))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["text", HEADLESS], ids=["value", "header"])
def test_a_record_that_is_none_fails_alone(tmp_path: Path, wrong: Any) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            async with await client.producer("events", linger_seconds=60) as producer:
                futures = [producer.append_nowait(each) for each in (b"a", wrong, b"b")]
                await producer.flush()
                first, failed, last = await asyncio.gather(*futures, return_exceptions=True)
            assert [(0, 0), (0, 1)] == [first, last]
            assert isinstance(failed, TypeError)
            assert [b"a", b"b"] == await stored(client)

    run(main())


def test_a_record_over_the_servers_limit_fails_alone_and_the_order_stays(tmp_path: Path) -> None:
    """The batches behind it, on their way already, do not overtake those that shared its batch."""
    sizes = (900, 3000, 900, 900)

    async def main() -> None:
        async with connected(tmp_path, log=SMALL) as (_, client):
            await client.create_topic("events")
            await client.append("events", b"before")  # the way is known: batches go at once
            producer = await client.producer("events", linger_seconds=60, batch_bytes=1 << 20)
            futures = []
            for number, size in enumerate(sizes):
                futures.append(producer.append_nowait(bytes([number]) * size))
            flushed = asyncio.create_task(producer.flush())
            await asyncio.sleep(0)
            for number in range(10, 18):  # more than a lane has in flight
                futures.append(producer.append_nowait(bytes([number])))
                producer._dispatch(0)
            await flushed
            assert all(future.done() for future in futures[:4])
            await producer.close()
            outcomes = [future.exception() or future.result() for future in futures]
            assert isinstance(outcomes.pop(1), RecordTooLargeError)
            assert [Placed(0, offset) for offset in range(1, 12)] == outcomes
            assert [0, 2, 3, *range(10, 18)] == [value[0] for value in (await stored(client))[1:]]

    run(main())


@pytest.mark.parametrize("acks", ["quorum", "none"])
def test_a_batch_that_no_frame_takes_goes_in_its_parts(tmp_path: Path, acks: Any) -> None:
    async def main() -> None:
        async with connected(tmp_path, frame_bytes_max=1 << 20) as (_, client):
            await client.create_topic("events")
            producer = await client.producer(
                "events", acks=acks, linger_seconds=60, batch_bytes=1 << 30
            )
            futures = [producer.append_nowait(each) for each in (b"a", bytes(2 << 20), b"b")]
            await producer.close()
            outcomes = [future.exception() or future.result() for future in futures]
            assert isinstance(outcomes.pop(1), RecordTooLargeError)
            if acks == "none":
                assert [(0, -1), (0, -1)] == outcomes
                for offset in (0, 1):  # nobody has said when they are there
                    assert len(await client.read("events", offset, wait_seconds=5))
            else:
                assert [(0, 0), (0, 1)] == outcomes
            assert [b"a", b"b"] == sorted(await stored(client))

    run(main())


def test_what_gathers_is_sent_when_there_is_room_for_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            producer = await client.producer("events", linger_seconds=60, buffer_bytes=1000)
            async with asyncio.timeout(5):
                futures = [await producer.enqueue(b"x" * 100) for _ in range(50)]
            await producer.close()
            assert list(range(50)) == [(await each).offset for each in futures]

    run(main())


def test_a_record_that_is_given_while_the_producer_closes_is_sent(tmp_path: Path) -> None:
    """And nothing is left to a timer that a client which is closed next does not see."""

    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events", partitions=2)
            producer = await client.producer("events", linger_seconds=60)
            futures = [producer.append_nowait(b"a", partition=0)]
            closing = asyncio.create_task(producer.close())
            await asyncio.sleep(0)
            futures += [producer.append_nowait(b"b", partition=number) for number in (0, 1)]
            await closing
            assert all(each.done() for each in futures)
            assert [(0, 0), (0, 1), (1, 0)] == [each.result() for each in futures]

    run(main())


def test_a_record_that_is_refused_at_once_was_not_stored(tmp_path: Path) -> None:
    """And each error of an append says so."""

    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            producer = await client.producer("events", buffer_bytes=100, linger_seconds=60)
            with pytest.raises(TopicNotFoundError) as unknown:
                producer.append_nowait(b"x", partition=7)
            producer.append_nowait(b"x" * 200)
            with pytest.raises(BackpressureError) as full:
                producer.append_nowait(b"x")
            await producer.close()
            with pytest.raises(LogClosedError) as closed:
                producer.append_nowait(b"x")
            assert {"not_durable"} == {each.value.durability for each in (unknown, full, closed)}

    run(main())


def test_a_batch_that_may_be_stored_is_not_sent_again_in_its_parts(tmp_path: Path) -> None:
    """The answer to it is lost, and whoever leads by now has a lower limit: it was stored twice."""

    async def main() -> None:
        async with connected(tmp_path) as (server, client):
            await client.create_topic("events")
            produce, sizes = server.handlers.by_message[Produce], list[int]()

            async def lossy(message: Any, payload: Any) -> Any:
                sizes.append(len(payload))
                if len(sizes) == 1:
                    await produce(message, payload)
                    raise UnavailableError("stored, and the answer is lost", durability="unknown")
                if len(payload) == sizes[0]:
                    raise RecordTooLargeError("too large here", size_bytes=2, limit_bytes=1)
                return await produce(message, payload)

            server.handlers.by_message[Produce] = lossy
            producer = await client.producer("events", linger_seconds=60)
            futures = [producer.append_nowait(each) for each in (b"a", b"b", b"c")]
            await producer.flush()
            outcomes = [future.exception() for future in futures]
            assert [b"a", b"b", b"c"] == await stored(client)
            assert ["unknown"] * 3 == [getattr(each, "durability", None) for each in outcomes]
            after = producer.append_nowait(b"d")
            await producer.close()
            assert (0, 3) == after.result()

    run(main())


def test_closing_sees_through_a_producer_that_nobody_holds(tmp_path: Path) -> None:
    """It hung up on the records of a producer that was forgotten, and they failed as lost."""

    async def main() -> None:
        async with connected(tmp_path) as (server, client):
            await client.create_topic("events")
            await client.append("events", b"the way is known")
            produce, came = server.handlers.by_message[Produce], asyncio.Event()

            async def slow(*arguments: Any) -> Any:
                came.set()
                await asyncio.sleep(0.3)
                return await produce(*arguments)

            server.handlers.by_message[Produce] = slow
            producer = await client.producer("events", linger_seconds=0)
            placed = producer.append_nowait(b"x")
            known = weakref.ref(producer)
            del producer
            await came.wait()
            gc.collect()
            await client.close()
            assert (0, 1) == placed.result()
            gc.collect()
            assert known() is None, "nothing keeps it for longer"

    run(main())
