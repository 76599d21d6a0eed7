"""What a restore refuses, it refuses before it has touched a directory or taken a bucket over."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from chronik_store.errors import ConfigError, DiskFullError
from chronik_store.restore import restore
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.tree import failure
from tests.store.test_restore import CONFIG, URL, env_of, fill, open_store, values


@pytest.mark.parametrize("lost", [["STORE", "TOPICS"], ["STORE"]])
def test_a_directory_that_lost_its_lists_keeps_its_records(lost: list[str]) -> None:
    """What was appended since the last upload is nowhere else."""
    disk = SimulatedDisk()
    fill(disk)
    with open_store(disk) as store:
        store.partition("t").append([b"only here"])
    for name in lost:
        disk.remove(f"/old/{name}")
    files = {path for path in disk.paths("/") if path.startswith(("/old/wal/", "/bucket/"))}
    with pytest.raises(ConfigError, match="restore into an empty"):
        restore(URL, "/old", config=CONFIG, env=env_of(disk))
    assert files <= set(disk.paths("/"))
    restore(URL, "/new", config=CONFIG, env=env_of(disk))


@pytest.mark.parametrize(
    "limits",
    [{"until_us": "2026"}, {"until_us": 1.5}, {"until_us": True}, {"until_offset": "1"}],
    ids=repr,
)
def test_a_limit_that_cannot_be_meant_takes_nothing_over(limits: dict[str, Any]) -> None:
    disk = SimulatedDisk()
    fill(disk)
    files = disk.paths("/")
    with pytest.raises(TypeError, match="must be an int"):
        restore(URL, "/new", config=CONFIG, env=env_of(disk), **limits)
    with pytest.raises(TypeError, match="LogConfig"):
        restore(URL, "/new", config={}, env=env_of(disk))  # type: ignore[arg-type]
    assert disk.paths("/") == files


@pytest.mark.parametrize("operation", ["write_at", "sync_all"])
def test_a_disk_that_fails_is_named_and_the_next_run_goes_on(operation: str) -> None:
    """The log that is being made is nobody's: "close it and open it again" helps nobody."""
    disk = SimulatedDisk()
    fill(disk)
    failed = 0

    def full(_number: int, called: str, path: str) -> None:
        nonlocal failed
        if called == operation and path.startswith("/new/wal/t/0"):
            failed += 1
            raise failure(errno.ENOSPC, path)

    disk.hook = full
    with pytest.raises(DiskFullError, match="restore into"):
        restore(URL, "/new", config=CONFIG, env=env_of(disk))
    assert failed
    disk.hook = None
    restore(URL, "/new", config=CONFIG, env=env_of(disk))
    with open_store(disk, "/new") as store:
        assert len(values(store.partition("t"))) == 20
