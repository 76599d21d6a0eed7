"""Clusters that grow and shrink while they are written to, and nodes that are replaced."""

import shutil

import pytest

from chronik_server.client import Client
from chronik_server.metadata import METADATA_TOPIC
from chronik_server.protocol.cluster import DescribeCluster
from chronik_server.protocol.topics import DescribeTopic
from chronik_store import LogConfig, LogStore
from chronik_store.conversion import convert
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError, ConfigError
from tests.cluster.messages import (
    OPTIONS,
    Load,
    ask_node,
    assert_every_node_has,
    body,
    produce,
    read_node,
)
from tests.cluster.processes import Node, eventually
from tests.cluster.tiering import create

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
MOVE_SECONDS = 60.0


def states(node):
    """{id: state} as one node knows them; None while it cannot be asked."""
    try:
        found = ask_node(node, DescribeCluster())
    except ChronikError:
        return None
    return {each.node_id: each.state for each in found.nodes}


def places(node, topic):
    """[{ids}, ...]: who should have each partition; None while the node cannot say."""
    try:
        found = ask_node(node, DescribeTopic(topic))
    except ChronikError:
        return None
    return [set(place.replicas) for place in found.partitions]


def holders(cluster, topic, partition):
    """Nodes that have files of a partition's log."""
    return {
        node.id
        for node in (*cluster.nodes, *cluster._left)
        if list((node.directory / "wal" / topic / str(partition)).glob("*.log"))
    }


def remove(cluster, node_id, *, seconds=MOVE_SECONDS):
    """Ask for it, and return when the cluster says that the node is removed."""
    with Client(cluster.servers, options=OPTIONS) as client:
        client.remove_node(node_id)
    rest = [node for node in cluster.nodes if node.id != node_id and node.is_running]
    eventually(
        lambda: (states(rest[0]) or {}).get(node_id) == "removed",
        seconds,
        lambda: f"node {node_id} is removed: {states(rest[0])}, {places(rest[0], 'events')}",
    )


def test_a_cluster_grows_from_one_to_five_and_shrinks_to_three_under_load(
    start_cluster, bucket, figure
):
    cluster = start_cluster(bucket, nodes=1)
    create(cluster, "events", 3)
    with Load(cluster, "events", 3, pause=0.05) as load:
        for node_id in ("2", "3"):
            cluster.add(node_id)
        eventually(
            lambda: (
                all(holders(cluster, "events", p) == {"1", "2", "3"} for p in range(3))
                and places(cluster.nodes[2], "events") == [{"1", "2", "3"}] * 3
            ),
            MOVE_SECONDS,
            lambda: f"three copies of each: {[holders(cluster, 'events', p) for p in range(3)]}",
        )
        for node_id in ("4", "5"):
            cluster.add(node_id)
        count = load.count
        eventually(lambda: load.count > count + 300, 150, "appends go on with five nodes")
        for node_id in ("1", "2"):
            node = cluster.node(node_id)
            remove(cluster, node_id)
            assert node.wait_until_ended() == 0
            cluster.leave_out(node)
        eventually(
            lambda: places(cluster.nodes[0], "events") == [{"3", "4", "5"}] * 3,
            MOVE_SECONDS,
            lambda: f"all is on the nodes that stay: {places(cluster.nodes[0], 'events')}",
        )
        count = load.count
        eventually(lambda: load.count > count + 300, 150, "appends go on with three new nodes")

    assert load.errors == []
    assert load.count > 1000
    assert_every_node_has(cluster, "events", load.acknowledged)
    assert states(cluster.nodes[0]) == {
        "1": "removed", "2": "removed", "3": "member", "4": "member", "5": "member",
    }  # fmt: skip
    figure(f"{load.count} messages while 1 node became 5, and 3 of other names")


def test_a_node_that_lost_its_disk_is_refused_under_its_id_and_replaced_under_a_new_one(
    start_cluster, bucket
):
    cluster = start_cluster(bucket)
    create(cluster, "events", 2)
    acknowledged = produce(cluster, "events", 1000)
    lost = cluster.node("2")
    lost.kill()
    shutil.rmtree(lost.directory)

    lost.start()
    refused = "belongs to directory"
    eventually(
        lambda: refused in lost.tail() or any(refused in n.tail() for n in cluster.nodes),
        30,
        "the amnesiac is refused",
    )
    assert lost.faults() is not None
    lost.end()

    cluster.add("4")
    remove(cluster, "2")
    cluster.leave_out(lost)
    eventually(
        lambda: places(cluster.nodes[0], "events") == [{"1", "3", "4"}] * 2,
        MOVE_SECONDS,
        lambda: f"the new node has it all: {places(cluster.nodes[0], 'events')}",
    )
    acknowledged.values |= produce(cluster, "events", 500, start=5000).values
    assert_every_node_has(cluster, "events", acknowledged)
    cluster.node("1").kill()
    later = produce(cluster, "events", 200, start=9000)
    for partition in range(2):
        found = read_node(cluster.node("4"), "events", partition, later.end(partition))
        assert set(acknowledged.of(partition)) | set(later.of(partition)) <= set(found.pairs)


