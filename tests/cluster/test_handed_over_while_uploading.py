"""Leaders hand over again and again while segments are uploaded and indexed."""

import pytest

from chronik_server.client import Client
from chronik_store.errors import ChronikError
from tests.cluster.messages import OPTIONS, Acknowledged, assert_every_node_has, produce
from tests.cluster.tiering import (
    BUCKET,
    assert_tiered_once,
    create,
    wait_until_only_in_the_bucket,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def test_leaders_that_hand_over_while_they_upload_lose_nothing_and_store_nothing_twice(
    start_cluster, bucket, figure
):
    cluster = start_cluster(bucket)
    create(cluster, "events", 3)
    acknowledged, moved = Acknowledged(), 0
    with Client(cluster.servers, options=OPTIONS) as client:
        for turn in range(20):
            acknowledged.values |= produce(cluster, "events", 250, start=250 * turn).values
            for partition in range(3):
                to = cluster.nodes[(turn + partition) % 3].id
                try:
                    client.transfer_leader("events", partition=partition, to=to)
                except ChronikError:
                    continue  # it leads already, or is not ready: the next turn asks another
                moved += 1
    assert moved >= 30

    wait_until_only_in_the_bucket(cluster, "events", acknowledged)
    bundles = bucket.keys_of("events")[1]
    for partition in range(3):
        many = assert_tiered_once(bucket, "events", partition, acknowledged.end(partition))
        figure(f"{partition}: {many} segments, {len(bundles[partition])} bundles")
    assert_every_node_has(cluster, "events", acknowledged, tiers=BUCKET)
    figure(f"{moved} times another node led")
