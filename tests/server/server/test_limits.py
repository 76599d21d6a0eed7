"""What a stranger, a broken program or a slow network can do to a server: nothing."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from chronik_server.addresses import parse_address
from chronik_server.client import AsyncClient, ClientOptions
from chronik_server.errors import TABLE, ConnectionLostError, UnauthenticatedError
from chronik_server.protocol import data, greeting
from chronik_server.protocol.connection import Connection
from chronik_server.protocol.events import Closed, Event, Failure, Request, Response
from chronik_server.protocol.frames import FrameKind, encode_frame
from chronik_server.protocol.states import Side
from chronik_server.protocol.verbs import Verb
from chronik_server.server import Server
from chronik_store.errors import (
    BackpressureError,
    ChronikError,
    UnavailableError,
)
from tests.server.serving import QUICK, connected, run, serving


class Raw:
    """A client that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.connection = Connection(Side.CLIENT)

    @classmethod
    async def open(cls, address: str, *, greet: bool = True) -> Raw:
        host, _, port = address.rpartition(":")
        raw = cls(*await asyncio.open_connection(host, int(port)))
        if greet:
            raw.say(Request(1, Verb.HELLO, greeting.Hello((1,))))
            (answer,) = await raw.hear()
            assert isinstance(answer, Response)
        return raw

    def say(self, event: Request) -> None:
        self.writer.write(b"".join(bytes(part) for part in self.connection.send(event)))

    async def hear(self) -> list[Event]:
        while True:
            events = self.connection.receive_data(await self.reader.read(1 << 16))
            if events:
                return events

    async def last_word(self) -> ChronikError:
        """The server's farewell, after which it has hung up."""
        events = []
        while not events or not isinstance(events[-1], Closed):
            chunk = await self.reader.read(1 << 16)
            found = self.connection.receive_data(chunk)
            events += found
            if not chunk:
                break
        failures = [event.error for event in events if isinstance(event, Failure)]
        self.writer.close()
        return failures[-1]


async def until_nobody_is_there(server: Server) -> None:
    for _ in range(1000):
        if not server.sessions:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{len(server.sessions)} connections are still open")


async def is_alive(address: str) -> bool:
    async with AsyncClient(address, options=QUICK) as client:
        return await client.ping() > 0


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 4,
        b"\xff" * 40,
        encode_frame(FrameKind.REQUEST, Verb.PING, 1, b"\xa0"),
        encode_frame(FrameKind.RESPONSE, Verb.HELLO, 1, b"\xa0"),
        encode_frame(FrameKind.REQUEST, Verb.HELLO, 1, b"\xa0", 1 << 20),
    ],
)
def test_a_malformed_greeting_is_answered_and_hung_up_on(tmp_path: Path, said: bytes) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (server, address):
            raw = await Raw.open(address, greet=False)
            raw.writer.write(said)
            await raw.reader.read(-1)
            raw.writer.close()
            assert await is_alive(address)
            await asyncio.sleep(0.05)
            assert not server.sessions

    run(main())


def test_an_oversized_frame_is_refused_before_it_has_come(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, frame_bytes_max=1 << 20) as (_, address):
            raw = await Raw.open(address)
            head = encode_frame(FrameKind.REQUEST, Verb.PRODUCE, 2, b"\xa0", 1 << 30)
            raw.writer.write(head[:20])
            assert "at most" in str(await raw.last_word())

    run(main())


def test_who_never_greets_or_never_finishes_a_frame_is_hung_up_on(tmp_path: Path) -> None:
    async def main() -> None:
        settings = {"greeting_seconds": 0.2, "frame_seconds": 0.2}
        async with serving(tmp_path, **settings) as (server, address):
            silent = await Raw.open(address, greet=False)
            slow = await Raw.open(address)
            slow.writer.write(encode_frame(FrameKind.REQUEST, Verb.PING, 2, b"\xa0")[:7])
            assert "greeting" in str(await asyncio.wait_for(silent.last_word(), 3))
            assert "frame" in str(await asyncio.wait_for(slow.last_word(), 3))
            await asyncio.sleep(0.05)
            assert not server.sessions

    run(main())


def test_an_idle_connection_ends_and_its_client_does_not_notice(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path, idle_seconds=0.2) as (server, client):
            await client.ping()
            await asyncio.sleep(1.2)
            assert not server.sessions
            assert 0 < await client.ping()

    run(main())


def test_a_reader_that_takes_nothing_is_hung_up_on(tmp_path: Path) -> None:
    async def main() -> None:
        settings = {"write_stall_seconds": 0.3}
        async with connected(tmp_path, **settings) as (server, client):
            await client.create_topic("events")
            for _ in range(3):
                await client.append("events", b"x" * (4 << 20))
            raw = await Raw.open(str(client.router._servers[0]))
            fetch = data.Fetch("events", 0, 0, max_bytes=64 << 20)
            for number in range(2, 5):
                raw.say(Request(number, Verb.FETCH, fetch))
            while len(server.sessions) > 1:  # noqa: ASYNC110 (`run` bounds it)
                await asyncio.sleep(0.05)
            raw.writer.transport.abort()

    run(main())


