"""A store and its bucket on one simulated disk, for tests that move, copy or restore them."""

from __future__ import annotations

from chronik_store import LogConfig, LogStore
from chronik_store.environment import Environment
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.simulated_disk import SimulatedDisk

CONFIG = LogConfig(
    pipeline_enabled=False,
    indexing_enabled=False,
    cache_disk_bytes=0,
    disk_reserve_bytes=0,
    disk_throttle_bytes=0,
)
URL = "file:///bucket"


def env_of(disk: SimulatedDisk) -> Environment:
    return Environment(fs=disk, threads=MortalThreads())


def open_store(disk: SimulatedDisk, path: str = "/old") -> LogStore:
    return LogStore.open(path, object_store=URL, config=CONFIG, env=env_of(disk))


def copy_directory(disk: SimulatedDisk, source: str, target: str) -> None:
    """As a backup of the disk would be put beside it."""
    for path in [*disk.paths(source)]:
        name = target + path.removeprefix(source)
        disk.make_directories(name.rpartition("/")[0])
        file = disk.create(name)
        file.write_at(0, [disk.peek(path)])
        file.close()
