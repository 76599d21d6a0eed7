"""Code that waits in place, on a loop that must not: a thread of the product as a greenlet.

Place: under `node`, whose pipeline it runs. Promise: while the code waits for a future or for time,
the loop goes on; a crash of its machine ends it where it waits, and no handler of it runs before
`end`. Invariant: one piece of work at a time, and it gives way only inside `wait` and `sleep`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import greenlet  # type: ignore[import-untyped]

from chronik_store.testing.crash import CrashError

T = TypeVar("T")


class Blocking:
    """See the module. is_alive: whether its machine is; on_crash: a call of the work crashed it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        is_alive: Callable[[], bool],
        on_crash: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._is_alive = is_alive
        self._on_crash = on_crash
        self._work: greenlet.greenlet | None = None

    @property
    def is_busy(self) -> bool:
        """Something was started and is not done; for ever, if its machine has died in it."""
        return self._work is not None and not self._work.dead

    def start(self, work: Callable[[], None]) -> None:
        """Run it, beginning in the loop's next turn."""
        assert not self.is_busy, "one piece of work at a time"
        self._work = greenlet.greenlet(lambda: self._run(work))
        self._loop.call_soon(self._go_on)

    def wait(self, future: asyncio.Future[T]) -> T:
        """The future's outcome, from inside the work."""
        if not future.done():
            future.add_done_callback(self._go_on)
            self._give_way()
        return future.result()

    def sleep(self, seconds: float) -> None:
        """Let time pass, from inside the work."""
        self._loop.call_later(seconds, self._go_on)
        self._give_way()

    def end(self) -> None:
        """Its machine is dead and so is its disk: unwind what waits, in order."""
        work, self._work = self._work, None
        if work is not None and work and not work.dead:
            work.throw(CrashError("the machine has died"))

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except CrashError:
            if self._is_alive():
                self._on_crash()

    def _give_way(self) -> None:
        assert greenlet.getcurrent() is self._work, "only the work may wait here"
        self._work.parent.switch()
        if not self._is_alive():
            raise CrashError("the machine has died")

    def _go_on(self, *_: Any) -> None:
        if self._is_alive() and self._work is not None:
            self._work.parent = greenlet.getcurrent()
            self._work.switch()
