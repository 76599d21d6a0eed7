"""Topics of a cluster: made and deleted while nodes are down, spread, kept, and found."""

from collections import Counter

import pytest

from chronik_server.client import Client
from chronik_server.protocol.data import Fetch, Search
from chronik_server.protocol.topics import ListTopics
from chronik_store.errors import ChronikError, ConfigError, TopicExistsError, TopicNotFoundError
from tests.cluster.messages import (
    MESSAGE,
    OPTIONS,
    ask_node,
    assert_every_node_has,
    leader_of,
    produce,
    read_node,
)
from tests.cluster.processes import eventually
from tests.cluster.tiering import assert_tiered_once, create, wait_until_only_in_the_bucket

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


def described(cluster, topic):
    with Client(cluster.servers, options=OPTIONS) as client:
        return client.describe_topic(topic)


def test_a_topic_deleted_and_made_again_while_a_node_is_down_is_another_topic(
    start_cluster, bucket
):
    cluster = start_cluster(bucket)
    create(cluster, "events", 2)
    old = produce(cluster, "events", 1000)
    wait_until_only_in_the_bucket(cluster, "events", old)
    before = {key for prefix in ("segments", "indexes") for key in bucket.keys(f"{prefix}/events/")}
    old.values |= produce(cluster, "events", 100, start=1000).values  # in WALs alone
    assert before
    absent = next(n for n in cluster.nodes if n is not leader_of(cluster, "events", 0))
    absent.kill()

    with Client(cluster.servers, options=OPTIONS) as client:
        first = client.describe_topic("events").topic_id
        client.delete_topic("events")
        with pytest.raises(TopicNotFoundError):
            client.describe_topic("events")
        second = client.create_topic("events", partitions=2).topic_id
    assert first != second
    new = produce(cluster, "events", 600, start=50_000)
    eventually(
        lambda: not before & set(bucket.keys("")), 60, "the objects of the old topic are gone"
    )
    assert any(first in key for key in bucket.keys("")), "its tombstone waits for the absent node"

    absent.start()
    absent.wait_until_ready()
    new.values |= produce(cluster, "events", 200, start=60_000).values
    assert_every_node_has(cluster, "events", new)
    wait_until_only_in_the_bucket(cluster, "events", new)
    assert_every_node_has(cluster, "events", new, tiers={"object_store"})
    eventually(
        lambda: not any(first in key for key in bucket.keys("")),
        60,
        lambda: f"nothing names the old topic: {bucket.keys('')}",
    )
    for node in cluster.nodes:
        found = {number for content in node.files("wal", "events").values()
                 for number in map(int, MESSAGE.findall(content))}  # fmt: skip
        assert not {number for number in found if number < 50_000}, f"{node} has old messages"


def test_a_deleted_topic_leaves_no_object_and_no_file(start_cluster, bucket):
    cluster = start_cluster(bucket)
    create(cluster, "events", 1)
    create(cluster, "other", 1)
    wait_until_only_in_the_bucket(cluster, "events", produce(cluster, "events", 500))
    kept = produce(cluster, "other", 500)
    with Client(cluster.servers, options=OPTIONS) as client:
        client.delete_topic("events")

    def left():
        files = [node for node in cluster.nodes if node.files("wal", "events")]
        return files + [key for key in bucket.keys("") if "/events/" in key]

    eventually(lambda: not left(), 150, lambda: f"nothing is left: {left()}")
    assert_every_node_has(cluster, "other", kept)


def test_creating_is_idempotent_for_who_says_so(start_cluster, bucket):
    cluster = start_cluster(bucket)
    with Client(cluster.servers, options=OPTIONS) as client:
        made = client.create_topic("events", partitions=2)
        again = client.create_topic("events", partitions=2, exist_ok=True)
        assert made.topic_id == again.topic_id
        with pytest.raises(TopicExistsError):
            client.create_topic("events")
        with pytest.raises(ConfigError):
            client.create_topic("wide", replicas=4)
        with pytest.raises(ConfigError):
            client.create_topic("../up")


