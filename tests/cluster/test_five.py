"""The five tests of the tiers on a cluster: three processes, one bucket.

Segments are small, so that a few thousand messages make many. What is measured is reported, not
asserted. The fifth, with nodes that are killed, is in `test_killed_while_uploading`.
"""

import statistics
import time

import pytest

from chronik_server.protocol.data import Search
from tests.cluster.messages import (
    Acknowledged,
    ask_node,
    assert_every_node_has,
    leadership_of,
    numbers_in,
    produce,
    read_node,
)
from tests.cluster.processes import eventually
from tests.cluster.tiering import (
    BUCKET,
    assert_tiered_once,
    create,
    seal_all,
    wait_until_only_in_the_bucket,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
WAL = {"wal_tail", "wal"}


def milliseconds(seconds):
    return f"p50 {statistics.median(seconds) * 1e3:.1f} ms, max {max(seconds) * 1e3:.1f} ms"


def test_5000_messages_on_three_partitions_are_read_from_the_bucket_by_each_node(
    start_cluster, either_bucket, figure
):
    cluster = start_cluster(either_bucket)
    create(cluster, "events", 3)
    acknowledged = Acknowledged()
    for start in range(0, 5000, 1000):
        acknowledged.values |= produce(cluster, "events", 1000, start=start).values
    assert len(acknowledged.values) == 5000

    wait_until_only_in_the_bucket(cluster, "events", acknowledged)
    assert_every_node_has(cluster, "events", acknowledged, tiers=BUCKET)

    many = [
        assert_tiered_once(either_bucket, "events", partition, acknowledged.end(partition))
        for partition in range(3)
    ]
    assert sorted(either_bucket.segments("events")) == [0, 1, 2]
    figure(f"segments of each partition: {many}")


def uploaded(bucket, topic, acknowledged):
    """The (partition, offset) of the messages in the bucket."""
    segments = bucket.segments(topic)
    return {
        (partition, offset)
        for partition, offset in acknowledged.values
        if any(base <= offset < end for base, end in segments.get(partition, ()))
    }


def test_10000_messages_leave_the_nodes_after_their_upload_and_never_before(
    start_cluster, either_bucket, figure
):
    cluster = start_cluster(either_bucket)
    create(cluster, "events", 2)
    with either_bucket.outage("segments"):
        acknowledged = produce(cluster, "events", 10_000)
        numbers = {
            place: int(value.split(b",")[0].split()[1])
            for place, value in acknowledged.values.items()
        }
        time.sleep(2)  # several pipeline steps that cannot upload
        for node in cluster.nodes:
            assert numbers_in(node.files("wal", "events").values()) == set(range(10_000))
        assert_every_node_has(cluster, "events", acknowledged, tiers=WAL)
        assert either_bucket.keys("indexes/") == []
    seal_all(cluster, "events", 2)

    def all_is_somewhere():
        """Looks at each node first and at the bucket then: what left the one is in the other."""
        here = {node: numbers_in(node.files("wal", "events").values()) for node in cluster.nodes}
        there = {numbers[place] for place in uploaded(either_bucket, "events", acknowledged)}
        for node in cluster.nodes:
            lost = set(range(10_000)) - here[node] - there
            assert not lost, f"{node} removed {len(lost)} messages before their upload"
        return not any(here.values())

    eventually(all_is_somewhere, 150, "all WAL files with messages are gone")
    wait_until_only_in_the_bucket(cluster, "events", acknowledged)
    first = assert_every_node_has(cluster, "events", acknowledged, tiers=BUCKET)
    again = assert_every_node_has(cluster, "events", acknowledged, tiers=BUCKET)
    for name, answers in (("first", first), ("repeated", again)):
        seconds = [each for answer in answers.values() for each in answer.seconds]
        figure(f"{name} read from the bucket, answers of up to 1 MiB: {milliseconds(seconds)}")


def timed_reads(node, topic, acknowledged, tiers, figure, name):
    """Read all from a node in answers of 8 KiB, twice; reports, and checks what came."""
    for turn in ("first", "repeated"):
        found = read_node(node, topic, 0, acknowledged.end(0), max_bytes=8 << 10)
        assert found.pairs == acknowledged.of(0)
        assert set(found.tiers) <= tiers, f"{name}: {set(found.tiers)}"
        figure(f"{name}, {turn}, {len(found.seconds)} answers: {milliseconds(found.seconds)}")


def test_1000_messages_are_read_from_each_tier(start_cluster, either_bucket, figure):
    """A local segment is where its uploader is, so a leadership that moves on a busy machine takes
    the middle tier with it: then it is tried again, with another topic.
    """
    cluster = start_cluster(either_bucket)
    for attempt in range(4):
        topic = f"events-{attempt}"
        create(cluster, topic, 1)
        lines = []
        leader, term = leadership_of(cluster, topic, 0)
        try:
            read_tiers(cluster, either_bucket, topic, leader, lines.append)
        except AssertionError:
            if leadership_of(cluster, topic, 0) == (leader, term):
                raise
            continue
        for line in lines:
            figure(line)
        return
    pytest.fail("no leader stayed for long enough")


def read_tiers(cluster, bucket, topic, leader, figure):
    """The tiers one after the other, the search last."""
    with bucket.outage(f"indexes/{topic}"):  # a segment stays on its node until it is indexed
        acknowledged = produce(cluster, topic, 100)
        timed_reads(leader, topic, acknowledged, {"wal_tail"}, figure, "WAL buffer")
        acknowledged.values |= produce(cluster, topic, 900, start=100).values
        seal_all(cluster, topic, 1)
        eventually(
            lambda: not numbers_in(leader.files("wal", topic).values()), 90, "the WAL is pruned"
        )
        timed_reads(leader, topic, acknowledged, {"local_segment"}, figure, "local segments")
    wait_until_only_in_the_bucket(cluster, topic, acknowledged)
    for node in cluster.nodes:
        timed_reads(node, topic, acknowledged, BUCKET, figure, f"bucket, node {node.id}")
    for node in cluster.nodes:
        seconds = []
        for number in (17, 503, 999, 17, 503, 999):
            begun = time.monotonic()
            found = ask_node(node, Search(topic, f"w{number}", require_complete=True))
            seconds.append(time.monotonic() - begun)
            assert (1, True) == (found.total, found.total_is_exact)
            assert [part.searched for part in found.coverage] == [((0, 1000),)]
        figure(f"search in the bucket, node {node.id}: {milliseconds(seconds)}")


def test_each_offset_of_5000_messages_is_in_exactly_one_object(
    start_cluster, either_bucket, figure
):
    cluster = start_cluster(either_bucket)
    create(cluster, "events", 1)
    acknowledged = Acknowledged()
    for start in range(0, 5000, 500):
        acknowledged.values |= produce(cluster, "events", 500, start=start).values
    wait_until_only_in_the_bucket(cluster, "events", acknowledged)
    time.sleep(1)  # some more pipeline steps of all nodes: they upload nothing

    assert set(either_bucket.segments("events")) == {0}
    many = assert_tiered_once(either_bucket, "events", 0, 5000)
    assert_every_node_has(cluster, "events", acknowledged, tiers=BUCKET)
    figure(f"{many} segments and their bundles for 3 replicas")
