"""The disk of every node is damaged at once, beyond what a torn write explains (protocol 9).

While the nodes are down a bit is flipped in the WAL of each, in the midst of records that were
acknowledged; so no node may believe that it has all. Promise: nobody leads until all are there;
then the log goes on where the best copy ends, every acknowledged record before that is read from
every node, and that those behind it are lost is said, with their offsets, and nowhere papered over;
what of them stands whole on any disk can be taken from there and appended again.
"""

import json
import random
import re
import subprocess
import sys

import pytest

from chronik_server.client import Client, ClientOptions
from chronik_server.errors import NotLeaderError
from chronik_server.metadata import METADATA_TOPIC
from chronik_server.protocol.data import Fetch, Produce
from chronik_store.errors import OffsetOutOfRangeError, TopicNotFoundError
from chronik_store.format.record_batch import RecordBatch
from tests.cluster.messages import (
    CATCH_UP_SECONDS,
    OPTIONS,
    Acknowledged,
    ask_node,
    assert_every_node_has,
    body,
    leader_of,
    line_of,
    numbers_in,
    produce,
    read_node,
    settled,
)
from tests.cluster.processes import ROOT, eventually
from tests.cluster.tiering import create, seal_all, wait_until_indexed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

BATCH = 20
MESSAGES = 400
DAMAGED_AT = {"1": 250, "2": 310, "3": 350}
"""{node: a message in the batch where its WAL is damaged}; node 3 has the most left."""
GOOD_TO = 340
"""Where the batch begins in which the best copy is damaged."""
LARGE = {"CHRONIK_SEGMENT_BYTES": str(64 << 20)}


def append_batches(cluster, start, end):
    """One entry for each batch, so that what is damaged with a message is known. On every disk when
    this returns: a follower may be behind what is acknowledged.
    """
    found = Acknowledged()
    with Client(cluster.servers, options=OPTIONS) as client:
        for number in range(start, end, BATCH):
            values = [body(each) for each in range(number, number + BATCH)]
            found.add(0, client.append("events", values, partition=0).base_offset, values)

    def behind():
        lines = {node: line_of(node, "events", 0) for node in cluster.nodes}
        return {n: w for n, w in lines.items() if w is None or w.durable < found.end(0)}

    eventually(lambda: not behind(), CATCH_UP_SECONDS, lambda: f"all have all: {behind()}")
    return found


def where(node, what, topic="events"):
    """(path, content, position) of a message, by its number, or of a text in the node's WAL."""
    text = what if isinstance(what, bytes) else b'{"message": %d,' % what
    for path, content in node.files("wal", topic).items():
        at = content.find(text)
        if at >= 0:
            return path, content, at
    raise AssertionError(f"{node} has no {text} in its WAL")


def damage(node, what, topic="events"):
    """Flip a bit in a message, or a text, where it stands in the node's WAL."""
    path, content, at = where(node, what, topic)
    with path.open("r+b") as file:
        file.seek(at + 2)
        file.write(bytes([content[at + 2] ^ 0x10]))


def spoil_behind(node):
    """Noise behind all that is there, as of a write that went astray: nothing is lost, who knows.
    In the newest file, which may have been begun behind the last message: what stands behind the
    end of an older one is no part of the log.
    """
    path = max(node.files("wal", "events"))
    _, out, _ = by_hand("inspect", "--json", path)
    last = json.loads(out.splitlines()[-1])
    assert last["structure"] == "zeros"
    with path.open("r+b") as file:
        # Right there: with an empty sector in between it would be a torn write.
        file.seek(last["position"])
        file.write(random.Random(9).randbytes(2000))


