"""What making and opening a partition costs in syncs: a server of thousands pays them singly."""

from __future__ import annotations

import pytest

from chronik_store import LogConfig, LogStore
from chronik_store.environment import Environment
from chronik_store.testing.simulated_disk import SimulatedDisk

CONFIG = LogConfig(pipeline_enabled=False, indexing_enabled=False)


@pytest.fixture
def disk():
    return SimulatedDisk(seed=1)


def opened(disk):
    return LogStore.open("/data", config=CONFIG, env=Environment(fs=disk))


class Syncs:
    """The syncs of a disk, as (operation, path), from now on."""

    def __init__(self, disk):
        self.seen = []
        disk.hook = self._note

    def _note(self, _number, operation, path):
        if operation.startswith("sync"):
            self.seen.append((operation, path))

    def taken(self):
        seen, self.seen = self.seen, []
        return seen


def test_a_partition_is_made_with_a_sync_for_each_name_and_for_its_bytes(disk):
    with opened(disk) as store:
        store.create_topic("t")
        syncs = Syncs(disk)
        store.create_topic("t", partitions=2, exist_ok=True)
    first = "/data/wal/t/1/wal_00000000000000000001.log.tmp"
    assert syncs.taken() == [
        ("sync_directory", "/data/wal"),  # a process killed at its mkdir has left "t"
        ("sync_directory", "/data/wal/t"),
        ("sync_all", first),
        ("sync_directory", "/data/wal/t/1"),
        ("sync_all", "/data/TOPICS.tmp"),
        ("sync_directory", "/data"),
    ]


def test_a_partition_is_opened_without_a_sync_until_something_is_written(disk):
    with opened(disk) as store:
        store.create_topic("t")
        syncs = Syncs(disk)
        log = store.partition("t")
        assert syncs.taken() == []
        log.append(b"value")
        assert ("sync_directory", "/data/wal/t/0") in syncs.taken()
