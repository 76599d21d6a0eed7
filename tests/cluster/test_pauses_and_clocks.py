"""Nodes that stop for a while and go on as if nothing had been, and clocks that are hours apart."""

import time

import pytest

from chronik_server.client import Client, ClientOptions
from chronik_server.protocol.data import Fetch, Offsets
from chronik_server.protocol.greeting import Ping
from chronik_store.errors import ChronikError
from tests.cluster.messages import (
    CATCH_UP_SECONDS,
    OPTIONS,
    Acknowledged,
    Load,
    ask_node,
    assert_every_node_has,
    leader_of,
    produce,
)
from tests.cluster.processes import eventually
from tests.cluster.tiering import (
    BUCKET,
    assert_tiered_once,
    create,
    wait_until_only_in_the_bucket,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

LONG = ClientOptions(connect_seconds=2.0, request_seconds=3.0, retry_seconds=60.0)
"""A client that gives a silent node up in the time of a test."""
HOUR = 3600.0


def test_a_leader_that_was_stopped_wakes_and_acknowledges_nothing_of_the_past(
    start_cluster, bucket, figure
):
    """It wakes in the belief that it leads, with requests at its door that came meanwhile."""
    cluster = start_cluster(bucket)
    create(cluster, "events", 3)
    leader = leader_of(cluster, "events", 0)
    with Load(cluster, "events", 3, options=LONG) as load:
        load.wait_for(300)
        leader.pause()
        paused_at = time.monotonic()
        load.wait_for(300)
        figure(f"leader stopped: longest pause {load.longest_pause(paused_at):.2f} s")
        stopped_at = load.acknowledged.end(0)
        leader.resume()
        # What it answers from now on is either of before, and old, or of the new term.
        seen = []
        for _ in range(20):
            answer = ask_node(leader, Fetch("events", 0, 0, max_bytes=1 << 20))
            seen.append(answer.committed_offset)
            time.sleep(0.02)
        assert seen == sorted(seen)
        load.wait_for(300)
        eventually(
            lambda: ask_node(leader, Offsets("events", 0)).watermarks.committed >= stopped_at,
            CATCH_UP_SECONDS,
            "the woken node has caught up",
        )
    load.assert_no_errors()
    assert_every_node_has(cluster, "events", load.acknowledged)


def test_a_follower_that_was_stopped_costs_nothing_and_catches_up(start_cluster, bucket, figure):
    cluster = start_cluster(bucket)
    create(cluster, "events", 1)
    leader = leader_of(cluster, "events", 0)
    follower = cluster.others(leader)[0]
    with Load(cluster, "events", 1, options=LONG) as load:
        load.wait_for(200)
        follower.pause()
        paused_at = time.monotonic()
        load.wait_for(1500)
        figure(f"follower stopped: longest pause {load.longest_pause(paused_at):.2f} s")
        follower.resume()
        load.wait_for(200)
    load.assert_no_errors()
    assert_every_node_has(cluster, "events", load.acknowledged)


def test_nodes_that_stop_in_turns_lose_nothing(start_cluster, bucket):
    cluster = start_cluster(bucket)
    create(cluster, "events", 3)
    with Load(cluster, "events", 3, options=LONG) as load:
        for node in cluster.nodes * 2:
            load.wait_for(60)
            node.pause()
            time.sleep(1.2)  # about the time of an election
            node.resume()
        load.wait_for(300)
    load.assert_no_errors()
    assert_every_node_has(cluster, "events", load.acknowledged)


def test_clocks_hours_apart_lose_nothing_and_keep_time_in_order(start_cluster, bucket, figure):
    """One node is 90 minutes late, one is two hours early; each leads in its turn."""
    offsets = {"1": -1.5 * HOUR, "2": 0.0, "3": 2 * HOUR}

    def prepare(node):
        node.launcher = (
            "-m", "tests.cluster.launch", "--clock-offset", str(offsets[node.id]), "--",
        )  # fmt: skip

    cluster = start_cluster(bucket, prepare=prepare)
    create(cluster, "events", 1)
    acknowledged = Acknowledged()
    begun_us = round(time.time() * 1e6)
    with Client(cluster.servers, options=OPTIONS) as client:
        for turn, node in enumerate([*cluster.nodes, *reversed(cluster.nodes)]):
            eventually(lambda to=node: led_by(cluster, client, to), 150, f"{node} leads")
            found = produce(cluster, "events", 400, start=1000 * turn)
            acknowledged.values |= found.values
            assert ask_clock(node) == pytest.approx(time.time() + offsets[node.id], abs=30)
        # By a leader two hours early, or by one of before: the order of time is that of offsets.
        assert client.offset_for_timestamp("events", begun_us - round(2 * HOUR * 1e6)) == 0
        far = client.offset_for_timestamp("events", begun_us + round(1.9 * HOUR * 1e6))
        assert far == 800  # where the early node began to lead
        wait_until_only_in_the_bucket(cluster, "events", acknowledged)
        assert client.offset_for_timestamp("events", begun_us + round(1.9 * HOUR * 1e6)) == far
        assert client.offset_for_timestamp("events", begun_us + round(4 * HOUR * 1e6)) is None
    assert_every_node_has(cluster, "events", acknowledged, tiers=BUCKET)
    many = assert_tiered_once(bucket, "events", 0, acknowledged.end(0))
    figure(f"{acknowledged.end(0)} messages by clocks 3.5 hours apart, {many} segments")


def led_by(cluster, client, node):
    """Have a node lead the partition; True once it does."""
    if leader_of(cluster, "events", 0) is node:
        return True
    try:
        client.transfer_leader("events", partition=0, to=node.id)
    except ChronikError:
        pass  # asked again
    return False


def ask_clock(node):
    return ask_node(node, Ping()).time_us / 1e6
