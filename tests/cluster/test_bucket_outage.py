"""The bucket fails under load, in each way, and comes back.

Meanwhile appends and reads of what is local go on, nothing leaves a node that is not in the bucket,
and what only the bucket has is unavailable, never absent; afterwards each object is there once.

An emulator serves each run; with `-m s3` a real server (Ceph RGW) does, which is also killed for
good and started again, with uploads on their way.
"""

import contextlib
import time

import pytest

from chronik_server.client import ClientOptions
from chronik_server.protocol.data import Fetch
from chronik_store.errors import ChronikError, UnavailableError
from chronik_store.testing.fault_proxy import ProxyFault
from tests.cluster.messages import (
    CATCH_UP_SECONDS,
    MESSAGE,
    Load,
    ask_node,
    assert_every_node_has,
    line_of,
    numbers_in,
    produce,
    read_node,
)
from tests.cluster.processes import eventually
from tests.cluster.tiering import (
    BUCKET,
    assert_tiered_once,
    create,
    messages_on_disk,
    wait_until_only_in_the_bucket,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

PARTITIONS = 2
PATIENT = ClientOptions(connect_seconds=2.0, request_seconds=90.0)


@contextlib.contextmanager
def failing(bucket, kind):
    """Every request fails so, as long as the block lasts."""
    faults = {
        "stalls": ProxyFault("hang", times=None, seconds=2.0),
        "resets": ProxyFault("reset_before", times=None),
        "answers are lost": ProxyFault("reset_after", times=None),
        "answers 503": ProxyFault("status", times=None),
    }
    if kind == "is gone":
        bucket.proxy.disappear()
    elif kind == "is killed":
        bucket.server.kill_gateway()
    else:
        bucket.proxy.add(faults[kind])
    try:
        yield
    finally:
        if kind == "is gone":
            bucket.proxy.reappear()
        elif kind == "is killed":
            bucket.server.start_gateway()
        bucket.proxy.clear()


def number_of(value):
    return int(MESSAGE.match(value).group(1))


def numbers_here(cluster):
    """{node: the numbers of the messages in its files}."""
    here = {}
    for node in cluster.nodes:
        found = numbers_in(node.files("wal", "events").values())
        here[node] = found | numbers_in(node.files("segments", "events").values())
    return here


def assert_nothing_is_lost(here, bucket, known):
    """The nodes were looked at first, the bucket is now: what left the one is in the other.

    known: {(partition, offset): value}, acknowledged before.
    """
    segments = bucket.segments("events")
    for (partition, offset), value in known.items():
        if any(base <= offset < end for base, end in segments.get(partition, ())):
            continue
        holders = [node for node in here if number_of(value) in here[node]]
        assert len(holders) >= 2, f"{partition}/{offset} is on {holders} only, not in the bucket"


LATE, REFUSED = ("stalls", "answers are lost"), ("resets", "answers 503")
REAL = pytest.mark.s3


@pytest.mark.parametrize(
    ("s3_bucket", "kinds"),
    [
        pytest.param("emulator", LATE, id="emulator-late or lost"),
        pytest.param("emulator", (*REFUSED, "is gone"), id="emulator-refused or gone"),
        pytest.param("rgw", ("answers are lost", *REFUSED, "is killed"), id="rgw", marks=REAL),
    ],
    indirect=["s3_bucket"],
)
def test_a_bucket_that_fails_under_load_stops_tiering_and_nothing_else(
    start_cluster, s3_bucket, figure, kinds
):
    cluster = start_cluster(s3_bucket)
    create(cluster, "events", PARTITIONS)
    # No faster than tiering: what is measured is an outage, not a backlog.
    with Load(cluster, "events", PARTITIONS, batch=10, pause=0.05) as load:
        for kind in kinds:
            load.wait_for(200)
            with failing(s3_bucket, kind):
                begun = time.monotonic()
                load.wait_for(800)  # more than a segment of each partition
                pause = load.longest_pause(begun)
                known = dict(load.acknowledged.values)
                here = numbers_here(cluster)
                if kind != "is killed":
                    assert_nothing_is_lost(here, s3_bucket, known)
                at = load.acknowledged.end(0) - 20
                read_node(cluster.nodes[0], "events", 0, at + 20, start=at)  # what is hot is read
            assert_nothing_is_lost(here, s3_bucket, known)
            ends = {number: load.acknowledged.end(number) for number in range(PARTITIONS)}
            healed = time.monotonic()
            eventually(lambda ends=ends: tiered(cluster, ends), 150, f"tiering resumes ({kind})")
            figure(
                f"bucket {kind}: longest pause of appends {pause:.2f} s, "
                f"tiering caught up {time.monotonic() - healed:.1f} s after"
            )
    load.assert_no_errors()
    wait_until_only_in_the_bucket(cluster, "events", load.acknowledged)
    assert_every_node_has(cluster, "events", load.acknowledged, tiers=BUCKET)
    for partition in range(PARTITIONS):
        assert_tiered_once(s3_bucket, "events", partition, load.acknowledged.end(partition))


def tiered(cluster, ends):
    """Some node knows that the bucket has nearly all that was acknowledged then."""
    for number, end in ends.items():
        lines = [line_of(node, "events", number) for node in cluster.nodes]
        if not any(line is not None and line.tiered >= end - 400 for line in lines):
            return False
    return True


@pytest.mark.parametrize(
    ("s3_bucket", "kind"),
    [
        pytest.param("emulator", "is gone", id="emulator"),
        pytest.param("rgw itself", "is killed", id="rgw", marks=REAL),
    ],
    indirect=["s3_bucket"],
)
def test_a_bucket_that_is_gone_is_said_to_be_and_its_records_are_unavailable_never_absent(
    start_cluster, s3_bucket, kind, figure
):
    cluster = start_cluster(s3_bucket, CHRONIK_CACHE_MEMORY_BYTES="0", CHRONIK_CACHE_DISK_BYTES="0")
    create(cluster, "events", 1)
    with Load(cluster, "events", 1) as load:
        load.wait_for(1000)
    wait_until_only_in_the_bucket(cluster, "events", load.acknowledged)
    assert not any(messages_on_disk(node, "events") for node in cluster.nodes)
    node = cluster.nodes[0]
    with failing(s3_bucket, kind):
        kept = produce(cluster, "events", 300, start=10_000_000)
        begun = time.monotonic()
        with pytest.raises(UnavailableError) as caught:
            ask_node(node, Fetch("events", 0, 0), options=PATIENT)
        figure(f"unavailable after {time.monotonic() - begun:.1f} s: {caught.value}"[:200])
        assert caught.value.retriable
        # Once an upload has been tried for as long as the policy says, readiness has it.
        eventually(
            lambda: any("events" in str(each.faults()) for each in cluster.nodes),
            CATCH_UP_SECONDS,
            "a node whose uploads fail is not ready, and says why",
        )

    def back():
        try:
            return ask_node(node, Fetch("events", 0, 0), options=PATIENT).next_offset
        except ChronikError:
            return None

    eventually(back, CATCH_UP_SECONDS, "the first messages are read again")
    load.acknowledged.values |= kept.values
    wait_until_only_in_the_bucket(cluster, "events", load.acknowledged)
    assert_every_node_has(cluster, "events", load.acknowledged, tiers=BUCKET)
