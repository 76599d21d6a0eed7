"""Many threads append, files rotate, the filler runs, and the power fails at a random call."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from chronik_store.errors import LogPoisonedError, UnavailableError
from chronik_store.testing.disk_faults import crash_at
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk

Opens = Callable[..., Any]
SETTINGS = {"file_bytes": 16_384, "group_bytes": 6000, "fill_bytes_min": 4096}


@pytest.mark.parametrize("seed", range(30))
def test_what_any_thread_was_told_is_there_after_a_power_cut(seed: int, open_wal: Opens) -> None:
    rng = random.Random(seed)
    disk = SimulatedDisk(seed=seed)
    owner = open_wal(disk, settings=SETTINGS | {"fill_bytes_max": 8192}, tail_bytes=20_000)
    disk.hook = crash_at(disk.calls + rng.randint(1, 150))
    acknowledged: dict[int, bytes] = {}

    def appends(name: int) -> None:
        mine = random.Random(name)
        with suppress(CrashError, LogPoisonedError):
            for number in range(60):
                data = b"%d-%d" % (name, number) * mine.choice((1, 30, 200))
                if mine.random() < 0.2:
                    owner.stage(data)
                    owner.services.committer.notify(owner.wal)
                else:
                    acknowledged[owner.append(data)] = data
                if mine.random() < 0.05:
                    with suppress(UnavailableError):
                        owner.wal.remove_files(owner.wal.files()[-1].seq - 1)

    threads = [
        threading.Thread(target=appends, args=(1000 * seed + n,), daemon=True) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()

    again = open_wal(disk.crash(rng.choice(("lost", "kept", "torn", "any"))))
    found = again.live()
    first = again.wal.first_index
    assert first <= owner.wal.first_index
    assert list(found) == list(range(first, first + len(found)))
    told = {index: data for index, data in acknowledged.items() if index >= first}
    assert told.items() <= found.items()
