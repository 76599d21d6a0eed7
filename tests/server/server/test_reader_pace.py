"""A reader that takes what waits for it is served on, however long that takes; others are cut."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from chronik_server import reader_pace
from chronik_server.addresses import parse_address
from chronik_server.client import AsyncClient
from chronik_server.protocol.connection import Connection
from chronik_server.protocol.data import Fetch
from chronik_server.protocol.events import Request, Response
from chronik_server.protocol.greeting import Hello
from chronik_server.protocol.states import Side
from chronik_server.protocol.verbs import Verb
from chronik_server.reader_pace import PACE_BYTES, ReaderPace
from chronik_server.tls import TlsOptions
from tests.server.certificates import certificates
from tests.server.serving import QUICK, connected, serving

MIB = 1 << 20
EVERY_LOOP = pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


def test_what_is_taken_counts_and_what_comes_to_wait_meanwhile_does_not() -> None:
    pace = ReaderPace(0.0)
    pace.sent_bytes = 10 * MIB
    pace.begin(1.0, 9 * MIB)
    assert 1.0 == pace.seconds(2.0, 9 * MIB)
    pace.sent_bytes += 5 * MIB
    assert 2.0 == pace.seconds(3.0, 14 * MIB)
    assert 3.0 == pace.seconds(4.0, 14 * MIB - PACE_BYTES + 1)
    assert 0.0 == pace.seconds(5.0, 14 * MIB - PACE_BYTES)
    assert 2.0 == pace.seconds(7.0, 14 * MIB - PACE_BYTES - 1)


@pytest.mark.slow
@EVERY_LOOP
def test_a_steady_reader_is_not_taken_for_one_that_has_stalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_loop: Any
) -> None:
    """Who took a long answer, or many, over a slow line was hung up on in the middle."""
    monkeypatch.setattr(reader_pace, "PACE_BYTES", 16 << 10)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with connected(tmp_path, write_stall_seconds=1.0) as (server, client):
            await client.create_topic("t")
            for _ in range(4):
                await client.append("t", bytes(2 * MIB))
            wire = Connection(Side.CLIENT)
            with socket.socket() as peer:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
                peer.connect(tuple(client.router._servers[0]))
                peer.setblocking(False)

                async def say(number: int, verb: Verb, message: object) -> None:
                    said = wire.send(Request(number, verb, message))
                    await loop.sock_sendall(peer, b"".join(bytes(part) for part in said))

                await say(1, Verb.HELLO, Hello((1,)))
                wire.receive_data(await loop.sock_recv(peer, 1 << 16))
                session: Any = list(server.sessions)[-1]
                accepted = session._transport.get_extra_info("socket")
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
                await say(2, Verb.FETCH, Fetch("t", 0, 0, max_bytes=8 * MIB))
                begun, answers = loop.time(), []
                while not answers:
                    is_slow = loop.time() - begun < 2.5
                    if is_slow:
                        await asyncio.sleep(0.02)
                    taken = await loop.sock_recv(peer, (16 << 10) if is_slow else MIB)
                    assert taken
                    answers = wire.receive_data(taken)
                (answer,) = answers
                assert isinstance(answer, Response)
                assert len(answer.payload) > 5 * MIB
                assert loop.time() - begun > 2.0
                assert 0 == server.metrics.refused.labels("stalled")._value.get()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(main(), 30))


@pytest.mark.slow
@EVERY_LOOP
def test_what_waits_behind_tls_is_counted_and_who_takes_nothing_of_it_is_cut(
    tmp_path: Path, new_loop: Any
) -> None:
    """It was handed on whole: it counted as taken, and its reader had as long as an idle one."""
    files = certificates(tmp_path / "tls")
    tls = TlsOptions(certificate=files["server.pem"], key=files["server.key"])
    believed = TlsOptions(ca=files["ca.pem"])

    def ask(address: str) -> ssl.SSLSocket:
        plain, wire = socket.socket(), Connection(Side.CLIENT)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        plain.connect(parse_address(address))
        peer = believed.client_context().wrap_socket(plain, server_hostname="127.0.0.1")
        for number, verb, message in (
            (1, Verb.HELLO, Hello((1,))),
            (2, Verb.FETCH, Fetch("t", 0, 0, max_bytes=16 * MIB)),
        ):
            said = wire.send(Request(number, verb, message))
            peer.sendall(b"".join(bytes(part) for part in said))
            if verb is Verb.HELLO:
                wire.receive_data(peer.recv(1 << 16))
        return peer

    async def main() -> None:
        async with serving(tmp_path / "d", tls=tls, write_stall_seconds=0.3) as (server, address):
            options = replace(QUICK, tls=believed)
            async with AsyncClient(address, options=options) as client:
                await client.create_topic("t")
                for _ in range(6):
                    await client.append("t", bytes(2 * MIB))
            peer = await asyncio.to_thread(ask, address)
            most = 0
            while not server.metrics.refused.labels("stalled")._value.get():
                most = max(most, server.answers.used)
                await asyncio.sleep(0.01)
            assert most > 4 * MIB
            peer.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(main(), 30))
