"""A node that takes and says nothing any more: every call ends, and somebody notices."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from chronik_server.client import AsyncClient
from chronik_server.server import Server
from chronik_store.errors import ChronikError
from tests.server.serving import QUICK, connected, run, serving

SHORT = dataclasses.replace(QUICK, request_seconds=0.5)


async def stalled(server: Server, client: AsyncClient) -> None:
    """As if whatever is between the two were gone without a word."""
    await client.create_topic("events")
    await client.append("events", b"x")
    for session in server.sessions:
        session._transport.pause_reading()  # type: ignore[union-attr]


def test_closing_ends_a_call_that_waits_for_room_to_be_sent(tmp_path: Path) -> None:
    """It waited for ever: nothing makes room on a connection that is closed."""

    async def main() -> None:
        async with serving(tmp_path, write_stall_seconds=60) as (server, address):
            client = AsyncClient(address, options=QUICK)
            await stalled(server, client)
            many = [b"y" * 900_000] * 12
            writing = asyncio.create_task(client.append("events", many, expected_offset=1))
            await asyncio.sleep(0.1)
            reading = asyncio.create_task(client.read("events", 0))
            await asyncio.sleep(0.1)
            for session in server.sessions:
                session.abort()  # a client that closes waits for what it has said
            await client.close()
            await asyncio.wait((writing, reading), timeout=5)
            assert writing.done()
            assert reading.done()
            assert isinstance(writing.exception(), ChronikError)
            assert isinstance(reading.exception(), ChronikError)

    run(main())


def test_callers_who_wait_less_than_an_answer_may_take_notice_a_node_that_is_gone(
    tmp_path: Path,
) -> None:
    """Each gave up its own question, and nobody the connection."""

    async def main() -> None:
        async with connected(tmp_path, options=SHORT, idle_seconds=600) as (server, client):
            await stalled(server, client)
            found: list[bytes] = []
            for _ in range(20):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.4):
                        found = [record.value for record in await client.read("events", 0)]
                        break
            assert [b"x"] == found

    run(main())


def test_places_that_impatient_callers_took_come_back(tmp_path: Path) -> None:
    """They were taken for ever, and who was patient got none."""

    async def main() -> None:
        settings: dict[str, Any] = {"idle_seconds": 600, "in_flight_requests_max": 16}
        async with connected(tmp_path, options=SHORT, **settings) as (server, client):
            await stalled(server, client)
            for _ in range(16):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(client.read("events", 0), 0.01)
            assert [b"x"] == [record.value for record in await client.read("events", 0)]

    run(main())


def test_a_question_that_is_given_up_and_answered_costs_no_connection(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path, options=SHORT) as (server, client):
            await client.create_topic("events")
            before = set(server.sessions)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(client.read("events", 0, wait_seconds=0.2), 0.05)
            assert 0 == len((await client.read("events", 0, wait_seconds=1.5)).records)
            assert before == set(server.sessions)

    run(main())
