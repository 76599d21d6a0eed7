"""The network between the nodes is cut, in each way, under load.

Who is on the lesser side acknowledges nothing and says how old its answers are; the rest goes on;
afterwards every node has every acknowledged message once.
"""

import itertools
import time

import pytest

from chronik_server.client import Client, ClientOptions
from chronik_server.errors import ConnectionLostError, NotLeaderError, UnknownOutcomeError
from chronik_server.protocol.cluster import Status
from chronik_server.protocol.data import Fetch, GetCursor, Offsets, Produce
from chronik_store.format.record_batch import RecordBatch
from tests.cluster.messages import (
    CATCH_UP_SECONDS,
    Load,
    ask_node,
    assert_every_node_has,
    body,
    leader_of,
    read_node,
)
from tests.cluster.processes import eventually
from tests.cluster.tiering import create

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

PARTITIONS = 3
SHORT = ClientOptions(connect_seconds=2.0, request_seconds=4.0, retry_seconds=0.0)
REFUSALS = (NotLeaderError, UnknownOutcomeError, ConnectionLostError)


@pytest.fixture
def cluster(start_cluster, bucket, network):
    started = start_cluster(bucket, network=network)
    create(started, "events", PARTITIONS)
    return started


def progress(load, figure, what, since=None):
    """Return when every partition has gone on from now; reports the longest pause."""
    since = time.monotonic() if since is None else since
    load.wait_for(300)
    figure(f"{what}: longest pause {load.longest_pause(since):.2f} s")


def ids(nodes):
    return [node.id for node in nodes]


def refused(node, partition, number):
    """Ask a node to append; True if it acknowledged nothing."""
    batch = RecordBatch.build([body(number)])
    try:
        ask_node(node, Produce("events", partition), batch.buffer, SHORT)
    except REFUSALS:
        return True
    return False


def finish(cluster, load, stray=()):
    """All nodes agree, and nothing acknowledged is missing or there twice.

    stray: values whose outcome was refused or unknown: there once or not at all.
    """
    load.assert_no_errors()
    answers = assert_every_node_has(cluster, "events", load.acknowledged, exactly=not stray)
    sent = {value for values in load.sent.values() for value in values} | set(stray)
    for partition in range(PARTITIONS):
        found = [answers[node.id, partition].pairs for node in cluster.nodes]
        assert found[0] == found[1] == found[2], f"the nodes differ in partition {partition}"
        assert {value for _, value in found[0]} <= sent


@pytest.mark.parametrize("how", ["hold", "reset", "forget"])
def test_a_leader_that_is_cut_off_acknowledges_nothing_and_the_others_go_on(
    cluster, network, figure, how
):
    leader = leader_of(cluster, "events", 0)
    stray = [body(number) for number in range(900_000_000, 900_000_100)]
    everybody = ",".join(node.address for node in cluster.nodes)
    with (
        Load(cluster, "events", PARTITIONS) as load,
        Client(everybody, options=ClientOptions(retry_seconds=20.0)) as knows_it,
    ):
        load.wait_for(300)
        assert knows_it.watermarks("events").committed
        network.isolate(leader.id, ids(cluster.others(leader)), how)
        cut_at = time.monotonic()
        for number in range(4):  # at once, while it still believes that it leads, and later
            assert refused(leader, 0, 900_000_000 + number), "an isolated leader acknowledged"
        progress(load, figure, f"leader cut off ({how})", cut_at)
        known = load.acknowledged.end(0)
        assert refused(leader, 0, 900_000_050)
        with pytest.raises(REFUSALS):
            ask_node(leader, Fetch("events", 0, 0, consistency="linearizable"), options=SHORT)
        stale = ask_node(leader, Fetch("events", 0, 0))
        assert 0 < stale.committed_offset <= known
        assert stale.staleness_ms >= 1000 * (time.monotonic() - cut_at) - 2500
        for question in (Offsets("events", 0), GetCursor("events", 0, "job")):
            assert ask_node(leader, question).staleness_ms >= stale.staleness_ms - 2500
        # Who took it for the leader, and can reach it, asks those that lead.
        assert knows_it.watermarks("events").committed >= known
        assert knows_it.read("events", known - 1).records
        network.heal()
        load.wait_for(300)
        caught_up = lambda: ask_node(leader, Fetch("events", 0, 0)).committed_offset >= known  # noqa: E731
        eventually(caught_up, CATCH_UP_SECONDS, "the old leader catches up")
    finish(cluster, load, stray)


def test_a_follower_that_is_cut_off_disturbs_nobody_and_catches_up(cluster, network, figure):
    leader = leader_of(cluster, "events", 0)
    follower = cluster.others(leader)[0]
    with Load(cluster, "events", PARTITIONS) as load:
        load.wait_for(300)
        network.isolate(follower.id, ids(cluster.others(follower)))
        progress(load, figure, "follower cut off")
        # Long enough for many elections, had it raised its term.
        time.sleep(4)
        assert read_node(follower, "events", 0, 20).pairs == load.acknowledged.of(0)[:20]
        stale = ask_node(follower, Fetch("events", 0, 0))
        assert stale.staleness_ms > 2000
        network.heal()
        progress(load, figure, "follower back")
        known = load.acknowledged.end(0)
        fresh = lambda: ask_node(follower, Fetch("events", 0, 0)).committed_offset >= known  # noqa: E731
        eventually(fresh, CATCH_UP_SECONDS, "the follower catches up")
    finish(cluster, load)


@pytest.mark.parametrize("way", ["from the leader", "to the leader"])
def test_a_cut_of_one_direction_only_stops_nobody_for_long(cluster, network, figure, way):
    leader = leader_of(cluster, "events", 0)
    with Load(cluster, "events", PARTITIONS) as load:
        load.wait_for(300)
        for other in cluster.others(leader):
            ends = (leader.id, other.id) if way == "from the leader" else (other.id, leader.id)
            network.cut(*ends)
        progress(load, figure, f"cut {way}")
        network.heal()
        progress(load, figure, f"healed, cut {way}")
    finish(cluster, load)


def test_two_nodes_that_do_not_hear_each_other_share_the_third(cluster, network, figure):
    with Load(cluster, "events", PARTITIONS) as load:
        for first, second in itertools.combinations(ids(cluster.nodes), 2):
            load.wait_for(300)
            network.isolate(first, [second])
            progress(load, figure, f"no way between {first} and {second}")
            network.heal()
    finish(cluster, load)


def test_links_that_come_and_go_lose_nothing(cluster, network, figure):
    kinds = itertools.cycle(["reset", "hold", "forget"])
    with Load(cluster, "events", PARTITIONS) as load:
        load.wait_for(300)
        begun = time.monotonic()
        for node, how in zip(cluster.nodes * 2, kinds, strict=False):
            network.isolate(node.id, ids(cluster.others(node)), how)
            time.sleep(0.7)  # below and about the time of an election
            network.heal()
            time.sleep(0.7)
        progress(load, figure, "links came and went", begun)
    finish(cluster, load)


def test_a_slow_network_is_slow_and_nothing_else(cluster, network, figure):
    leader_of(cluster, "events", 0)
    terms = terms_of(cluster)
    with Load(cluster, "events", PARTITIONS) as load:
        load.wait_for(300)
        network.slow(ids(cluster.nodes), delay_seconds=0.08, bytes_per_second=2_000_000)
        progress(load, figure, "80 ms each way")
        network.heal()
    finish(cluster, load)
    figure(f"terms before and after: {terms}, {terms_of(cluster)}")


def terms_of(cluster):
    return [role.term for role in ask_node(cluster.nodes[0], Status("events")).roles]
