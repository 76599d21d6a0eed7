"""Open files are shared, bounded, and never closed under a user."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.tree import failure
from chronik_store.threads import SystemThreads
from chronik_store.wal.descriptors import DescriptorCache

Opens = Callable[..., Any]


@pytest.fixture
def cache(disk: SimulatedDisk) -> DescriptorCache:
    for name in "abcdef":
        disk.create(f"/{name}").close()
    return DescriptorCache(disk, SystemThreads(), limit=2)


def test_a_file_is_opened_once_and_kept(disk: SimulatedDisk, cache: DescriptorCache) -> None:
    for _ in range(3):
        with cache.use("/a") as first, cache.use("/a") as second:
            assert first is second

    assert disk.calls_by_operation["open"] == 1


def test_no_more_than_the_limit_stay_open(disk: SimulatedDisk, cache: DescriptorCache) -> None:
    for name in "abcdef":
        with cache.use(f"/{name}"):
            pass

    assert sorted(disk.open_files) == ["/e", "/f"]


def test_files_in_use_may_be_more_than_the_limit(
    disk: SimulatedDisk, cache: DescriptorCache
) -> None:
    with cache.use("/a"), cache.use("/b"), cache.use("/c") as file:
        assert len(disk.open_files) == 3
        assert file.read_at(0, 1) == b""

    assert len(disk.open_files) == 2


def test_a_reader_does_not_take_the_writers_place(cache: DescriptorCache) -> None:
    with cache.use("/a"):
        with cache.use("/a", write=True) as writer:
            writer.write_at(0, [b"x"])
        with cache.use("/a") as reader:
            assert reader.read_at(0, 1) == b"x"


def test_a_forgotten_file_is_closed_with_its_last_use(
    disk: SimulatedDisk, cache: DescriptorCache
) -> None:
    with cache.use("/a") as file:
        cache.forget("/a")
        assert file.read_at(0, 1) == b""
        assert disk.open_files == ["/a"]

    assert disk.open_files == []
    cache.forget("/a")


def test_what_is_written_has_a_limit_of_its_own(disk: SimulatedDisk) -> None:
    cache = DescriptorCache(disk, SystemThreads(), limit=2, busy_limit=3)
    for name in "abcdef":
        cache.adopt(f"/{name}", disk.create(f"/{name}"))
    for name in "abc":
        with cache.use(f"/{name}"):
            pass

    assert ["/b", "/c", "/d", "/e", "/f"] == sorted(disk.open_files)
    cache.forget("/f")
    assert ["/b", "/c", "/d", "/e"] == sorted(disk.open_files)
    cache.close()


def test_a_log_that_rests_holds_no_descriptor(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk)
    owner.append(b"x")
    assert len(disk.open_files) == 1

    owner.wal.rest()
    assert disk.open_files == []

    owner.append(b"y")
    assert {1, 2} == owner.live().keys()


def test_many_idle_logs_hold_a_handful_of_descriptors(
    disk: SimulatedDisk, open_wal: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = open_wal(disk, settings={"file_bytes": 4096})
    for number in range(400):
        owner.append(b"%d" % number * 1200)
    assert len(owner.wal.files()) > 100

    assert owner.live().keys() == set(range(1, 401))
    assert len(disk.open_files) <= 65


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_where_no_descriptor_is_left_idle_files_are_closed_for_it(
    disk: SimulatedDisk, cache: DescriptorCache, code: int
) -> None:
    """The next group ended its log, though nothing of it had been written."""

    def scarce(_number: int, operation: str, path: str) -> None:
        if operation == "open" and len(disk.open_files) > 1:
            raise failure(code, path)

    for name, write in (("a", True), ("b", False)):
        with cache.use(f"/{name}", write=write):
            pass
    disk.hook = scarce
    with cache.use("/c", write=True):
        assert disk.open_files == ["/c"]
        with cache.use("/d"), pytest.raises(OSError, match="/e") as caught, cache.use("/e"):
            pass
    assert caught.value.errno == code


def test_a_new_file_is_made_where_no_descriptor_is_left(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk)
    disk.create("/idle").close()
    cache = owner.services.descriptors

    def scarce(_number: int, operation: str, path: str) -> None:
        if operation in {"open", "create", "sync_directory"} and "/idle" in disk.open_files:
            raise failure(errno.EMFILE, path)

    for operation in ("create", "sync_directory"):
        with cache.use("/idle"):
            pass
        disk.hook = lambda *call, only=operation: call[1] == only and scarce(*call)
        owner.append(b"x")
        owner.wal.rotate()
        disk.hook = None
    assert owner.wal.poisoned is None
