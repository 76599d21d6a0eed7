"""`chronik -s ...` about nodes and leaders, as a person types it."""

import json
import subprocess
import sys

import pytest

from tests.cluster.messages import leader_of, produce
from tests.cluster.processes import ROOT, eventually
from tests.cluster.tiering import create

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


class Shell:
    """Runs the command line against some nodes."""

    def __init__(self, cluster):
        self._cluster = cluster

    def __call__(self, *words, servers=None):
        arguments = [sys.executable, "-m", "chronik_server", "-s", servers or self._cluster.servers]
        done = subprocess.run(
            [*arguments, *words], cwd=ROOT, env=self._cluster.environ, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def json(self, *words):
        code, out, err = self(*words, "--json")
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]


def test_nodes_are_listed_added_and_removed(start_cluster, bucket):
    cluster = start_cluster(bucket, nodes=2)
    shell = Shell(cluster)
    create(cluster, "events", 1)
    nodes = shell.json("node", "list")
    assert [(n["node_id"], n["address"]) for n in nodes] == [
        (node.id, node.address) for node in cluster.nodes
    ]
    assert sum(node["leads_metadata"] for node in nodes) == 1
    assert {(node["state"], node["answers"]) for node in nodes} == {("member", True)}
    code, out, _ = shell("node", "list")
    assert code == 0
    assert out.splitlines()[0].split() == [
        "NODE",
        "ADDRESS",
        "STATE",
        "ANSWERS",
        "LEADS",
        "METADATA",
    ]

    for words, said in (
        (("node", "add", "1/2", "127.0.0.1:1"), "short name"),
        (("node", "add", "7", "nowhere:port"), "HOST:PORT"),
        (("node", "add", "7", cluster.nodes[0].address), "address of node 1"),
        (("node", "remove", "7", "--yes"), "no node '7'"),
        (("node", "remove", "1"), "--yes"),
        (("leader", "transfer"), "name a topic"),
    ):
        code, _, err = shell(*words)
        assert (code, said in err) == (2, True), (words, err)
    assert [{"node_id": "7", "address": "127.0.0.1:9", "state": "joining"}] == shell.json(
        "node", "add", "7", "127.0.0.1:9"
    )
    assert shell.json("node", "remove", "7", "--yes")[0]["state"] == "removed"

    # The node that is asked may be the one that leaves.
    node = cluster.node("1")
    code, _, err = shell("node", "remove", "1", "--yes", servers=node.address)
    assert (code, "removed" in err) == (0, True), err
    assert node.wait_until_ended() == 0
    cluster.leave_out(node)
    code, _, err = shell("node", "remove", "2", "--yes")
    assert (code, "last one" in err) == (2, True)
    code, _, err = shell("node", "add", "1", "127.0.0.1:9")
    assert (code, "used once" in err) == (2, True)


def test_leaders_are_listed_and_handed_over(start_cluster, bucket):
    cluster = start_cluster(bucket)
    shell = Shell(cluster)
    code, out, err = shell("topic", "create", "events", "--replicas", "2")
    assert (code, out) == (0, "")
    assert "topic events" in err
    first = leader_of(cluster, "events", 0)
    (place,) = shell.json("leader", "list", "events")
    assert (place["leader"], place["address"], len(place["replicas"])) == (
        first.id, first.address, 2,
    )  # fmt: skip
    (other,) = {*place["replicas"]} - {first.id}
    outsider = next(node.id for node in cluster.nodes if node.id not in place["replicas"])

    code, _, err = shell("leader", "transfer", "events", "--to", outsider)
    assert (code, f"node {outsider} cannot lead events/0: it has no vote there" in err) == (2, True)
    code, _, err = shell("leader", "transfer", "events", "--to", other)
    assert (code, err) == (0, f"events/0 was handed over to node {other}\n")
    eventually(
        lambda: shell.json("leader", "list", "events")[0]["leader"] == other, 20, "the other leads"
    )
    acknowledged = produce(cluster, "events", 50)
    code, out, _ = shell("consume", "events", "--linearizable")
    assert (code, out.encode().splitlines()) == (0, [value for _, value in acknowledged.of(0)])
    code, _, err = shell("leader", "transfer", "--metadata")
    assert code == 0, err
    assert shell("leader", "list")[0] == 0
    assert shell("leader", "list", "nothing")[0] == 2


def test_what_is_committed_is_read_from_the_node_that_is_left(start_cluster, bucket, tmp_path):
    cluster = start_cluster(bucket)
    shell = Shell(cluster)
    create(cluster, "events", 1)
    produce(cluster, "events", 300)
    leader = leader_of(cluster, "events", 0)
    left = cluster.others(leader)[0]
    whole = shell("consume", "events")
    assert whole[0] == 0
    assert whole[2] == ""
    for node in cluster.others(left):
        node.kill()

    code, out, err = shell("consume", "events")
    assert (code, out) == (0, whole[1]), err
    assert "nobody leads events/0" in err
    assert "it heard a leader" in err, err
    assert "newer records may be missing" in err
    code, _, err = shell("export", "events", "--to", str(tmp_path / "x.jsonl"))
    assert (code, "300 records" in err, "nobody leads" in err) == (0, True, True), err
    eventually(
        lambda: shell.json("leader", "list", "events")[0]["leader"] is None, 10, "nobody leads"
    )
    code, _, err = shell("consume", "events", "--linearizable")
    assert (code, "too many of its nodes are down" in err) == (3, True), err
