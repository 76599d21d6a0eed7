"""The blocking face: what becomes of its threads when another one closes the client."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chronik_server.client import AsyncClient, Client, ClientOptions
from chronik_server.client.blocking import _Loop
from chronik_server.protocol.data import Fetch, Produce
from chronik_store.errors import ChronikError, ConfigError, LogClosedError
from chronik_store.format.record_batch import RecordBatch
from tests.server.serving import QUICK, run, serving

PATIENT = ClientOptions(request_seconds=60.0, retry_seconds=60.0)


def against_a_server(
    path: Path, work: Callable[[str, Any, asyncio.AbstractEventLoop], None]
) -> None:
    """Run `work(address, server, loop)` in a thread beside a server."""

    async def main() -> None:
        async with serving(path) as (server, address):
            await asyncio.to_thread(work, address, server, asyncio.get_running_loop())

    run(main())


def held_back(server: Any, kind: type) -> threading.Event:
    """Requests of this kind are taken to hand and never answered; set when one came."""
    came = threading.Event()

    async def waiting(*_: object) -> None:
        came.set()
        await asyncio.Event().wait()

    server.handlers.by_message[kind] = waiting
    return came


def test_a_call_while_the_interpreter_ends_waits_for_no_thread(monkeypatch: Any) -> None:
    """From `__del__` of what a module holds; for ever, with Python 3.13."""
    client = Client("127.0.0.1:1", options=QUICK)
    with monkeypatch.context() as ending:
        ending.setattr(sys, "is_finalizing", lambda: True)

        with pytest.raises(LogClosedError) as refused:
            client.append("events", [b"a"])
        client.close()

    assert refused.value.durability == "not_durable"
    client.close()


def test_close_ends_a_call_that_another_thread_waits_in(tmp_path: Path) -> None:
    def work(address: str, server: Any, _: asyncio.AbstractEventLoop) -> None:
        client = Client(address, options=PATIENT)
        client.create_topic("events")
        came = held_back(server, Fetch)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            reading = pool.submit(client.read, "events", 0, wait_seconds=60)
            consumer = client.consumer("events", follow=True)
            iterating = pool.submit(lambda: next(iter(consumer)))
            assert came.wait(10)
            client.close()
            assert isinstance(reading.exception(10), LogClosedError)
            assert isinstance(iterating.exception(10), LogClosedError)
        with pytest.raises(LogClosedError):
            consumer.commit()

    against_a_server(tmp_path, work)


def test_who_gives_up_a_wait_takes_nothing_from_other_threads(tmp_path: Path) -> None:
    """Ctrl-C in a call cancels that call; its neighbours share its batches."""

    def work(address: str, server: Any, loop: asyncio.AbstractEventLoop) -> None:
        produce, go_on, came = server.handlers.by_message[Produce], asyncio.Event(), []

        async def waiting(*arguments: Any) -> Any:
            came.append(1)
            await go_on.wait()
            return await produce(*arguments)

        server.handlers.by_message[Produce] = waiting
        with Client(address, options=PATIENT) as client:
            client.create_topic("events")
            producer = client.producer("events", linger_seconds=0)
            placed = [producer.append(b"%d" % number) for number in range(3)]
            batched = client.appender("events").append_nowait([b"a", b"b"])
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                appended = pool.submit(client.append, "events", b"c")
                while not came:
                    client.ping()
                calls = (producer._producer.flush(), client._client.close())
                for given_up in map(client._loop.start, calls):
                    client.ping()
                    assert given_up.cancel()
                client.ping()
                loop.call_soon_threadsafe(go_on.set)
                offsets = [future.result(10).offset for future in placed]
                offsets += [batched.result(10).base_offset, appended.result(10).base_offset]
            assert 5 == len(set(offsets))
            assert 6 == client.watermarks("events").committed

    against_a_server(tmp_path, work)


def test_close_ends_a_call_that_connects() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        client = Client(f"127.0.0.1:{mute.getsockname()[1]}", options=PATIENT)
        waiting = pool.submit(client.ping)
        with mute.accept()[0] as accepted:
            accepted.recv(1)  # it has connected, and waits for its welcome
            client.close()
            assert isinstance(waiting.exception(10), LogClosedError)


def test_close_sees_the_records_of_a_producer_and_an_appender_through(tmp_path: Path) -> None:
    """Nobody has flushed them."""

    def work(address: str, *_: object) -> None:
        client = Client(address, options=QUICK)
        client.create_topic("events")
        producer = client.producer("events", linger_seconds=60.0)
        appender = client.appender("events")
        placed = [producer.append(b"%d" % number) for number in range(3)]
        appended = [appender.append_nowait([b"a", b"b"]) for _ in range(3)]
        client.close()
        offsets = [future.result(0).offset for future in placed]
        for future in appended:
            offsets += range(future.result(0).base_offset, future.result(0).end_offset)
        assert list(range(9)) == sorted(offsets)
        with pytest.raises(LogClosedError):
            appender.append_nowait(b"late")
        with pytest.raises(LogClosedError):
            producer.append(b"late")

    against_a_server(tmp_path, work)


def test_close_sees_a_batch_through_whose_wait_was_given_up(tmp_path: Path) -> None:
    def work(address: str, server: Any, loop: asyncio.AbstractEventLoop) -> None:
        client = Client(address, options=PATIENT)
        client.create_topic("events")
        appender = client.appender("events")
        appender.append_nowait(b"first").result(10)  # those behind it need no task
        produce, came, go_on = server.handlers.by_message[Produce], threading.Event(), []

        async def waiting(*arguments: Any) -> Any:
            go_on.append(asyncio.Event())
            came.set()
            await go_on[0].wait()
            return await produce(*arguments)

        server.handlers.by_message[Produce] = waiting
        appended = appender.append_nowait(b"x")
        assert came.wait(10)
        assert appended.cancel()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            closing = pool.submit(client.close)
            with pytest.raises(TimeoutError):
                closing.result(0.2)  # it waits for the batch
            loop.call_soon_threadsafe(go_on[0].set)
            closing.result(10)
        with Client(address, options=QUICK) as other:
            assert 2 == other.watermarks("events").committed

    against_a_server(tmp_path, work)


def test_close_leaves_no_future_behind_when_the_server_answers_nothing(tmp_path: Path) -> None:
    options = ClientOptions(request_seconds=0.2, retry_seconds=0.2)

    def work(address: str, server: Any, _: asyncio.AbstractEventLoop) -> None:
        client = Client(address, options=options)
        client.create_topic("events")
        held_back(server, Produce)
        producer = client.producer("events", linger_seconds=60.0)
        placed = producer.append(b"x")
        appended = client.appender("events").append_nowait(RecordBatch.build([b"y"]))
        client.close()
        assert "unknown" == getattr(placed.exception(0), "durability", None)
        assert "unknown" == getattr(appended.exception(0), "durability", None)

    against_a_server(tmp_path, work)


def test_a_call_of_the_async_client_that_connects_ends_as_closed() -> None:
    """Nobody has cancelled its task."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            mute.setblocking(False)
            client = AsyncClient(f"127.0.0.1:{mute.getsockname()[1]}", options=PATIENT)
            waiting = asyncio.create_task(client.ping())
            given_up = asyncio.create_task(client.ping())
            accepted, _ = await asyncio.get_running_loop().sock_accept(mute)
            given_up.cancel()
            await client.close()
            with pytest.raises(LogClosedError):
                await waiting
            with pytest.raises(asyncio.CancelledError):
                await given_up
            accepted.close()

    run(main())


