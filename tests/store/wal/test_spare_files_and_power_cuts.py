"""Files that are filled or reserved ahead, under random appends, failures and power cuts."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from chronik_store.errors import ChronikError
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk
from chronik_store.wal import active_file

Opens = Callable[..., Any]
SETTINGS = {"fill_bytes_min": 4096, "fill_bytes_max": 16384, "file_bytes": 1 << 16}


class Fate:
    """What befalls the disk: a power cut at one call, no room for what is done ahead."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.left = rng.randrange(30, 900)
        self.full = rng.random() * 0.2
        self.reserved = 0

    def __call__(self, _number: int, operation: str, path: str) -> None:
        self.reserved += operation == "reserve"
        self.left -= 1
        if self.left <= 0:
            raise CrashError(f"{operation} {path}")
        ahead = operation in {"reserve", "create"} and path.endswith("spare.tmp")
        if ahead and self.rng.random() < self.full:
            raise OSError(errno.ENOSPC, "full", path)


def live_until_the_power_goes(owner: Any, fate: Fate, acked: dict[int, bytes]) -> None:
    """Groups of all sizes, in spells of large and of small ones; the filler beside them."""
    rng, large = fate.rng, True
    with suppress(CrashError, ChronikError):
        for _ in range(400):
            if rng.random() < 0.05:
                large = not large
            size = rng.randrange(2000, 9000) if large else rng.randrange(1, 300)
            value = bytes([rng.randrange(256)]) * size
            before = owner.wal.last_index
            owner.append(value)
            acked[before + 1] = value
            if rng.random() < 0.5:
                owner.wal._active.fill()
            if rng.random() < 0.02:
                owner.wal.rotate()


@pytest.mark.parametrize("seed", range(12))
def test_what_was_acknowledged_is_there_and_no_cut_is_taken_for_damage(
    seed: int, open_wal: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(active_file, "_LARGE_GROUP_BYTES", 1500)
    rng = random.Random(seed)
    disk = SimulatedDisk(seed=seed)
    acked: dict[int, bytes] = {}
    reserved = 0
    for _ in range(4):
        owner = open_wal(disk, settings=SETTINGS)
        owner.services.filler.close()
        assert owner.wal.recovery.verdict in {"clean", "torn"}, owner.wal.recovery.findings
        found = owner.live()
        assert acked.items() <= found.items()
        acked = dict(found)
        fate = Fate(rng)
        disk.hook = fate
        live_until_the_power_goes(owner, fate, acked)
        reserved += fate.reserved
        disk = disk.crash(rng.choice(["lost", "kept", "torn", "any"]))
    assert acked.items() <= open_wal(disk).live().items()
    assert reserved, "no large group met a spare file: nothing was tried"


def test_the_filler_stays_behind_a_group_that_is_being_written(
    disk: SimulatedDisk, open_wal: Opens
) -> None:
    """The group has outrun the zeros: what it has written must not become zeros again."""
    owner = open_wal(disk, settings=SETTINGS)
    owner.services.filler.close()
    owner.append(b"first")
    writing, go_on = threading.Event(), threading.Event()

    def hold_the_group(_number: int, operation: str, _path: str) -> None:
        if operation == "sync_data" and not writing.is_set():
            writing.set()
            assert go_on.wait(20)

    disk.hook = hold_the_group
    large = threading.Thread(target=lambda: owner.append(b"z" * 20_000), daemon=True)
    large.start()
    assert writing.wait(5)
    for _ in range(3):
        owner.wal._active.fill()
    go_on.set()
    large.join(10)
    assert not large.is_alive()
    owner.append(b"behind it")

    again = open_wal(disk.crash("lost"))
    assert again.live() == {1: b"first", 2: b"z" * 20_000, 3: b"behind it"}
