"""The disk of one node is full: the others go on, and it comes back when there is room."""

import itertools

import pytest

from chronik_server.client import Client, ClientOptions
from chronik_server.errors import NotLeaderError
from chronik_server.protocol.cluster import Status
from chronik_server.protocol.data import Fetch, Produce
from chronik_store.cli import exits
from chronik_store.errors import DiskFullError
from chronik_store.format.record_batch import RecordBatch
from tests.cluster.messages import (
    CATCH_UP_SECONDS,
    OPTIONS,
    Load,
    ask_node,
    assert_every_node_has,
    body,
    leader_of,
    line_of,
)
from tests.cluster.processes import eventually
from tests.cluster.tiering import create

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

PATIENT = ClientOptions(connect_seconds=2.0, request_seconds=15.0, retry_seconds=90.0)
LITTLE = 20 << 20
"""Below the reserve of a log (64 MiB), so records are refused, and commands are not."""


@pytest.fixture
def cluster(start_cluster, bucket):
    def prepare(node):
        node.room = node.directory.parent / f"room-{node.id}"
        node.launcher = ("-m", "tests.cluster.launch", "--room-file", str(node.room), "--")

    started = start_cluster(bucket, prepare=prepare)
    create(started, "events", 3)
    return started


NUMBERS = itertools.count(900_000_000)


def refusal_of(node):
    """What a leader says against one more message; None once it is acknowledged."""
    try:
        ask_node(node, Produce("events", 0), RecordBatch.build([body(next(NUMBERS))]).buffer)
    except DiskFullError as error:
        return error
    return None


def role_of(node, partition):
    return next(r for r in ask_node(node, Status("events")).roles if r.partition == partition)


def test_a_follower_with_a_full_disk_stays_a_member_and_catches_up(cluster, figure):
    leader = leader_of(cluster, "events", 0)
    full, other = cluster.others(leader)
    with Load(cluster, "events", 3, options=PATIENT) as load:
        load.wait_for(300)
        full.room.write_text(str(LITTLE))
        eventually(
            lambda: line_of(full, "events", 0).committed + 200 < load.acknowledged.end(0),
            CATCH_UP_SECONDS,
            "it takes no more records",
        )
        assert "the disk is full: records are refused" in full.tail()
        stale = ask_node(full, Fetch("events", 0, 0, max_bytes=4096))
        assert stale.staleness_ms < 5000  # it hears its leader all the same

        # Its hard state is written into the room that is kept: it follows a leader of a new term.
        before = role_of(full, 0).term
        with Client(cluster.servers, options=OPTIONS) as client:
            client.transfer_leader("events", partition=0, to=other.id)

        def follows():
            role = role_of(full, 0)
            return role.term > before and role.leader == other.id

        eventually(follows, CATCH_UP_SECONDS, "the full node follows the new leader")
        held_up = load.acknowledged.end(0) - line_of(full, "events", 0).committed
        full.room.unlink()
        eventually(
            lambda: line_of(full, "events", 0).committed >= load.acknowledged.end(0) - 100,
            CATCH_UP_SECONDS,
            "it has caught up",
        )
    load.assert_no_errors()
    assert full.is_running
    assert_every_node_has(cluster, "events", load.acknowledged)
    figure(f"the full node lacked {held_up} messages of one partition")


def test_a_leader_with_a_full_disk_refuses_and_lets_another_lead(cluster, figure):
    full = leader_of(cluster, "events", 0)

    def refuses():
        nonlocal full
        full.room.write_text(str(LITTLE))
        try:
            return refusal_of(full)
        except NotLeaderError:  # leadership of a new topic is spread: it has just gone on
            full.room.unlink()
            full = leader_of(cluster, "events", 0)
            return None

    error = eventually(refuses, CATCH_UP_SECONDS, "the leader refuses records")
    assert (True, "not_durable") == (error.retriable, error.durability)

    with Load(cluster, "events", 3, options=PATIENT) as load:
        load.wait_for(600)  # every partition, those that it led among them
        assert leader_of(cluster, "events", 0) is not full
        assert "the disk is full: it is handed over" in full.tail()
        assert full.is_running
        full.room.unlink()
        load.wait_for(300)
    load.assert_no_errors()
    assert_every_node_has(cluster, "events", load.acknowledged, exactly=False)
    figure(f"{load.count} messages; {error}")


def test_a_node_without_a_byte_left_ends_and_comes_back_when_there_is_room(cluster, figure):
    leader = leader_of(cluster, "events", 0)
    full = cluster.others(leader)[0]
    with Load(cluster, "events", 3, options=PATIENT) as load:
        load.wait_for(300)
        full.room.write_text("0")
        with Client(cluster.servers, options=OPTIONS) as client:
            client.transfer_leader("events", partition=0)  # a new term cannot be written down
        assert full.wait_until_ended(60) == exits.UNAVAILABLE
        assert "this node had to end" in full.tail()
        load.wait_for(300)

        full.start()  # too early
        assert full.wait_until_ended(60) == exits.UNAVAILABLE
        full.room.unlink()
        full.start()
        full.wait_until_ready()
        load.wait_for(300)
    load.assert_no_errors()
    assert_every_node_has(cluster, "events", load.acknowledged)
    figure(f"{load.count} messages: {full.tail().splitlines()[-1][:200]}")
