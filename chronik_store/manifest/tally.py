"""Size and age of the open segment, kept beside the log so that no entry is read for it.

Place: part of the folded state. Promise: how many bytes lie behind the last SEAL that took effect,
and since when, also after a truncation. Invariant: it steers when the leader proposes a SEAL,
never what one contains; so a truncation may round: sizes are remembered every `STEP_BYTES`.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter


class SegmentTally:
    """See the module. Guarded by the log's lock, like the state that it is part of."""

    STEP_BYTES = 64 << 10

    def __init__(self) -> None:
        self._total = 0
        self._steps: list[tuple[int, int]] = []
        self._seals: dict[int, int] = {}
        self._sealed_total = 0
        self._oldest: list[tuple[int, int]] = []
        self._fresh = True

    @property
    def open_bytes(self) -> int:
        """Bytes behind the last SEAL that took effect."""
        return self._total - self._sealed_total

    @property
    def seal_waits(self) -> bool:
        """A SEAL was noted and has neither taken effect nor been truncated."""
        return bool(self._seals)

    def add(self, index: int, size_bytes: int, clock_us: int) -> None:
        """A records entry entered the log."""
        self._total += size_bytes
        if not self._steps or self._total - self._steps[-1][1] >= self.STEP_BYTES:
            self._steps.append((index, self._total))
        if self._fresh:
            self._fresh = False
            self._oldest.append((index, clock_us))

    def seal(self, index: int) -> None:
        """A SEAL entered the log (it may still be refused or truncated)."""
        self._seals[index] = self._total
        self._fresh = True

    def sealed(self, index: int) -> None:
        """The SEAL at `index` was committed and accepted."""
        self._sealed_total = self._seals[index]
        self._seals = {each: total for each, total in self._seals.items() if each > index}
        for noted in (self._oldest, self._steps):
            del noted[: bisect_right(noted, index, key=itemgetter(0))]

    def refused(self, index: int) -> None:
        """The SEAL at `index` was a no-op."""
        self._seals.pop(index, None)

    def truncate(self, index: int) -> None:
        """Entries at or above `index` are gone."""
        if self._steps and self._steps[-1][0] >= index:
            while self._steps and self._steps[-1][0] >= index:
                self._steps.pop()
            self._total = self._steps[-1][1] if self._steps else self._sealed_total
        self._seals = {
            each: min(total, self._total) for each, total in self._seals.items() if each < index
        }
        while self._oldest and self._oldest[-1][0] >= index:
            self._oldest.pop()
        last_seal = max(self._seals, default=0)
        self._fresh = not self._oldest or self._oldest[-1][0] <= last_seal

    def open(self, first_index: int) -> tuple[int, int | None]:
        """(bytes, clock of the oldest record) at or above `first_index`."""
        oldest = next((clock for index, clock in self._oldest if index >= first_index), None)
        return max(0, self.open_bytes), oldest
