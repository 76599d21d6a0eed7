"""Waiting for the tiers: until all is uploaded and indexed, and no node keeps a copy."""

from chronik_server.client import Client
from chronik_store.manifest.keys import named_keys
from chronik_store.objectstore.layout import parse_bundle_key
from tests.cluster.messages import MESSAGE, OPTIONS, line_of
from tests.cluster.processes import eventually

BUCKET = {"object_store"}


def create(cluster, topic, partitions):
    """A topic, known to its leader."""
    with Client(cluster.servers, options=OPTIONS) as client:
        client.create_topic(topic, partitions=partitions)


def seal_all(cluster, topic, partitions):
    """Close the open segments, so that everything can leave the WAL."""
    with Client(cluster.servers, options=OPTIONS) as client:
        for partition in range(partitions):
            client.seal(topic, partition=partition)


def wait_until_indexed(nodes, topic, acknowledged, seconds=150.0):
    """Return when these nodes know that all is in the bucket, with its search bundles."""

    def lagging():
        found = []
        for node in nodes:
            for partition in acknowledged.partitions:
                line = line_of(node, topic, partition)
                if line is None or line.indexed < acknowledged.end(partition):
                    found.append(f"{node} {topic}/{partition}: {line}")
        return found

    eventually(lambda: not lagging(), seconds, lambda: f"all is indexed: {lagging()}")


def messages_on_disk(node, topic):
    """[path, ...] of a node's files that hold messages of a topic."""
    return [
        path
        for kind in ("wal", "segments")
        for path, content in node.files(kind, topic).items()
        if MESSAGE.search(content)
    ]


def wait_until_only_in_the_bucket(cluster, topic, acknowledged, seconds=150.0):
    """Seal; return when all is indexed, and no file of any node holds a message any more."""
    seal_all(cluster, topic, len(acknowledged.partitions))
    wait_until_indexed(cluster.nodes, topic, acknowledged, seconds)

    def kept():
        return [path for node in cluster.nodes for path in messages_on_disk(node, topic)]

    eventually(lambda: not kept(), seconds, lambda: f"these files are gone: {kept()}")


def assert_tiered_once(bucket, topic, partition, end):
    """Each offset below `end` is in one segment object, and each of those, with its bundle, is in
    the manifest. Returns how many they are.

    A bundle that a leader had put and not announced, as it died, handed over or got no answer, may
    be there beside the one that counts, for now: the manifest must name it, so it will be deleted.
    """
    segments, bundles = (keys.get(partition, []) for keys in bucket.keys_of(topic))
    _assert_tiles([(run.base_offset, run.end_offset) for run, _ in segments], end)

    def amiss():
        manifest = bucket.manifest(topic, partition)
        if [each.key for each in manifest.segments] != [key for _, key in segments]:
            return f"segments {segments} are not those of {manifest.segments}"
        listed = [None if each.bundle is None else each.bundle.key for each in manifest.segments]
        there = {key for _, key in bundles}
        if missing := [key for key in listed if key not in there]:
            return f"bundles {missing} are not there"
        ranges = [(run.base_offset, run.end_offset) for run in map(parse_bundle_key, listed)]
        if ranges != [(run.base_offset, run.end_offset) for run, _ in segments]:
            return f"bundles {listed} are not of these segments"
        strays = there - named_keys(manifest)
        return f"bundles {strays} are named by no log" if strays else ""

    eventually(lambda: not amiss(), 30, lambda: f"the newest manifest has them: {amiss()}")
    return len(segments)


def _assert_tiles(runs, end):
    """Offset ranges of objects follow one another from 0 to `end`: none twice, none left out."""
    following = 0
    for base, stop in runs:
        assert base == following, f"offset {following} is in no object or in two: {runs}"
        following = stop
    assert following == end
