"""Callbacks that wait for the disk, in the order of their tickets; and one for when it fails.

Place: under `replica`. Promise: a callback is dispatched once everything up to its ticket is
durable, never before one with a lower ticket, whatever threads they become due in. Invariant: one
thread dispatches at a time, and looks again before it leaves; no lock is held meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from chronik_store.threads import Lock


class Failure:
    """Why nothing becomes durable any more, told once to whoever listens; to one that begins to
    listen later, too: a log can fail while it is opened. `report` is thread-safe, the rest belongs
    to the owner's loop.
    """

    def __init__(self, dispatch: Callable[[Callable[[], None]], None]) -> None:
        self._dispatch = dispatch
        self._error: BaseException | None = None
        self._listener: Callable[[BaseException], None] | None = None

    def report(self, error: BaseException) -> None:
        """It has failed."""
        self._error = error
        self._dispatch(self._tell)

    def listen(self, listener: Callable[[BaseException], None]) -> None:
        """This one is told, instead of another."""
        self._listener = listener
        if self._error is not None:
            self._dispatch(self._tell)

    def _tell(self) -> None:
        if self._listener is not None and self._error is not None:
            error, self._error = self._error, None
            self._listener(error)


class TicketQueue:
    """Thread-safe. `lock` guards what `synced` reads; dispatch hands a call to the owner's loop."""

    def __init__(
        self,
        lock: Lock,
        synced: Callable[[], int],
        dispatch: Callable[[Callable[[], None]], None],
    ) -> None:
        self._lock = lock
        self._synced = synced
        self._dispatch = dispatch
        self._callbacks: deque[tuple[int, Callable[[], None]]] = deque()
        self._dispatching = False

    def wait(self, ticket: int, callback: Callable[[], None]) -> None:
        """Dispatch `callback` when the ticket is due; at once if it is."""
        with self._lock:
            position = len(self._callbacks)
            while position and self._callbacks[position - 1][0] > ticket:
                position -= 1
            self._callbacks.insert(position, (ticket, callback))
            if ticket > self._synced():
                return
        self.dispatch_ready()

    def dispatch_ready(self) -> None:
        """Something became durable: dispatch what is due, unless another thread is at it."""
        mine = False
        while True:
            ready: list[Callable[[], None]] = []
            with self._lock:
                if self._dispatching and not mine:
                    return
                synced = self._synced()
                while self._callbacks and self._callbacks[0][0] <= synced:
                    ready.append(self._callbacks.popleft()[1])
                self._dispatching = mine = bool(ready)
            if not ready:
                return
            self._dispatch(partial(_run_all, ready))  # one wake-up of the loop for all of them


def _run_all(callbacks: Sequence[Callable[[], None]]) -> None:
    for callback in callbacks:
        callback()
