import errno
import os

import pytest

from chronik_store.objectstore.disk_blocks import DiskBlocks
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.threads import SystemThreads

BLOCK = 1000


def open_blocks(disk, *, limit_bytes=10_000, reserve_bytes=0):
    return DiskBlocks(
        SystemThreads(),
        disk,
        "/cache",
        limit_bytes=limit_bytes,
        reserve_bytes=reserve_bytes,
        block_bytes=BLOCK,
    )


@pytest.fixture
def disk():
    return SimulatedDisk()


def test_a_run_is_found_block_by_block(disk):
    blocks = open_blocks(disk)
    data = os.urandom(2500)
    blocks.put("k", 7, data)
    assert [blocks.get("k", number) for number in (7, 8, 9)] == [
        data[:1000], data[1000:2000], data[2000:],
    ]  # fmt: skip
    assert blocks.get("k", 6) is None
    assert blocks.get("k", 10) is None
    assert blocks.get("other", 7) is None
    assert len(disk.paths("/cache")) == 1


def test_the_bound_holds_and_the_least_recently_used_goes(disk):
    blocks = open_blocks(disk, limit_bytes=3000)
    for number in range(3):
        blocks.put("k", number, bytes(BLOCK))
    blocks.get("k", 0)
    blocks.put("k", 3, bytes(BLOCK))
    assert [blocks.get("k", number) is not None for number in range(4)] == [True, False, True, True]
    assert blocks.size_bytes == 3000
    assert sum(len(disk.peek(path)) for path in disk.paths("/cache")) == 3000


def test_a_run_over_the_bound_is_not_kept(disk):
    blocks = open_blocks(disk, limit_bytes=500)
    blocks.put("k", 0, bytes(BLOCK))
    assert blocks.get("k", 0) is None
    assert disk.paths("/cache") == []


def test_every_flipped_byte_is_a_miss(disk):
    data = os.urandom(BLOCK)
    for position in range(0, BLOCK, 111):
        blocks = open_blocks(disk)
        blocks.put("k", 0, data)
        disk.flip_bit(disk.paths("/cache")[0], position)
        assert blocks.get("k", 0) is None
        assert blocks.corrupt_blocks == 1
        assert disk.paths("/cache") == []


def test_what_a_former_process_left_is_removed_and_other_files_are_not(disk):
    open_blocks(disk).put("k", 0, bytes(BLOCK))
    disk.create("/cache/README").close()
    assert open_blocks(disk).get("k", 0) is None
    assert disk.paths("/cache") == ["/cache/README"]


def test_a_file_that_vanished_is_a_miss(disk):
    blocks = open_blocks(disk)
    blocks.put("k", 0, bytes(BLOCK))
    disk.vanish(disk.paths("/cache")[0])
    assert blocks.get("k", 0) is None


@pytest.mark.parametrize("operation", ["create", "write_at", "open", "read_at", "usage"])
def test_a_disk_that_fails_is_a_miss(disk, operation):
    blocks = open_blocks(disk)
    disk.hook = fail_next(operation, errno.EIO)
    blocks.put("k", 0, bytes(BLOCK))
    assert blocks.get("k", 0) in {None, bytes(BLOCK)}
    disk.hook = None
    blocks.put("k", 0, bytes(BLOCK))
    assert blocks.get("k", 0) == bytes(BLOCK)


@pytest.mark.parametrize("operation", ["make_directory", "list", "remove"])
def test_a_directory_that_cannot_be_cleared_is_no_error(disk, operation):
    if operation != "make_directory":
        open_blocks(disk).put("k", 0, bytes(BLOCK))
    disk.hook = fail_next(operation, errno.EIO)
    assert open_blocks(disk).get("k", 0) is None


def test_a_full_disk_is_left_alone(disk):
    disk.capacity_bytes = 5000
    blocks = open_blocks(disk, reserve_bytes=3500)
    blocks.put("k", 0, bytes(BLOCK))
    blocks.put("k", 1, bytes(BLOCK))
    assert blocks.get("k", 0) is not None
    assert blocks.get("k", 1) is None


def test_forget_and_clear_remove_files(disk):
    blocks = open_blocks(disk)
    for key in ("a", "b"):
        blocks.put(key, 0, bytes(BLOCK))
    blocks.forget("a")
    assert blocks.get("a", 0) is None
    assert blocks.get("b", 0) is not None
    blocks.clear()
    assert disk.paths("/cache") == []
    assert blocks.size_bytes == 0
