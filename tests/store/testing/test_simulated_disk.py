"""The simulated disk: the conformance kit, and an honest account of what a crash leaves."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from chronik_store.fs.base import FileSystem
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.disk_faults import (
    Gate,
    all_of,
    crash_at,
    fail_at,
    fail_next,
    fail_often,
)
from chronik_store.testing.file_system_kit import FileSystemTests
from chronik_store.testing.simulated_disk import CrashError, CrashMode, SimulatedDisk

MODES: tuple[CrashMode, ...] = ("lost", "kept", "torn", "any")


class TestSimulatedDiskConforms(FileSystemTests):
    @pytest.fixture
    def fs(self) -> FileSystem:
        disk = SimulatedDisk()
        disk.make_directories("/root")
        return disk

    @pytest.fixture
    def root(self) -> str:
        return "/root"


@pytest.fixture
def disk() -> SimulatedDisk:
    disk = SimulatedDisk(seed=1)
    disk.make_directories("/d")
    return disk


def durable_file(disk: SimulatedDisk, path: str, data: bytes) -> None:
    file = disk.create(path)
    file.write_at(0, [data])
    file.sync_data()
    disk.sync_directory("/d")


def outcomes(
    disk: SimulatedDisk, path: str, mode: CrashMode = "any", tries: int = 300
) -> set[bytes]:
    """What the file may hold after a crash at this moment."""
    rng = random.Random(5)
    return {disk.crashed(mode, rng).peek(path) for _ in range(tries)}


# ------------------------------------------------------------------------------------------ bytes


@pytest.mark.parametrize("mode", MODES)
def test_synced_bytes_survive_every_crash(disk: SimulatedDisk, mode: CrashMode) -> None:
    durable_file(disk, "/d/a", b"x" * 3000)

    assert outcomes(disk, "/d/a", mode, 50) == {b"x" * 3000}


def test_unsynced_bytes_are_lost_or_kept_as_asked(disk: SimulatedDisk) -> None:
    durable_file(disk, "/d/a", b"old")
    disk.open("/d/a", write=True).write_at(0, [b"new bytes"])

    assert disk.peek("/d/a") == b"new bytes"
    assert disk.peek_durable("/d/a") == b"old"
    assert outcomes(disk, "/d/a", "lost", 1) == {b"old"}
    assert outcomes(disk, "/d/a", "kept", 1) == {b"new bytes"}


def test_a_torn_write_keeps_some_sectors_and_loses_others(disk: SimulatedDisk) -> None:
    durable_file(disk, "/d/a", bytes(4096))
    disk.open("/d/a", write=True).write_at(100, [b"x" * 3000])
    found = outcomes(disk, "/d/a", "torn")

    assert len(found) > 20
    for image in found:
        sectors = [image[at : at + 512] for at in range(0, 4096, 512)]
        whole = [bytes(100) + b"x" * 412, *[b"x" * 512] * 5, b"x" * 28 + bytes(484), bytes(512)]
        kept = [sector == full for sector, full in zip(sectors[:7], whole, strict=False)]
        lost = [sector == bytes(512) for sector in sectors[:7]]
        assert all(one != other for one, other in zip(kept, lost, strict=True))
        assert any(kept)
        assert any(lost)
        assert sectors[7] == bytes(512)


def test_a_sector_never_shows_a_later_write_without_an_earlier_one(disk: SimulatedDisk) -> None:
    durable_file(disk, "/d/a", bytes(512))
    file = disk.open("/d/a", write=True)
    file.write_at(0, [b"1"])
    file.write_at(1, [b"2"])
    file.write_at(2, [b"3"])
    starts = {image[:3] for image in outcomes(disk, "/d/a")}

    assert starts == {b"\0\0\0", b"1\0\0", b"12\0", b"123"}


def test_sectors_of_two_writes_survive_in_any_order(disk: SimulatedDisk) -> None:
    durable_file(disk, "/d/a", bytes(1024))
    file = disk.open("/d/a", write=True)
    file.write_at(0, [b"1"])
    file.write_at(512, [b"2"])

    assert {(image[0:1], image[512:513]) for image in outcomes(disk, "/d/a")} == {
        *((one, two) for one in (b"1", b"\0") for two in (b"2", b"\0"))
    }


def test_a_growing_file_may_end_anywhere_and_hold_zeros_for_bytes(disk: SimulatedDisk) -> None:
    durable_file(disk, "/d/a", b"o" * 512)
    disk.open("/d/a", write=True).write_at(512, [b"x" * 2048])
    found = outcomes(disk, "/d/a", tries=500)

    assert {len(image) for image in found} == {512, 1024, 1536, 2048, 2560}
    assert all(image[:512] == b"o" * 512 for image in found)
    assert any(bytes(512) in image for image in found)
    assert b"o" * 512 + bytes(2048) in found


def test_a_crash_without_a_sync_loses_even_an_empty_name(disk: SimulatedDisk) -> None:
    disk.create("/d/a").sync_data()

    assert not disk.crashed("lost").exists("/d/a")
    assert disk.crashed("kept").exists("/d/a")


def test_a_synced_name_does_not_make_bytes_durable(disk: SimulatedDisk) -> None:
    disk.create("/d/a").write_at(0, [b"bytes"])
    disk.sync_directory("/d")

    assert disk.crashed("lost").peek("/d/a") == b""


def test_a_sync_covers_what_was_written_before_it_began(disk: SimulatedDisk) -> None:
    """A second write while the sync is under way is not covered by it."""
    durable_file(disk, "/d/a", b"")
    file = disk.open("/d/a", write=True)
    file.write_at(0, [b"before"])

    def write_meanwhile(number: int, operation: str, path: str) -> None:
        if operation == "sync_data":
            disk.hook = None
            disk.open("/d/a", write=True).write_at(6, [b" meanwhile"])

    disk.hook = write_meanwhile
    file.sync_data()

    assert disk.peek("/d/a") == b"before meanwhile"
    assert disk.peek_durable("/d/a") == b"before"


# ------------------------------------------------------------------------------------------ names


def names_after(disk: SimulatedDisk, tries: int = 200) -> set[tuple[str, ...]]:
    rng = random.Random(3)
    return {tuple(disk.crashed("any", rng).list("/d")) for _ in range(tries)}


def test_rename_is_all_or_nothing(disk: SimulatedDisk) -> None:
    durable_file(disk, "/d/tmp", b"new")
    durable_file(disk, "/d/a", b"old")
    disk.rename("/d/tmp", "/d/a")

    assert names_after(disk) == {("a", "tmp"), ("a",)}
    for mode, left in (("lost", b"old"), ("kept", b"new")):
        assert outcomes(disk, "/d/a", mode, 1) == {left}  # type: ignore[arg-type]
    disk.sync_directory("/d")
    assert names_after(disk) == {("a",)}
    assert outcomes(disk, "/d/a") == {b"new"}


def test_a_rename_of_a_new_file_needs_its_creation(disk: SimulatedDisk) -> None:
    disk.create("/d/tmp").close()
    disk.rename("/d/tmp", "/d/a")

    assert names_after(disk) == {(), ("tmp",), ("a",)}


def test_removals_survive_one_by_one(disk: SimulatedDisk) -> None:
    for name in "ab":
        durable_file(disk, f"/d/{name}", b"x")
    disk.remove("/d/a")
    disk.remove("/d/b")

    assert names_after(disk) == {(), ("a",), ("b",), ("a", "b")}
    assert outcomes(disk, "/d/a", "lost", 1) == {b"x"}
    disk.sync_directory("/d")
    assert names_after(disk) == {()}


def test_a_linked_file_is_one_file_after_the_crash_too(disk: SimulatedDisk) -> None:
    durable_file(disk, "/d/a", b"x")
    disk.link("/d/a", "/d/b")
    disk.sync_directory("/d")
    after = disk.crash("lost")
    after.open("/d/a", write=True).write_at(0, [b"y"])

    assert after.peek("/d/b") == b"y"
    assert after.usage("/").total_bytes - after.usage("/").free_bytes == 1


def test_a_directory_that_was_not_synced_takes_all_below_it_along(disk: SimulatedDisk) -> None:
    """`make_directories` syncs; this is a rename of the directory, which does not."""
    disk.make_directories("/d/new")
    durable_file(disk, "/d/new/a", b"x")
    disk.sync_directory("/d/new")
    disk.rename("/d/new", "/d/newer")

    assert disk.crashed("lost").paths("/d") == ["/d/new/a"]
    assert disk.crashed("kept").paths("/d") == ["/d/newer/a"]
    disk.sync_directory("/d")
    assert disk.crashed("lost").paths("/d") == ["/d/newer/a"]


def test_made_directories_are_durable(disk: SimulatedDisk) -> None:
    disk.make_directories("/d/x/y/z")

    assert disk.crashed("lost").stat("/d/x/y/z").is_directory


def test_make_directories_makes_up_for_a_killed_one(disk: SimulatedDisk) -> None:
    disk.hook = crash_at(disk.calls + 6)  # exists x 3, stat, make_directory, its sync
    with pytest.raises(CrashError, match="sync_directory /d"):
        disk.make_directories("/d/x")
    again = disk.kill()
    assert again.stat("/d/x").is_directory
    assert not again.crashed("lost").exists("/d/x")
    again.make_directories("/d/x")

    assert again.crashed("lost").exists("/d/x")


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