def test_a_partition_on_one_node_is_written_read_and_searched_through_any(start_cluster, bucket):
    cluster = start_cluster(bucket)
    with Client(cluster.servers, options=OPTIONS) as client:
        client.create_topic("events", partitions=3, replicas=1)
    acknowledged = produce(cluster, "events", 900)
    owners = [set(place.replicas) for place in described(cluster, "events").partitions]
    assert sorted(owners, key=sorted) == [{"1"}, {"2"}, {"3"}]
    for node in cluster.nodes:
        held = {int(path.parent.name) for path in node.files("wal", "events")}
        assert held == {number for number, owner in enumerate(owners) if owner == {node.id}}
        with Client(node.address, options=OPTIONS) as client:
            for partition in range(3):
                found = client.read("events", 0, partition=partition, max_records=1000)
                pairs = [(record.offset, record.value) for record in found]
                assert pairs == acknowledged.of(partition)
        assert ask_node(node, Search("events", "w7")).total == 1
        assert ask_node(node, Search("events", "message", limit=1000)).total == 900


def test_reads_say_how_fresh_they_are_and_a_linearizable_one_sees_all(start_cluster, bucket):
    cluster = start_cluster(bucket)
    create(cluster, "events", 1)
    leader = leader_of(cluster, "events", 0)
    for start in range(0, 500, 100):
        acknowledged = produce(cluster, "events", 100, start=start)
        answer = ask_node(leader, Fetch("events", 0, 0, consistency="linearizable"))
        assert answer.committed_offset >= acknowledged.end(0)
        assert answer.staleness_ms is None
    for node in cluster.nodes:
        if node is not leader:
            read_node(node, "events", 0, 500)
            assert ask_node(node, Fetch("events", 0, 0)).staleness_ms < 2000
            with pytest.raises(ChronikError) as caught:
                ask_node(node, Fetch("events", 0, 0, consistency="linearizable"))
            assert caught.value.node_id == leader.id
    with Client(cluster.servers, options=OPTIONS) as client:
        found = client.read("events", 0, max_records=1000, consistency="linearizable")
        assert len(found.records) == 500


# --- leaders, metadata ----------------------------------------------------------------------------


def leads(cluster, topic):
    return Counter(place.leader for place in described(cluster, topic).partitions)


def test_leaders_are_spread_and_again_when_a_node_has_come_back(start_cluster, bucket, figure):
    cluster = start_cluster(bucket)
    create(cluster, "events", 6)
    even = {"1": 2, "2": 2, "3": 2}
    eventually(
        lambda: leads(cluster, "events") == even, 60, lambda: f"even: {leads(cluster, 'events')}"
    )
    node = cluster.node("3")
    node.kill()
    eventually(
        lambda: set(leads(cluster, "events")) == {"1", "2"}, 30, lambda: leads(cluster, "events")
    )
    node.start()
    node.wait_until_ready()
    eventually(
        lambda: leads(cluster, "events") == even, 60, lambda: f"even: {leads(cluster, 'events')}"
    )
    acknowledged = produce(cluster, "events", 600)
    assert_every_node_has(cluster, "events", acknowledged)


def test_retention_never_drops_metadata(start_cluster, bucket):
    cluster = start_cluster(
        bucket, CHRONIK_RETENTION_SECONDS="1", CHRONIK_RETENTION_BYTES="1000",
        CHRONIK_SEGMENT_AGE_SECONDS="0.5",
    )  # fmt: skip
    folder = "segments/__chronik_metadata/"
    names = []
    for number in range(3):
        names.append(f"topic-{number}")
        create(cluster, names[-1], 1)
        eventually(
            lambda count=number: len(bucket.keys(folder)) > count,
            60,
            "metadata is uploaded",
        )
    produce(cluster, names[0], 50)

    def start_offset():
        leader = leader_of(cluster, names[0], 0)
        return ask_node(leader, Fetch(names[0], 0, 50)).start_offset

    eventually(lambda: start_offset() == 50, 150, "retention works for topics")
    cluster.kill_all()
    cluster.start()
    for node in cluster.nodes:
        assert names == [info.name for info in ask_node(node, ListTopics()).topics]
        # Without the bucket a node must still know what it serves: its WAL has all of it.
        kept = b"".join(node.files("wal", "__chronik_metadata").values())
        assert [name for name in names if name.encode() not in kept] == []


def test_when_every_replica_uploads_each_offset_is_still_in_one_object(start_cluster, bucket):
    cluster = start_cluster(bucket, CHRONIK_UPLOAD="all")
    create(cluster, "events", 1)
    acknowledged = produce(cluster, "events", 2000)
    wait_until_only_in_the_bucket(cluster, "events", acknowledged)
    assert_tiered_once(bucket, "events", 0, 2000)
    assert_every_node_has(cluster, "events", acknowledged, tiers={"object_store"})
