"""Three nodes that believe certificates of one CA and ask for a token: clients of all kinds, each
other, and one of them that comes back with a certificate that has run out.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from chronik_server.addresses import parse_address
from chronik_server.client import AsyncClient, ClientOptions
from chronik_server.errors import CertificateError, ConnectionLostError, UnauthenticatedError
from chronik_server.tls import TlsOptions
from chronik_store.errors import ChronikError
from tests.ports import free_ports
from tests.server.certificates import certificates
from tests.server.cluster.nodes import InProcess, servers, start
from tests.server.serving import QUICK

TOKEN = "t"


def shown(files: dict[str, str], name: str = "server") -> TlsOptions:
    """What a node shows and believes; or a client."""
    return TlsOptions(
        certificate=files[f"{name}.pem"], key=files[f"{name}.key"], ca=files["ca.pem"]
    )


async def eventually_read(node: InProcess, options: ClientOptions, values: list[bytes]) -> None:
    """That one node has all of these."""
    async with asyncio.timeout(20), AsyncClient(node.address, options=options) as client:
        while True:
            with contextlib.suppress(ChronikError):
                found = await client.read("kept", 0, from_any=True)
                if values == [record.value for record in found.records]:
                    return
            await asyncio.sleep(0.05)


@pytest.mark.slow
def test_a_cluster_over_tls_lets_in_who_proves_it_and_does_without_who_cannot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = certificates(tmp_path / "tls")
    late = certificates(tmp_path / "late", days=-1, authority=tmp_path / "tls")
    others = certificates(tmp_path / "others")
    good = replace(QUICK, token=TOKEN, tls=shown(files, "client"), retry_seconds=15.0)

    async def main() -> None:
        peers = tuple(
            (str(number), parse_address(f"127.0.0.1:{port}"))
            for number, port in enumerate(free_ports(3), start=1)
        )

        async def begun(node_id: str, files: dict[str, str]) -> InProcess:
            return await start(tmp_path, node_id, peers, tls=shown(files), auth_token=TOKEN)

        async def refused(options: ClientOptions, error: type[ChronikError], said: str) -> None:
            hurried = replace(options, retry_seconds=0.2, connect_seconds=2.0)
            async with AsyncClient(servers(nodes), options=hurried) as client:
                with pytest.raises(error, match=said):
                    await client.append("kept", b"no")
                with pytest.raises(error, match=said):
                    await client.topics()

        nodes = [await begun(node_id, files) for node_id, _ in peers]
        try:
            async with AsyncClient(servers(nodes), options=good) as client:
                await client.create_topic("spread", partitions=3, replicas=1)
                for number in range(3):
                    await client.append("spread", b"found", partition=number)
                await client.create_topic("kept")
                await client.append("kept", b"1")
            for node in nodes:  # each asks the others, as their client
                async with AsyncClient(node.address, options=good) as client:
                    assert 3 == (await client.search("spread", "found")).total
                await eventually_read(node, good, [b"1"])

            await refused(replace(good, token="wrong"), UnauthenticatedError, "the token")
            await refused(replace(good, token=None), UnauthenticatedError, "the token")
            without, stranger = TlsOptions(ca=files["ca.pem"]), shown(others, "client")
            lost = "does it ask for a client certificate"
            await refused(replace(good, tls=without), ConnectionLostError, lost)
            await refused(replace(good, tls=stranger), CertificateError, "is not believed")
            await refused(replace(good, tls=shown(late, "client")), ConnectionLostError, "believe")
            await refused(replace(good, tls=None), ConnectionLostError, "does it ask for TLS")

            await nodes.pop().server.stop()
            nodes.append(await begun("3", late))
            async with AsyncClient(servers(nodes), options=good) as client:
                await client.append("kept", b"2")
            async with AsyncClient(nodes[-1].address, options=good) as client:
                with pytest.raises(CertificateError, match="it has run out: replace it there"):
                    await client.topics()
            async with asyncio.timeout(10):
                while "node 3 is not connected" not in caplog.text:  # noqa: ASYNC110 (no event says so)
                    await asyncio.sleep(0.05)
            assert not nodes[0].backend._peers.is_connected("3")

            await nodes.pop().server.stop()
            nodes.append(await begun("3", files))
            await eventually_read(nodes[-1], good, [b"1", b"2"])
        finally:
            for node in nodes:
                await node.server.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 60))
