"""A topic gets more partitions, while a node is down, and all of them are killed behind that."""

import pytest

from chronik_server.client import Client
from chronik_server.protocol.data import Search
from chronik_store import LogStore, open_bucket, restore
from tests.cluster.messages import (
    OPTIONS,
    Load,
    ask_node,
    assert_every_node_has,
    body,
    leader_of,
    produce,
)
from tests.cluster.tiering import (
    BUCKET,
    assert_tiered_once,
    create,
    wait_until_only_in_the_bucket,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def append(client, acknowledged, start, partitions=5):
    """A batch to each."""
    for partition in range(partitions):
        values = [body(start + 100 * partition + place) for place in range(50)]
        found = client.append("events", values, partition=partition)
        acknowledged.add(partition, found.base_offset, values)


def test_partitions_that_are_added_under_load_are_like_those_that_were_there(
    start_cluster, bucket, tmp_path
):
    cluster = start_cluster(bucket)
    create(cluster, "events", 2)
    with Client(cluster.servers, options=OPTIONS) as knew:
        topic_id = knew.describe_topic("events").topic_id
        with Load(cluster, "events", 2) as load:
            load.wait_for(500)
            absent = next(n for n in cluster.nodes if n is not leader_of(cluster, "events", 0))
            absent.kill()
            with Client(cluster.servers, options=OPTIONS) as other:
                grown = other.create_topic("events", partitions=5, exist_ok=True)
            assert (grown.topic_id, len(grown.partitions)) == (topic_id, 5)
            acknowledged = load.acknowledged
            append(knew, acknowledged, 50_000_000)
            load.wait_for(500)
        load.assert_no_errors()
        cluster.kill_all()
        cluster.start()
        append(knew, acknowledged, 60_000_000)
        assert knew.describe_topic("events").topic_id == topic_id
    assert_every_node_has(cluster, "events", acknowledged)
    for node in cluster.nodes:
        found = ask_node(node, Search("events", "message", require_complete=True))
        assert found.total == len(acknowledged.values)

    wait_until_only_in_the_bucket(cluster, "events", acknowledged)
    for partition in range(5):
        assert_tiered_once(bucket, "events", partition, acknowledged.end(partition))
    assert_every_node_has(cluster, "events", acknowledged, tiers=BUCKET)
    for partition in range(5):
        with open_bucket(bucket.url, topic="events", partition=partition) as log:
            assert acknowledged.of(partition) == [(each.offset, each.value) for each in log.scan()]
    cluster.kill_all()
    restore(bucket.url, tmp_path / "restored")
    with LogStore.open(tmp_path / "restored", read_only=True) as store:
        (info,) = store.topics()[-1:]
        assert (info.name, info.topic_id, info.partitions) == ("events", topic_id, 5)
        for partition in range(5):
            log = store.partition("events", partition)
            assert acknowledged.of(partition) == [(each.offset, each.value) for each in log.scan()]


def test_a_topic_that_has_grown_leaves_nothing_when_it_is_deleted(start_cluster, bucket):
    cluster = start_cluster(bucket)
    create(cluster, "events", 1)
    with Client(cluster.servers, options=OPTIONS) as client:
        client.create_topic("events", partitions=3, exist_ok=True)
    wait_until_only_in_the_bucket(cluster, "events", produce(cluster, "events", 600))
    absent = next(n for n in cluster.nodes if n is not leader_of(cluster, "events", 0))
    absent.kill()
    with Client(cluster.servers, options=OPTIONS) as client:
        client.delete_topic("events")
        client.create_topic("events", partitions=4, exist_ok=True)
    absent.start()
    absent.wait_until_ready()
    kept = produce(cluster, "events", 400, start=10_000)
    assert kept.partitions == [0, 1, 2, 3]
    assert all(kept.of(partition)[0][0] == 0 for partition in range(4))
    wait_until_only_in_the_bucket(cluster, "events", kept)
    for partition in range(4):
        assert_tiered_once(bucket, "events", partition, kept.end(partition))
    assert_every_node_has(cluster, "events", kept, tiers=BUCKET)
