"""The real store on a disk that fills up while the bucket is away."""

from __future__ import annotations

import pytest

from chronik_store import LogConfig, LogStore, PartitionLog
from chronik_store.environment import Environment
from chronik_store.errors import DiskFullError, UnavailableError
from chronik_store.objectstore.memory import MemoryObjectStore, forget_memory_bucket
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.simulated_disk import SimulatedDisk

MIB = 1 << 20
CONFIG = LogConfig(
    pipeline_enabled=False,
    indexing_enabled=False,
    segment_bytes=4 * MIB,
    wal_file_bytes=1 * MIB,
    tail_bytes_max=0,
    cache_disk_bytes=0,
    disk_reserve_bytes=1 * MIB,
    disk_throttle_bytes=1 * MIB,
)


VALUE = b"v" * 20_000


def fill(log: PartitionLog) -> int:
    """Append until the disk is full, the pipeline trying now and then; how many there are."""
    for count in range(1000):
        try:
            log.append([VALUE])
        except DiskFullError:
            return count
        if count % 50 == 49:
            log.run_pipeline_once()
    raise AssertionError("the disk never filled")


def test_what_filled_the_disk_leaves_it_when_the_bucket_is_back() -> None:
    forget_memory_bucket("full-disk")
    disk = SimulatedDisk(capacity_bytes=8 * MIB)
    env = Environment(fs=disk, threads=MortalThreads())
    with LogStore.open("/data", object_store="memory://full-disk", config=CONFIG, env=env) as store:
        store.create_topic("t")
        log = store.partition("t")
        with pytest.MonkeyPatch.context() as patch:

            def away(*_arguments: object) -> object:
                raise UnavailableError("the bucket is away")

            patch.setattr(MemoryObjectStore, "put_if_absent", away)
            count = fill(log)
            assert log.run_pipeline_once().errors
        assert count > 100
        assert log.watermarks.sealed > 0
        for _ in range(5):
            assert log.run_pipeline_once().errors == ()
        assert log.watermarks.tiered > 0
        env.clock.sleep(1.1)  # the guard looks at the disk once a second
        log.append([VALUE])
        assert [record.offset for record in log.scan()] == list(range(count + 1))
