"""Batches that bring a producer of their own: known to the log over restarts of the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from chronik_server.client import AsyncClient
from chronik_server.client.blocking import Client
from chronik_server.errors import UnknownOutcomeError
from chronik_server.protocol.data import Produce
from chronik_store.errors import ProducerSequenceError, UnavailableError
from chronik_store.format.record_batch import RecordBatch
from tests.server.serving import QUICK, connected, run, serving


def batch(sequence: int, *values: bytes) -> RecordBatch:
    return RecordBatch.build(values, producer_id=7, base_sequence=sequence)


async def values(client: AsyncClient) -> list[bytes]:
    return [record.value for record in await client.read("events", 0)]


def answering(server: Any, outcome: Callable[[int], Exception | None], *, stores: bool) -> None:
    """Each answer to an append that has an outcome here is lost for it."""
    produce, calls = server.handlers.by_message[Produce], []

    async def losing(request: Produce, payload: bytes) -> Any:
        calls.append(len(calls))
        error = outcome(len(calls))
        if error is None:
            return await produce(request, payload)
        if stores:
            await produce(request, payload)
        raise error

    server.handlers.by_message[Produce] = losing


def test_what_is_sent_again_after_a_restart_is_not_stored_again(tmp_path) -> None:
    """The client put an id of its own in the place of the caller's: all was stored twice."""

    async def main() -> list[bytes]:
        async with serving(tmp_path) as (_, address):
            async with AsyncClient(address, options=QUICK) as client:
                await client.create_topic("events")
                assert (0, 2, False) == await client.append("events", batch(0, b"a", b"b"))
            async with AsyncClient(address, options=QUICK) as client:
                assert (0, 2, True) == await client.append("events", batch(0, b"a", b"b"))
                assert (2, 3, False) == await client.append("events", batch(2, b"c"))
                return await values(client)

    assert [b"a", b"b", b"c"] == run(main())


def test_a_gap_is_told_and_is_nobody_elses(tmp_path) -> None:
    async def main() -> list[bytes]:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            found = await asyncio.gather(
                client.append("events", b"x"),
                client.append("events", batch(5, b"gap")),
                client.append("events", batch(0, b"a")),
                client.append("events", b"y"),
                return_exceptions=True,
            )
            refused = found.pop(1)
            assert isinstance(refused, ProducerSequenceError)
            assert "not_durable" == refused.durability
            assert not [each for each in found if isinstance(each, BaseException)]
            with pytest.raises(ProducerSequenceError) as caught:
                await client.append("events", batch(2, b"gap"))
            assert (7, 1, 2) == (
                caught.value.producer_id,
                caught.value.expected_sequence,
                caught.value.sequence,
            )
            return await values(client)

    assert [b"a", b"x", b"y"] == sorted(run(main()))


def test_a_lost_answer_is_asked_for_again(tmp_path) -> None:
    async def main() -> list[bytes]:
        async with connected(tmp_path) as (server, client):
            await client.create_topic("events")
            lost = UnavailableError("stored, and the answer is lost", durability="unknown")
            answering(server, lambda number: lost if number == 1 else None, stores=True)
            assert (0, 1, True) == await client.append("events", batch(0, b"a"))
            return await values(client)

    assert [b"a"] == run(main())


def test_what_was_refused_after_a_lost_answer_may_be_stored(tmp_path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (server, client):
            await client.create_topic("events")
            outcomes: list[Exception] = [
                UnavailableError("the answer is lost", durability="unknown"),
                ProducerSequenceError("who?", producer_id=7, expected_sequence=0, sequence=1),
            ]
            answering(server, lambda number: outcomes[number - 1], stores=False)
            with pytest.raises(UnknownOutcomeError):
                await client.append("events", batch(0, b"a"))

    run(main())


def test_closing_sees_them_through(tmp_path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (_, address):
            client = AsyncClient(address, options=QUICK)
            await client.create_topic("events")
            appending = asyncio.ensure_future(client.append("events", batch(0, b"a")))
            await asyncio.sleep(0)
            await client.close()
            assert (0, 1, False) == await appending

    run(main())


def test_an_appender_numbers_its_batches_itself(tmp_path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (_, address):

            def append() -> None:
                with Client(address, options=QUICK) as client:
                    client.create_topic("events")
                    with pytest.raises(ValueError, match=r"Client\.append"):
                        client.appender("events").append_nowait(batch(0, b"a"))

            await asyncio.to_thread(append)

    run(main())
