"""`chronik cluster`: three nodes on this machine, one command, Ctrl-C stops them cleanly.

Place: a verb; it starts `chronik serve` three times and watches. Promise: what cannot work (a port
that is taken, a setting) is said before anything is started; what is printed is printed when the
nodes are ready, and can be pasted (`chronik -s ...`). A node that ends before that ends the rest;
when one ends later, the others go on, as a cluster does, and its last log line is shown. All are
stopped before this ends, also when its terminal is closed. Exit 0 when it stopped as asked, 3 when
a node ended by itself.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from chronik_server.client import Client, ClientOptions
from chronik_server.config import ServerConfig
from chronik_store.cli import exits
from chronik_store.cli.options import pass_session, verb
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import say
from chronik_store.errors import ChronikError, ConfigError, UnavailableError

STOP_SECONDS = 15.0
READY_SECONDS = 60.0
LOOK_SECONDS = 0.2
OF_ONE_NODE = {
    "CHRONIK_SERVER", "CHRONIK_DATA_DIR", "CHRONIK_LISTEN", "CHRONIK_ADVERTISE", "CHRONIK_PEERS",
    "CHRONIK_HEALTH_LISTEN", "CHRONIK_NODE_ID", "CHRONIK_JOIN",
}  # fmt: skip
"""Settings that no two nodes may share: each gets its own as options."""
Processes = dict[str, subprocess.Popen[bytes]]


@verb(
    "cluster",
    "chronik cluster",
    "chronik -d /tmp/demo cluster --port 7500",
    "chronik -s 127.0.0.1:7411,127.0.0.1:7412,127.0.0.1:7413 topic create events",
)
@click.option("--nodes", type=click.IntRange(1, 9), default=3, show_default=True, metavar="N")
@click.option(
    "--port", type=click.IntRange(1, 65000), default=7411, show_default=True, metavar="PORT",
    help="Of the first node; the others follow.",
)  # fmt: skip
@pass_session
def command(session: Session, nodes: int, port: int) -> int:
    """Run a cluster on this machine: DIR/1, DIR/2, ..., and one bucket, DIR/bucket."""
    directory = Path(session.own_directory()).absolute()
    ids = [str(number) for number in range(1, nodes + 1)]
    addresses = {node: f"127.0.0.1:{port + at}" for at, node in enumerate(ids)}
    bucket = session.writing_config().object_store or f"file://{directory}/bucket"
    environ = {name: value for name, value in os.environ.items() if name not in OF_ONE_NODE}
    ServerConfig.from_env(environ)  # a ConfigError is said here, not in three logs
    _check_ports(range(port, port + nodes))
    logs = {node: directory / f"{node}.log" for node in ids}
    _make(directory, logs)
    _end_with_the_terminal()
    watch = _Watch(logs)
    try:
        for node, log in logs.items():
            watch.add(node, _start(directory / node, node, addresses, bucket, log, environ))
        if not _wait_until_ready(watch, addresses, environ):
            return exits.UNAVAILABLE
        if session.as_json:
            session.output.json({"nodes": addresses, "bucket": bucket, "logs": str(directory)})
        else:
            for node in ids:
                session.output.line(f"node {node}  {addresses[node]}  log {logs[node]}")
            session.output.line(f"chronik -s {','.join(addresses.values())} topic create events")
        session.output.flush()
        while len(watch.ended) < nodes:
            watch.look(1.0)
    except KeyboardInterrupt:
        watch.look(0.0)
    finally:
        _stop(watch.processes)
    return exits.UNAVAILABLE if watch.ended else exits.DONE


def _end_with_the_terminal() -> None:
    """As by SIGTERM: nodes have sessions of their own, and would go on with nobody to stop them.
    Who was told to outlive it (nohup) does.
    """
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))


def _make(directory: Path, logs: Mapping[str, Path]) -> None:
    """The directory and the nodes' logs, before a process is there to be left behind."""
    try:
        if directory.exists() and not directory.is_dir():
            raise ConfigError(f"{directory} is a file; a directory is needed")
        directory.mkdir(parents=True, exist_ok=True)
        for log in logs.values():
            log.open("ab").close()
    except OSError as error:
        raise UnavailableError(f"cannot write {error.filename}: {error.strerror}") from error


