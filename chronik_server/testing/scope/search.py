"""All schedules of a group that depart from the plain one at most so many times.

Place: the top of the scope. Promise: each situation is gone on from once, with the most departures
that were left in it; a schedule that violates something is told as words that `play` plays again.
Invariant: depth first, in the order of the words: equal bounds, equal search.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chronik_server.testing.scope.moves import STEPS_MAX, Group, Situation, Violation

Departures = tuple[tuple[int, str], ...]
"""(step, word): at this step that happens, and not what would by default."""


@dataclass
class Found:
    """What came of a search."""

    schedules: int = 0
    """Played to their end, and healed."""
    merged: int = 0
    """Given up in a situation that was met before: they end as others do."""
    situations: int = 0
    steps: int = 0
    is_complete: bool = True
    """The time was enough."""
    violations: list[tuple[str, str]] = field(default_factory=list)
    """(schedule, what is wrong)."""


def play(group: Group, schedule: str, note: Callable[[str], None] = lambda _line: None) -> None:
    """A schedule, as a search tells it. Violation, if it shows one."""
    words = dict(each.split(" ", 1) for each in schedule.split(", ") if each[:1].isdigit())
    now = group.begin()
    for step in range(STEPS_MAX):
        if group.is_over(now):
            group.heal(now)
            return
        word = words.get(str(step), "")
        note(f"{step} {word or 'default'}: {group.describe(now)}")
        now = group.instead(now, word) if word else group.default(now)
    raise Violation("liveness: messages without end")


def search(group: Group, departures: int, **bounds: Any) -> Found:
    """At most so many departures; bounds: those of `Search`."""
    return Search(group, **bounds).run(departures)


class Search:
    """See the module.

    limits: how often each kind of departure may be used, those that are not named not at all; None:
    all of them, freely. since: nothing departs before so much of the script has begun. seconds:
    give up after so long.
    """

    def __init__(
        self,
        group: Group,
        *,
        limits: Mapping[str, int] | None = None,
        since: int = 0,
        violations_max: int = 1,
        seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._group, self._limits, self._since = group, limits, since
        self._violations_max = violations_max
        self._clock, self._seconds = clock, seconds
        self._found = Found()
        self._met: dict[Any, int] = {}
        self._healed: set[tuple[int, ...]] = set()
        self._stack: list[tuple[Situation, int, Departures, int]] = []

    def run(self, departures: int) -> Found:
        """Until nothing is left to go on from."""
        found, group = self._found, self._group
        ends = None if self._seconds is None else self._clock() + self._seconds
        self._visit(group.begin(), departures, (), 0)
        while self._stack and len(found.violations) < self._violations_max:
            if ends is not None and self._clock() > ends:
                found.is_complete = False
                break
            situation, left, path, step = self._stack.pop()
            if group.is_over(situation):
                self._end(situation, path)
                continue
            if left and situation.at >= self._since:
                for word in group.words(situation):
                    if self._may(word, path):
                        self._go(situation, word, left - 1, (*path, (step, word)), step)
            self._go(situation, "", left, path, step)
        found.situations = len(self._met)
        return found

    def _may(self, word: str, path: Departures) -> bool:
        if self._limits is None:
            return True
        kind = word.split(maxsplit=1)[0]
        return sum(each.split()[0] == kind for _, each in path) < self._limits.get(kind, 0)

    def _go(self, now: Situation, word: str, left: int, path: Departures, step: int) -> None:
        group, found = self._group, self._found
        found.steps += 1
        try:
            after = group.instead(now, word) if word else group.default(now)
            if step >= STEPS_MAX:
                raise Violation("liveness: messages without end")
        except Violation as error:
            found.violations.append((written(path), str(error)))
        else:
            self._visit(after, left, path, step + 1)

    def _visit(self, now: Situation, left: int, path: Departures, step: int) -> None:
        used = tuple(sorted(word.split()[0] for _, word in path)) if self._limits else None
        if self._met.get((now, used), -1) >= left:
            self._found.merged += 1
            return
        self._met[now, used] = left
        self._stack.append((now, left, path, step))

    def _end(self, now: Situation, path: Departures) -> None:
        self._found.schedules += 1
        if now.nodes in self._healed:
            return
        self._healed.add(now.nodes)
        try:
            self._group.heal(now)
        except Violation as error:
            self._found.violations.append((written(path), str(error)))


def written(departures: Departures) -> str:
    """As `play` reads it."""
    return ", ".join(f"{step} {word}" for step, word in departures) or "nothing departs"
