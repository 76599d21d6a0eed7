"""A full disk refuses appends and nothing else; what frees it lets them go on."""

from __future__ import annotations

import asyncio
import errno

import pytest

import chronik_store as chronik
from chronik_store.environment import Environment
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.simulated_disk import SimulatedDisk
from tests.bad_input.kept import CONFIG, values

MIB = 1 << 20
VALUE = b"v" * 20_000


def open_store(disk, *, read_only=False, **changes):
    settings = {
        "disk_reserve_bytes": 1 * MIB, "disk_throttle_bytes": 1 * MIB, "wal_file_bytes": 1 * MIB,
        "segment_bytes": 4 * MIB, "cache_disk_bytes": 0, "tail_bytes_max": 0, **changes,
    }  # fmt: skip
    return chronik.LogStore.open(
        "/d",
        object_store="file:///bucket",
        config=CONFIG.replace(**settings),
        env=Environment(fs=disk, threads=MortalThreads()),
        read_only=read_only,
    )


def fill(log):
    """Append until the disk is full; how many there are."""
    for count in range(2000):
        try:
            log.append(b"%06d " % count + VALUE)
        except chronik.DiskFullError:
            return count
    raise AssertionError("the disk never filled")


@pytest.fixture
def full():
    """An open store on a disk that it has filled, bucket and all: (disk, store, how many)."""
    disk = SimulatedDisk(capacity_bytes=8 * MIB)
    with open_store(disk) as store:
        store.create_topic("t")
        count = fill(store.partition("t"))
        assert count > 100
        yield disk, store, count


def test_every_door_refuses_and_nothing_else_does(full):
    disk, store, count = full
    log = store.partition("t")
    face = chronik.aio.AsyncPartitionLog(log)
    doors = {
        "append": lambda: log.append(VALUE),
        "nowait": lambda: log.append_nowait(VALUE).result(10),
        "batch": lambda: log.append(chronik.RecordBatch.build([VALUE])),
        "aio": lambda: asyncio.run(face.append(VALUE)),
    }
    for name, door in doors.items():
        with pytest.raises(chronik.DiskFullError) as caught:
            door()
        assert ("not_durable", True) == (caught.value.durability, caught.value.retriable), name
        assert "free space" in str(caught.value)
    face._pool.close()
    assert (count, count) == (log.watermarks.end, len(values(log)))
    assert log.read(count - 1).records
    assert log.verify().ok
    log.cursor("c").commit(count)
    assert count == log.cursor("c").offset
    log.seal()
    assert count == log.watermarks.sealed
    assert store.status().disk_free_bytes < 2 * MIB
    disk.capacity_bytes = 64 * MIB
    store._env.clock.sleep(1.1)  # the guard looks at the disk once a second
    log.append(VALUE)
    for _ in range(5):
        assert () == log.run_pipeline_once().errors
    assert count == log.watermarks.tiered
    assert count + 1 == len(values(log))


def test_it_is_closed_and_opened_on_a_full_disk(full):
    disk, store, count = full
    store.close()
    with open_store(disk.another_process(), read_only=True) as reader:
        assert count == len(values(reader.partition("t")))
    with open_store(disk) as store:
        log = store.partition("t")
        assert count == len(values(log))
        assert count == log.watermarks.end
        with pytest.raises(chronik.DiskFullError):
            log.append(VALUE)
        disk.capacity_bytes = 64 * MIB
        store._env.clock.sleep(1.1)
        log.append(VALUE)
    with open_store(disk) as store:
        assert count + 1 == len(values(store.partition("t")))


def test_a_kill_on_a_full_disk_loses_nothing(full):
    disk, _, count = full
    for image in (disk.crashed("kept"), disk.crashed("lost"), disk.crashed("any")):
        with open_store(image) as store:
            assert count == len(values(store.partition("t")))


@pytest.mark.parametrize("door", ["thread", "loop"])
def test_it_goes_on_after_a_start_without_a_byte_left(full, door):
    """Before, the file that the first append on a loop begins had no room, and that ended the log:
    it took nothing until the next start, with however much room.
    """
    disk, store, count = full
    store.close()
    disk.capacity_bytes = disk._medium.used_bytes
    with open_store(disk) as store:
        log = store.partition("t")

        async def on_a_loop():
            face = chronik.aio.AsyncPartitionLog(log)
            try:
                await face.append(VALUE)
            finally:
                face._pool.close()

        def append():
            return log.append(VALUE) if door == "thread" else asyncio.run(on_a_loop())

        with pytest.raises(chronik.DiskFullError) as caught:
            append()
        assert "not_durable" == caught.value.durability
        disk.capacity_bytes = 64 * MIB
        store._env.clock.sleep(1.1)
        append()
        assert count + 1 == len(values(log))


def test_another_topic_and_a_new_store_are_refused_whole(full):
    disk, store, count = full
    disk.capacity_bytes = disk._medium.used_bytes
    with pytest.raises(chronik.DiskFullError):
        store.create_topic("u", partitions=3)
    assert ["t"] == [topic.name for topic in store.topics()]
    with pytest.raises(chronik.DiskFullError):
        chronik.LogStore.open(
            "/other", config=CONFIG, env=Environment(fs=disk, threads=MortalThreads())
        )
    disk.capacity_bytes = 64 * MIB
    assert 3 == store.create_topic("u", partitions=3).partitions
    store.partition("u", 2).append(b"u")
    assert count == len(values(store.partition("t")))


def test_no_space_for_the_write_itself_is_said_and_survived(full):
    """Whoever else filled the disk: the guard saw room, the write did not find it."""
    disk, store, count = full
    store.close()
    disk.capacity_bytes = 64 * MIB
    with open_store(disk) as store:
        log = store.partition("t")
        log.append(b"fits")
        disk.hook = fail_next("write_at", errno.ENOSPC, times=99)
        with pytest.raises(chronik.ChronikError) as caught:
            log.append(VALUE)
        assert caught.value.durability in {"unknown", "not_durable"}
        assert len(values(log)) in {count + 1, count + 2}
        disk.hook = None
    with open_store(disk) as store:
        log = store.partition("t")
        assert b"fits" == values(log)[count]
        assert log.watermarks.end in {count + 1, count + 2}
        log.append(VALUE)
