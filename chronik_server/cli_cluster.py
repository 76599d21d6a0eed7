"""`chronik cluster`: three nodes on this machine, one command, Ctrl-C stops them cleanly.

Place: a verb; it starts `chronik serve` three times and watches. Promise: what is printed can be
pasted (`chronik -s ...`); when one node ends by itself, the others go on, as a cluster does; all
are stopped before this ends. Exit 0 when it stopped as asked, 3 when no node could start.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import click

from chronik_store.cli import exits
from chronik_store.cli.options import pass_session, verb
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import say

STOP_SECONDS = 15.0


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
    directory = Path(session.directory).absolute()
    ids = [str(number) for number in range(1, nodes + 1)]
    addresses = {node: f"127.0.0.1:{port + at}" for at, node in enumerate(ids)}
    bucket = session.object_store or session.config().object_store or f"file://{directory}/bucket"
    directory.mkdir(parents=True, exist_ok=True)
    processes = {
        node: _start(directory / node, node, addresses, bucket, directory / f"{node}.log")
        for node in ids
    }
    try:
        if session.as_json:
            session.output.json({"nodes": addresses, "bucket": bucket, "logs": str(directory)})
        else:
            for node in ids:
                session.output.line(f"node {node}  {addresses[node]}  log {directory}/{node}.log")
            session.output.line(f"chronik -s {','.join(addresses.values())} topic create events")
        session.output.flush()
        _watch(processes)
    except KeyboardInterrupt:
        pass
    finally:
        started = [node for node, process in processes.items() if process.poll() is None]
        _stop(processes)
    return exits.DONE if started else exits.UNAVAILABLE


def _start(
    path: Path, node: str, addresses: dict[str, str], bucket: str, log: Path
) -> subprocess.Popen[bytes]:
    peers = ",".join(f"{each}@{address}" for each, address in addresses.items())
    arguments = [sys.executable, "-m", "chronik_server", "-d", str(path)]
    arguments += ["--object-store", bucket, "serve", "--node-id", node]
    arguments += ["--listen", addresses[node], "--peers", peers]
    environ = {name: value for name, value in os.environ.items() if name != "CHRONIK_SERVER"}
    with log.open("ab") as output:
        # A session of its own: Ctrl-C reaches us alone, and we stop the nodes one by one.
        return subprocess.Popen(  # noqa: S603 (ourselves)
            arguments, stdout=output, stderr=output, start_new_session=True, env=environ
        )


def _watch(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    """Say when a node ends; return when none is left."""
    ended: list[str] = []
    news = threading.Condition()

    def wait(node: str, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        with news:
            ended.append(node)
            news.notify()

    for node, process in processes.items():
        threading.Thread(target=wait, args=(node, process), daemon=True).start()
    told = 0
    while told < len(processes):
        with news:
            if len(ended) == told:
                news.wait(1.0)
            fresh, told = ended[told:], len(ended)
        for node in fresh:
            say(f"chronik: node {node} has ended, exit code {processes[node].returncode}")


def _stop(processes: dict[str, subprocess.Popen[bytes]]) -> None:
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
