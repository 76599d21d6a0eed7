"""A simulated disk with a directory, for the tests of the disk itself."""

from __future__ import annotations

import pytest

from chronik_store.testing.simulated_disk import SimulatedDisk


@pytest.fixture
def disk() -> SimulatedDisk:
    disk = SimulatedDisk(seed=1)
    disk.make_directories("/d")
    return disk
