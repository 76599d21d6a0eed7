"""Ports for the servers that tests start.

Promise: a process hands out a port once in a thousand, and no two workers of a run have one in
common: who waits for a node that is down must not meet another test's. They lie below the range
from which the system takes ports for outgoing connections, so that a node that was down finds its
own free when it comes back.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator

WORKERS = 8
PORTS = range(20_000, 32_000)


def _walk() -> Iterator[int]:
    """The ports of this worker, round and round from anywhere among them."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    share = len(PORTS) // WORKERS
    own = PORTS[worker * share : (worker + 1) * share]
    place = secrets.randbelow(share)
    while True:
        yield own[place]
        place = (place + 1) % share


_ports = _walk()


def free_ports(count: int) -> list[int]:
    """So many ports in a row that nobody listens on."""
    while True:
        row = [next(_ports) for _ in range(count)]
        if row[-1] - row[0] == count - 1 and all(map(_is_free, row)):
            return row


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
