"""The simulated disk: the conformance kit, and an honest account of what a crash leaves."""

from __future__ import annotations

import random

import pytest

from chronik_store.fs.base import FileSystem
from chronik_store.testing.disk_faults import (
    crash_at,
)
from chronik_store.testing.file_system_kit import FileSystemTests
from chronik_store.testing.simulated_disk import CrashError, CrashMode, SimulatedDisk
from tests.store.testing.disk_outcomes import durable_file, outcomes

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
