"""Load for as long as wanted while nodes die, stop and lose each other; then all is compared.

    python -m tests.cluster.soak --hours 24              # some 17 million messages
    python -m tests.cluster.soak --minutes 10 --seed 7 --folder DIR

Promise: the disturbances come from the seed; one at a time, so that a quorum is there when it is
over. At the end each node is asked for each message, and each offset is in one object. What is kept
of a message is its number, at its offset: a day takes some hundred megabytes here.
"""

import argparse
import contextlib
import itertools
import random
import secrets
import sys
import tempfile
import time
from array import array
from pathlib import Path

from chronik_server.client import Client, ClientOptions
from chronik_store.errors import ChronikError
from tests.cluster.buckets import DirectoryBucket
from tests.cluster.messages import MESSAGE, OPTIONS, Load, body, read_node
from tests.cluster.network import Network
from tests.cluster.processes import Cluster
from tests.cluster.tiering import (
    BUCKET,
    assert_tiered_once,
    create,
    messages_on_disk,
    wait_until_only_in_the_bucket,
)

TOPIC = "soak"
PARTITIONS = 3
UNKNOWN = -1
RECOVERY_SECONDS = 90.0
PIECE = 20_000
"""Offsets read and compared at once."""
PATIENT = ClientOptions(connect_seconds=2.0, request_seconds=4.0, retry_seconds=150.0)
SETTINGS = {"CHRONIK_SEGMENT_BYTES": str(128 << 10)}


class Ledger:
    """Which message was acknowledged at which offset. As `Acknowledged`, by numbers."""

    def __init__(self):
        self.partitions = list(range(PARTITIONS))
        self._numbers = [array("q") for _ in self.partitions]

    def add(self, partition, base_offset, values):
        """Of one batch."""
        numbers = self._numbers[partition]
        lacking = base_offset + len(values) - len(numbers)
        numbers.extend([UNKNOWN] * lacking)
        for place, value in enumerate(values, base_offset):
            number = int(MESSAGE.match(value).group(1))
            assert numbers[place] in {UNKNOWN, number}, f"two messages at {partition}/{place}"
            numbers[place] = number

    def end(self, partition):
        """Behind the last acknowledged message."""
        return len(self._numbers[partition])

    def numbers(self, partition, start, end):
        """At these offsets; UNKNOWN where nothing was acknowledged."""
        return self._numbers[partition][start:end]


class SoakLoad(Load):
    """At a bounded rate, and without keeping what was sent."""

    def __init__(self, cluster, rate):
        batch = 10
        pause = batch * PARTITIONS / rate
        super().__init__(cluster, TOPIC, PARTITIONS, batch=batch, pause=pause, options=PATIENT)
        self.acknowledged = Ledger()

    def note_sent(self, partition, values):
        """Numbers say all."""


class Disturbances:
    """One after the other, drawn from a seed."""

    def __init__(self, cluster, bucket, seed, say):
        self._cluster = cluster
        self._bucket = bucket
        self._draw = random.Random(seed)
        self._say = say
        self.kinds = [
            self.kill, self.kill_all, self.pause, self.isolate, self.cut_one_way, self.cut_pair,
            self.slow, self.bucket_outage, self.hand_over, self.restart,
        ]  # fmt: skip
        self.done = dict.fromkeys((kind.__name__ for kind in self.kinds), 0)

    def one(self):
        """Disturb, wait, and put it right again."""
        rarest = min(self.done.values())
        kinds = [kind for kind in self.kinds if self.done[kind.__name__] == rarest]
        kind = self._draw.choice(kinds)
        node = self._draw.choice(self._cluster.nodes)
        seconds = self._draw.uniform(0.5, 4.0)
        self._say(f"{kind.__name__} ({node}) for {seconds:.1f} s")
        kind(node, seconds)
        self.done[kind.__name__] += 1

    def kill(self, node, seconds):
        node.kill()
        time.sleep(seconds)
        node.start()
        node.wait_until_ready(RECOVERY_SECONDS)

    def restart(self, node, seconds):
        node.stop()
        time.sleep(seconds)
        node.start()
        node.wait_until_ready(RECOVERY_SECONDS)

    def kill_all(self, _node, seconds):
        self._cluster.kill_all()
        time.sleep(seconds / 2)
        for node in self._cluster.nodes:
            node.start()
        for node in self._cluster.nodes:
            node.wait_until_ready(RECOVERY_SECONDS)

    def pause(self, node, seconds):
        node.pause()
        time.sleep(seconds)
        node.resume()

    def isolate(self, node, seconds):
        others = [each.id for each in self._cluster.others(node)]
        self._cluster.network.isolate(node.id, others, self._how())
        self._wait_and_heal(seconds)

    def cut_one_way(self, node, seconds):
        for other in self._cluster.others(node):
            self._cluster.network.cut(node.id, other.id)
        self._wait_and_heal(seconds)

    def cut_pair(self, node, seconds):
        other = self._draw.choice(self._cluster.others(node))
        self._cluster.network.isolate(node.id, [other.id], self._how())
        self._wait_and_heal(seconds)

    def slow(self, _node, seconds):
        ids = [node.id for node in self._cluster.nodes]
        self._cluster.network.slow(ids, delay_seconds=self._draw.uniform(0.01, 0.1))
        self._wait_and_heal(seconds)

    def bucket_outage(self, _node, seconds):
        with self._bucket.failure():
            time.sleep(seconds)

    def hand_over(self, node, _seconds):
        with (
            Client(self._cluster.servers, options=OPTIONS) as client,
            contextlib.suppress(ChronikError),  # it leads already, or did not take over in time
        ):
            client.transfer_leader(TOPIC, partition=self._draw.randrange(PARTITIONS), to=node.id)

    def _how(self):
        return self._draw.choice(["hold", "reset", "forget"])

    def _wait_and_heal(self, seconds):
        time.sleep(seconds)
        self._cluster.network.heal()


