"""Strangers, broken programs and dead connections at the door of real nodes: the others are served.

What one connection may do to a server is in `tests/server/server/test_limits.py`; here it is many
of them at once, against processes, with what they cost.
"""

import asyncio
import contextlib
import random
import socket
import time
from pathlib import Path

import pytest

from chronik_server.addresses import parse_address
from chronik_server.client import Client, ClientOptions
from chronik_server.client.channel import Channel
from chronik_server.errors import ProtocolError, UnauthenticatedError
from chronik_server.protocol.cluster import DescribeCluster, Status
from chronik_server.protocol.connection import Connection
from chronik_server.protocol.data import Fetch
from chronik_server.protocol.events import Failure, Request, Told
from chronik_server.protocol.frames import FrameKind, encode_frame
from chronik_server.protocol.greeting import Hello, PeerIdentity
from chronik_server.protocol.raft_message import RaftMessage
from chronik_server.protocol.states import Side
from chronik_server.protocol.verbs import Verb
from chronik_store.errors import ChronikError, IdentityMismatchError
from chronik_store.format.record_batch import RecordBatch
from tests.cluster.messages import (
    OPTIONS,
    Load,
    ask_node,
    assert_every_node_has,
    body,
    produce,
    settled,
)
from tests.cluster.network import CLIENT
from tests.cluster.processes import eventually
from tests.cluster.tiering import create

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

MIB = 1 << 20
CLOSED_SECONDS = 40.0


def dial(node):
    connection = socket.create_connection(("127.0.0.1", node.port), 10)
    connection.settimeout(CLOSED_SECONDS)
    return connection


def said(connection, *events):
    return b"".join(bytes(part) for event in events for part in connection.send(event))


HELLO = Request(1, Verb.HELLO, Hello((1,)))


def greeted(node, hello=HELLO):
    """(socket, its side of the protocol), past the greeting."""
    stream, side = dial(node), Connection(Side.CLIENT)
    stream.sendall(said(side, hello))
    while not (events := side.receive_data(stream.recv(1 << 16))):
        pass
    return stream, side, events


