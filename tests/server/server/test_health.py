"""The health page is for few: who comes beyond them costs no thread."""

from __future__ import annotations

import asyncio
import socket
import time
import urllib.request
from pathlib import Path

import pytest

from chronik_server import health
from chronik_server.addresses import Address
from chronik_server.health import Health
from tests.server.serving import connected, run


def test_22_connections_that_ask_nothing_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CONNECTIONS_MAX", 2)

    def live(base: str) -> int:
        with urllib.request.urlopen(base + "/live", timeout=5) as answer:
            return int(answer.status)

    def visit(address: Address) -> None:
        place = (address.host, address.port)
        with socket.create_connection(place, 5), socket.create_connection(place, 5) as second:
            with socket.create_connection(place, 5) as third:
                assert third.recv(1) == b"", "one too many"
            second.close()
            for _ in range(50):
                try:
                    assert live(f"http://{address}") == 200
                except OSError:
                    time.sleep(0.1)  # the thread of the second has not ended yet
                    continue
                return
            raise AssertionError("whoever leaves makes room")

    async def main() -> None:
        async with connected(tmp_path) as (server, _):
            page = Health(server, asyncio.get_running_loop())
            address = page.start(Address("127.0.0.1", 0))
            try:
                await asyncio.to_thread(visit, address)
            finally:
                await asyncio.to_thread(page.stop)

    run(main())
