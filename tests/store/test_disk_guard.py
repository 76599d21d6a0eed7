"""Free space: plenty, short, full."""

from __future__ import annotations

import pytest

from chronik_store.disk_guard import LOOK_EVERY_SECONDS, THROTTLE_SECONDS, DiskGuard
from chronik_store.errors import DiskFullError, UnavailableError
from chronik_store.fs.base import DiskUsage


class Disk:
    """As much of a file system and a clock as the guard asks."""

    free_bytes = 1000

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.now = 0.0
        self.looks = 0

    def usage(self, path: str) -> DiskUsage:
        self.looks += 1
        if self.free_bytes < 0:
            raise OSError(5, "Input/output error", path)
        return DiskUsage(10_000, self.free_bytes)

    def monotonic(self) -> float:
        return self.now

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
    assert guard.has_last_room(59)
    assert not guard.has_last_room(60), "half of the reserve stays whatever comes"


def test_a_disk_that_does_not_answer_is_not_full(disk: Disk) -> None:
    disk.free_bytes = -1
    with pytest.raises(UnavailableError, match="cannot be asked"):
        guard_of(disk).admit(10)


def test_with_plenty_the_disk_is_asked_once_a_second(disk: Disk) -> None:
    disk.free_bytes = 1 << 40
    guard = guard_of(disk)
    for _ in range(1000):
        guard.admit(1000)
    assert 1 == disk.looks
    disk.now += LOOK_EVERY_SECONDS
    guard.admit(1000)
    assert 2 == disk.looks


def test_what_the_log_writes_itself_counts_at_once(disk: Disk) -> None:
    guard = guard_of(disk)
    guard.admit(150)
    guard.admit(150)
    assert 1 == disk.looks
    guard.admit(150)  # a quarter of the room above the throttle is used up
    assert 2 == disk.looks


def test_a_disk_that_somebody_else_fills_is_noticed(disk: Disk) -> None:
    """However much room there was: what counts is the last second, not the last gigabyte."""
    disk.free_bytes = 1 << 40
    guard = guard_of(disk)
    guard.admit(10)
    disk.free_bytes = 109
    disk.now += LOOK_EVERY_SECONDS
    with pytest.raises(DiskFullError):
        guard.admit(10)
    disk.free_bytes = 1 << 40
    guard.admit(10)  # and so is the room that there is again, at once
