"""The health page says what is, to few at once, and keeps no loop waiting."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from chronik_server import health
from chronik_server.addresses import Address
from chronik_server.cli_serve import serve
from chronik_server.config import ServerConfig
from chronik_server.health import Health
from chronik_store.cli.session import Session
from tests.server.serving import LOG, connected, run


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


def test_who_says_a_word_now_and_then_does_not_keep_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few such connections kept everybody else from asking, for ever."""
    monkeypatch.setattr(health, "CONNECTIONS_MAX", 1)
    monkeypatch.setattr(health, "CONNECTION_SECONDS", 0.3)

    def drip(address: Address) -> None:
        with socket.create_connection((address.host, address.port), 5) as slow:
            slow.sendall(b"GET /live HTTP/1.1\r\n")
            slow.settimeout(0.05)
            end = time.monotonic() + 10
            with contextlib.suppress(ConnectionError):
                while time.monotonic() < end:
                    with contextlib.suppress(TimeoutError):
                        assert b"" == slow.recv(1)
                        return
                    slow.sendall(b"x")
                raise AssertionError("it goes on for ever")

    async def main() -> None:
        async with connected(tmp_path) as (server, _):
            page = Health(server, asyncio.get_running_loop())
            address = page.start(Address("127.0.0.1", 0))
            try:
                await asyncio.to_thread(drip, address)
            finally:
                await asyncio.to_thread(page.stop)

    run(main())


def test_health_says_what_is(tmp_path: Path) -> None:
    def get(url: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    async def main() -> None:
        async with connected(tmp_path) as (server, client):
            await client.create_topic("events")
            await client.append("events", b"x")
            health = Health(server, asyncio.get_running_loop())
            base = f"http://{health.start(Address('127.0.0.1', 0))}"
            assert (200, '{"event loop": "ok"}\n') == await asyncio.to_thread(get, base + "/live")
            assert 200 == (await asyncio.to_thread(get, base + "/ready"))[0]
            page = (await asyncio.to_thread(get, base + "/metrics"))[1]
            assert 'chronik_requests_total{verb="produce"} 1.0' in page
            assert "chronik_connections 1.0" in page
            assert 'chronik_partitions{role="leader"} 1.0' in page
            assert 'chronik_records_waiting{limit="committed"} 0.0' in page
            assert 'chronik_records_waiting{limit="tiered"} 1.0' in page
            assert "chronik_status_answered 1.0" in page
            assert 404 == (await asyncio.to_thread(get, base + "/secret"))[0]
            server.leaving = True
            assert 503 == (await asyncio.to_thread(get, base + "/ready"))[0]
            server.leaving = False
            await server.backend.close()
            page = (await asyncio.to_thread(get, base + "/metrics"))[1]
            assert "chronik_status_answered 0.0" in page
            assert "chronik_disk_free_bytes" not in page, "unknown is not zero"
            code, said = await asyncio.to_thread(get, base + "/ready")
            assert (503, True) == (code, "is closed" in json.loads(said)["store"])
            await asyncio.to_thread(health.stop)

    run(main())


@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_health_asks_nobody_what_the_machine_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """A name server that is away would hold the event loop of a node that has just started."""

    def hanging(*_: object) -> str:
        raise AssertionError("a name server is asked")

    monkeypatch.setattr("socket.getfqdn", hanging)

    async def main() -> None:
        async with connected(tmp_path) as (server, _):
            health = Health(server, asyncio.get_running_loop())
            address = health.start(Address(host, 0))
            _, writer = await asyncio.open_connection(address.host, address.port)
            writer.close()
            await asyncio.to_thread(health.stop)

    run(main())


def test_a_node_that_stops_does_not_hold_its_loop_for_the_sake_of_health(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its appends are seen through meanwhile, and it beats."""
    stop, threads = Health.stop, []

    def watched(health: Health) -> None:
        threads.append(threading.current_thread())
        stop(health)

    monkeypatch.setattr(Health, "stop", watched)
    free = Address("127.0.0.1", 0)
    config = ServerConfig(data_dir=str(tmp_path), listen=free, health_listen=free)

    async def main() -> None:
        asked = asyncio.Event()
        asked.set()
        assert 0 == await serve(Session(), config, LOG, asked)
        assert threading.current_thread() not in threads
        assert 1 == len(threads)

    run(main())
