"""Random programs on a disk that fails and crashes, against the same history check.

A failed call poisons the WAL; it is reopened at once (page cache and ghosts included) or after a
power cut, and goes on. What is found must lie between what was acknowledged and what was staged,
and what was found and started is acknowledged from then on.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from chronik_store.errors import LogPoisonedError, UnavailableError
from chronik_store.testing.disk_faults import fail_often
from chronik_store.testing.simulated_disk import SimulatedDisk
from tests.store.wal.wal_history import MODES, History, State, recovered

Opens = Callable[..., Any]
FAULTS = {"write_at": 0.02, "sync_data": 0.02, "sync_all": 0.02, "sync_directory": 0.03}
FAULTS |= {"rename": 0.02, "create": 0.02, "remove": 0.05}


def step(history: History, rng: random.Random) -> None:
    """One random operation."""
    wal = history.owner.wal
    number = rng.randrange(1_000_000)
    size = rng.choice((0, 10, 300, 700, 2000))
    choice = rng.random()
    if choice < 0.45:
        history.append(b"%06d" % number * (1 + size // 6))
    elif choice < 0.6:
        for _ in range(rng.randint(1, 5)):
            history.append(bytes(size) + b"%d" % number, lead=False)
        if rng.random() < 0.7:
            history.lead(wal.last_seq)
    elif choice < 0.75 and wal.last_index > wal.commit_mark:
        history.truncate(rng.randint(wal.commit_mark + 1, wal.last_index), lead=rng.random() < 0.5)
    elif choice < 0.85:
        history.vote(history.states[-1].vote[0] + 1, f"n{number % 3}")
    elif choice < 0.93:
        with wal.lock:
            wal.commit_mark = rng.randint(wal.commit_mark, wal.durable.index - 1)
    elif choice < 0.97 and wal.commit_mark == wal.last_index:
        history.prune()
    else:
        wal.rotate()


def torture(seed: int, open_wal: Opens, rounds: int) -> None:
    rng = random.Random(seed)
    disk = SimulatedDisk(seed=seed)
    disk.make_directories("/data/wal")  # A directory whose own name is lost takes all with it.
    allowed, pruned = [State({})], 1
    for _ in range(rounds):
        disk.hook = fail_often(random.Random(rng.random()), FAULTS, errno.EIO)
        history = History(allowed, pruned=pruned)
        with suppress(LogPoisonedError, UnavailableError):
            history.owner, found = recovered(disk, open_wal)
            history.check(found)
            history.owner.start()
            # From here on, what was found is as good as acknowledged.
            history.states, history.acknowledged = [found], 0
            for _ in range(rng.randint(1, 25)):
                step(history, rng)
        allowed, pruned = history.states[history.acknowledged :], history.pruned
        if rng.random() < 0.5:
            disk = disk.kill()
            history.check(recovered(disk, open_wal)[1])
        else:
            disk = disk.crash(rng.choice(MODES))
            _, found = recovered(disk, open_wal)
            history.check(found)
            allowed = [found]


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_with_failing_calls_and_power_cuts(seed: int, open_wal: Opens) -> None:
    torture(seed, open_wal, rounds=12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1120))
def test_more_of_them(seed: int, open_wal: Opens) -> None:
    torture(seed, open_wal, rounds=20)
