"""How a server process ends: as it was asked to, or at once."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys

import pytest

from chronik_server.addresses import parse_address
from chronik_server.client import Client
from chronik_server.config import ServerConfig
from chronik_server.running import files_allowed, run
from tests.server.serving import QUICK


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_wish_and_a_second_one_ends_it_at_once(number):
    """With a code of its own, and no traceback."""

    async def graceful(stop):
        os.kill(os.getpid(), number)
        await stop.wait()
        return 7

    async def slow(stop):
        os.kill(os.getpid(), number)
        await stop.wait()
        os.kill(os.getpid(), number)
        await asyncio.sleep(60)
        return 7

    assert 7 == run(graceful)
    assert 130 == run(slow)


def test_who_is_cancelled_by_somebody_else_is_a_defect():
    async def main(_):
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run(main)


UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "given", "found"),
    [
        (1024, 524_288, 1 << 20, 524_288),
        (1024, 1024, 1 << 20, 1024),
        (256, UNLIMITED, 1 << 20, 10_240),
        (256, UNLIMITED, 2000, 256),
        (20_000, UNLIMITED, 1 << 20, 20_000),
        (UNLIMITED, UNLIMITED, UNLIMITED, sys.maxsize),
    ],
)
def test_a_server_asks_for_all_the_files_that_it_may_have(monkeypatch, soft, hard, given, found):
    limits = [soft, hard]

    def set_limit(_, wanted):
        if given != UNLIMITED and not 0 <= wanted[0] <= given:
            raise ValueError("current limit exceeds maximum limit")
        limits[:] = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    assert found == files_allowed()
    assert hard == limits[1]


def test_connections_leave_half_of_all_files_to_the_logs():
    """Those of nodes with them."""

    def places(files, **settings):
        found = ServerConfig(**settings).within(files)
        return found.connections_max, found.node_connections_max

    assert (448, 64) == places(1024)
    assert (64, 64) == places(256)
    assert (32, 32) == places(128)
    assert (1, 1) == places(4)
    assert (10_000, 64) == places(sys.maxsize)
    assert (7, 64) == places(1024, connections_max=7)
    assert (500, 12) == places(1024, node_connections_max=12)


@pytest.mark.cluster
def test_who_only_connects_takes_no_file_from_the_logs(tmp_path):
    """A log that could open none had failed, and took no records until the next start."""
    words = ["-m", "chronik_server", "-d", str(tmp_path), "serve", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        ["sh", "-c", 'ulimit -Sn 64; ulimit -Hn 128; exec "$@"', "sh", sys.executable, *words],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        others = []
        try:
            address = process.stdout.readline().split()[-1]
            with Client(address, options=QUICK) as client:
                client.create_topic("events")
                client.append("events", b"first")
                others += [socket.create_connection(parse_address(address), 5) for _ in range(200)]
                for _ in range(40):
                    client.append("events", bytes(100_000))
                assert 41 == client.watermarks("events").committed
        finally:
            process.terminate()
            for other in others:
                other.close()
        assert 0 == process.wait(20)