def by_hand(*arguments, lines=()):
    """(exit code, stdout, stderr) of `chronik ARGUMENTS`."""
    ended = subprocess.run(
        [sys.executable, "-m", "chronik_server", *map(str, arguments)],
        cwd=ROOT, input="".join(f"{line}\n" for line in lines),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return ended.returncode, ended.stdout, ended.stderr


def status_by_hand(node):
    """What `chronik -s NODE status events` ends with and says."""
    code, out, err = by_hand("-s", node.address, "status", "events")
    return code, out + err


def salvaged_by_hand(cluster, start, end):
    """{offset: line} of the records of [start, end) that stand whole in any WAL file."""
    found = {}
    for node in cluster.nodes:
        code, out, _ = by_hand("inspect", "--records", *sorted(node.files("wal", "events")))
        assert code == 4, f"nothing is damaged on {node}"
        lines = [(json.loads(line)["offset"], line) for line in out.splitlines()]
        found |= {offset: line for offset, line in lines if start <= offset < end}
    return found


def events_in(node):
    """[(level, event), ...] of the node's log."""
    lines = [line for line in node.log.read_text().splitlines() if line.startswith("{")]
    return [(found["level"], found["event"]) for found in map(json.loads, lines)]


def assert_nobody_leads(cluster, some):
    """Two damaged nodes of three elect nobody, and say why; what they have left is read."""
    batch = RecordBatch.build([body(900)])
    for node in some:
        eventually(
            lambda node=node: "may lack" in (node.faults() or {}).get("leaders", ""),
            CATCH_UP_SECONDS,
            lambda node=node: f"{node} says why nobody leads: {node.faults()}",
        )
        with pytest.raises(NotLeaderError, match="copy of this one may lack"):
            ask_node(node, Produce("events"), batch.buffer)
        code, said = status_by_hand(node)
        assert (code, "suspect: this node has no vote here" in said) == (0, True), said
        assert "may have lost acknowledged entries" in node.log.read_text()
    short = ClientOptions(connect_seconds=2.0, request_seconds=5.0, retry_seconds=3.0)
    with (
        Client(",".join(node.address for node in some), options=short) as client,
        pytest.raises(NotLeaderError, match="once all of them are here"),
    ):
        client.append("events", [body(901)])
    assert all(line_of(node, "events", 0).committed <= GOOD_TO for node in some)


def test_damage_on_every_disk_waits_for_all_nodes_and_names_what_is_lost(
    start_cluster, bucket, figure
):
    cluster = start_cluster(bucket, **LARGE)
    create(cluster, "events", 1)
    acknowledged = append_batches(cluster, 0, MESSAGES)
    cluster.kill_all()
    for node in cluster.nodes:
        damage(node, DAMAGED_AT[node.id])
    first, second, best = cluster.nodes
    first.start()
    second.start()
    assert_nobody_leads(cluster, [first, second])

    best.start()
    for node in cluster.nodes:
        node.wait_until_ready()
    assert leader_of(cluster, "events", 0) is best
    kept = {place: v for place, v in acknowledged.values.items() if place[1] < GOOD_TO}
    lost = {place: v for place, v in acknowledged.values.items() if place[1] >= GOOD_TO}
    assert lost
    assert_every_node_has(cluster, "events", Acknowledged(kept))
    with pytest.raises(OffsetOutOfRangeError):  # no empty answer
        ask_node(best, Fetch("events", 0, MESSAGES))

    # The one that leads says so, loudly; `status` says so as long as it runs.
    cut = [event for level, event in events_in(best) if level == "error"]
    assert cut
    named = re.search(r"goes on at offset (\d+): acknowledged records behind it, .* lost", cut[0])
    assert int(named[1]) == GOOD_TO, cut
    left = re.search(r"what is left of them, to offset (\d+), is in damaged files", cut[0])
    assert int(left[1]) == MESSAGES, cut
    code, said = status_by_hand(best)
    assert (code, f"goes on at offset {GOOD_TO}" in said) == (4, True), said
    # Nothing was cut off, or written over: what is damaged on one disk is whole on another.
    found = salvaged_by_hand(cluster, GOOD_TO, MESSAGES)
    assert {at: json.loads(line)["value"] for at, line in found.items()} == {
        at: value.decode() for (_, at), value in lost.items()
    }
    lines = [found[at] for at in sorted(found)]
    arguments = ("-s", cluster.servers, "produce", "events", "--records", "-p", "0")
    code, _, said = by_hand(*arguments, lines=lines)
    assert code == 0, said
    kept |= {(0, at): value for (_, at), value in lost.items()}
    assert_every_node_has(cluster, "events", Acknowledged(kept))

    kept |= append_batches(cluster, 1000, 1200).values
    cluster.kill_all()
    cluster.start()
    kept |= append_batches(cluster, 2000, 2100).values
    assert_every_node_has(cluster, "events", Acknowledged(kept))
    figure(f"{len(kept)} messages are there, {len(lost)} of them taken out of damaged files")


def test_damage_on_every_disk_takes_nothing_that_is_in_the_bucket_or_whole_somewhere(
    start_cluster, bucket
):
    """The first half is in the bucket; of the second each node has lost another part."""
    cluster = start_cluster(bucket, **LARGE)
    create(cluster, "events", 1)
    acknowledged = append_batches(cluster, 0, MESSAGES)
    seal_all(cluster, "events", 1)
    wait_until_indexed(cluster.nodes, "events", acknowledged)
    acknowledged.values |= append_batches(cluster, 1000, 1400).values
    cluster.kill_all()
    damage(cluster.nodes[0], 1000)
    damage(cluster.nodes[1], 1200)
    spoil_behind(cluster.nodes[2])
    cluster.start()
    assert leader_of(cluster, "events", 0) is cluster.nodes[2]
    assert_every_node_has(cluster, "events", acknowledged)
    acknowledged.values |= produce(cluster, "events", 100, start=3000).values
    assert_every_node_has(cluster, "events", acknowledged)
    assert read_node(cluster.nodes[0], "events", 0, 10).pairs == acknowledged.of(0)[:10]


def test_two_damaged_disks_of_three_wait_for_an_operators_word_and_lose_nothing(
    start_cluster, bucket
):
    """The third has all, but cannot know that: what was acknowledged may be what the two lost."""
    cluster = start_cluster(bucket, **LARGE)
    create(cluster, "events", 1)
    acknowledged = append_batches(cluster, 0, MESSAGES)
    first, second, whole = cluster.nodes
    cluster.kill_all()
    damage(first, DAMAGED_AT["1"])
    damage(second, DAMAGED_AT["2"])
    for node in cluster.nodes:
        node.start()
    assert_nobody_leads(cluster, [first, second])
    assert "nobody leads events/0" in whole.faults()["leaders"]
    code, _, said = by_hand("-d", whole.directory, "node", "doubt", "events", "-p", "0")
    assert code == 3, said  # it runs
    assert "LOCK" in said or "process" in said

    assert whole.stop() == 0
    for topic, expected in (("nothing", 2), ("events", 0), ("events", 0)):
        code, _, said = by_hand("-d", whole.directory, "node", "doubt", topic, "-p", "0")
        assert code == expected, said
    whole.start()
    for node in cluster.nodes:
        node.wait_until_ready()
    assert leader_of(cluster, "events", 0) is whole
    assert_every_node_has(cluster, "events", acknowledged)
    acknowledged.values |= append_batches(cluster, 1000, 1100).values
    assert_every_node_has(cluster, "events", acknowledged)


def test_a_topic_that_every_disk_has_forgotten_is_said_to_be_and_keeps_its_records(
    start_cluster, bucket
):
    """The metadata's WAL is damaged on every node where it says that the topic was made."""
    cluster = start_cluster(bucket, **LARGE)
    with Client(cluster.servers, options=OPTIONS) as client:
        settled(client)
    create(cluster, "events", 1)
    acknowledged = append_batches(cluster, 0, MESSAGES)
    cluster.kill_all()
    for node in cluster.nodes:
        damage(node, b"events", METADATA_TOPIC)
    cluster.start()
    with Client(cluster.servers, options=OPTIONS) as client:
        with pytest.raises(TopicNotFoundError):
            client.append("events", [body(900)], partition=0)
        client.create_topic("other", partitions=1)  # the metadata goes on
    cut = [
        event
        for node in cluster.nodes
        for level, event in events_in(node)
        if level == "error" and "goes on at offset" in event
    ]
    assert cut
    assert all(f"{METADATA_TOPIC}/0 goes on at offset" in event for event in cut)
    for node in cluster.nodes:
        eventually(
            lambda node=node: any(
                level == "error" and "events/0 (topic" in event and "names no such topic" in event
                for level, event in events_in(node)
            ),
            CATCH_UP_SECONDS,
            f"{node} says that it has a copy of what nobody knows",
        )
        assert set(range(MESSAGES)) <= numbers_in(node.files("wal", "events").values())
    # What a copy knows to be committed; what it has besides is in its files.
    best = max(cluster.nodes, key=lambda node: len(read_by_hand(node)))
    lines = read_by_hand(best)
    assert len(lines) >= MESSAGES - BATCH
    code, out, said = by_hand("inspect", "--records", *sorted(best.files("wal", "events")))
    assert code == 0, said
    rest = {json.loads(line)["offset"]: line for line in out.splitlines()}
    lines += [rest[offset] for offset in range(len(lines), MESSAGES)]
    arguments = ("-s", cluster.servers, "produce", "events-2", "--records", "-p", "0")
    code, _, said = by_hand(*arguments, lines=lines)
    assert code == 0, said
    assert_every_node_has(cluster, "events-2", acknowledged)


def read_by_hand(node):
    """The lines of `chronik -d DIRECTORY consume events --json`, beside the running node."""
    code, out, said = by_hand("-d", node.directory, "consume", "events", "--json")
    assert code == 0, said
    return out.splitlines()