def test_a_blocking_call_has_the_signature_of_its_twin() -> None:
    assert inspect.signature(Client.append) == inspect.signature(AsyncClient.append)
    assert not inspect.iscoroutinefunction(Client.append)


def test_a_call_from_a_callback_of_the_client_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    def work(address: str, _: Any, __: asyncio.AbstractEventLoop) -> None:
        with Client(address, options=QUICK) as client:
            client.create_topic("events")
            outcomes: list[BaseException | None] = []
            told = threading.Event()

            def call(_: object) -> None:
                for each in (client.ping, client.close, lambda: client.append("events", b"y")):
                    try:
                        each()
                    except ConfigError as error:
                        outcomes.append(error)
                told.set()

            with client.producer("events") as producer:
                producer.append(b"x").add_done_callback(call)
                assert told.wait(10)
            assert 3 == len(outcomes)
            assert 1 == client.append("events", b"y").base_offset

    against_a_server(tmp_path, work)


def test_what_was_closed_with_its_client_may_be_closed(tmp_path: Path) -> None:
    """And an append that comes too late says that it was not done."""

    def work(address: str, _: Any, __: asyncio.AbstractEventLoop) -> None:
        with Client(address, options=QUICK) as client:
            client.create_topic("events")
            with client.producer("events") as producer, client.consumer("events"):
                placed = producer.append(b"x")
                client.close()
                assert 0 == placed.result(0).offset
            with pytest.raises(LogClosedError) as refused:
                client.append("events", b"y")
            assert "not_durable" == refused.value.durability

    against_a_server(tmp_path, work)


