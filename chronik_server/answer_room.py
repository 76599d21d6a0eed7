"""How much of answers a server holds: those being read, and those that nobody has taken yet.

Place: between `session` and `partition_reads`. Promise: no connection, and not all of them
together, makes the server hold more records, status and lists than its limits say, however many
small requests it sends and however slowly it takes the answers; of what is no fetch it is known
afterwards only how much it is, so some of those may be more; a fetch that waits for records holds
nothing, or what nobody else waits for; nobody of a connection is overtaken by what it asks later.
Invariant: whoever holds nothing may always read once, so nobody waits for itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable


class AnswerBudget:
    """Of all connections of one server. Belongs to the event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.waiting: deque[tuple[asyncio.Future[None], Room, int]] = deque()
        self.patient: set[asyncio.Timeout] = set()
        """The waits of answers that hold a part and are to have more."""

    def ask_for_room(self) -> None:
        """Somebody waits for it: those answers go as they are."""
        while self.patient:
            self.patient.pop().reschedule(0)

    def look(self) -> None:
        """Something was given back: let those go on for whom there is room now, of each connection
        in order: a long answer would wait for as long as short ones follow each other.
        """
        left: deque[tuple[asyncio.Future[None], Room, int]] = deque()
        full: set[Room] = set()
        while self.waiting:
            waiter, room, size = self.waiting.popleft()
            if waiter.done():
                continue
            if room not in full and room.has_room(size):
                room.hold(size)
                room.waiters -= 1
                waiter.set_result(None)
            else:
                full.add(room)
                left.append((waiter, room, size))
        self.waiting = left


class Room:
    """Of one connection. backlog: bytes that wait to be sent; 0 while what there is goes out."""

    def __init__(self, budget: AnswerBudget, limit: int, backlog: Callable[[], int]) -> None:
        self.charged = 0
        self.waiters = 0
        """Answers that wait for room here."""
        self._budget = budget
        self._limit = limit
        self._backlog = backlog
        self._held = 0

    def has_room(self, size: int) -> bool:
        """For an answer of this size, here and in the whole server."""
        self.update()
        others = self._budget.used - self.charged
        return (not self.charged or self.charged + size <= self._limit) and (
            not (self.charged or others) or self._budget.used + size <= self._budget.limit
        )

    def hold(self, size: int) -> None:
        """Count what is about to be read."""
        self._held += size
        self.update()

    async def wait(self, size: int) -> None:
        """Hold that much as soon as there is room."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._budget.waiting.append((waiter, self, size))
        self.waiters += 1
        self._budget.ask_for_room()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.give_back(size)  # it was given just now
            else:
                self.waiters -= 1
                self._budget.look()  # others may have waited behind this one alone
            raise

    async def linger(self, more: Callable[[], Awaitable[None]]) -> bool:
        """Wait and hold what is held; False as soon as somebody waits for room."""
        patient = self._budget.patient
        if self._budget.waiting:
            return False
        try:
            async with asyncio.timeout(None) as wait:
                patient.add(wait)
                try:
                    await more()
                finally:
                    patient.discard(wait)
        except TimeoutError:
            return False
        return True

    def give_back(self, size: int) -> None:
        """It is not there, or waits to be sent and is counted there."""
        self._held -= size
        self.moved()

    def moved(self) -> None:
        """What waits to be sent is less, or more."""
        before = self.charged
        self.update()
        if self.charged < before and self._budget.waiting:
            self._budget.look()

    def update(self) -> None:
        """Look at what waits to be sent."""
        charged = self._held + self._backlog()
        self._budget.used += charged - self.charged
        self.charged = charged

    def end(self) -> None:
        """The connection is gone, and what waited with it."""
        self._backlog = _nothing
        self.moved()


class Share:
    """Of one answer: what is held for it until it is on its way."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held = 0

    async def take(self, size: int, *, more: bool) -> bool:
        """Before so much is read; waits for room. False: for more of an answer that has a part
        there is none now, and waiting would be for that part.
        """
        if not self._room.waiters and self._room.has_room(size):
            self._room.hold(size)
        elif more:
            return False
        else:
            await self._room.wait(size)
        self._held += size
        return True

    def keep(self, size: int) -> None:
        """So much of it is there."""
        self._room.give_back(self._held - size)
        self._held = size

    async def wait(self, more: Callable[[], Awaitable[None]]) -> bool:
        """Until there is more to read. False: what is held meanwhile, others wait for."""
        if self._held:
            return await self._room.linger(more)
        await more()
        return True

    def close(self) -> None:
        """The answer waits to be sent, or there is none."""
        self.keep(0)


def _nothing() -> int:
    return 0
