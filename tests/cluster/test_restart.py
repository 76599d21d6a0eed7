"""All nodes are killed at once and come back: the cluster is what it was."""

import pytest

from chronik_server.client import Client
from chronik_server.protocol.cluster import Status
from tests.cluster.messages import (
    OPTIONS,
    Load,
    ask_node,
    assert_every_node_has,
    produce,
    settled,
)
from tests.cluster.processes import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def terms_of(cluster, topic):
    """{(node, partition): term}, as each node says itself."""
    found = {}
    for node in cluster.nodes:
        for role in ask_node(node, Status(topic)).roles:
            found[node.id, role.partition] = role.term
    return found


def test_a_cluster_killed_as_a_whole_comes_back_with_every_acknowledged_message(
    start_cluster, bucket, figure
):
    cluster = start_cluster(bucket)
    with Client(cluster.servers, options=OPTIONS) as client:
        topic = client.create_topic("events", partitions=3)
        client.create_topic("other", partitions=1)
        before = settled(client)
    other = produce(cluster, "other", 50)
    with Load(cluster, "events", 3) as load:
        eventually(lambda: load.count >= 3000, 150, lambda: f"3,000 messages, not {load.count}")
        terms = terms_of(cluster, "events")
        cluster.kill_all()  # under load: what is on its way may be there or not
        acknowledged_before = load.count
        cluster.start()
        eventually(lambda: load.count >= acknowledged_before + 300, 150, "appends go on")

    assert load.errors == []
    with Client(cluster.servers, options=OPTIONS) as client:
        assert [each.name for each in client.topics()] == ["events", "other"]
        assert client.describe_topic("events").topic_id == topic.topic_id
        after = settled(client)
        assert (after.cluster_id, after.nodes) == (before.cluster_id, before.nodes)
    later = terms_of(cluster, "events")
    assert all(later[place] >= term for place, term in terms.items()), "a term went back"
    assert_every_node_has(cluster, "events", load.acknowledged)
    assert_every_node_has(cluster, "other", other)
    figure(f"{load.count} acknowledged messages, {acknowledged_before} of them before the kill")
