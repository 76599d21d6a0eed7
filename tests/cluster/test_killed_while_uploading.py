"""The fifth test: a node dies by SIGKILL while segments are uploaded and indexed."""

import pytest

from tests.cluster.messages import assert_every_node_has, leader_of, produce
from tests.cluster.processes import eventually
from tests.cluster.tiering import (
    BUCKET,
    assert_tiered_once,
    create,
    seal_all,
    wait_until_indexed,
    wait_until_only_in_the_bucket,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


@pytest.mark.parametrize("victim", ["leader", "follower"])
def test_a_node_killed_during_upload_and_indexing_loses_nothing(
    start_cluster, either_bucket, figure, victim
):
    cluster = start_cluster(either_bucket)
    create(cluster, "events", 3)
    with either_bucket.outage("segments"):
        acknowledged = produce(cluster, "events", 5000)
        seal_all(cluster, "events", 3)
    leader = leader_of(cluster, "events", 0)
    killed = next(node for node in cluster.nodes if (node is leader) == (victim == "leader"))
    eventually(lambda: either_bucket.segments("events"), 150, "the first segment is uploaded")
    killed.kill()
    segments = either_bucket.segments("events")
    done = sum(end - base for runs in segments.values() for base, end in runs)

    others = [node for node in cluster.nodes if node is not killed]
    acknowledged.values |= produce(cluster, "events", 500, start=5000).values
    seal_all(cluster, "events", 3)
    wait_until_indexed(others, "events", acknowledged)
    killed.start()
    killed.wait_until_ready()
    wait_until_only_in_the_bucket(cluster, "events", acknowledged)

    assert_every_node_has(cluster, "events", acknowledged, tiers=BUCKET)
    for partition in range(3):
        assert_tiered_once(either_bucket, "events", partition, acknowledged.end(partition))
    figure(f"killed when {done} of 5,000 messages were in the bucket")