def soak(cluster, bucket, *, seconds, rate, seed, say):
    """Run it on a cluster that has a network. Returns the load and the disturbances, compared."""
    create(cluster, TOPIC, PARTITIONS)
    disturbances = Disturbances(cluster, bucket, seed, say)
    with SoakLoad(cluster, rate) as load:
        load.wait_for(10 * PARTITIONS, RECOVERY_SECONDS)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            disturbances.one()
            load.wait_for(10 * PARTITIONS, RECOVERY_SECONDS)
        load.wait_for(20 * PARTITIONS, RECOVERY_SECONDS)
    load.assert_no_errors()
    say(f"{load.count} messages are acknowledged; {sum(disturbances.done.values())} disturbances")
    compare(cluster, bucket, load.acknowledged, say)
    return load, disturbances


def compare(cluster, bucket, ledger, say):
    """Every node has every message, once; every offset is in one object; no node keeps a copy."""
    wait_until_only_in_the_bucket(cluster, TOPIC, ledger, 600.0)
    for node, partition in itertools.product(cluster.nodes, ledger.partitions):
        for start in range(0, ledger.end(partition), PIECE):
            end = min(start + PIECE, ledger.end(partition))
            found = read_node(node, TOPIC, partition, end, start=start)
            assert set(found.tiers) <= BUCKET
            assert [r.offset for r in found.records] == list(range(start, end))
            numbers = ledger.numbers(partition, start, end)
            assert UNKNOWN not in numbers, "every batch was acknowledged, so every offset is known"
            for record, number in zip(found.records, numbers, strict=True):
                assert record.value == body(number), f"{node} {TOPIC}/{partition}/{record.offset}"
        say(f"{node} has all of {TOPIC}/{partition}: {ledger.end(partition)} messages")
    for partition in ledger.partitions:
        many = assert_tiered_once(bucket, TOPIC, partition, ledger.end(partition))
        say(f"{TOPIC}/{partition}: {many} segments, each offset in one")
    assert not any(messages_on_disk(node, TOPIC) for node in cluster.nodes)


def main():
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.soak")
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=200.0, help="messages a second (%(default)g)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--folder", help="where data and logs are kept; a temporary one if unset")
    options = parser.parse_args()
    seconds = options.hours * 3600 + options.minutes * 60 or 24 * 3600.0
    begun = time.monotonic()

    def say(text):
        print(f"{time.monotonic() - begun:9.1f} s  {text}", flush=True)

    with contextlib.ExitStack() as stack:
        folder = options.folder or stack.enter_context(tempfile.TemporaryDirectory())
        bucket = DirectoryBucket(Path(folder) / "bucket")
        stack.callback(bucket.close)
        network = stack.enter_context(Network())
        say(f"seed {options.seed}, {seconds:g} s, logs of the nodes in {folder}")
        cluster = stack.enter_context(Cluster(folder, bucket, network=network, **SETTINGS))
        soak(cluster, bucket, seconds=seconds, rate=options.rate, seed=options.seed, say=say)
    say("nothing is missing, nothing is there twice")


if __name__ == "__main__":
    sys.exit(main())
