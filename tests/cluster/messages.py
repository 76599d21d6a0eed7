"""Messages that are acknowledged, and what each node answers when asked for them.

Promise: what was acknowledged is kept by (partition, offset); a reader asks one node and takes
nobody else's answer. Invariant: a value is sent once by a test, so one that is found twice was
stored twice.
"""

import asyncio
import itertools
import re
import threading
import time
from dataclasses import dataclass, field

from chronik_server.addresses import parse_address
from chronik_server.client import Client, ClientOptions
from chronik_server.client.channel import Channel
from chronik_server.client.fetching import records_of
from chronik_server.protocol.cluster import Status
from chronik_server.protocol.data import Fetch, Offsets
from chronik_store.errors import ChronikError, TopicNotFoundError, UnavailableError
from tests.cluster.processes import eventually

OPTIONS = ClientOptions(connect_seconds=5.0, request_seconds=20.0, retry_seconds=120.0)
CATCH_UP_SECONDS = 90.0
PROGRESS_SECONDS = 120.0
"""Within it appends go on wherever a quorum is; a bound for a busy machine, not a figure."""
MESSAGE = re.compile(rb'\{"message": (\d+),')
"""How a message begins: a file of a node that matches holds messages."""


def body(number, size=160):
    """The value of message `number`, as a line that search finds words in."""
    return f'{{"message": {number}, "word": "w{number}"}}'.ljust(size).encode()


@dataclass
class Acknowledged:
    """{(partition, offset): value}, of acknowledged messages alone."""

    values: dict = field(default_factory=dict)

    def add(self, partition, base_offset, values):
        for place, value in enumerate(values):
            known = self.values.setdefault((partition, base_offset + place), value)
            assert known == value, f"two messages were acknowledged at {partition}/{base_offset}"

    def of(self, partition):
        """[(offset, value), ...] of a partition, in order."""
        known = list(self.values.items())  # in one step: writers go on
        mine = [(at, v) for (number, at), v in known if number == partition]
        return sorted(mine)

    def end(self, partition):
        """Behind the last acknowledged message."""
        return max((at + 1 for number, at in list(self.values) if number == partition), default=0)

    @property
    def partitions(self):
        return sorted({number for number, _ in self.values})


def settled(client):
    """What `client.cluster()` says once each node has told the cluster who it is.

    A node may serve before: its uuid is an entry of the metadata's log that comes after its start.
    """

    def look():
        found = client.cluster()
        return found if all(node.node_uuid for node in found.nodes) else None

    return eventually(look, 60, "each node has told who it is")


def produce(cluster, topic, count, *, start=0, partition=None):
    """Send `count` messages through one producer; returns those acknowledged: all of them."""
    found = Acknowledged()
    with Client(cluster.servers, options=OPTIONS) as client, client.producer(topic) as producer:
        partitions = len(client.describe_topic(topic).partitions)
        sent = []
        for number in range(start, start + count):
            value = body(number)
            # in turn: exact counts for each partition, whatever batches they go in
            where = number % partitions if partition is None else partition
            sent.append((value, producer.append(value, partition=where)))
        producer.flush()
        for value, future in sent:
            placed = future.result(30)
            found.add(placed.partition, placed.offset, [value])
    return found