def _check_ports(ports: range) -> None:
    if ports[-1] > 65535:
        raise ConfigError(f"--port {ports[0]}: the last node's would be {ports[-1]}")
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise ConfigError(
                    f"port {port} cannot be used: {error.strerror}; choose others with --port"
                ) from error


def _start(
    path: Path,
    node: str,
    addresses: dict[str, str],
    bucket: str,
    log: Path,
    environ: Mapping[str, str],
) -> subprocess.Popen[bytes]:
    peers = ",".join(f"{each}@{address}" for each, address in addresses.items())
    arguments = [sys.executable, "-m", "chronik_server", "-d", str(path), "--json"]
    arguments += ["--object-store", bucket, "serve", "--node-id", node]
    arguments += ["--listen", addresses[node], "--peers", peers]
    with log.open("ab") as output:
        # A session of its own: Ctrl-C reaches us alone, and we stop the nodes one by one.
        return subprocess.Popen(  # noqa: S603 (ourselves)
            arguments, stdout=output, stderr=output, start_new_session=True, env=environ
        )


class _Watch:
    """Says when a node ends, and what its log said last. `ended`: which have; `has_failed`: one
    of them by itself, not by a signal. `processes`: all that were added.
    """

    def __init__(self, logs: Mapping[str, Path]) -> None:
        self.ended: list[str] = []
        self.has_failed = False
        self.processes: Processes = {}
        self._logs = logs
        self._found: list[str] = []
        self._news = threading.Condition()

    def add(self, node: str, process: subprocess.Popen[bytes]) -> None:
        """Watch this one, too."""
        self.processes[node] = process
        threading.Thread(target=self._wait, args=(node,), daemon=True).start()

    def _wait(self, node: str) -> None:
        self.processes[node].wait()
        with self._news:
            self._found.append(node)
            self._news.notify()

    def look(self, seconds: float) -> None:
        """Wait so long for news."""
        with self._news:
            if len(self._found) == len(self.ended):
                self._news.wait(seconds)
            fresh = self._found[len(self.ended) :]
        for node in fresh:
            self.ended.append(node)
            code = self.processes[node].returncode
            self.has_failed |= code >= 0
            say(f"chronik: node {node} has ended, exit code {code}{last_words(self._logs[node])}")


def last_words(log: Path) -> str:
    """The last line of a node's log, as it would be said; "" for an empty one."""
    lines = log.read_bytes().decode(errors="replace").strip().splitlines()
    if not lines:
        return ""
    try:
        found = json.loads(lines[-1])
    except ValueError:
        return f": {lines[-1]}"
    return f": {found.get('message') or found.get('event') or lines[-1]}"


def _wait_until_ready(watch: _Watch, addresses: dict[str, str], environ: Mapping[str, str]) -> bool:
    """All nodes answer and know each other and who leads. False: one of them could not begin, or
    all are gone; that somebody kills one already is no reason to stop the others.
    """
    options = replace(ClientOptions.from_env(environ), retry_seconds=0.0, connect_seconds=1.0)
    deadline, waiting = time.monotonic() + READY_SECONDS, list(addresses)
    while waiting and not watch.has_failed:
        with Client(addresses[waiting[0]], options=options) as client:
            try:
                found = client.cluster()
            except ChronikError:
                found = None  # not yet
        is_ready = found is not None and found.leader and len(found.nodes) >= len(addresses)
        if is_ready or waiting[0] in watch.ended:
            waiting.pop(0)
        elif time.monotonic() > deadline:
            say(f"chronik: node {waiting[0]} is not ready after {READY_SECONDS:g} s; see its log")
            return False
        else:
            watch.look(LOOK_SECONDS)
    return not watch.has_failed and len(watch.ended) < len(addresses)


def _stop(processes: Processes) -> None:
    for process in processes.values():
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for node, process in processes.items():
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            say(f"chronik: node {node} does not stop; killed")
            process.kill()
            process.wait()
