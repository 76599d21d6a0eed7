"""An asyncio loop on virtual time: it never sleeps, and equal programs run equally.

Place: the bottom of the server's test kit. Promise: time passes only while everything waits, and at
once. Invariant: no socket, no thread, no clock of the machine has a say in what runs next.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class _NoWaiting(selectors.SelectSelector):
    """Instead of waiting for sockets, time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: Callable[[float], None] = lambda _seconds: None
        self.turns = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits and nothing is scheduled")
        self.turns += 1
        self.passed(max(0.0, timeout))
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual. Callbacks from threads are not supported: there are none."""

    def __init__(self) -> None:
        selector = _NoWaiting()
        self._waiting = selector
        self._now = 0.0
        super().__init__(selector)
        selector.passed = self._pass
        self.errors: list[str] = []
        self.set_exception_handler(self._note)

    @property
    def steps(self) -> int:
        """How often it has looked for what is due."""
        return self._waiting.turns

    def time(self) -> float:
        """Seconds since it was made."""
        return self._now

    def _pass(self, seconds: float) -> None:
        self._now += seconds

    def call_soon_threadsafe(  # type: ignore[override] # typeshed names its type variables
        self, callback: Any, *args: Any, context: Any = None
    ) -> Any:
        """There are no other threads."""
        return self.call_soon(callback, *args, context=context)

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.errors.append(repr(error) if error is not None else str(context["message"]))

    def run_for(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.run_until_complete(asyncio.sleep(seconds))

    def settle(self) -> None:
        """Run what is due now, and nothing later."""
        for _ in range(50):
            self.run_until_complete(asyncio.sleep(0))