class Load:
    """One thread for each partition that appends batches until told to stop."""

    def __init__(self, cluster, topic, partitions, *, batch=20, pause=0.005, options=OPTIONS):
        self.acknowledged = Acknowledged()
        self.sent = {number: [] for number in range(partitions)}
        self.times = {number: [] for number in range(partitions)}
        self.errors = []
        self.batch = batch
        self._pause, self._topic = pause, topic
        self._stop = threading.Event()
        self._client = Client(cluster.servers, options=options)
        self._threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(partitions)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        self._client.close()
        assert not any(thread.is_alive() for thread in self._threads), "a writer hangs"

    def _run(self, partition):
        number = partition * 10_000_000
        while not self._stop.is_set():
            values = [body(number + place) for place in range(self.batch)]
            number += self.batch
            self.note_sent(partition, values)
            try:
                found = self._client.append(self._topic, values, partition=partition)
            except ChronikError as error:
                self.errors.append(error)
                continue
            self.times[partition].append(time.monotonic())
            self.acknowledged.add(partition, found.base_offset, values)
            time.sleep(self._pause)

    def note_sent(self, partition, values):
        """These are about to be sent."""
        self.sent[partition] += values

    @property
    def count(self):
        """Messages acknowledged so far."""
        return self.batch * sum(map(len, self.times.values()))

    def wait_for(self, count, seconds=PROGRESS_SECONDS):
        """Return when so many more messages are acknowledged, each partition having its part."""
        wanted = {
            number: len(times) + -(-count // (self.batch * len(self.times)))
            for number, times in self.times.items()
        }

        def lagging():
            return {n: end - len(self.times[n]) for n, end in wanted.items()
                    if len(self.times[n]) < end}  # fmt: skip

        eventually(lambda: not lagging(), seconds, lambda: f"appends go on; missing: {lagging()}")

    def longest_pause(self, since):
        """Seconds between two acknowledgements, or since a moment, at most, in any partition."""
        found = 0.0
        for times in self.times.values():
            later = [since, *(each for each in times if each > since)]
            gaps = [b - a for a, b in itertools.pairwise(later)]
            found = max(found, *gaps) if gaps else float("inf")
        return found

    def assert_no_errors(self):
        """Every batch was acknowledged in the end."""
        assert self.errors == [], [repr(error) for error in self.errors[:5]]

    def silence(self, since):
        """Seconds from a moment to the first acknowledgement behind it, for each partition."""
        return {
            number: min((each - since for each in times if each > since), default=None)
            for number, times in self.times.items()
        }


@dataclass
class Answers:
    """What one node gave of one partition."""

    records: list = field(default_factory=list)
    tiers: list = field(default_factory=list)
    seconds: list = field(default_factory=list)
    """Of each answer, as the reader measured it."""

    @property
    def pairs(self):
        return [(record.offset, record.value) for record in self.records]


def read_node(node, topic, partition, end, *, start=0, max_bytes=1 << 20, consistency="committed"):
    """All records of [start, end) from this node alone, once it knows of them."""
    return asyncio.run(_read(node, topic, partition, start, end, max_bytes, consistency))


async def _read(node, topic, partition, start, end, max_bytes, consistency):
    found = Answers()
    channel = await Channel.open(parse_address(node.address), OPTIONS)
    deadline = time.monotonic() + CATCH_UP_SECONDS
    try:
        offset = start
        while offset < end:
            question = Fetch(topic, partition, offset, max_bytes, 1, 1000, consistency)
            begun = time.monotonic()
            try:
                answer = await channel.ask(question)
            except UnavailableError:
                answer = None  # a node that lags says so
            if answer is not None and answer.payload:
                found.seconds.append(time.monotonic() - begun)
                found.tiers.append(answer.message.tier)
                records = [r for r in records_of(answer.payload, offset) if r.offset < end]
                found.records += records
                offset = records[-1].offset + 1
                continue
            assert time.monotonic() < deadline, f"{node} knows {topic}/{partition} to {offset} only"
            await asyncio.sleep(0.05)
    finally:
        channel.close()
    return found


def numbers_in(contents):
    """The numbers of the messages that files hold."""
    found = set()
    for content in contents:
        found.update(map(int, MESSAGE.findall(content)))
    return found


def leader_of(cluster, topic, partition):
    """The node that says it leads a partition; waits until one does."""
    return leadership_of(cluster, topic, partition)[0]


def leadership_of(cluster, topic, partition):
    """(node, term) of who says that it leads a partition; waits until one does."""

    def look():
        for node in cluster.nodes:
            if not node.is_running:
                continue
            for role in ask_node(node, Status()).roles:
                if (role.topic, role.partition, role.role) == (topic, partition, "leader"):
                    return node, role.term
        return None

    return eventually(look, CATCH_UP_SECONDS, f"{topic}/{partition} has a leader")


def ask_node(node, question, payload=b"", options=OPTIONS):
    """One question to this node, and its answer; errors as the node sent them."""

    async def ask():
        channel = await Channel.open(parse_address(node.address), options)
        try:
            return (await channel.ask(question, payload)).message
        finally:
            channel.close()

    return asyncio.run(ask())


def line_of(node, topic, partition):
    """The watermarks of a partition as one node sees them; None while it cannot say."""
    try:
        return ask_node(node, Offsets(topic, partition)).watermarks
    except (UnavailableError, TopicNotFoundError):
        return None


def assert_every_node_has(cluster, topic, acknowledged, *, exactly=True, tiers=None):
    """Each node gives every acknowledged message, at its offset, once; returns their answers.

    exactly: and nothing else, since the outcome of all messages is known.
    """
    answers = {}
    for node in cluster.nodes:
        for partition in acknowledged.partitions:
            wanted = acknowledged.of(partition)
            got = read_node(node, topic, partition, acknowledged.end(partition))
            assert [at for at, _ in got.pairs] == list(range(acknowledged.end(partition)))
            if exactly:
                assert got.pairs == wanted, f"{node} {topic}/{partition} differs"
            else:
                assert set(wanted) <= set(got.pairs), f"{node} lacks messages of {partition}"
            values = [value for _, value in got.pairs]
            assert len(values) == len(set(values)), f"{node} {topic}/{partition}: stored twice"
            if tiers is not None:
                assert set(got.tiers) <= tiers, f"{node} {topic}/{partition}: {set(got.tiers)}"
            answers[node.id, partition] = got
    return answers