def until_closed(stream):
    """What came until the other side hung up."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while data := stream.recv(1 << 16):
            found += data
    stream.close()
    return found


def resident_mib(node):
    text = Path(f"/proc/{node._process.pid}/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def assert_unharmed(node):
    assert node.is_running
    assert '"level": "error"' not in node.log.read_text()
    assert "Traceback" not in node.log.read_text()
    with Client(node.address, options=OPTIONS) as client:
        assert client.ping() > 0


def nonsense(rng):
    """Bytes that nobody should send: noise, other protocols, and frames with a few bits turned."""
    batch = bytes(RecordBatch.build([body(1)]).buffer)
    good = [
        said(Connection(Side.CLIENT), HELLO),
        encode_frame(FrameKind.REQUEST, Verb.PRODUCE, 2, b"\xa0") + batch,
        encode_frame(FrameKind.ONE_WAY, Verb.RAFT, 0, b"\xa0"),
    ]
    yield b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 50
    yield b"\x16\x03\x01" + rng.randbytes(400)
    yield b"\0" * 5000
    while True:
        yield rng.randbytes(rng.randrange(1, 3000))
        frame = bytearray(rng.choice(good) * rng.randrange(1, 4))
        for _ in range(rng.randrange(1, 6)):
            frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
        yield bytes(frame[: rng.randrange(1, len(frame) + 1)])


def test_nonsense_harms_nobody(start_cluster, bucket, seed, figure):
    cluster = start_cluster(bucket, nodes=1)
    (node,) = cluster.nodes
    create(cluster, "events", 1)
    rng = random.Random(seed)
    before = resident_mib(node)
    with Load(cluster, "events", 1) as load:
        load.wait_for(100)
        for number, data in zip(range(400), nonsense(rng), strict=False):
            past_greeting = number % 2 == 1
            stream = greeted(node)[0] if past_greeting else dial(node)
            with contextlib.suppress(ConnectionError):
                stream.sendall(data)
            stream.close()
        load.wait_for(100)
    load.assert_no_errors()
    assert_every_node_has(cluster, "events", load.acknowledged)
    assert_unharmed(node)
    figure(f"seed {seed}: 400 connections of nonsense, {resident_mib(node) - before:+.0f} MiB")


def test_what_is_promised_is_not_allocated(start_cluster, bucket, figure):
    """A frame that says it is long costs what has come of it, and is refused if it is too long."""
    cluster = start_cluster(bucket, nodes=1)
    (node,) = cluster.nodes
    before = resident_mib(node)
    too_long = encode_frame(FrameKind.REQUEST, Verb.PRODUCE, 2, b"\xa0", 1 << 30)
    for _ in range(50):
        stream = greeted(node)[0]
        stream.sendall(too_long)
        assert b"at most" in until_closed(stream)
    held = []
    allowed = encode_frame(FrameKind.REQUEST, Verb.PRODUCE, 2, b"\xa0", 60 * MIB)
    for _ in range(50):
        stream = greeted(node)[0]
        stream.sendall(allowed + b"x" * 1000)
        held.append(stream)
    stranger = dial(node)
    stranger.sendall(encode_frame(FrameKind.REQUEST, Verb.HELLO, 1, b"\xa0", MIB))
    assert b"at most" in until_closed(stranger)
    assert_unharmed(node)
    grown = resident_mib(node) - before
    assert grown < 100, f"50 frames of 60 MiB that never came cost {grown:.0f} MiB"
    for stream in held:
        stream.close()
    figure(f"3,000 MiB promised: {grown:+.0f} MiB")


def test_who_is_slow_or_silent_is_hung_up_on_while_others_are_served(start_cluster, bucket):
    cluster = start_cluster(bucket, nodes=1)
    (node,) = cluster.nodes
    create(cluster, "events", 1)
    greeting = said(Connection(Side.CLIENT), HELLO)
    silent = [dial(node) for _ in range(30)]
    dripping = [dial(node) for _ in range(30)]
    with Load(cluster, "events", 1) as load:
        begun, sent = time.monotonic(), 0
        while sent < len(greeting) - 1 and time.monotonic() - begun < 8:
            for stream in dripping:  # a byte now and then, and never the last one
                with contextlib.suppress(ConnectionError):
                    stream.sendall(greeting[sent : sent + 1])
            sent += 1
            time.sleep(0.2)
        load.wait_for(100)
        for stream in (*silent, *dripping):
            assert b"greeting" in until_closed(stream), "it was told why"
        load.wait_for(100)
    load.assert_no_errors()
    assert_unharmed(node)


def test_a_reader_that_takes_nothing_holds_little(start_cluster, bucket, figure):
    cluster = start_cluster(bucket, nodes=1, CHRONIK_SEGMENT_BYTES=str(64 * MIB))
    (node,) = cluster.nodes
    create(cluster, "events", 1)
    with Client(node.address, options=OPTIONS) as client:
        for number in range(8):
            client.append("events", [body(number, MIB)])
    before = resident_mib(node)
    stalled = []
    for _ in range(20):
        stream, side, _ = greeted(node)
        for number in range(2, 10):
            fetch = Request(number, Verb.FETCH, Fetch("events", 0, 0, max_bytes=8 * MIB))
            stream.sendall(said(side, fetch))
        stalled.append(stream)
    with Load(cluster, "events", 1) as load:
        load.wait_for(100)
    load.assert_no_errors()
    grown = resident_mib(node) - before
    came = 0
    while came < 4 * MIB:  # one that begins to take is answered
        data = stalled[0].recv(1 << 16)
        assert data, "it was hung up on too soon"
        came += len(data)
    for stream in stalled:
        stream.close()
    assert_unharmed(node)
    assert grown < 20 * 20, f"20 readers that take nothing hold {grown:.0f} MiB"
    figure(f"20 readers that take nothing of 1,280 MiB asked for: {grown:+.0f} MiB")


def test_clients_whose_connections_die_in_silence_lose_and_double_nothing(
    start_cluster, bucket, network, figure
):
    cluster = start_cluster(bucket, network=network)
    create(cluster, "events", 3)
    options = ClientOptions(connect_seconds=2.0, request_seconds=2.0, retry_seconds=60.0)
    ids = [node.id for node in cluster.nodes]
    with Load(cluster, "events", 3, options=options) as load:
        for _ in range(3):
            load.wait_for(200)
            for node_id in ids:
                network.cut(CLIENT, node_id, "forget")
                network.cut(node_id, CLIENT, "forget")
            network.heal()
        load.wait_for(200)
    load.assert_no_errors()
    assert_every_node_has(cluster, "events", load.acknowledged)
    figure(f"{load.count} messages over three deaths of every connection")


def test_only_who_proves_it_is_let_in(start_cluster, bucket):
    token = "correct horse battery staple"
    cluster = start_cluster(bucket, CHRONIK_AUTH_TOKEN=token)
    node, other, _ = cluster.nodes
    known = ClientOptions(token=token, connect_seconds=2.0, request_seconds=15.0)
    with Client(cluster.servers, options=known) as client:
        client.create_topic("events")
        client.append("events", [body(1)])
        found = settled(client)
    for wrong in (None, "", "correct horse battery stapl", token + "e"):
        options = ClientOptions(token=wrong, connect_seconds=2.0, retry_seconds=10.0)
        begun = time.monotonic()
        with Client(cluster.servers, options=options) as client:
            with pytest.raises(UnauthenticatedError):
                client.append("events", [body(2)])
            with pytest.raises(UnauthenticatedError):
                client.topics()
        assert time.monotonic() - begun < 10, "what is refused is not tried again"
    stream = dial(node)
    stream.sendall(said(Connection(Side.CLIENT), HELLO))
    assert b"token" in until_closed(stream)
    uuids = {each.node_id: each.node_uuid for each in found.nodes}
    strangers = [
        (PeerIdentity("9" * 32, other.id, uuids[other.id], "8" * 32), IdentityMismatchError),
        (PeerIdentity(found.cluster_id, other.id, "7" * 32, "8" * 32), IdentityMismatchError),
        (PeerIdentity(found.cluster_id, node.id, uuids[node.id], "8" * 32), ChronikError),
        (PeerIdentity(found.cluster_id, "stranger", "7" * 32, "8" * 32), ChronikError),
    ]
    for peer, error in strangers:
        with pytest.raises(error):
            asyncio.run(call_as(node, known, peer))
        with pytest.raises(UnauthenticatedError):
            asyncio.run(call_as(node, OPTIONS, peer))
    with Client(cluster.servers, options=known) as client:
        assert client.watermarks("events").end == 1
    for each in cluster.nodes:
        assert each.is_running
        assert token not in each.log.read_text()


async def call_as(node, options, peer):
    channel = await Channel.open(parse_address(node.address), options, peer=peer)
    channel.close()


def test_a_client_that_speaks_as_a_node_is_hung_up_on(start_cluster, bucket):
    cluster = start_cluster(bucket)
    create(cluster, "events", 1)
    acknowledged = produce(cluster, "events", 50)
    terms = [role.term for role in roles_of(cluster)]
    for node in cluster.nodes:
        stream, side, _ = greeted(node)
        stream.sendall(said(side, Told(Verb.RAFT, RaftMessage("events/0", b"\xa0"))))
        answer = [e for e in side.receive_data(until_closed(stream)) if isinstance(e, Failure)]
        assert isinstance(answer[0].error, ProtocolError)
    eventually(lambda: all(node.faults() is None for node in cluster.nodes), 150, "all are ready")
    assert terms == [role.term for role in roles_of(cluster)]
    assert_every_node_has(cluster, "events", acknowledged)


def roles_of(cluster):
    assert ask_node(cluster.nodes[0], DescribeCluster()).nodes
    return ask_node(cluster.nodes[0], Status("events")).roles
