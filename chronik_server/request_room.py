"""How much of requests a server holds: those that are being read, and those not answered yet.

Place: beside `answer_room`, under `session`. Promise: no connection makes the server hold more than
its limit says, and all together no more than twice theirs, but for what one read of each brings.
Over the limit of all, whoever holds less than an equal share of it is read from as before; of the
others who has something unanswered is not, and of those who have only begun a frame the one that
came first may finish it. Invariant: whoever is not read from waits for an answer, or for somebody
who is read from, so nobody waits for ever; nodes are always read from: appends wait for what they
say.
"""

from __future__ import annotations

from collections.abc import Callable


class RequestBudget:
    """Of all connections of one server. Belongs to the event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.connections = 0
        self._stopped: dict[Requests, None] = {}
        """Those that are not read from because of the others."""
        self._begun: dict[Requests, None] = {}
        """Those of them that have begun a frame, and nothing else: the first may finish it."""

    def admits(self, one: Requests) -> bool:
        """Whether more may be read from a connection."""
        if self.used <= self.limit and not self._stopped:
            return True  # as always, but when there is a flood
        is_little = one.held * self.connections < self.limit
        if one.is_exempt or self.used <= self.limit or is_little:
            self._stopped.pop(one, None)
            self.pass_on(one)
            return True
        self._stopped[one] = None
        if not one.in_flight:
            self._begun[one] = None
        return next(iter(self._begun), None) is one

    def take(self, size: int) -> None:
        """So much more is held; or, below zero, so much less."""
        self.used += size
        if size < 0 and self._stopped and self.used <= self.limit:
            stopped, self._stopped, self._begun = self._stopped, {}, {}
            for each in stopped:
                each.steer()

    def pass_on(self, one: Requests) -> None:
        """It has finished its frame, or is gone: the next may."""
        if one in self._begun:
            del self._begun[one]
            for first in self._begun:
                first.steer()
                break


class Requests:
    """Of one connection. steer: reads on, or no more, by what `may_read` says."""

    def __init__(self, budget: RequestBudget, limit: int, steer: Callable[[], None]) -> None:
        self.in_flight = 0
        """Bytes of those that are whole, and not answered."""
        self.arriving = 0
        """Bytes of a long one that is not whole yet."""
        self.steer = steer
        self.is_exempt = False
        self._budget = budget
        self._limit = limit
        budget.connections += 1

    @property
    def held(self) -> int:
        """Bytes."""
        return self.in_flight + self.arriving

    def may_read(self) -> bool:
        """Little enough is held, here and in the whole server."""
        return self.in_flight <= self._limit and self._budget.admits(self)

    def arrived(self, size: int) -> None:
        """So much of one that is not whole is there."""
        more, self.arriving = size - self.arriving, size
        self._budget.take(more)

    def begin(self, size: int) -> None:
        """One is whole."""
        self.in_flight += size
        self._budget.take(size)
        self._budget.pass_on(self)

    def end(self, size: int) -> None:
        """One is answered."""
        self.in_flight -= size
        self._budget.take(-size)

    def leave(self) -> None:
        """The connection is gone; what goes on without it is still held."""
        self.is_exempt = True
        self._budget.connections -= 1
        self.arrived(0)
        self._budget.admits(self)
        self.steer = _nothing  # which held what is left of the connection


def _nothing() -> None:
    """There is no connection any more."""