def test_nodes_know_their_cluster_from_their_own_log_when_all_restart_without_settings(
    start_cluster, bucket
):
    cluster = start_cluster(bucket, nodes=1)
    create(cluster, "events", 1)
    for node_id in ("2", "3"):
        cluster.add(node_id)
    acknowledged = produce(cluster, "events", 500)
    eventually(
        lambda: holders(cluster, "events", 0) == {"1", "2", "3"}, MOVE_SECONDS, "three copies"
    )
    cluster.kill_all()
    for node in cluster.nodes:
        node.entrance, node.knows_peers = None, False
    cluster.start()
    acknowledged.values |= produce(cluster, "events", 100, start=1000).values
    assert_every_node_has(cluster, "events", acknowledged)


def test_a_cluster_that_shrinks_to_one_node_at_once_goes_on_with_it(start_cluster, bucket):
    cluster = start_cluster(bucket)
    create(cluster, "events", 3)
    acknowledged = produce(cluster, "events", 600)
    cluster.add("4")  # it must get a vote about metadata before so many others go
    with Client(cluster.servers, options=OPTIONS) as client:
        for node_id in ("1", "2", "3"):
            client.remove_node(node_id)
    for node_id in ("1", "2", "3"):
        node = cluster.node(node_id)
        assert node.wait_until_ended(MOVE_SECONDS) == 0
        cluster.leave_out(node)

    create(cluster, "more", 2)
    acknowledged.values |= produce(cluster, "events", 300, start=1000).values
    assert_every_node_has(cluster, "events", acknowledged)
    eventually(
        lambda: holders(cluster, "more", 0) == {"4"}, MOVE_SECONDS, "what was created is opened"
    )
    with pytest.raises(ConfigError), Client(cluster.servers, options=OPTIONS) as client:
        client.remove_node("4")
    cluster.node("4").kill()
    cluster.node("4").start()
    cluster.node("4").wait_until_ready()
    assert_every_node_has(cluster, "events", acknowledged)


def test_a_log_of_its_own_becomes_a_cluster_with_all_that_it_has(start_cluster, bucket, tmp_path):
    values = {(0, number): body(number) for number in range(2000)}
    config = LogConfig(object_store=bucket.url, segment_bytes=32 << 10)
    with LogStore.open(tmp_path / "1", config=config) as store:
        store.create_topic("events")
        log = store.partition("events")
        for start in range(0, 2000, 100):
            log.append([body(number) for number in range(start, start + 100)])
        log.run_pipeline_once()
        assert log.watermarks.tiered > 0
        log.append(body(2000))
    values[0, 2000] = body(2000)
    convert(tmp_path / "1", "1", own_topic=METADATA_TOPIC, config=config, env=Environment())

    cluster = start_cluster(bucket, nodes=1, knows_peers=False)
    for node_id in ("2", "3"):
        cluster.add(node_id)
    acknowledged = produce(cluster, "events", 500, start=10_000)
    acknowledged.values |= values
    eventually(
        lambda: holders(cluster, "events", 0) == {"1", "2", "3"}, MOVE_SECONDS, "three copies"
    )
    assert_every_node_has(cluster, "events", acknowledged)


def test_a_node_with_another_bucket_is_refused_and_the_others_go_on(
    start_cluster, bucket, tmp_path
):
    cluster = start_cluster(bucket)
    create(cluster, "events", 1)
    stray = Node(cluster, "4", entrance=cluster.nodes[0])
    stray.bucket_url = f"file://{tmp_path}/other"
    stray.start()
    try:
        assert stray.wait_until_ended() == 3
        assert "not the bucket of this cluster" in stray.tail()
        assert not stray.directory.exists()
    finally:
        stray.end()
    assert "4" not in states(cluster.nodes[0])
    produce(cluster, "events", 100)
