"""Real server processes on loopback: started, killed, paused, started again, and all ended.

Place: under every test of this folder. Promise: each wait has an end and says what it waited for;
leaving `with Cluster(...)` ends every process that it started, also after a failure, by its own
process object. Invariant: each cluster has a name of its own, so that a node never takes one of
another test, at a port that was somebody else's, for one of its own.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.ports import free_port

ROOT = Path(__file__).parents[2]
READY_SECONDS = 120.0
END_SECONDS = 60.0
"""Bounds for a machine that is busy: the start of a node alone takes two seconds of its CPU."""
LOG_BYTES_SHOWN = 6000
SMALL = {
    # Many segments of few messages, and a pipeline that is always awake.
    "CHRONIK_SEGMENT_BYTES": str(32 << 10),
    "CHRONIK_WAL_INDEXING_INTERVAL": "0.3",
    "CHRONIK_SEGMENT_AGE_SECONDS": "3600",
}
"""Settings of all nodes unless a test says otherwise."""
OURS = ("CHRONIK_", "S3_", "OBJECT_STORE_", "LOCAL_STORAGE_")


def eventually(look, seconds, what):
    """The first true answer of `look`; AssertionError that says `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds:g} s: {what() if callable(what) else what}")
        time.sleep(0.05)


class Node:
    """One `chronik serve`, over its lives."""

    def __init__(self, cluster, node_id, *, entrance=None):
        """entrance: a node of a cluster that is there, which this one joins."""
        self.id = node_id
        self.entrance = entrance
        self.knows_peers = entrance is None
        self.port = free_port()
        self.front_port = self.port if cluster.network is None else free_port()
        self.address = f"127.0.0.1:{self.front_port}"
        """Where clients and nodes find it: through the network of the test, if there is one."""
        self.health = f"127.0.0.1:{free_port()}"
        self.bucket_url = cluster.bucket.url
        self.environ = {}
        """Beside the cluster's."""
        self.launcher = ("-m", "chronik_server")
        self.directory = cluster.folder / node_id
        self.log = cluster.folder / f"node-{node_id}.log"
        self._cluster = cluster
        self._process = None

    def __repr__(self):
        return f"node {self.id}"

    @property
    def is_running(self):
        """It was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self):
        """Start it; `wait_until_ready` comes after."""
        assert not self.is_running, f"{self} runs already"
        arguments = [sys.executable, *self.launcher, "-d", str(self.directory)]
        arguments += ["--object-store", self.bucket_url, "serve", "--node-id", self.id]
        arguments += ["--listen", f"127.0.0.1:{self.port}", "--advertise", self.address]
        arguments += ["--health", self.health]
        if self.knows_peers:
            arguments += ["--peers", self._cluster.peers]
        if self.entrance is not None:
            arguments += ["--join", self.entrance.address]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                arguments, env={**self._cluster.environ, **self.environ}, cwd=ROOT,
                stdout=output, stderr=output,
            )  # fmt: skip

    def faults(self):
        """Why it is not ready; None when it is."""
        try:
            with urllib.request.urlopen(f"http://{self.health}/ready", timeout=2) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            checks = json.loads(error.read())
            return {name: fault for name, fault in checks.items() if fault != "ok"}
        except OSError as error:
            return {"connection": str(error)}
        return None

    def wait_until_ready(self, seconds=READY_SECONDS):
        """Return when it says that it is."""

        def look():
            assert self.is_running, f"{self} has ended, {self._process.returncode}:\n{self.tail()}"
            return self.faults() is None

        eventually(look, seconds, lambda: f"{self} is ready ({self.faults()})")

    def _signal(self, number):
        self._process.send_signal(number)

    def kill(self):
        """SIGKILL: what a crash of the process is."""
        self._signal(signal.SIGKILL)
        self._process.wait(END_SECONDS)

    def pause(self):
        """SIGSTOP: alive, and deaf."""
        self._signal(signal.SIGSTOP)

    def resume(self):
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def stop(self):
        """SIGTERM; its exit code."""
        self._signal(signal.SIGTERM)
        return self._process.wait(END_SECONDS)

    def wait_until_ended(self, seconds=END_SECONDS):
        """Return when it has ended by itself; its exit code."""
        return self._process.wait(seconds)

    def end(self):
        """Whatever state it is in, it is gone afterwards."""
        if self.is_running:
            self._process.kill()  # also ends one that is paused
        if self._process is not None:
            self._process.wait(END_SECONDS)

    def tail(self):
        """The end of its log."""
        if not self.log.exists():
            return ""
        return self.log.read_bytes()[-LOG_BYTES_SHOWN:].decode(errors="replace")

    def files(self, kind, topic):
        """Its files of a topic: kind "wal" or "segments"; {path: content}."""
        found = {}
        for folder, _, names in os.walk(self.directory / kind / topic):
            for name in names:
                path = Path(folder) / name
                with contextlib.suppress(FileNotFoundError):  # it has just been removed
                    found[path] = path.read_bytes()
        return found


class Cluster:
    """Nodes "1", "2", "3" over one bucket. A context manager: inside it they run and are ready."""

    def __init__(self, folder, bucket, *, nodes=3, network=None, knows_peers=True, **settings):
        """knows_peers: the first nodes are told of each other; else their directories know."""
        self.folder = Path(folder)
        self.bucket = bucket
        self.network = network
        clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        name = {"CHRONIK_CLUSTER_NAME": f"test-{secrets.token_hex(4)}"}
        self.environ = {**clean, **SMALL, **name, **bucket.environ, **settings}
        self.nodes = [Node(self, str(number + 1)) for number in range(nodes)]
        self.peers = ",".join(f"{node.id}@{node.address}" for node in self.nodes)
        """As CHRONIK_PEERS: the first nodes."""
        for node in self.nodes:
            node.knows_peers = knows_peers
        self._left = []

    def add(self, node_id):
        """Start a node that joins; it is ready when this returns."""
        entrance = next(node for node in self.nodes if node.is_running)
        node = Node(self, node_id, entrance=entrance)
        self.nodes.append(node)
        if self.network is not None:
            self.network.front(node.id, node.front_port, node.port)
        node.start()
        node.wait_until_ready()
        return node

    def leave_out(self, node):
        """It is no node of the cluster any more, for those who ask; its process is still ours."""
        self.nodes.remove(node)
        self._left.append(node)

    @property
    def servers(self):
        """As a client takes them."""
        return ",".join(node.address for node in self.nodes)

    def others(self, *nodes):
        """All nodes but these."""
        return [node for node in self.nodes if node not in nodes]

    def node(self, node_id):
        """The node of this id."""
        return next(node for node in self.nodes if node.id == node_id)

    def start(self):
        """Start the nodes that do not run, all at once; return when all are ready."""
        for node in self.nodes:
            if not node.is_running:
                node.start()
        for node in self.nodes:
            node.wait_until_ready()

    def kill_all(self):
        """SIGKILL to all nodes before any of them can react to another's end."""
        for node in self.nodes:
            node._signal(signal.SIGKILL)
        for node in self.nodes:
            node._process.wait(END_SECONDS)

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.callback(self.end)
            for node in self.nodes if self.network is not None else ():
                self.network.front(node.id, node.front_port, node.port)
            self.start()
            stack.pop_all()
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        """End every process that is left."""
        for node in (*self.nodes, *self._left):
            node.end()
