"""The simulated disk: calls that fail, disks that are full or damaged, processes that end."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.disk_faults import (
    Gate,
    all_of,
    crash_at,
    fail_at,
    fail_next,
    fail_often,
)
from chronik_store.testing.simulated_disk import CrashError, CrashMode, SimulatedDisk
from tests.store.testing.disk_outcomes import durable_file, outcomes

MODES: tuple[CrashMode, ...] = ("lost", "kept", "torn", "any")


# ----------------------------------------------------------------------------------------- faults


def test_a_failed_sync_makes_pages_clean_and_a_later_one_does_not_help(
    disk: SimulatedDisk,
) -> None:
    durable_file(disk, "/d/a", bytes(8192))
    file = disk.open("/d/a", write=True)
    file.write_at(0, [b"ghost"])
    disk.hook = fail_next("sync_data", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        file.sync_data()
    file.sync_data()

    assert disk.peek("/d/a")[:5] == b"ghost"
    for mode in MODES:
        assert outcomes(disk, "/d/a", mode, 20) == {bytes(8192)}


def test_bytes_put_behind_the_end_of_a_file_are_there(disk: SimulatedDisk) -> None:
    """What went behind it was dropped, so that tests looked at files that nobody had damaged."""
    durable_file(disk, "/d/a", b"abc")
    before = disk.used_bytes
    disk.overwrite("/d/a", 2, b"xyz")

    assert disk.peek("/d/a") == b"abxyz"
    assert disk.used_bytes == before + 2
    for mode in MODES:
        assert outcomes(disk, "/d/a", mode, 20) == {b"abxyz"}


def test_only_a_write_into_its_page_brings_a_ghost_to_the_disk(disk: SimulatedDisk) -> None:
    durable_file(disk, "/d/a", bytes(8192))
    file = disk.open("/d/a", write=True)
    file.write_at(0, [b"ghost"])
    file.write_at(5000, [b"other ghost"])
    disk.hook = fail_next("sync_data", errno.EIO)
    with suppress(OSError):
        file.sync_data()
    file.write_at(3000, [b"x"])
    file.sync_data()
    left = disk.crash("lost").peek("/d/a")

    assert left[:5] == b"ghost"
    assert left[3000:3001] == b"x"
    assert left[4096:] == bytes(4096)


def test_a_failed_directory_sync_loses_the_names_for_good(disk: SimulatedDisk) -> None:
    disk.create("/d/a").close()
    disk.hook = fail_next("sync_directory", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        disk.sync_directory("/d")
    disk.sync_directory("/d")

    assert disk.exists("/d/a")
    assert not disk.crash("kept").exists("/d/a")


def test_a_full_disk_takes_what_fits(disk: SimulatedDisk) -> None:
    disk.capacity_bytes = 1000
    file = disk.create("/d/a")
    file.write_at(0, [b"x" * 600])
    with pytest.raises(OSError, match="No space left"):
        file.write_at(600, [b"y" * 600])

    assert disk.peek("/d/a") == b"x" * 600 + b"y" * 400
    assert disk.usage("/d").free_bytes == 0
    assert file.write_at(100, [b"z" * 500]) == 500
    file.close()
    disk.remove("/d/a")
    assert disk.usage("/d").free_bytes == 1000


def test_a_removed_file_takes_space_until_it_is_closed(disk: SimulatedDisk) -> None:
    disk.capacity_bytes = 1000
    file = disk.create("/d/a")
    file.write_at(0, [b"x" * 600])
    disk.remove("/d/a")

    assert disk.usage("/d").free_bytes == 400
    file.close()
    assert disk.usage("/d").free_bytes == 1000


def test_space_is_not_lost_by_renames_and_crashes(disk: SimulatedDisk) -> None:
    disk.capacity_bytes = 1000
    durable_file(disk, "/d/a", b"x" * 300)
    durable_file(disk, "/d/b", b"y" * 200)
    disk.rename("/d/a", "/d/b")
    for mode, free in (("lost", 500), ("kept", 700)):
        assert disk.crashed(mode).usage("/").free_bytes == free  # type: ignore[arg-type]
    for path in disk.open_files:
        assert path in {"/d/a", "/d/b"}
    assert disk.kill().usage("/").free_bytes == 700


def test_a_failed_write_leaves_a_first_part(disk: SimulatedDisk) -> None:
    lengths = set()
    for number in range(20):
        file = disk.create(f"/d/{number}")
        disk.hook = fail_next("write_at", errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            file.write_at(0, [b"0123", b"456789"])
        left = disk.peek(f"/d/{number}")
        lengths.add(len(left))
        assert left == b"0123456789"[: len(left)]

    assert len(lengths) > 5


def test_an_unreadable_sector_is_healed_by_writing_it(disk: SimulatedDisk) -> None:
    durable_file(disk, "/d/a", b"x" * 2000)
    disk.make_unreadable("/d/a", 512)
    file = disk.open("/d/a", write=True)

    assert file.read_at(0, 512) == b"x" * 512
    with pytest.raises(OSError, match="Input/output"):
        file.read_at(0, 513)
    with pytest.raises(OSError, match="Input/output"), file.map():
        pass
    with pytest.raises(OSError, match="Input/output"):
        disk.crashed("kept").open("/d/a").read_at(600, 1)
    file.write_at(500, [b"y" * 600])
    assert len(file.read_at(0, 2000)) == 2000


def test_damage_reaches_the_cache_and_the_medium(disk: SimulatedDisk) -> None:
    durable_file(disk, "/d/a", b"abc")
    disk.open("/d/a", write=True).write_at(3, [b"def"])
    disk.flip_bit("/d/a", 0)
    disk.flip_bit("/d/a", 4, 1)

    assert disk.peek("/d/a") == b"`bcdgf"
    assert disk.crashed("kept").peek("/d/a") == b"`bcdgf"
    assert disk.crashed("lost").peek("/d/a") == b"`bc"
    disk.truncate("/d/a", 4)
    assert disk.crashed("kept").peek("/d/a") == b"`bcd"
    disk.vanish("/d/a")
    assert not disk.crashed("lost").exists("/d/a")


def test_a_call_fails_by_number_and_by_chance(disk: SimulatedDisk) -> None:
    start = disk.calls
    disk.hook = all_of(fail_at(start + 2, errno.ENOSPC), fail_at(start + 3, errno.EMFILE))
    disk.exists("/d")
    with pytest.raises(OSError, match="No space left"):
        disk.create("/d/a")
    with pytest.raises(OSError, match="Too many open files"):
        disk.create("/d/a")
    disk.create("/d/a").close()

    disk.hook = fail_often(random.Random(1), {"exists": 0.5}, errno.EIO)
    failed = 0
    for _ in range(100):
        try:
            disk.exists("/d/a")
        except OSError:
            failed += 1
    assert 30 < failed < 70
    assert disk.calls_by_operation["create"] == 3


def test_a_gate_holds_a_call_in_flight(disk: SimulatedDisk) -> None:
    file = disk.create("/d/a")
    file.write_at(0, [b"x"])
    gate = Gate("sync_data", path_end="/a")
    disk.hook = gate
    thread = threading.Thread(target=file.sync_data)
    thread.start()

    assert gate.arrived.wait(10)
    disk.sync_directory("/d")
    assert disk.peek_durable("/d/a") == b""
    gate.open()
    thread.join(10)
    assert disk.peek_durable("/d/a") == b"x"


# ----------------------------------------------------------------------------------- incarnations


def program(disk: SimulatedDisk) -> None:
    """Some of everything."""
    disk.make_directories("/data/wal")
    lock = disk.lock("/data/LOCK", b"owner")
    file = disk.create("/data/wal/tmp")
    file.write_at(0, [b"x" * 1500])
    file.sync_data()
    disk.rename("/data/wal/tmp", "/data/wal/1")
    disk.sync_directory("/data/wal")
    file.write_at(1500, [b"y" * 1500])
    file.sync_data()
    disk.stat("/data/wal/1")
    file.close()
    lock.release()


def calls_of(program: Callable[[SimulatedDisk], None]) -> int:
    disk = SimulatedDisk()
    program(disk)
    return disk.calls


def test_a_crash_falls_at_each_call_and_nothing_gets_through_after_it() -> None:
    for call in range(1, calls_of(program) + 1):
        disk = SimulatedDisk(seed=call)
        disk.hook = crash_at(call)
        with pytest.raises(CrashError):
            program(disk)
        for refused in (disk.exists, disk.create, disk.walk, disk.sync_directory):
            with pytest.raises(CrashError):
                refused("/data/x")
        for mode in MODES:
            after = disk.crash(mode)
            program_left = {*after.paths()}
            assert program_left <= {"/data/LOCK", "/data/wal/tmp", "/data/wal/1"}
            after.lock("/STORE", b"")


def test_handles_of_a_dead_incarnation_refuse(disk: SimulatedDisk) -> None:
    file = disk.create("/d/a")
    after = disk.crash("kept")

    for call in (file.size, file.sync_data, file.close):
        with pytest.raises(CrashError):
            call()
    with pytest.raises(CrashError):
        file.write_at(0, [b"x"])
    assert after.peek("/d/a") == b""


def test_kill_keeps_the_page_cache_but_makes_nothing_durable(disk: SimulatedDisk) -> None:
    lock = disk.lock("/d/LOCK", b"")
    disk.create("/d/a").write_at(0, [b"unsynced"])
    after = disk.kill()

    assert after.peek("/d/a") == b"unsynced"
    assert after.open_files == []
    after.lock("/d/LOCK", b"").release()
    with pytest.raises(CrashError):
        lock.release()
    assert not after.crash("lost").exists("/d/a")


def test_processes_share_files_and_exclude_each_other(disk: SimulatedDisk) -> None:
    other = disk.another_process()
    lock = disk.lock("/d/LOCK", b"")
    disk.create("/d/a").write_at(0, [b"x"])

    assert other.peek("/d/a") == b"x"
    with pytest.raises(BlockingIOError):
        other.lock("/d/LOCK", b"")
    lock.release()
    other.lock("/d/LOCK", b"")
    disk.crash("lost")
    with pytest.raises(CrashError):
        other.exists("/d")


def test_a_thread_of_a_dead_machine_ends_without_a_report(disk: SimulatedDisk) -> None:
    disk.hook = crash_at(disk.calls + 1)
    thread = MortalThreads().spawn(lambda: print(disk.exists("/d")), name="victim")
    thread.join(10)

    assert not thread.is_alive()


def test_equal_seeds_give_equal_disks() -> None:
    def left(seed: int) -> list[tuple[str, bytes]]:
        disk = SimulatedDisk(seed)
        disk.hook = fail_next("sync_data", errno.EIO, times=0)
        disk.make_directories("/d")
        for name in range(20):
            file = disk.create(f"/d/{name}")
            file.write_at(0, [bytes([name]) * 3000])
            if name % 2:
                file.sync_data()
        after = disk.crash("any")
        return [(path, after.peek(path)) for path in after.paths()]

    assert left(1) == left(1)
    assert left(1) != left(2)


def test_the_disk_tells_what_is_open(disk: SimulatedDisk) -> None:
    file = disk.create("/d/a")
    disk.open("/d/a").close()

    assert disk.open_files == ["/d/a"]
    file.close()
    assert disk.open_files == []
