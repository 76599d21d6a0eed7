"""Power cuts at every call to the disk: what comes back is what was acknowledged, perhaps more.

Each program is crashed at every call, with unsynced bytes lost, kept or torn, and recovered; some
of them again after a crash in the middle of the first recovery.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from chronik_store.errors import LogPoisonedError
from chronik_store.testing.disk_faults import crash_at
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk
from tests.store.wal.wal_history import MODES, SETTINGS, History, State, recovered

Program = Callable[[History], None]
Opens = Callable[..., Any]


def data(number: int, size: int = 0) -> bytes:
    return (b"%06d" % number) * (1 + size // 6)


def plain_appends(history: History) -> None:
    for number in range(4):
        history.append(data(number, 300 * number))


def groups_of_several_frames(history: History) -> None:
    history.append(data(0))
    for number in range(6):
        history.append(data(number, 700), lead=False)
    history.lead(history.owner.wal.last_seq)
    for number in range(3):
        history.append(data(number, 200), lead=False)
    history.lead(history.owner.wal.last_seq)


def records_full_of_zeros(history: History) -> None:
    history.append(bytes(3000))
    history.append(bytes(1200) + b"x" + bytes(1200))
    history.append(bytes(5))


def rotations(history: History) -> None:
    for number in range(7):
        history.append(data(number, 1500))


def truncations(history: History) -> None:
    for number in range(5):
        history.append(data(number, 400))
    history.truncate(4)
    history.append(data(40, 300))
    history.vote(2, "b")
    history.truncate(2, lead=False)
    history.append(data(20, 900), lead=False)
    history.lead(history.owner.wal.last_seq)
    history.append(data(21))


def truncations_over_files(history: History) -> None:
    for number in range(6):
        history.append(data(number, 1500))
    history.truncate(2, lead=False)
    history.append(data(20, 1500))
    history.append(data(21, 1500))


def votes(history: History) -> None:
    for term in range(1, 5):
        history.vote(term, f"n{term % 3}")


def pruning(history: History) -> None:
    for number in range(8):
        history.append(data(number, 1500))
    history.owner.wal.commit_mark = 8
    history.prune()
    history.append(data(9, 1500))
    history.append(data(10, 1500))


def snapshots(history: History) -> None:
    for number in range(4):
        history.append(data(number, 700))
    history.snapshot(10, 0)
    history.append(data(11))
    history.prune()
    history.append(data(12))


PROGRAMS = (
    plain_appends,
    groups_of_several_frames,
    records_full_of_zeros,
    rotations,
    truncations,
    truncations_over_files,
    votes,
    pruning,
    snapshots,
)


def run(program: Program, disk: SimulatedDisk, open_wal: Opens, *, fill: bool) -> History:
    history = History()
    settings = SETTINGS | ({"fill_bytes_min": 4096, "fill_bytes_max": 8192} if fill else {})
    with suppress(CrashError, LogPoisonedError):
        history.owner = open_wal(disk, start=False, commits=False, settings=settings)
        history.owner.start()
        program(history)
        history.owner.close()
    return history


def settle(disk: SimulatedDisk, open_wal: Opens) -> State:
    """Recover, start, append, close: and see that a reopen finds just that."""
    owner, found = recovered(disk, open_wal)
    owner.start()
    assert owner.wal.durable.index == owner.wal.last_index + 1
    assert owner.live() == found.entries
    index = owner.append(b"afterwards")
    owner.close()
    again, then = recovered(disk, open_wal)
    again.services.close()
    assert then.first == found.first
    assert then.matches(replace(found, entries=found.entries | {index: b"afterwards"}))
    return found


@pytest.mark.parametrize("fill", [False, True], ids=["bare", "filled"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_nothing_acknowledged_is_lost_whenever_power_fails(
    program: Program, open_wal: Opens, fill: bool
) -> None:
    calls = 0
    call = 1
    while call <= calls or call == 1:
        disk = SimulatedDisk(seed=call)
        if call > 1:
            disk.hook = crash_at(call)
        history = run(program, disk, open_wal, fill=fill)
        calls = calls or disk.calls
        for mode in MODES:
            image = disk.crash(mode)
            history.check(settle(image, open_wal))
        call += 1
    assert calls > 10


@pytest.mark.parametrize("program", [truncations, rotations, snapshots], ids=lambda p: p.__name__)
@pytest.mark.parametrize("every", [9, pytest.param(3, marks=pytest.mark.slow)])
def test_a_crash_during_recovery_loses_nothing_either(
    program: Program, every: int, open_wal: Opens
) -> None:
    reference = SimulatedDisk(seed=0)
    run(program, reference, open_wal, fill=False)
    for call in range(8, reference.calls, every):
        disk = SimulatedDisk(seed=call)
        disk.hook = crash_at(call)
        history = run(program, disk, open_wal, fill=False)
        for mode in ("kept", "any"):
            for second in range(1, 400):
                image = disk.crash(mode)
                image.hook = crash_at(second)
                with suppress(CrashError, LogPoisonedError):
                    owner, _ = recovered(image, open_wal)
                    owner.start()
                    break
                history.check(settle(image.crash("any"), open_wal))
            else:
                raise AssertionError("recovery never finished")
