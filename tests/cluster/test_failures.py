"""Nodes die under load, or too many of them: what was acknowledged stays."""

import time

import pytest

from chronik_server.client import Client, ClientOptions
from chronik_server.errors import NotLeaderError, UnknownOutcomeError
from chronik_server.protocol.data import Fetch, Produce
from chronik_store.errors import UnavailableError
from chronik_store.format.record_batch import RecordBatch
from tests.cluster.messages import (
    Load,
    ask_node,
    assert_every_node_has,
    body,
    leader_of,
    produce,
    read_node,
)
from tests.cluster.processes import eventually
from tests.cluster.tiering import create

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def test_a_leader_killed_under_load_costs_seconds_and_no_message(start_cluster, bucket, figure):
    cluster = start_cluster(bucket)
    create(cluster, "events", 3)
    leader = leader_of(cluster, "events", 0)
    with Load(cluster, "events", 3) as load:
        eventually(lambda: load.count >= 1000, 150, lambda: f"1,000 messages, not {load.count}")
        leader.kill()
        killed_at = time.monotonic()
        eventually(lambda: None not in load.silence(killed_at + 0.5).values(), 150, "appends go on")
        leader.start()
        leader.wait_until_ready()

    assert load.errors == []
    assert leader_of(cluster, "events", 0).is_running
    assert_every_node_has(cluster, "events", load.acknowledged)
    # Not the answers that were on their way when it died.
    silence = {number: f"{seconds:.2f} s" for number, seconds in load.silence(killed_at).items()}
    figure(f"{load.count} messages; from the kill to the next acknowledgement: {silence}")


def test_with_two_of_three_nodes_down_nothing_is_acknowledged_and_what_is_committed_is_read(
    start_cluster, bucket, figure
):
    cluster = start_cluster(bucket)
    create(cluster, "events", 1)
    acknowledged = produce(cluster, "events", 500)
    survivor = leader_of(cluster, "events", 0)
    down = [node for node in cluster.nodes if node is not survivor]
    for node in down:
        node.kill()
    values = [body(number) for number in range(1000, 1010)]
    batch = RecordBatch.build(values)
    short = ClientOptions(connect_seconds=2.0, request_seconds=10.0, retry_seconds=3.0)
    begun = time.monotonic()
    with pytest.raises((NotLeaderError, UnknownOutcomeError)) as caught:
        ask_node(survivor, Produce("events"), batch.buffer)
    figure(f"{type(caught.value).__name__} after {time.monotonic() - begun:.1f} s: {caught.value}")
    with pytest.raises(NotLeaderError):  # by now it knows that it leads nobody
        ask_node(survivor, Produce("events"), batch.buffer)
    with pytest.raises((NotLeaderError, UnknownOutcomeError)):
        ask_node(survivor, Fetch("events", 0, 0, consistency="linearizable"))
    with (
        Client(cluster.servers, options=short) as client,
        pytest.raises((NotLeaderError, UnknownOutcomeError, UnavailableError)),
    ):
        client.append("events", [body(2000)])
    assert read_node(survivor, "events", 0, 500).pairs == acknowledged.of(0)
    assert any("nobody leads" in fault for fault in survivor.faults().values())

    cluster.start()
    later = produce(cluster, "events", 100, start=3000)
    acknowledged.values |= later.values
    # What was refused or left unknown may be there, once, and where the others have it too.
    answers = [read_node(node, "events", 0, acknowledged.end(0)).pairs for node in cluster.nodes]
    assert answers[0] == answers[1] == answers[2]
    assert set(acknowledged.of(0)) <= set(answers[0])