@pytest.mark.parametrize("times", [1, 50], ids=["once", "often"])
def test_a_call_that_ends_in_the_turn_in_which_the_loop_does_has_its_outcome(times: int) -> None:
    """Its thread waited for ever: a loop that is stopped makes no other turn to tell it."""
    loop = _Loop()
    loop._loop.call_soon_threadsafe(time.sleep, 0.1)  # what follows comes in one turn

    async def call(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    futures = [loop.start(call(turns)) for turns in range(times)]
    loop.stop()

    assert list(range(times)) == [future.result(0) for future in futures]


def test_what_is_told_in_many_steps_is_told_before_the_loop_ends() -> None:
    """A producer's record hears of its batch by callbacks of callbacks."""
    loop = _Loop()
    told: concurrent.futures.Future[int] = concurrent.futures.Future()

    def step(left: int) -> None:
        if left:
            loop._loop.call_soon(step, left - 1)
        else:
            told.set_result(1)

    loop.owe(told)
    loop._loop.call_soon_threadsafe(step, 1000)
    loop.stop()

    assert 1 == told.result(0)


def test_what_nobody_tells_ends_as_closed() -> None:
    loop = _Loop()
    untold: concurrent.futures.Future[int] = concurrent.futures.Future()
    loop.owe(untold)
    loop.stop()

    assert "unknown" == getattr(untold.exception(0), "durability", None)


def test_close_leaves_no_other_thread_behind(tmp_path: Path) -> None:
    def work(address: str, _: Any, __: asyncio.AbstractEventLoop) -> None:
        for number in range(20):
            client = Client(address, options=QUICK)
            client.create_topic("events", exist_ok=True)
            appender, futures = client.appender("events"), list[Any]()

            def ask(client: Client = client) -> None:
                with contextlib.suppress(ChronikError):
                    while True:
                        client.ping()

            def give(appender: Any = appender, futures: list[Any] = futures) -> None:
                with contextlib.suppress(LogClosedError):
                    while True:
                        futures.append(appender.append_nowait(b"x"))
                        time.sleep(0.0002)

            threads = [threading.Thread(target=each, daemon=True) for each in (ask, ask, give)]
            for thread in threads:
                thread.start()
            time.sleep(0.002 * (number % 5))
            client.close()
            for thread in threads:
                thread.join(5)
            assert not any(thread.is_alive() for thread in threads)
            assert all(future.done() for future in futures)

    against_a_server(tmp_path, work)
