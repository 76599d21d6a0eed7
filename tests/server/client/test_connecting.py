"""Servers that are away, refuse, or are none: what a client makes of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from chronik_server.addresses import Address, parse_address
from chronik_server.client import AsyncClient, Client, ClientOptions
from chronik_server.client.channel import Channel
from chronik_server.client.options import addresses_of
from chronik_server.errors import ConnectionLostError, ProtocolError, UnauthenticatedError
from chronik_server.protocol.greeting import Hello, Ping
from chronik_store.errors import ConfigError
from tests.ports import free_port
from tests.server.serving import QUICK, run, serving


def test_another_bootstrap_address_is_tried(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (_, address):
            servers = f"127.0.0.1:1,{address}"
            async with AsyncClient(servers, options=QUICK) as client:
                assert 0 < await client.ping()

    run(main())


def test_a_server_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    async def main() -> None:
        options = ClientOptions(connect_seconds=0.5, retry_seconds=0.2)
        async with AsyncClient("127.0.0.1:1", options=options) as client:
            with pytest.raises(ConnectionLostError):
                await client.topics()
            with pytest.raises(ConnectionLostError) as caught:
                await client.append("events", b"x")
            assert "not_durable" == caught.value.durability

    run(main())


def test_a_connection_that_has_met_itself_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may give a client the port that it calls, where nobody listens: it heard its own
    greeting, and called that an error of the protocol, which nobody asks again about.
    """

    async def main() -> None:
        loop, port = asyncio.get_running_loop(), free_port()
        plain = loop.create_connection

        async def connect(make: Any, host: str, at: int, **options: Any) -> Any:
            return await plain(make, host, at, local_addr=("127.0.0.1", port), **options)

        monkeypatch.setattr(loop, "create_connection", connect)
        with pytest.raises(ConnectionLostError, match="nobody listens there") as caught:
            await Channel.open(Address("127.0.0.1", port), QUICK)
        assert caught.value.retriable

    run(main())


def test_a_client_outlives_a_restart_of_its_server(tmp_path: Path) -> None:
    """Nothing is lost and nothing is there twice, though answers were."""

    async def main() -> None:
        async with serving(tmp_path) as (_, address):
            port = int(address.rpartition(":")[2])
            client = AsyncClient(address, options=ClientOptions(retry_seconds=15))
            await client.create_topic("events")
            producer = await client.producer("events", linger_seconds=0.001)
            futures = [await producer.enqueue(b"%d" % number) for number in range(100)]
        futures += [await producer.enqueue(b"%d" % number) for number in range(100, 200)]
        await asyncio.sleep(0.05)
        async with serving(tmp_path, port=port):
            await producer.close()
            offsets = [future.result().offset for future in futures]
            found = await client.read("events", 0)
            await client.close()
        assert [b"%d" % number for number in range(200)] == [r.value for r in found]
        assert list(range(200)) == offsets

    run(main())


def test_a_wrong_token_is_refused_and_not_tried_for_ever(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, auth_token="right") as (_, address):
            async with AsyncClient(address, options=ClientOptions(token="wrong")) as client:
                with pytest.raises(UnauthenticatedError):
                    await client.topics()
            async with AsyncClient(address, options=ClientOptions()) as client:
                with pytest.raises(UnauthenticatedError):
                    await client.append("events", b"x")
            async with AsyncClient(address, options=ClientOptions(token="right")) as client:
                assert () == await client.topics()

    run(main())


def test_two_tokens_are_taken_while_one_takes_the_place_of_the_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, auth_token="new", auth_token_also="old") as (_, address):
            for token in ("new", "old"):
                async with AsyncClient(address, options=ClientOptions(token=token)) as client:
                    assert () == await client.topics()
            for token in ("neither", "newold", None):
                async with AsyncClient(address, options=ClientOptions(token=token)) as client:
                    with pytest.raises(UnauthenticatedError):
                        await client.topics()

    run(main())


@pytest.mark.parametrize(
    ("listen", "ask"), [("0.0.0.0", "127.0.0.2"), ("::", "[::1]"), ("127.0.0.1", "localhost")]
)
def test_a_server_of_its_own_is_where_it_was_asked(tmp_path: Path, listen: str, ask: str) -> None:
    """What it listens on leads nowhere from another machine, from behind a forwarded port, or with
    a certificate: a client that had reached it was told to go there.
    """

    async def main() -> None:
        async with serving(tmp_path, host=listen, insecure=True) as (_, address):
            asked = parse_address(f"{ask}:{address.rpartition(':')[2]}")
            async with AsyncClient([asked], options=QUICK) as client:
                described = await client.create_topic("t")
                is_told = described.partitions[0].address is not None
                assert is_told == (listen == "127.0.0.1")
                await client.append("t", b"x")
                assert 1 == len((await client.read("t", 0)).records)
                assert [asked] == list(client.router._channels)

    run(main())


def test_something_else_on_the_port_is_a_typed_error() -> None:
    async def main() -> None:
        async def http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            writer.close()

        listener = await asyncio.start_server(http, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        async with AsyncClient(f"127.0.0.1:{port}", options=QUICK) as client:
            with pytest.raises(ProtocolError):
                await client.topics()
        listener.close()

    run(main())


def test_a_channel_that_is_cut_tells_its_owner(tmp_path: Path) -> None:
    """A node that cuts a link to a stalled peer connects again only if it is told."""

    async def main() -> None:
        async with serving(tmp_path) as (_, address):
            channel = await Channel.open(parse_address(address), QUICK)
            lost = asyncio.Event()
            channel.on_lost = lost.set
            asked = channel.post(Ping())
            channel.abort()
            assert lost.is_set()
            with pytest.raises(ConnectionLostError, match="cut here"):
                await asked

    run(main())


class _Closing(asyncio.Transport):
    """A transport of uvloop's whose connection broke while something waited to be sent."""

    def is_closing(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, _data: object) -> None:
        raise RuntimeError("the handler is closed")


def test_what_is_sent_as_the_connection_breaks_fails_as_lost_and_nothing_else() -> None:
    async def main() -> None:
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        channel = Channel(parse_address("127.0.0.1:1", what="a server"), QUICK)
        channel.connection_made(_Closing())
        asked = channel.post(Hello((1,), "a test"))
        await asyncio.sleep(0)
        channel.connection_lost(None)

        assert isinstance(asked.exception(), ConnectionLostError)
        assert [] == faults

    run(main())


@pytest.mark.parametrize("servers", [["127.0.0.1", 7411], [b"x"], 7411, None, b"127.0.0.1:7411"])
def test_servers_that_are_no_texts_are_refused_by_type(servers: Any) -> None:
    with pytest.raises(TypeError, match="'HOST:PORT,HOST:PORT'"):
        Client(servers)


@pytest.mark.parametrize(
    "servers",
    [
        "127.0.0.1:7411, 127.0.0.2:7412",
        ["127.0.0.1:7411", "127.0.0.2:7412"],
        ("127.0.0.1,127.0.0.2:7412",),
        [Address("127.0.0.1", 7411), "127.0.0.2:7412"],
    ],
)
def test_servers_are_a_text_or_a_list_of_such(servers: Any) -> None:
    assert (Address("127.0.0.1", 7411), Address("127.0.0.2", 7412)) == addresses_of(servers)


@pytest.mark.parametrize("servers", ["", [], ["127.0.0.1:7411", ""], "127.0.0.1:x"])
def test_servers_of_which_one_is_none_are_refused(servers: Any) -> None:
    with pytest.raises(ConfigError):
        Client(servers)
