"""A search bundle is damaged in the bucket: it is said, and built anew by who leads the partition.

The segment's records are put out of reach now and then, so that what a search finds without them
comes out of the bundle, and out of nothing else.
"""

import contextlib
import json
import subprocess
import sys

import pytest

from chronik_server.protocol.data import Search
from chronik_store.objectstore.layout import parse_bundle_key, parse_segment_key
from tests.cluster.messages import CATCH_UP_SECONDS, Acknowledged, ask_node, leader_of, produce
from tests.cluster.processes import ROOT, eventually
from tests.cluster.test_verbs import Shell
from tests.cluster.tiering import create, seal_all, wait_until_only_in_the_bucket

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SEGMENTS = 12
COUNT = 100 * SEGMENTS
NO_CACHE = {"CHRONIK_CACHE_MEMORY_BYTES": "0", "CHRONIK_CACHE_DISK_BYTES": "0"}
EVERYTHING = Search("events", "message", limit=1)


@contextlib.contextmanager
def out_of_reach(bucket, key):
    """An object is not there as long as the block lasts."""
    path = bucket.path_of(key)
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def bundles(bucket):
    """{its range: the keys of its bundles}, of the topic."""
    found = {}
    for key in bucket.keys("indexes/events/"):
        found.setdefault(parse_bundle_key(key)[2:4], set()).add(key)
    return found


def rebuilt(shell, *words):
    return [each["rebuilt"] for each in shell.json("rebuild-index", *words)]


@pytest.fixture
def tiered(start_cluster, bucket):
    """(cluster, shell): a topic that is nowhere but in the bucket, in several segments."""
    cluster = start_cluster(bucket, **NO_CACHE)
    create(cluster, "events", 1)
    kept = Acknowledged()
    for start in range(0, COUNT, COUNT // SEGMENTS):
        kept.values |= produce(cluster, "events", COUNT // SEGMENTS, start=start).values
        seal_all(cluster, "events", 1)
    wait_until_only_in_the_bucket(cluster, "events", kept)
    assert len(bundles(bucket)) >= SEGMENTS
    return cluster, Shell(cluster)


def test_a_damaged_bundle_is_a_gap_and_is_built_anew_through_a_server(tiered, bucket):
    cluster, shell = tiered
    (base, end), (key,) = sorted(bundles(bucket).items())[1]
    segments = {parse_segment_key(each)[2:4]: each for each in bucket.keys("segments/events/")}
    segment = segments[base, end]
    damage(bucket.path_of(key))

    with out_of_reach(bucket, segment):
        for node in cluster.nodes:
            found = ask_node(node, EVERYTHING)
            assert ((base, end),) == found.coverage[0].missing, f"{node} searched what is damaged"
            assert COUNT - (end - base) == found.total
    verified = subprocess.run(
        [sys.executable, "-m", "chronik_server", "-d", cluster.nodes[0].directory, "--json",
         "verify", "events", "--bucket", "--deep"],
        cwd=ROOT, env=cluster.environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert 1 == verified.returncode, verified.stderr
    (finding,) = json.loads(verified.stdout)["findings"]
    assert (key, "warning") == (finding["where"], finding["severity"])

    before = bundles(bucket)
    assert [1] == rebuilt(shell, "events", "-p", "0")
    assert [0] == rebuilt(shell)

    others = {at: keys for at, keys in bundles(bucket).items() if at != (base, end)}
    assert others == {at: keys for at, keys in before.items() if at != (base, end)}

    def all_know():
        """A follower has folded it; it reads the new one, since the records are out of reach."""
        with out_of_reach(bucket, segment):
            found = [ask_node(node, EVERYTHING) for node in cluster.nodes]
        return all(each.total == COUNT and not each.coverage[0].missing for each in found)

    eventually(all_know, CATCH_UP_SECONDS, "every node searches the new bundle")


def test_the_leader_dies_while_it_builds_and_the_next_one_builds_the_rest(tiered, bucket):
    cluster, shell = tiered
    before = bundles(bucket)
    leader = leader_of(cluster, "events", 0)
    asking = subprocess.Popen(
        [sys.executable, "-m", "chronik_server", "-s", cluster.servers, "--json",
         "rebuild-index", "events", "--all"],
        cwd=ROOT, env=cluster.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        eventually(lambda: bundles(bucket) != before, 60, "the first one is built")
        leader.kill()
        out, err = asking.communicate(timeout=120)
    finally:
        asking.kill()
        asking.wait()
    assert 0 == asking.returncode, err
    assert [len(before)] == [json.loads(line)["rebuilt"] for line in out.splitlines()]
    assert leader_of(cluster, "events", 0) is not leader
    assert [0] == rebuilt(shell, "events")
    assert COUNT == ask_node(leader_of(cluster, "events", 0), EVERYTHING).total

    new = {at: keys - before[at] for at, keys in bundles(bucket).items()}
    assert all(new.values())
    # Of the one that the dead node had put and not listed there is another.
    assert sum(map(len, new.values())) - len(new) in {0, 1}, new
