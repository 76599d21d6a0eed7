"""Free space: plenty, short, full."""

from __future__ import annotations

import pytest

from chronik_store.disk_guard import THROTTLE_SECONDS, DiskGuard
from chronik_store.errors import DiskFullError, UnavailableError
from chronik_store.fs.base import DiskUsage


class Disk:
    """As much of a file system and a clock as the guard asks."""

    free_bytes = 1000

    def __init__(self) -> None:
        self.slept: list[float] = []

    def usage(self, path: str) -> DiskUsage:
        if self.free_bytes < 0:
            raise OSError(5, "Input/output error", path)
        return DiskUsage(10_000, self.free_bytes)

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def disk() -> Disk:
    return Disk()


def guard_of(disk: Disk) -> DiskGuard:
    return DiskGuard(disk, disk, "/data", reserve_bytes=100, throttle_bytes=300)  # type: ignore[arg-type]


def test_plenty_costs_no_time(disk: Disk) -> None:
    guard_of(disk).admit(10)

    assert [] == disk.slept


def test_a_short_disk_slows_down_and_says_by_how_much_to_who_must_not_sleep(disk: Disk) -> None:
    """An event loop that slept here would keep everybody waiting, votes and beats too."""
    disk.free_bytes = 300
    guard_of(disk).admit(10)
    assert [THROTTLE_SECONDS] == disk.slept

    assert THROTTLE_SECONDS == guard_of(disk).pause_seconds(10)
    assert [THROTTLE_SECONDS] == disk.slept


def test_the_reserve_is_not_given_away(disk: Disk) -> None:
    disk.free_bytes = 109
    guard = guard_of(disk)
    for ask in (guard.admit, guard.pause_seconds):
        with pytest.raises(DiskFullError) as caught:
            ask(10)
        assert ("not_durable", True) == (caught.value.durability, caught.value.retriable)
    assert not guard.has_room(10)
    assert guard.has_room(9)


def test_a_disk_that_does_not_answer_is_not_full(disk: Disk) -> None:
    disk.free_bytes = -1
    with pytest.raises(UnavailableError, match="cannot be asked"):
        guard_of(disk).admit(10)
