"""Three server processes for a benchmark: started, measured, killed, ended.

Place: under `bench_cluster`. Promise: each node is `chronik serve` as a user starts it, with a data
directory of its own and one bucket directory for all; whatever happens, every process that was
started is ended. Invariant: only processes started here are ever signalled.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

NODES = 3
START_SECONDS = 30.0
END_SECONDS = 20.0
_OURS = ("CHRONIK_", "S3_", "OBJECT_STORE_", "LOCAL_STORAGE_")


class Node:
    """One process."""

    def __init__(self, node_id: str, address: str, process: subprocess.Popen[bytes]) -> None:
        self.node_id = node_id
        self.address = address
        self.process = process

    def cpu_seconds(self) -> float:
        """User and system time since it started; Linux."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """SIGKILL: what a crash is."""
        self.process.kill()
        self.process.wait(END_SECONDS)


class Nodes:
    """A cluster on loopback. `with Nodes(directory) as nodes:` ends it."""

    def __init__(self, directory: str, *, environ: dict[str, str] | None = None) -> None:
        self.directory = directory
        self._environ = {
            name: value for name, value in os.environ.items() if not name.startswith(_OURS)
        }
        self._environ.update(environ or {})
        self.nodes: list[Node] = []

    @property
    def servers(self) -> str:
        """What a client is given."""
        return ",".join(node.address for node in self.nodes)

    @property
    def alive(self) -> list[Node]:
        """Those that run."""
        return [node for node in self.nodes if node.process.poll() is None]

    def check(self) -> None:
        """RuntimeError when one has ended by itself."""
        for node in self.nodes:
            if node.process.poll() is not None:
                raise RuntimeError(
                    f"node {node.node_id} has ended ({node.process.returncode}): {self._tail(node)}"
                )

    def __enter__(self) -> Self:
        addresses = {str(n): f"127.0.0.1:{_free_port()}" for n in range(1, NODES + 1)}
        peers = ",".join(f"{node}@{address}" for node, address in addresses.items())
        os.makedirs(self.directory, exist_ok=True)
        try:
            for node_id, address in addresses.items():
                self._start(node_id, address, peers)
            self._wait_until_listening()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self, node_id: str, address: str, peers: str) -> None:
        path = os.path.join(self.directory, node_id)
        command = [sys.executable, "-m", "chronik_server", "-d", path]
        command += ["--object-store", f"file://{self.directory}/bucket", "serve"]
        command += ["--node-id", node_id, "--listen", address, "--peers", peers]
        with open(f"{path}.log", "ab") as log:
            process = subprocess.Popen(
                command, env=self._environ, stdout=log, stderr=log, start_new_session=True
            )
        self.nodes.append(Node(node_id, address, process))

    def _wait_until_listening(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        for node in self.nodes:
            host, _, port = node.address.rpartition(":")
            while True:
                self.check()
                try:
                    socket.create_connection((host, int(port)), 1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)

    def _tail(self, node: Node) -> str:
        with open(f"{self.directory}/{node.node_id}.log", "rb") as log:
            return log.read()[-2000:].decode(errors="replace")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in self.alive:
            node.process.terminate()
        for node in self.nodes:
            try:
                node.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                node.kill()


def _free_port() -> int:
    """Below the range from which the system takes ports for outgoing connections."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
