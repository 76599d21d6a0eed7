"""Topics come and go: whatever the disk and the pipeline are doing meanwhile."""

from __future__ import annotations

import errno
import threading

import pytest

import chronik_store as chronik
from chronik_store.environment import Environment
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.tree import failure
from tests.store.tasks import AT_LAST, Task

CONFIG = chronik.LogConfig(pipeline_enabled=False, indexing_enabled=False, garbage_seconds=0)


def open_store(disk):
    """A store whose disk can be made to fail; its bucket is a directory of that disk."""
    return chronik.LogStore.open("/d", config=CONFIG, env=Environment(fs=disk))


def values(log):
    return [record.value for record in log.scan()]


def test_a_partition_that_cannot_be_closed_does_not_keep_its_topic():
    """A full disk is the reason to delete; what is deleted need not be sworn to."""
    disk = SimulatedDisk(seed=1)
    with open_store(disk) as store:
        store.create_topic("t", partitions=2)
        for partition in (0, 1):
            for _ in range(3):
                store.partition("t", partition).append(b"old")

        def full(_number, operation, path):
            if operation in {"write_at", "sync_data"} and "/wal/t/0/" in path:
                raise failure(errno.ENOSPC, path)

        disk.hook = full
        store.delete_topic("t")
        disk.hook = lambda *_: None
        assert () == store.topics()
        store.create_topic("t", partitions=2)
        for _ in range(3):
            store.partition("t", 1).append(b"new")
    with open_store(disk) as store:
        assert [b"new"] * 3 == values(store.partition("t", 1))


@pytest.mark.parametrize("held", ["segments/", "manifests/"])
def test_delete_waits_for_the_run_that_is_putting_an_object(held):
    """Else a segment stays in the bucket that nothing names, or a manifest that bars the way."""
    with open_store(SimulatedDisk(seed=1)) as store:
        topic = store.create_topic("t")
        log = store.partition("t")
        log.append(b"secret" * 100)
        log.seal()
        putting, go = threading.Event(), threading.Event()
        bucket = store._bucket.store
        put_if_absent = bucket.put_if_absent

        def put(key, data):
            if key.startswith(held) and not key.endswith(".tombstone"):
                putting.set()
                assert go.wait(AT_LAST)
            return put_if_absent(key, data)

        bucket.put_if_absent = put
        running = Task(store.run_pipeline_once)
        assert putting.wait(AT_LAST)
        deleting = Task(lambda: store.delete_topic("t"))
        assert deleting.waits()
        go.set()
        deleting.outcome()
        assert () == running.outcome().errors
        left = {info.key for info in bucket.list("")}
        assert {"STORE", f"manifests/t/{topic.topic_id}.tombstone"} == left
