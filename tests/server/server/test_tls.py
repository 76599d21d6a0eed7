"""TLS between clients and a server: who is let in, and what a handshake may cost."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
import uvloop

from chronik_server.addresses import parse_address
from chronik_server.client import AsyncClient, ClientOptions
from chronik_server.errors import CertificateError, ConnectionLostError, UnauthenticatedError
from chronik_server.server import Server
from chronik_server.tls import TlsOptions
from chronik_store.errors import (
    ConfigError,
)
from tests.ports import free_ports
from tests.server.certificates import certificates
from tests.server.serving import run, serving


def test_tls_asks_for_a_certificate_of_the_ca_and_a_token(tmp_path: Path) -> None:
    files = certificates(tmp_path)
    server_tls = TlsOptions(
        certificate=files["server.pem"], key=files["server.key"], ca=files["ca.pem"]
    )
    client_tls = TlsOptions(
        certificate=files["client.pem"], key=files["client.key"], ca=files["ca.pem"]
    )

    async def ask(address: str, tls: TlsOptions | None, token: str | None) -> object:
        options = ClientOptions(tls=tls, token=token, retry_seconds=0.1, connect_seconds=2)
        async with AsyncClient(address, options=options) as client:
            return await client.topics()

    async def main() -> None:
        async with serving(tmp_path / "d", tls=server_tls, auth_token="t") as (_, address):
            assert () == await ask(address, client_tls, "t")
            with pytest.raises(UnauthenticatedError):
                await ask(address, client_tls, None)
            with pytest.raises(ConnectionLostError, match="does it ask for a client certificate"):
                await ask(address, TlsOptions(ca=files["ca.pem"]), "t")
            with pytest.raises(ConnectionLostError, match="does it ask for TLS"):
                await ask(address, None, "t")
            with pytest.raises(CertificateError, match="have CHRONIK_TLS_CA name the CA"):
                await ask(address, TlsOptions(), "t")

    run(main())
    with pytest.raises(ConfigError, match=r"nothing\.pem"):
        TlsOptions(certificate="nothing.pem", key="nothing.key").server_context()
    assert ssl.TLSVersion.TLSv1_2 == client_tls.client_context().minimum_version


LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.parametrize("new_loop", LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ("another CA", "have CHRONIK_TLS_CA name the CA"),
        ("expired", "replace it there"),
        ("another name", "connect by a name that is in it"),
    ],
)
def test_a_certificate_that_is_not_believed_is_said_at_once(
    tmp_path: Path, fault: str, advice: str, new_loop: Any
) -> None:
    """It was taken for a lost connection, and asked again for as long as the client is patient."""
    files = certificates(tmp_path / "tls", days=-1 if fault == "expired" else 2)
    others = certificates(tmp_path / "others") if fault == "another CA" else files
    tls = TlsOptions(certificate=files["server.pem"], key=files["server.key"])
    patient = ClientOptions(tls=TlsOptions(ca=others["ca.pem"]), retry_seconds=60)

    async def main() -> None:
        async with serving(tmp_path / "d", tls=tls) as (_, shown):
            named = "localhost" if fault == "another name" else "127.0.0.1"
            address = shown.replace("127.0.0.1", named)
            nobody = f"127.0.0.1:{free_ports(1)[0]}"
            for servers in (address, f"{address},{nobody}", f"{nobody},{address}"):
                async with asyncio.timeout(5), AsyncClient(servers, options=patient) as client:
                    with pytest.raises(CertificateError, match=advice):
                        await client.topics()
                    with pytest.raises(CertificateError, match=advice):
                        await client.append("events", b"x")
                    with pytest.raises(CertificateError, match=advice):
                        await client.producer("events")

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(main(), 30))


def test_another_address_whose_certificate_is_believed_is_enough(tmp_path: Path) -> None:
    files, others = certificates(tmp_path / "tls"), certificates(tmp_path / "others")
    good = TlsOptions(certificate=files["server.pem"], key=files["server.key"])
    bad = TlsOptions(certificate=others["server.pem"], key=others["server.key"])
    options = ClientOptions(tls=TlsOptions(ca=files["ca.pem"]), retry_seconds=60)

    async def main() -> None:
        async with (
            serving(tmp_path / "good", tls=good) as (_, works),
            serving(tmp_path / "bad", tls=bad) as (_, does_not),
        ):
            for servers in (f"{works},{does_not}", f"{does_not},{works}"):
                async with asyncio.timeout(5), AsyncClient(servers, options=options) as client:
                    await client.create_topic("t", exist_ok=True)
                    await client.append("t", b"x")
                    # One that led may have been given another certificate since.
                    client.router._leaders["t", 0] = parse_address(does_not)
                    await client.append("t", b"x")

    run(main())


def test_a_caller_whose_certificate_is_not_believed_is_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its side sees a connection that is reset; once, however often it calls."""
    files, others = certificates(tmp_path / "tls"), certificates(tmp_path / "others")
    tls = TlsOptions(certificate=files["server.pem"], key=files["server.key"], ca=files["ca.pem"])
    stranger = TlsOptions(
        certificate=others["client.pem"], key=others["client.key"], ca=files["ca.pem"]
    )

    async def main() -> None:
        async with serving(tmp_path / "d", tls=tls) as (_, address):
            options = ClientOptions(tls=stranger, retry_seconds=0)
            for _ in range(3):
                async with AsyncClient(address, options=options) as client:
                    with pytest.raises(ConnectionLostError):
                        await client.topics()

    run(main())
    said = [each for each in caplog.messages if "hung up on a caller" in each]
    assert 1 == len(said)
    assert "the certificate of 127.0.0.1 is not believed" in said[0]


