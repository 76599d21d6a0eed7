"""The one bucket of a cluster: a directory, or one of a real Ceph RGW.

Promise: what is in it is listed by a store of its own, never through a node. `outage("segments")`
makes every upload below that prefix fail, as long as the block lasts.
"""

import contextlib
from collections import defaultdict

from chronik_store.environment import Environment
from chronik_store.lineage import live_lineage_of
from chronik_store.objectstore.layout import parse_bundle_key, parse_segment_key
from chronik_store.objectstore.open import open_object_store
from chronik_store.testing.fault_proxy import FaultProxy, ProxyFault


class Bucket:
    """What a test asks of it."""

    def __init__(self, url, s3=None):
        self.url = url
        self._store = open_object_store(url, env=Environment(), s3=s3)

    def keys(self, prefix):
        """All keys below a prefix."""
        found, after = [], ""
        while page := self._store.list(prefix, start_after=after):
            found += [info.key for info in page]
            after = found[-1]
        return found

    def keys_of(self, topic):
        """({partition: [(what its key says, key), ...] of its segments}, the same of its bundles),
        in order.
        """
        segments, bundles = defaultdict(list), defaultdict(list)
        for prefix, parse, into in (
            (f"segments/{topic}/", parse_segment_key, segments),
            (f"indexes/{topic}/", parse_bundle_key, bundles),
        ):
            for key in self.keys(prefix):
                run = parse(key)
                assert run is not None, f"a key that nobody made: {key}"
                into[run.partition].append((run, key))
        for found in (*segments.values(), *bundles.values()):
            found.sort()
        return segments, bundles

    def segments(self, topic):
        """{partition: [(base, end), ...] of its segments}, in order."""
        return {
            partition: [(run.base_offset, run.end_offset) for run, _ in found]
            for partition, found in self.keys_of(topic)[0].items()
        }

    def manifest(self, topic, partition):
        """The newest manifest of the log that is in force."""
        head = live_lineage_of(self._store, topic, partition).head
        assert head is not None, f"{topic}/{partition} has no manifest"
        return head.object.manifest

    def close(self):
        self._store.close()


class DirectoryBucket(Bucket):
    """The nodes are on one machine, so a directory can be shared."""

    def __init__(self, folder):
        self.environ = {}
        self._folder = folder
        super().__init__(f"file://{folder}")

    def path_of(self, key):
        """Where an object lies."""
        return self._folder / key

    @contextlib.contextmanager
    def outage(self, prefix):
        """A file stands where a directory is to be made."""
        obstacle = self._folder / prefix
        obstacle.parent.mkdir(parents=True, exist_ok=True)
        obstacle.write_bytes(b"")
        try:
            yield
        finally:
            obstacle.unlink()

    @contextlib.contextmanager
    def failure(self):
        """Nothing can be put anywhere: a directory stands aside, and a file is in its place."""
        aside = self._folder.with_name(f"{self._folder.name}-aside")
        self._folder.rename(aside)
        self._folder.write_bytes(b"")
        try:
            yield
        finally:
            self._folder.unlink()
            aside.rename(self._folder)


class S3Bucket(Bucket):
    """A bucket of a server that speaks S3; the nodes reach it through a proxy that can fail."""

    def __init__(self, server, name, *, is_direct=False):
        """is_direct: the nodes reach the server itself, and only that can fail."""
        self.server = server
        self.proxy = FaultProxy(server.host, server.port)
        self.proxy.__enter__()
        options = server.options()
        self.environ = {
            "S3_ENDPOINT": server.endpoint if is_direct else self.proxy.url,
            "S3_REGION": options.region,
            "S3_ACCESS_KEY": options.access_key,
            "S3_SECRET_KEY": options.secret_key,
        }
        super().__init__(f"s3://{server.create_bucket(name)}", options)

    @contextlib.contextmanager
    def outage(self, prefix):
        """Every PUT below it is answered 503."""
        self.proxy.add(ProxyFault("status", match=f"^PUT .*/{prefix}/", times=None))
        try:
            yield
        finally:
            self.proxy.clear()

    @contextlib.contextmanager
    def failure(self):
        """Every request is answered 503."""
        self.proxy.add(ProxyFault("status", times=None))
        try:
            yield
        finally:
            self.proxy.clear()

    def close(self):
        super().close()
        self.proxy.__exit__(None, None, None)