def test_connections_above_the_limit_are_told_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, connections_max=2) as (_, address):
            first, second = await Raw.open(address), await Raw.open(address)
            third = await Raw.open(address, greet=False)
            error = await third.last_word()
            assert isinstance(error, UnavailableError)
            assert error.retriable
            for raw in (first, second):
                raw.writer.close()
            await asyncio.sleep(0.05)
            assert await is_alive(address)

    run(main())


def test_clients_that_take_every_place_keep_no_node_from_the_others(tmp_path: Path) -> None:
    async def greeted(address: str, peer: greeting.PeerIdentity | None) -> tuple[Raw, Event]:
        raw = await Raw.open(address, greet=False)
        raw.say(Request(1, Verb.HELLO, greeting.Hello((1,), peer=peer)))
        (answer,) = await raw.hear()
        return raw, answer

    async def main() -> None:
        node = greeting.PeerIdentity("cluster", "2", "2" * 32, "3" * 32)
        async with serving(tmp_path, connections_max=2) as (server, address):
            server.backend.has_peers = True  # type: ignore[misc]
            server.backend.greet = lambda *_: node  # type: ignore[method-assign]
            raws = [await Raw.open(address), await Raw.open(address)]
            for who in (node, node):
                raw, answer = await greeted(address, who)
                raws.append(raw)
                assert isinstance(answer, Response)
            third, refusal = await greeted(address, None)
            assert isinstance(refusal, Failure)
            assert isinstance(refusal.error, UnavailableError)
            assert "the most allowed" in str(refusal.error)
            assert 1 == server.metrics.refused.labels("connections")._value.get()
            assert 0 == server.metrics.refused.labels("greeting")._value.get()
            for raw in (*raws, third):
                raw.writer.close()
            await until_nobody_is_there(server)
            assert 0 == server.nodes
            assert await is_alive(address)

    run(main())


def test_what_nodes_ask_as_clients_has_places_too_and_leaves_some_to_their_links(
    tmp_path: Path,
) -> None:
    """A search of what is elsewhere was refused with the clients, and so was a node that joins."""

    async def greeted(address: str, **who: Any) -> tuple[Raw, Event]:
        raw = await Raw.open(address, greet=False)
        raw.say(Request(1, Verb.HELLO, greeting.Hello((1,), **who)))
        (answer,) = await raw.hear()
        return raw, answer

    async def main() -> None:
        node = greeting.PeerIdentity("cluster", "2", "2" * 32, "3" * 32)
        settings = {"connections_max": 1, "node_connections_max": 4}
        async with serving(tmp_path, **settings) as (server, address):
            server.backend.has_peers = True  # type: ignore[misc]
            server.backend.greet = lambda *_: node  # type: ignore[method-assign]
            raws = [await Raw.open(address)]
            for _ in range(2):
                raw, answer = await greeted(address, node_id="2")
                raws.append(raw)
                assert isinstance(answer, Response)
            surplus, refusal = await greeted(address, node_id="2")
            assert isinstance(refusal, Failure)
            assert isinstance(refusal.error, UnavailableError)
            surplus.writer.close()
            for _ in range(2):
                raw, answer = await greeted(address, peer=node)
                raws.append(raw)
                assert isinstance(answer, Response)
            assert (1, 2, 2) == (server.clients, len(server.asking), server.nodes)
            for raw in raws:
                raw.writer.close()
            await until_nobody_is_there(server)
            assert (0, 0, 0) == (server.clients, len(server.asking), server.nodes)

            server.backend.has_peers = False  # type: ignore[misc]
            raw = await Raw.open(address)
            surplus, refusal = await greeted(address, node_id="2")
            assert isinstance(refusal, Failure)  # a server of its own has no such places
            for each in (raw, surplus):
                each.writer.close()

    run(main())


def test_bytes_in_flight_stop_the_reading_not_the_answers(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path, in_flight_bytes_max=20_000) as (_, client):
            await client.create_topic("events")
            results = await asyncio.gather(
                *(client.append("events", b"x" * 9000) for _ in range(50))
            )
            assert set(range(50)) == {result.base_offset for result in results}

    run(main())


def test_what_is_asked_counts_though_it_stands_in_the_header(tmp_path: Path) -> None:
    """Searches of 64 KiB without a payload: a connection held 256 MiB of them, uncounted."""

    async def main() -> None:
        async with connected(tmp_path, in_flight_bytes_max=100_000) as (server, client):
            await client.create_topic("events")
            searching, go_on = server.backend.search, asyncio.Event()
            held = 0

            async def slowly(request: data.Search) -> Any:
                nonlocal held
                held += len(request.query)
                await go_on.wait()
                return await searching(request)

            server.backend.search = slowly  # type: ignore[method-assign]
            raw = await Raw.open(str(client.router._servers[0]))
            for number in range(2, 42):
                query = "x" * 60_000
                raw.say(Request(number, Verb.SEARCH, data.Search("events", query)))
            while all(each._reading for each in server.sessions):  # noqa: ASYNC110 (`run` bounds it)
                await asyncio.sleep(0.01)
            await client.ping()
            assert 100_000 < held + 60_000 <= server.requests.used + 60_000 < 500_000
            go_on.set()
            answers: list[Event] = []
            while len(answers) < 40:
                answers += await raw.hear()
            raw.writer.close()

    run(main())


