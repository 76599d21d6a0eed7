"""A jump forward is believed late, a jump back at once."""

from __future__ import annotations

from typing import Any

from chronik_store.pipeline import SteadyTime

HOUR_US = 3_600_000_000


def test_ordinary_time_is_the_wall_clock(kit: Any) -> None:
    clock = kit.ManualClock()
    steady = SteadyTime(clock)
    for _ in range(100):
        clock.advance(30.5)
        clock.wall_us += 1000
        assert steady.now_us() == clock.time_us()


def test_a_jump_forward_counts_after_it_has_stood_for_an_hour(kit: Any) -> None:
    clock = kit.ManualClock()
    steady = SteadyTime(clock)
    clock.wall_us += 48 * HOUR_US
    assert steady.now_us() == kit.START_US
    clock.advance(1800)
    assert steady.now_us() == kit.START_US + HOUR_US // 2
    clock.advance(1801)
    assert steady.now_us() == clock.time_us()


def test_a_jump_that_is_taken_back_never_counted(kit: Any) -> None:
    clock = kit.ManualClock()
    steady = SteadyTime(clock)
    clock.wall_us += 48 * HOUR_US
    steady.now_us()
    clock.advance(3000)
    clock.wall_us -= 48 * HOUR_US
    assert steady.now_us() == clock.time_us()
    clock.wall_us += 48 * HOUR_US
    clock.advance(700)
    assert steady.now_us() < clock.time_us()


def test_a_jump_back_counts_at_once_and_it_never_runs_ahead_of_the_clock(kit: Any) -> None:
    clock = kit.ManualClock()
    steady = SteadyTime(clock)
    clock.wall_us -= 5 * HOUR_US
    assert steady.now_us() == clock.time_us()
    for leap in (3, -1, 7, -9, 2):
        clock.wall_us += leap * HOUR_US
        clock.advance(100)
        assert steady.now_us() <= clock.time_us()