def test_22_a_handshake_that_never_comes_is_hung_up_on(tmp_path: Path) -> None:
    files = certificates(tmp_path)
    tls = TlsOptions(certificate=files["server.pem"], key=files["server.key"])

    async def main() -> None:
        async with serving(tmp_path / "d", tls=tls, greeting_seconds=0.2) as (_, address):
            host, _, port = address.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            assert b"" == await asyncio.wait_for(reader.read(), 10)
            writer.close()

    run(main())


@pytest.mark.parametrize("new_loop", LOOPS, ids=["asyncio", "uvloop"])
def test_who_shakes_hands_counts_as_a_connection(tmp_path: Path, new_loop: Any) -> None:
    files = certificates(tmp_path)
    tls = TlsOptions(certificate=files["server.pem"], key=files["server.key"])
    options = ClientOptions(tls=TlsOptions(ca=files["ca.pem"]), connect_seconds=2, retry_seconds=0)

    async def ask(address: str) -> object:
        async with AsyncClient(address, options=options) as client:
            return await client.topics()

    def refused(server: Server, reason: str) -> float:
        return server.metrics.refused.labels(reason)._value.get()

    async def main() -> None:
        async with serving(tmp_path / "d", tls=tls, connections_max=3, greeting_seconds=1.0) as (
            server,
            address,
        ):
            host, _, port = address.rpartition(":")
            for _ in range(5):  # whoever hangs up makes room
                mute = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
                assert () == await ask(address)
                for _, writer in mute:
                    writer.close()
                async with asyncio.timeout(5):
                    await asyncio.gather(*(reader.read() for reader, _ in mute))
            await asyncio.sleep(0.1)
            assert 0 == server.connections
            assert 0 == refused(server, "connections")

            mute = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
            await asyncio.sleep(0.05)
            assert 3 == server.connections
            with pytest.raises(ConnectionLostError):
                await ask(address)
            assert 1 == refused(server, "connections")
            assert 0 == refused(server, "greeting")
            async with asyncio.timeout(5):  # and their time is bounded
                await asyncio.gather(*(reader.read() for reader, _ in mute))
            assert 3 == refused(server, "greeting")
            assert () == await ask(address)
            for _, writer in mute:
                writer.close()

            plain, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            async with asyncio.timeout(5):
                await plain.read()
            writer.close()
            assert 4 == refused(server, "greeting")

            mute = [await asyncio.open_connection(host, int(port))]
        async with asyncio.timeout(5):  # a server that stops waits for nobody's handshake
            await mute[0][0].read()
        mute[0][1].close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(main(), 30))
