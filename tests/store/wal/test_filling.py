"""Zeros ahead: never over bytes of a group, never needed for an acknowledgement."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Any

import pytest

from chronik_store.commit.filler import write_zeros
from chronik_store.errors import LogPoisonedError
from chronik_store.testing.crash import CrashMode
from chronik_store.testing.disk_faults import Gate, fail_next
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk
from chronik_store.testing.simulated_file import SimulatedFile
from chronik_store.wal import active_file, spare_file

Opens = Callable[..., Any]
DIRECTORY = "/data/wal"
SPARE = "spare.tmp"
FILLED = {"fill_bytes_min": 4096, "fill_bytes_max": 16384}


def settle(owner: Any) -> None:
    owner.wal._active.stop()


def test_a_file_is_filled_ahead_after_the_first_group(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk, settings=FILLED)
    path = owner.wal.files()[-1].path
    before = len(disk.peek(path))
    owner.append(b"x")
    owner.services.filler.close()

    content = disk.peek_durable(path)
    assert content is not None
    assert len(content) >= before + 4096
    assert not content[before:].strip(b"\0")


def test_an_idle_log_is_not_filled(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk, settings=FILLED)

    assert len(disk.peek(owner.wal.files()[-1].path)) == 4096


def test_appends_outrun_a_slow_filler_and_wait_only_where_they_meet(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk, settings=FILLED)
    path = owner.wal.files()[-1].path
    filling = threading.Event()
    go_on = threading.Event()

    def hold_the_filler(_number: int, operation: str, called: str) -> None:
        if operation == "write_at" and called == path:  # The committer's handle has the old name.
            filling.set()
            assert go_on.wait(20)

    disk.hook = hold_the_filler
    owner.append(b"first")
    assert filling.wait(5)
    owner.append(b"fits before the region that is being filled")
    meets = threading.Thread(target=lambda: owner.append(b"z" * 8000), daemon=True)
    meets.start()
    meets.join(0.1)
    assert meets.is_alive()
    go_on.set()
    meets.join(10)

    assert not meets.is_alive()
    owner.services.filler.close()
    assert open_wal(disk.crash("lost")).copy.entries.keys() == {1, 2, 3}


def test_close_waits_for_the_chunk_under_way(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk, settings=FILLED)
    gate = Gate("open")
    disk.hook = gate
    owner.append(b"x")
    assert gate.arrived.wait(5)
    closing = threading.Thread(target=owner.wal.close, daemon=True)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    gate.open()
    closing.join(10)

    assert not closing.is_alive()


def busy(disk: SimulatedDisk, open_wal: Opens) -> Any:
    """A log that uses up its zeros fast, until its next file lies there."""
    owner = open_wal(disk, settings=FILLED | {"file_bytes": 1 << 20})
    active = owner.wal._active
    for _ in range(100):
        owner.append(b"x" * 3000)
        while active.fill():  # Beside the filler's own thread: one of the two does it.
            pass
        if active._spare is not None and active._spare.ready:
            assert SPARE in disk.list(DIRECTORY)
            return owner
    raise AssertionError("a fast log got no spare file")


def test_a_fast_log_goes_on_in_a_file_that_was_filled_before(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = busy(disk, open_wal)
    files = len(owner.wal.files())
    count = owner.wal.last_index
    while len(owner.wal.files()) == files:
        owner.append(b"y" * 3000)
        count += 1
    path = owner.wal.files()[-1].path

    content = disk.peek_durable(path)
    assert content is not None
    assert len(content) >= 16384
    assert owner.wal.files()[-1].size_bytes == len(content)
    assert open_wal(disk.crash("lost")).live().keys() == set(range(1, count + 1))


def test_close_leaves_no_spare_file(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = busy(disk, open_wal)
    owner.wal.close()

    assert SPARE not in disk.list(DIRECTORY)


def test_a_spare_file_that_a_crash_leaves_is_swept_away(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    busy(disk, open_wal)
    again = disk.crash("kept")
    assert SPARE in again.list(DIRECTORY)

    open_wal(again)
    assert SPARE not in again.list(DIRECTORY)


def test_a_spare_file_for_which_the_disk_is_full_ends_nothing(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    """It leaves its room to the log, and is begun anew when there is room again."""
    owner = busy(disk, open_wal)
    owner.services.filler.close()  # From here on each piece is written by the test.
    active = owner.wal._active
    pieces = 0

    def fail(_number: int, operation: str, called: str) -> None:
        nonlocal pieces
        being_filled = active._spare is not None and not active._spare.ready
        if called.endswith(SPARE) and operation == "open" and being_filled:
            pieces += 1
            raise OSError(errno.ENOSPC, "full", called)

    disk.hook = fail
    for _ in range(200):
        owner.append(b"y" * 12_000)
        while active.fill():
            pass
        if pieces > 1:  # More than one rotation has tried.
            break
    assert pieces > 1
    assert SPARE not in disk.list(DIRECTORY)

    disk.hook = None
    for _ in range(200):
        owner.append(b"z" * 12_000)
        while active.fill():
            pass
        if active._spare is not None and active._spare.ready:
            break
    assert SPARE in disk.list(DIRECTORY)
    assert open_wal(disk.crash("lost")).live().keys() == set(range(1, owner.wal.last_index + 1))


def test_a_spare_file_that_is_too_small_for_a_group_is_left_for_the_next_file(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = busy(disk, open_wal)
    owner.services.filler.close()
    active = owner.wal._active
    for _ in range(60):
        owner.append(b"y" * 120_000)  # Ten of these and a file is full, and each is above 16 KiB.
        while active.fill():
            pass
    assert len(owner.wal.files()) > 3
    assert open_wal(disk.crash("lost")).live().keys() == set(range(1, owner.wal.last_index + 1))


LARGE = 300_000
WIDE = {"fill_bytes_min": 1 << 18, "fill_bytes_max": 1 << 20, "file_bytes": 4 << 20}


@pytest.fixture
def zeros(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """The stretches of zeros that are written ahead: name of the file, start, end."""
    written: list[tuple[str, int, int]] = []

    def note(fs: Any, path: str, start: int, end: int, **options: Any) -> None:
        written.append((path.rpartition("/")[2], start, end))
        write_zeros(fs, path, start, end, **options)

    monkeypatch.setattr(active_file, "write_zeros", note)
    monkeypatch.setattr(spare_file, "write_zeros", note)
    return written


def in_large_groups(owner: Any, files: int) -> None:
    """Append until so many files more are there, each with its zeros or blocks in time."""
    files += len(owner.wal.files())
    for _ in range(200):
        owner.append(b"L" * LARGE)
        while owner.wal._active.fill():
            pass
        if len(owner.wal.files()) >= files:
            return
    raise AssertionError("the log did not rotate")


def large(disk: SimulatedDisk, open_wal: Opens) -> Any:
    """A log whose groups are large; only the test fills."""
    owner = open_wal(disk, settings=WIDE)
    owner.services.filler.close()
    while not owner.wal._active._reserved and len(owner.wal.files()) < 10:
        in_large_groups(owner, 1)
    return owner


def test_blocks_for_large_groups_are_reserved_and_not_written(
    disk: SimulatedDisk, open_wal: Opens, zeros: list[tuple[str, int, int]]
) -> None:
    owner = large(disk, open_wal)
    zeros.clear()
    in_large_groups(owner, 2)

    assert not zeros
    path = owner.wal.files()[-1].path
    assert len(disk.peek(path)) == owner.wal.files()[-1].size_bytes > 3 << 20
    for mode in ("kept", "lost"):
        again = open_wal(disk.crash(mode))
        assert again.wal.recovery.verdict == "clean"
        assert again.live().keys() == set(range(1, owner.wal.last_index + 1))


def test_small_groups_behind_large_ones_get_zeros_again(
    disk: SimulatedDisk, open_wal: Opens, zeros: list[tuple[str, int, int]]
) -> None:
    owner = large(disk, open_wal)
    active = owner.wal._active
    assert active._reserved
    zeros.clear()
    files = len(owner.wal.files())
    for _ in range(30):
        owner.append(b"s" * 100)
        while active.fill():
            pass

    assert not active._reserved
    if len(owner.wal.files()) > files:  # It left the reserved blocks for a file of zeros.
        assert (SPARE, 0, 1 << 20) in zeros
    else:
        assert zeros
        assert zeros[0][1] <= active.end < zeros[-1][2]
    assert open_wal(disk.crash("lost")).live().keys() == set(range(1, owner.wal.last_index + 1))


def test_where_nothing_can_be_reserved_zeros_are_written(
    disk: SimulatedDisk,
    open_wal: Opens,
    zeros: list[tuple[str, int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SimulatedFile, "reserve", lambda _file, _position, _length: False)
    owner = large(disk, open_wal)
    zeros.clear()
    in_large_groups(owner, 2)

    assert [end for name, _, end in zeros if name == SPARE][-1] == 4 << 20
    path = owner.wal.files()[-1].path
    content = disk.peek_durable(path)
    assert content is not None
    assert len(content) > 3 << 20
    assert open_wal(disk.crash("lost")).live().keys() == set(range(1, owner.wal.last_index + 1))


def test_a_disk_without_room_to_reserve_ends_nothing(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = large(disk, open_wal)
    refused = 0

    def fail(_number: int, operation: str, _path: str) -> None:
        nonlocal refused
        if operation == "reserve":
            refused += 1
            raise OSError(errno.ENOSPC, "full")

    disk.hook = fail
    in_large_groups(owner, 2)

    assert refused >= 1
    assert SPARE not in disk.list(DIRECTORY)
    disk.hook = None
    in_large_groups(owner, 2)
    assert open_wal(disk.crash("lost")).live().keys() == set(range(1, owner.wal.last_index + 1))


AHEAD = {"fill_bytes_min": 1 << 18, "fill_bytes_max": 1 << 18}


def given_back(disk: SimulatedDisk) -> list[str]:
    """The paths of the files whose zeros are given back from now on."""
    paths: list[str] = []

    def note(_number: int, operation: str, path: str) -> None:
        if operation == "give_back":
            paths.append(path)

    disk.hook = note
    return paths


def filled(disk: SimulatedDisk, open_wal: Opens) -> tuple[Any, str]:
    """A log with a quarter of a megabyte of zeros ahead, and the file that they stand in."""
    owner = open_wal(disk, settings=AHEAD)
    owner.append(b"x" * 3000)
    active = owner.wal._active
    while active.fill() or active._filling is not None:  # Beside the filler's own thread.
        pass
    return owner, owner.wal.files()[-1].path


def test_a_file_that_is_full_no_more_gives_its_zeros_back(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner, path = filled(disk, open_wal)
    paths = given_back(disk)
    before = disk.peek(path)
    owner.wal.rotate()
    owner.append(b"y")
    owner.services.filler.close()

    assert paths == [path]
    assert disk.peek(path) == before
    assert owner.wal.files()[-2].size_bytes == 1 << 16
    assert open_wal(disk.crash("lost")).live().keys() == {1, 2}


def test_close_gives_the_zeros_back_once(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner, path = filled(disk, open_wal)
    paths = given_back(disk)
    owner.wal.close()
    owner.wal.close()
    settle(owner)

    assert paths == [path]
    again = open_wal(disk.crash("lost"))
    assert again.wal.recovery.verdict == "clean"
    assert again.live().keys() == {1}


def test_a_few_zeros_are_not_worth_a_call(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk, settings=FILLED)
    owner.append(b"x")
    while owner.wal._active.fill():
        pass
    paths = given_back(disk)
    owner.wal.rotate()
    owner.wal.close()

    assert not paths


def test_nothing_is_given_back_behind_a_group_whose_outcome_is_unknown(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner, _ = filled(disk, open_wal)
    owner.services.filler.close()  # Its syncs are not to take the failure.
    disk.hook = fail_next("sync_data", errno.EIO)
    with pytest.raises(LogPoisonedError):
        owner.append(b"perhaps")
    paths = given_back(disk)
    owner.wal.close()

    assert not paths


def test_a_disk_that_takes_no_zeros_back_keeps_them(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner, _ = filled(disk, open_wal)
    disk.hook = fail_next("give_back", errno.EIO)
    owner.wal.rotate()
    owner.append(b"y")
    owner.services.filler.close()

    assert owner.wal.files()[-2].size_bytes > 1 << 16
    assert open_wal(disk.crash("lost")).live().keys() == {1, 2}


@pytest.mark.parametrize("mode", ["kept", "lost", "torn"])
def test_a_crash_while_zeros_are_given_back_costs_nothing(
    mode: CrashMode, disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner, _ = filled(disk, open_wal)
    owner.services.filler.close()

    def crash(_number: int, operation: str, called: str) -> None:
        if operation == "give_back":
            raise CrashError(called)

    disk.hook = crash
    with pytest.raises(CrashError):
        owner.wal.close()

    again = open_wal(disk.crash(mode))
    assert again.wal.recovery.verdict == "clean"
    assert again.live().keys() == {1}


def test_the_filler_begins_no_spare_file_while_the_last_one_is_being_renamed(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = busy(disk, open_wal)
    owner.services.filler.close()
    active = owner.wal._active
    files = len(owner.wal.files())
    gate = Gate("rename")
    disk.hook = gate

    def rotate() -> None:
        while len(owner.wal.files()) == files:
            owner.append(b"y" * 3000)

    writer = threading.Thread(target=rotate, daemon=True)
    writer.start()
    assert gate.arrived.wait(10)
    for _ in range(5):
        active.fill()
    gate.open()
    writer.join(10)
    assert not writer.is_alive()
    assert len(owner.wal.files()) == files + 1
    owner.append(b"goes on")
    assert open_wal(disk.crash("lost")).live().keys() == set(range(1, owner.wal.last_index + 1))
