"""Three server processes on loopback and one bucket, for one test."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from chronik_server.client import ClientOptions
from tests.ports import free_ports

OPTIONS = ClientOptions(connect_seconds=2, request_seconds=5, retry_seconds=20)
SETTINGS = {
    "CHRONIK_SEGMENT_BYTES": "20000",
    "CHRONIK_WAL_INDEXING_INTERVAL": "0.3",
}


class Cluster:
    """Nodes "1", "2", "3"; each may be killed and started again."""

    def __init__(self, path: Path, **settings: str) -> None:
        self.path = path
        self.addresses = {
            str(number): f"127.0.0.1:{port}" for number, port in enumerate(free_ports(3), 1)
        }
        self.bucket = path / "bucket"
        name = {"CHRONIK_CLUSTER_NAME": f"test-{secrets.token_hex(4)}"}
        self._settings = {**SETTINGS, **name, **settings}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def servers(self) -> str:
        """What a client is given."""
        return ",".join(self.addresses.values())

    def start(self, node: str) -> None:
        """Start one node; returns when it listens."""
        peers = ",".join(f"{each}@{address}" for each, address in self.addresses.items())
        arguments = [sys.executable, "-m", "chronik_server", "-d", str(self.path / node)]
        arguments += ["--object-store", f"file://{self.bucket}", "serve", "--node-id", node]
        arguments += ["--listen", self.addresses[node], "--peers", peers]
        environ = {**os.environ, **self._settings, "PYTHONPATH": os.getcwd()}
        environ.pop("CHRONIK_SERVER", None)
        with (self.path / f"{node}.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                arguments, stdout=subprocess.PIPE, stderr=log, env=environ
            )
        line = self._processes[node].stdout.readline()  # type: ignore[union-attr]
        assert b"listens on" in line, (self.path / f"{node}.log").read_text()[-2000:]

    def kill(self, node: str, number: int = signal.SIGKILL) -> int:
        """End a node; its exit code."""
        process = self._processes.pop(node)
        process.send_signal(number)
        code = process.wait(20)
        assert process.stdout is not None
        process.stdout.close()
        return code

    def __enter__(self) -> Self:
        for node in self.addresses:
            self.start(node)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in list(self._processes):
            self.kill(node)

    def objects(self, folder: str) -> list[str]:
        """Keys below a folder of the bucket."""
        root = self.bucket / folder
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
