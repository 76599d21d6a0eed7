"""Twice a second the server looks at who is too slow, and nobody keeps it from the others."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import uvloop

from chronik_server.client import AsyncClient
from chronik_server.protocol import data, greeting
from chronik_server.protocol.connection import Connection
from chronik_server.protocol.events import Request
from chronik_server.protocol.states import Side
from chronik_server.protocol.verbs import Verb
from chronik_server.server import Server
from chronik_server.session import Session
from chronik_server.tls import TlsOptions
from tests.server.certificates import certificates
from tests.server.serving import connected, run, serving

EVERY_LOOP = pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


def refused(server: Server, reason: str) -> float:
    return server.metrics.refused.labels(reason)._value.get()


async def until_gone(server: Server, session: Session, seconds: float) -> bool:
    for _ in range(round(seconds / 0.05)):
        if session not in server.sessions:
            return True
        await asyncio.sleep(0.05)
    return False


@EVERY_LOOP
def test_a_tls_peer_that_does_not_hang_up_in_turn_is_cut_and_ends_no_limits(
    tmp_path: Path, new_loop: Any
) -> None:
    """Without a token it ended them for everybody; and with each look it counted as one more."""
    files = certificates(tmp_path / "tls")
    tls = TlsOptions(certificate=files["server.pem"], key=files["server.key"])
    context = ssl.create_default_context(cafile=files["ca.pem"])
    settings = {"greeting_seconds": 0.3, "write_stall_seconds": 1.5}

    async def main() -> None:
        async with serving(tmp_path / "d", tls=tls, auth_token="t", **settings) as (server, shown):
            host, _, port = shown.rpartition(":")

            def connect() -> socket.socket:
                return context.wrap_socket(
                    socket.create_connection((host, int(port))), server_hostname=host
                )

            silent = await asyncio.to_thread(connect)  # and reads nothing, so it answers nothing
            while not server.sessions:  # noqa: ASYNC110 (bounded below)
                await asyncio.sleep(0.01)
            (first,) = server.sessions
            assert await until_gone(server, first, 10)
            assert 1 == refused(server, "greeting")
            second = await asyncio.to_thread(connect)
            while not server.sessions:  # noqa: ASYNC110 (bounded below)
                await asyncio.sleep(0.01)
            (other,) = server.sessions
            assert await until_gone(server, other, 10)
            assert 2 == refused(server, "greeting")
            silent.close()
            second.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(main(), 30))


def test_a_session_that_fails_is_cut_and_the_others_are_looked_at(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with connected(tmp_path, greeting_seconds=0.3) as (server, client):
            await client.ping()
            (broken,) = server.sessions

            def fail(now: float) -> None:
                raise AttributeError("a defect")

            broken.check = fail  # type: ignore[method-assign]
            address = client.router._servers[0]
            reader, writer = await asyncio.open_connection(address.host, address.port)
            assert b"greeting" in await asyncio.wait_for(reader.read(), 5)
            writer.close()
            assert await until_gone(server, broken, 5)
            assert 0 < await client.ping()  # over a new connection

    run(main())
    assert 1 == sum("could not be looked at" in each for each in caplog.messages)


async def leave_untaken(server: Server, client: AsyncClient) -> tuple[socket.socket, Session]:
    """Some records that wait to be sent: more than the system takes, less than stops anything."""
    await client.create_topic("events")
    await client.append("events", b"x" * (30 << 10))
    own = set(server.sessions)
    address = client.router._servers[0]
    peer, wire = socket.socket(), Connection(Side.CLIENT)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect((address.host, address.port))

    def say(number: int, verb: Verb, message: Any) -> None:
        peer.sendall(b"".join(bytes(part) for part in wire.send(Request(number, verb, message))))

    say(1, Verb.HELLO, greeting.Hello((1,)))
    wire.receive_data(await asyncio.to_thread(peer.recv, 4096))
    (session,) = set(server.sessions) - own
    assert session._transport is not None
    accepted = session._transport.get_extra_info("socket")
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    number = 1
    while not session.backlog_bytes:
        number += 1
        say(number, Verb.FETCH, data.Fetch("events", 0, 0, max_bytes=1 << 20))
        await asyncio.sleep(0.02)
    assert session._writable
    return peer, session


@EVERY_LOOP
@pytest.mark.parametrize("ends", ["says no more", "has hung up"])
def test_a_reader_that_leaves_a_little_untaken_is_cut(
    tmp_path: Path, ends: str, new_loop: Any
) -> None:
    """Its connection was closed, which waits for what is to be sent, for ever."""

    async def main() -> None:
        settings = {"write_stall_seconds": 0.5, "idle_seconds": 0.5}
        async with connected(tmp_path, **settings) as (server, client):
            peer, session = await leave_untaken(server, client)
            if ends == "has hung up":
                peer.shutdown(socket.SHUT_WR)
            assert await until_gone(server, session, 8)
            peer.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(main(), 30))


def test_a_reader_that_is_late_gets_what_was_for_it_before_the_end(tmp_path: Path) -> None:
    """Nothing is cut while what is left has still time to go."""

    async def main() -> None:
        settings = {"write_stall_seconds": 10.0, "idle_seconds": 0.5}
        async with connected(tmp_path, **settings) as (server, client):
            peer, session = await leave_untaken(server, client)
            while not session._is_closing:  # noqa: ASYNC110 (`run` bounds it)
                await asyncio.sleep(0.05)
            untaken = session.backlog_bytes
            taken = 0
            while some := await asyncio.to_thread(peer.recv, 1 << 16):
                taken += len(some)
            assert taken >= untaken > 0
            assert await until_gone(server, session, 5)
            peer.close()

    run(main())
