"""One machine's clock is hours off; the bucket is a real S3 server, which refuses what it signs.

In `test_pauses_and_clocks` only what a node takes its time from is wrong; here it is the machine's
own clock, by which requests to the bucket are signed, and it goes wrong while the node runs.
"""

import os
import time

import pytest

from chronik_server.client import Client
from chronik_server.protocol.greeting import Ping
from tests.cluster.messages import (
    CATCH_UP_SECONDS,
    OPTIONS,
    Load,
    ask_node,
    assert_every_node_has,
    leader_of,
    line_of,
    numbers_in,
)
from tests.cluster.processes import eventually
from tests.cluster.tiering import (
    BUCKET,
    assert_tiered_once,
    create,
    wait_until_only_in_the_bucket,
)
from tests.s3.machine_clock import HOUR, MachineClock

pytestmark = [pytest.mark.cluster, pytest.mark.s3, pytest.mark.timeout(400)]

WRONG = f"set the clock of {os.uname().nodename}, which is about 3 hours ahead of the store's"


def test_a_node_with_a_wrong_clock_says_so_keeps_its_bytes_and_goes_on_once_it_is_right(
    start_cluster, rgw_bucket, tmp_path, figure
):
    """It leads first, and uploads nothing; then it follows, and removes nothing."""
    clocks = {}

    def prepare(node):
        folder = tmp_path / f"machine-{node.id}"
        folder.mkdir()
        clocks[node] = MachineClock(folder)
        node.environ = clocks[node].environ

    cluster = start_cluster(rgw_bucket, prepare=prepare)
    create(cluster, "events", 1)
    with Load(cluster, "events", 1, batch=10, pause=0.05) as load:
        load.wait_for(300)
        late = leader_of(cluster, "events", 0)
        others = cluster.others(late)
        clocks[late].set(3 * HOUR)
        wait_until_ahead(late, 3 * HOUR)
        begun = time.monotonic()
        wait_until_it_names_its_clock(late, "upload")
        stopped = line_of(late, "events", 0).tiered
        load.wait_for(600)  # three segments and more
        figure(f"the leader's clock is wrong: longest pause {load.longest_pause(begun):.2f} s")
        assert line_of(late, "events", 0).tiered <= stopped + 200  # one may have been on its way
        assert_has_on_disk(late, load.acknowledged, stopped + 200)
        assert [node.faults() for node in others] == [None, None]

        with Client(cluster.servers, options=OPTIONS) as client:
            client.transfer_leader("events", partition=0, to=others[0].id)
        end = load.acknowledged.end(0)
        eventually(
            lambda: line_of(others[0], "events", 0).tiered >= end - 200,
            CATCH_UP_SECONDS,
            "the next leader uploads what the first could not",
        )
        wait_until_it_names_its_clock(late, "prune")
        assert_has_on_disk(late, load.acknowledged, stopped + 200)
        load.wait_for(100)

        clocks[late].set(0)
        wait_until_ahead(late, 0)
        eventually(lambda: late.faults() is None, CATCH_UP_SECONDS, "it is ready again")
        load.wait_for(100)
    load.assert_no_errors()
    wait_until_only_in_the_bucket(cluster, "events", load.acknowledged)
    assert_every_node_has(cluster, "events", load.acknowledged, tiers=BUCKET)
    assert_tiered_once(rgw_bucket, "events", 0, load.acknowledged.end(0))


def wait_until_ahead(node, seconds):
    eventually(
        lambda: abs(ask_node(node, Ping()).time_us / 1e6 - time.time() - seconds) < 30,
        CATCH_UP_SECONDS,
        f"the clock of {node} has been set",
    )


def wait_until_it_names_its_clock(node, stage):
    """In /ready, and in its log."""

    def look():
        said = (node.faults() or {}).get("log", "")
        return stage in said and WRONG in said

    eventually(look, CATCH_UP_SECONDS, lambda: f"{node} names its clock: {node.faults()}")
    assert WRONG in node.log.read_text()


def assert_has_on_disk(node, acknowledged, start):
    """All of [start, end) is in files of this node."""
    wanted = {value for at, value in acknowledged.of(0) if at >= start}
    files = [*node.files("wal", "events").values(), *node.files("segments", "events").values()]
    assert wanted
    assert numbers_in(wanted) <= numbers_in(files)
