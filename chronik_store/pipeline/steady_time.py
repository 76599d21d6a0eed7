"""Wall-clock time for decisions that must not follow every jump of the clock.

Place: used by the stages that compare a stamp in the log with "now": age sealing, retention,
collection. Promise: a jump forward is believed only after it has stood for `SETTLE_SECONDS`; a
jump back is believed at once. So a clock that leaps by hours deletes nothing early; it only makes
what waits for an age wait longer. Invariant: `now_us` never runs ahead of the wall clock.

What it cannot know is whether the clock was right when the process started; the first reading is
taken as it is.
"""

from __future__ import annotations

from chronik_store.clock import Clock

SETTLE_SECONDS = 3600.0
"""How long a jump forward must stand before it is believed."""
TOLERANCE_US = 60_000_000
"""Drift and steps up to this are ordinary clock discipline, not a jump."""


class SteadyTime:
    """The wall clock, with jumps forward held back.

    Thread-safe without a lock: the state is one tuple behind one attribute, and whichever of two
    readings at the same moment is kept, it is a right one.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._state: tuple[float, int, float | None] = (clock.monotonic(), clock.time_us(), None)

    def now_us(self) -> int:
        """Microseconds since 1970 UTC, never ahead of the wall clock."""
        monotonic, wall_us = self._clock.monotonic(), self._clock.time_us()
        anchor_monotonic, anchor_us, ahead_since = self._state
        expected_us = anchor_us + int((monotonic - anchor_monotonic) * 1e6)
        if wall_us <= expected_us + TOLERANCE_US:
            self._state = (monotonic, wall_us, None)
            return wall_us
        if ahead_since is None:
            ahead_since = monotonic
        if monotonic - ahead_since >= SETTLE_SECONDS:
            self._state = (monotonic, wall_us, None)
            return wall_us
        self._state = (anchor_monotonic, anchor_us, ahead_since)
        return expected_us
