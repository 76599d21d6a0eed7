"""A consumer that follows and that nobody iterates any more asks its node for nothing."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from chronik_server.client import Client
from chronik_server.client import consumer as consumer_module
from chronik_server.protocol.data import Fetch
from chronik_server.server import Server
from tests.server.serving import QUICK, connected, run, serving


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_module, "IDLE_SECONDS", 0.2)


def fetches(server: Server) -> list[Any]:
    """Those that the server gets, from here on."""
    found: list[Any] = []
    fetch = server.handlers._fetch

    async def counted(*given: Any) -> Any:
        found.append(given)
        return await fetch(*given)

    server.handlers._fetch = counted  # type: ignore[method-assign]
    server.handlers.by_message[Fetch] = counted
    return found


async def until_quiet(asked: list[Any]) -> None:
    """Nothing was asked for a while; `run` bounds it."""
    before = -1
    while before != len(asked):
        before = len(asked)
        await asyncio.sleep(0.4)


@pytest.mark.parametrize("dropped", [True, False], ids=["dropped", "kept"])
def test_one_that_is_not_iterated_any_more_falls_silent_and_is_not_kept(
    tmp_path: Path, dropped: bool
) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (server, client):
            await client.create_topic("events")
            await client.append("events", [b"a", b"b"])
            asked = fetches(server)
            consumer = await client.consumer("events", follow=True, wait_seconds=0.05)
            async for item in consumer:
                assert 0 == item.record.offset
                break
            known = weakref.ref(consumer)
            if dropped:
                del consumer
            await until_quiet(asked)
            gc.collect()
            assert asked
            assert dropped == (known() is None)
            if not dropped:
                await client.append("events", b"c")
                records = [item.record async for item in _first(known(), 2)]
                assert [1, 2] == [record.offset for record in records], "it goes on"

    run(main())


async def _first(consumer: Any, count: int) -> Any:
    async for item in consumer:
        yield item
        count -= 1
        if not count:
            return


def test_one_that_waits_for_records_goes_on_waiting(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (_, client):
            await client.create_topic("events")
            async with await client.consumer("events", follow=True, wait_seconds=0.05) as consumer:
                waiting = asyncio.create_task(consumer.take_run())
                await asyncio.sleep(1.0)
                await client.append("events", b"late")
                found = await asyncio.wait_for(waiting, 5)
                assert found is not None
                assert [b"late"] == [record.value for record in found.records]

    run(main())


def test_a_blocking_one_too(tmp_path: Path) -> None:
    ready, done = threading.Event(), threading.Event()
    seen: dict[str, Any] = {}

    async def serve() -> None:
        async with serving(tmp_path) as (server, address):
            seen.update(asked=fetches(server), address=address)
            ready.set()
            while not done.is_set():  # noqa: ASYNC110 (`run` bounds it)
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=lambda: run(serve()))
    thread.start()
    try:
        assert ready.wait(10)
        with Client(seen["address"], options=QUICK) as client:
            client.create_topic("events")
            client.append("events", b"a")
            consumer = client.consumer("events", follow=True, wait_seconds=0.05)
            assert 0 == next(iter(consumer)).record.offset
            known = weakref.ref(consumer._consumer)
            del consumer
            before = -1
            while before != len(seen["asked"]):
                before = len(seen["asked"])
                time.sleep(0.4)
            gc.collect()
            assert known() is None
    finally:
        done.set()
        thread.join()