@pytest.mark.parametrize("limit", [64 << 20, 5000])
def test_what_was_told_is_stored_though_its_client_has_left(tmp_path: Path, limit: int) -> None:
    """With acks "none" nobody will say it again; of all who leave, so much as one may say."""

    async def main() -> None:
        async with serving(tmp_path) as (server, address):
            async with AsyncClient(address, options=QUICK) as client:
                await client.create_topic("events")
                opening, go_on = server.backend.partition, asyncio.Event()

                async def slowly(*which: Any) -> Any:
                    await go_on.wait()
                    return await opening(*which)

                server.backend.partition = slowly  # type: ignore[method-assign]
                for _ in range(20):
                    await client.append("events", b"x" * 400, acks="none")
                await client.ping()
                server.config = dataclasses.replace(server.config, in_flight_bytes_max=limit)
            await until_nobody_is_there(server)
            assert 0 < server.left_bytes <= limit
            go_on.set()
            async with AsyncClient(address, options=QUICK) as client:
                while server.left_bytes:  # noqa: ASYNC110 (`run` bounds it)
                    await asyncio.sleep(0.05)
                stored = (await client.watermarks("events")).committed
            assert (20 == stored) if limit > 5000 else (3 < stored < 8)

    run(main())


def test_a_half_open_connection_is_noticed_by_the_client(tmp_path: Path) -> None:
    async def main() -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            server = Connection(Side.SERVER)
            while not server.receive_data(await reader.read(1000)):
                pass
            welcome = greeting.Welcome(1, "s", "c", "1", "0" * 32, 1 << 20, 9)
            writer.write(b"".join(bytes(p) for p in server.send(Response(1, welcome))))
            await reader.read()  # until the client gives up
            writer.close()

        listener = await asyncio.start_server(mute, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        options = ClientOptions(request_seconds=0.2, retry_seconds=0.3)
        async with AsyncClient(f"127.0.0.1:{port}", options=options) as client:
            with pytest.raises(ConnectionLostError, match="not answered"):
                await client.ping()
        listener.close()
        await listener.wait_closed()

    run(main())


def test_stopping_sees_appends_through_and_ends_waits(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path, options=ClientOptions(retry_seconds=0.1)) as (
            server,
            client,
        ):
            await client.create_topic("events")
            waiting = asyncio.create_task(client.read("events", 0, wait_seconds=20))
            await asyncio.sleep(0.05)
            begun = asyncio.get_running_loop().time()
            await server.stop()
            assert asyncio.get_running_loop().time() - begun < 3
            with pytest.raises(UnavailableError):
                await waiting

    run(main())


def test_a_defect_of_the_server_is_never_success(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected(tmp_path) as (server, client):

            async def broken(*_: object) -> object:
                raise RuntimeError("a defect")

            await client.create_topic("events")
            server.handlers.by_message[data.Offsets] = broken  # type: ignore[assignment]
            with pytest.raises(ChronikError) as caught:
                await client.watermarks("events")
            assert ("InternalError", "unknown") == (
                type(caught.value).__name__,
                caught.value.durability,
            )

    run(main())


def test_answers_that_no_handler_gave_are_counted(tmp_path: Path) -> None:
    """The greeting; what is too much, what nobody knows; and what a node refuses as it stops."""

    async def main() -> None:
        async with serving(tmp_path, auth_token="t", in_flight_requests_max=2) as (server, address):
            metrics = server.metrics

            def failures(verb: str, error: type[ChronikError]) -> float:
                code = next(row.code for row in TABLE if row.kind is error)
                return metrics.failures.labels(verb, code)._value.get()

            with pytest.raises(UnauthenticatedError):
                await is_alive(address)
            options = dataclasses.replace(QUICK, token="t", retry_seconds=0)
            async with AsyncClient(address, options=options) as client:
                channel = await client.router.channel(parse_address(address))
                assert 2 == metrics.by_verb[Verb.HELLO].count
                assert 1 == failures("hello", UnauthenticatedError)

                channel._places.limit = 1 << 20  # it does not keep to what the node takes
                asked = [channel.post(greeting.Ping()) for _ in range(3)]
                answers = await asyncio.gather(*asked, return_exceptions=True)
                assert isinstance(answers[2], BackpressureError)
                assert 1 == failures("ping", BackpressureError)
                assert 3 == metrics.by_verb[Verb.PING].count

                server.stopping = True
                with pytest.raises(UnavailableError):
                    await client.ping()
                server.stopping = False
                assert 1 == failures("ping", UnavailableError)

    run(main())
