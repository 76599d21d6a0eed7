"""Files on a simulated disk, and what a crash may leave of them."""

from __future__ import annotations

import random

from chronik_store.testing.crash import CrashMode
from chronik_store.testing.simulated_disk import SimulatedDisk


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
