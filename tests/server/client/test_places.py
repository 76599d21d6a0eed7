"""A client never asks more at once than the node said it takes; the others wait for their turn."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from chronik_server.client.outgoing import OutgoingLane
from chronik_server.client.places import Places
from chronik_server.protocol.data import Fetch, Produce
from chronik_server.protocol.greeting import Ping
from chronik_store.errors import BackpressureError, RecordTooLargeError
from chronik_store.format.record_batch import RecordBatch
from tests.server.serving import QUICK, connected, run

LIMIT = 4


def test_who_waits_gets_a_place_in_the_order_of_the_calls() -> None:
    async def main() -> list[int]:
        taken: set[str] = {"a"}
        places, order = Places(taken, 1), []

        async def ask(number: int) -> None:
            await places.next(10)
            order.append(number)
            taken.add(str(number))

        tasks = [asyncio.create_task(ask(number)) for number in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        for _ in range(3):
            assert places.is_full
            taken.pop()
            places.hand_on()
            assert places.is_full, "what is promised is nobody else's"
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return order

    assert [0, 2, 3] == run(main())


def test_a_promised_place_that_is_not_used_goes_to_the_next() -> None:
    async def main() -> None:
        taken = ["a"]
        places = Places(taken, 1)
        first, second = (asyncio.create_task(places.next(10)) for _ in range(2))
        await asyncio.sleep(0)
        taken.clear()
        places.hand_on()
        first.cancel()  # in the turn in which it was promised its place
        await asyncio.wait_for(second, 5)
        assert first.cancelled()

    run(main())


def counted(server: Any, kind: type) -> Counter[str]:
    """How many requests of a kind there were, and how many at a time."""
    handler, seen = server.handlers.by_message[kind], Counter[str]()

    async def counting(*arguments: Any) -> Any:
        seen["now"] += 1
        seen["all"] += 1
        seen["most"] = max(seen["most"], seen["now"])
        try:
            await asyncio.sleep(0)
            return await handler(*arguments)
        finally:
            seen["now"] -= 1

    server.handlers.by_message[kind] = counting
    return seen


def test_reads_beyond_the_limit_of_a_connection_wait_and_are_answered(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path, in_flight_requests_max=LIMIT) as (server, client):
            await client.create_topic("events")
            await client.append("events", b"x")
            seen = counted(server, Fetch)
            found = await asyncio.gather(*(client.read("events", 0) for _ in range(50)))
            assert [b"x"] * 50 == [answer.records[0].value for answer in found]
            assert 50 == seen["all"], "none was refused and asked again"
            assert LIMIT >= seen["most"]

    run(main())


def test_batches_beyond_the_limit_of_a_connection_wait_and_are_stored_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path, in_flight_requests_max=LIMIT) as (server, client):
            await client.create_topic("events")
            await client.append("events", b"first")  # the server has opened it
            seen = counted(server, Produce)
            lanes = [OutgoingLane(client.router, ("events", 0), "quorum") for _ in range(6)]
            sent = [
                lane.submit(RecordBatch.build([b"%d/%d" % (place, number)]))
                for number in range(6)
                for place, lane in enumerate(lanes)
            ]
            offsets = [(await each).base_offset for each in sent]
            assert list(range(1, 37)) == sorted(offsets)
            assert 36 == seen["all"]
            assert LIMIT >= seen["most"]

    run(main())


def test_a_question_that_no_frame_can_say_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    """The next waited until its time was up, on a connection on which nothing was asked."""

    async def main() -> None:
        settings = {"in_flight_requests_max": 1, "frame_bytes_max": 64 << 10}
        async with connected(tmp_path, **settings) as (_, client):
            await client.create_topic("events")
            channel = await client.router.any_channel()
            polling = asyncio.create_task(channel.ask(Fetch("events", wait_ms=100)))
            await asyncio.sleep(0)
            long = asyncio.create_task(channel.ask(Produce("events"), bytes(100_000)))
            await asyncio.sleep(0)
            async with asyncio.timeout(2):
                await channel.ask(Ping())
                await polling
                with pytest.raises(RecordTooLargeError):
                    await long

    run(main())


def test_who_gets_no_turn_is_told_so_and_the_connection_lives(tmp_path: Path) -> None:
    options = dataclasses.replace(QUICK, request_seconds=0.2, retry_seconds=0.0)

    async def main() -> None:
        settings = {"options": options, "in_flight_requests_max": LIMIT}
        async with connected(tmp_path, **settings) as (server, client):
            await client.create_topic("events")
            seen = counted(server, Fetch)
            polls = [
                asyncio.create_task(client.read("events", 0, wait_seconds=10)) for _ in range(LIMIT)
            ]
            while seen["now"] < LIMIT:  # noqa: ASYNC110 (`run` bounds it)
                await asyncio.sleep(0.001)
            with pytest.raises(BackpressureError) as caught:
                await client.append("events", b"x", expected_offset=0)
            assert "not_durable" == caught.value.durability
            assert not any(poll.done() for poll in polls)
            polls[0].cancel()  # its place is taken until the node has answered
            assert not (await client.router.any_channel()).is_lost
            for poll in polls:
                poll.cancel()

    run(main())
