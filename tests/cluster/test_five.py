"""The five tests of the tiers on a cluster: three processes, one bucket.

Each names what it proves; segments are small, so that a few thousand messages make many. What is
measured is reported, not asserted.
"""

import pytest

from chronik_server.client import Client
from tests.cluster.messages import (
    OPTIONS,
    Acknowledged,
    assert_every_node_has,
    line_of,
    produce,
)
from tests.cluster.processes import eventually

MARK = b'{"message": '
"""How every message begins: a file of a node that holds it holds messages."""

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]


def tiling(runs, end):
    """The offset ranges follow one another from 0 to `end`: none twice, none left out."""
    borders = [0, *(stop for _, stop in runs)]
    return [base for base, _ in runs] == borders[:-1] and borders[-1] == end


def seal_all(cluster, topic, partitions):
    """Close the open segments, so that everything can leave the WAL."""
    with Client(cluster.servers, options=OPTIONS) as client:
        for partition in range(partitions):
            client.seal(topic, partition=partition)


def wait_until_only_in_the_bucket(cluster, topic, acknowledged, seconds=60):
    """Return when all is indexed, every node knows it, and none keeps a message on its disk."""
    seal_all(cluster, topic, len(acknowledged.partitions))

    def waiting():
        found = []
        for node in cluster.nodes:
            for partition in acknowledged.partitions:
                line = line_of(node, topic, partition)
                if line is None or line.indexed < acknowledged.end(partition):
                    found.append(f"{node} {partition}: {line}")
            for kind in ("wal", "segments"):
                found += [
                    f"{node} has {path}"
                    for path, content in node.files(kind, topic).items()
                    if MARK in content
                ]
        return found

    eventually(lambda: not waiting(), seconds, lambda: f"all is in the bucket alone: {waiting()}")


def test_5000_messages_on_three_partitions_are_read_from_the_bucket_by_each_node(
    start_cluster, either_bucket, figure
):
    cluster = start_cluster(either_bucket)
    with Client(cluster.servers, options=OPTIONS) as client:
        client.create_topic("events", partitions=3)
    acknowledged = Acknowledged()
    for start in range(0, 5000, 1000):
        acknowledged.values |= produce(cluster, "events", 1000, start=start).values
    assert len(acknowledged.values) == 5000

    wait_until_only_in_the_bucket(cluster, "events", acknowledged)
    assert_every_node_has(cluster, "events", acknowledged, tiers={"object_store"})

    segments, bundles = either_bucket.runs("events")
    assert sorted(segments) == sorted(bundles) == [0, 1, 2]
    for partition in range(3):
        assert tiling(segments[partition], acknowledged.end(partition))
        assert bundles[partition] == segments[partition]
    figure(f"segments of each partition: {[len(segments[n]) for n in range(3)]}")
