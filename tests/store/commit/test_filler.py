"""Zeros are written ahead, but never into the room that appends need."""

from __future__ import annotations

import pytest

from chronik_store.commit.filler import write_zeros
from chronik_store.testing.simulated_disk import SimulatedDisk


def test_no_zeros_are_written_into_the_room_that_is_kept():
    disk = SimulatedDisk(seed=0, capacity_bytes=1 << 20)
    disk.create("/f").close()
    with pytest.raises(OSError, match="kept for appends"):
        write_zeros(disk, "/f", 0, 1 << 19, keep_free_bytes=3 << 18)
    assert b"" == disk.peek("/f")
    write_zeros(disk, "/f", 0, 1 << 18, keep_free_bytes=3 << 18)
    assert bytes(1 << 18) == disk.peek("/f")
