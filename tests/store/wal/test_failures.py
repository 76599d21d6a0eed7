"""Failing disks: a failed write or sync ends the WAL; nothing is retried, nothing is lost."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Any

import pytest

from chronik_store.errors import LogPoisonedError, UnavailableError
from chronik_store.testing.disk_faults import Gate, all_of, fail_next
from chronik_store.testing.simulated_disk import SimulatedDisk

Opens = Callable[..., Any]


@pytest.mark.parametrize("operation", ["write_at", "sync_data"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_failed_call_poisons_the_log_for_good(
    disk: SimulatedDisk, open_wal: Opens, operation: str, code: int
) -> None:
    owner = open_wal(disk)
    owner.append(b"good")
    failed: list[BaseException] = []
    owner.wal.on_failed = failed.append
    disk.hook = fail_next(operation, code)

    with pytest.raises(LogPoisonedError) as caught:
        owner.append(b"unknown")
    assert caught.value.durability == "unknown"
    with pytest.raises(LogPoisonedError) as later:
        owner.append(b"refused")
    assert later.value.durability == "not_durable"

    assert len(failed) == 1
    assert owner.wal.durable.index == 2
    assert owner.wal.poisoned is not None
    assert owner.live()[1] == b"good"
    owner.close()


def test_a_start_that_was_interrupted_behind_a_removal_is_tried_again(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    """Each append said that it may be repeated, and none could succeed."""
    open_wal(disk).close()
    left = "/data/wal/wal_00000000000000000009.log.tmp"
    disk.create(left).write_at(0, [b"half a header"])
    owner = open_wal(disk, start=False)
    disk.remove(left)
    owner.start().append(b"good")
    assert owner.live()[1] == b"good"
    owner.close()


ROTATING = ["create", "write_at", "sync_all", "rename", "sync_directory"]


@pytest.mark.parametrize("operation", ROTATING)
@pytest.mark.parametrize("outcome", ["killed", "lost", "kept", "torn"])
def test_a_failed_rotation_poisons_the_log_and_loses_nothing(
    disk: SimulatedDisk, open_wal: Opens, operation: str, outcome: Any
) -> None:
    owner = open_wal(disk)
    owner.append(b"one")
    disk.hook = fail_next(operation, errno.EIO)
    with pytest.raises(LogPoisonedError):
        owner.wal.rotate()

    again = open_wal(disk.kill() if outcome == "killed" else disk.crash(outcome))

    assert again.copy.entries.keys() == {1}
    again.append(b"two")
    again.close()


def test_every_waiter_learns_of_the_failure(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk)
    gate = Gate("sync_data")
    disk.hook = all_of(gate, fail_next("sync_data", errno.EIO))
    outcomes: list[BaseException] = []

    def append() -> None:
        try:
            owner.append(b"x")
        except LogPoisonedError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=append, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert gate.arrived.wait(5)
    while owner.wal.last_index < 8:
        pass
    gate.open()
    for thread in threads:
        thread.join(10)

    assert len(outcomes) == 8


def test_a_ghost_of_a_failed_sync_is_either_durable_or_gone_after_reopening(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk)
    owner.append(b"good")
    disk.hook = fail_next("sync_data", errno.EIO)
    with pytest.raises(LogPoisonedError):
        owner.append(b"ghost")
    owner.close()
    disk.hook = None

    again = open_wal(disk)
    seen = again.live()
    after_power_cut = open_wal(disk.crash("lost"))

    assert seen == {1: b"good", 2: b"ghost"}
    assert after_power_cut.live() == seen


def test_an_unreadable_sector_is_unavailable_not_absent(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    owner = open_wal(disk, tail_bytes=0)
    owner.append(b"x" * 5000)
    owner.append(b"y")
    disk.make_unreadable(owner.wal.files()[-1].path, 4096)

    with pytest.raises(UnavailableError):
        owner.wal.read(1, 1, 10_000)
    assert owner.wal.read(2, 2, 100)[0].payload == b"y"


def test_a_full_disk_at_recovery_changes_nothing(disk: SimulatedDisk, open_wal: Opens) -> None:
    owner = open_wal(disk)
    owner.append(b"x" * 3000)
    killed = disk.kill()
    killed.hook = fail_next("write_at", errno.ENOSPC)
    early = open_wal(killed, start=False)
    with pytest.raises(LogPoisonedError):
        early.start()
    killed.hook = None

    again = open_wal(killed)

    assert again.live() == {1: b"x" * 3000}


def test_a_failed_fill_is_harmless_when_the_disk_is_full_and_fatal_when_it_is_broken(
    open_wal: Opens,
) -> None:
    for code in (errno.ENOSPC, errno.EIO):
        disk = SimulatedDisk(seed=3)
        owner = open_wal(disk, settings={"fill_bytes_min": 4096, "fill_bytes_max": 8192})
        gate = Gate("open")
        disk.hook = all_of(gate, fail_next("open", code))
        owner.append(b"x")
        assert gate.arrived.wait(5)
        gate.open()
        owner.services.filler.close()
        if code == errno.ENOSPC:
            owner.append(b"y")
            assert owner.wal.durable.index == 3
        else:
            with pytest.raises(LogPoisonedError):
                owner.append(b"y")


def test_a_group_beside_which_the_filler_fails_is_not_acknowledged(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    """An error is reported once: the filler may have been told of what befell the group."""
    owner = open_wal(disk)
    owner.append(b"before")
    durable = owner.wal.durable

    def fail_beside(_number: int, operation: str, _path: str) -> None:
        if operation == "sync_data":
            owner.wal.give_up(OSError(errno.EIO, "in the zeros ahead"))

    disk.hook = fail_beside
    with pytest.raises(LogPoisonedError) as caught:
        owner.append(b"beside it")

    assert "unknown" == caught.value.durability
    assert durable == owner.wal.durable


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_group_waits_for_the_sync_of_zeros_that_may_have_been_told_its_error(
    disk: SimulatedDisk, open_wal: Opens, code: int
) -> None:
    """The filler's sync takes the error, and the group's, which comes second, finds nothing to do:
    it must not be acknowledged while the filler has yet to say so.
    """
    wrote, told, go_on = threading.Event(), threading.Event(), threading.Event()
    acknowledged: list[int] = []

    def hook(_number: int, operation: str, path: str) -> None:
        if threading.current_thread().name.startswith("chronik-fill"):
            if operation == "write_at":
                assert wrote.wait(20)
            elif operation == "sync_data":
                raise OSError(code, "what the group wrote", path)
            elif operation == "close":  # it knows, and nobody else does
                told.set()
                assert go_on.wait(20)
        elif operation == "sync_data" and threading.current_thread() is group:
            wrote.set()
            assert told.wait(20)

    def append() -> None:
        with pytest.raises(LogPoisonedError):
            acknowledged.append(owner.append(b"beside it"))

    group = threading.Thread(target=append, daemon=True)
    owner = open_wal(disk, settings={"fill_bytes_min": 4096, "fill_bytes_max": 8192})
    disk.hook = hook
    owner.append(b"before")
    group.start()
    assert told.wait(20)
    group.join(0.2)
    after = disk.crashed("lost")
    go_on.set()
    group.join(20)

    assert not group.is_alive()
    assert [] == acknowledged
    assert {1: b"before"} == open_wal(after).live()
