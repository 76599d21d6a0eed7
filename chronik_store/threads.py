"""Threads, locks and waits, as injected values (protocol 10).

Place: a low room. Every lock, condition, event and thread of the library comes from a `Threads`
value. In production they are those of `threading`; in the simulator each thread is a greenlet on
virtual time and every wait is a switch point. Promise: no lock handed out here is ever held over
a call into another seam (disk, bucket, clock): the simulator refuses it. Invariant: a wait always
has a way to end: it is woken, times out, or its owner closes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from operator import attrgetter
from types import TracebackType
from typing import Protocol


class Lock(Protocol):
    """Mutual exclusion for short sections without I/O. Not re-entrant."""

    def __enter__(self) -> object: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> object: ...


class Condition(Lock, Protocol):
    """A lock with a wait queue."""

    def wait(self, timeout: float | None = None) -> bool:
        """Release, block until notified or `timeout` seconds passed, take; False on timeout."""
        ...

    def notify(self, n: int = 1) -> None:
        """Wake up to `n` waiters. The lock must be held."""
        ...

    def notify_all(self) -> None:
        """Wake all waiters. The lock must be held."""
        ...


class Event(Protocol):
    """A flag to wait for."""

    def set(self) -> None: ...
    def clear(self) -> None: ...
    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool:
        """True once set; False when `timeout` seconds passed first."""
        ...


class ThreadHandle(Protocol):
    """A started thread."""

    def join(self, timeout: float | None = None) -> None: ...
    def is_alive(self) -> bool: ...


class Threads(Protocol):
    """The factory of threads and of everything that threads wait on. Thread-safe."""

    def lock(self) -> Lock: ...
    def condition(self) -> Condition: ...
    def event(self) -> Event: ...
    def spawn(self, target: Callable[[], None], *, name: str) -> ThreadHandle:
        """Start a daemon thread. An exception that leaves `target` is the caller's defect."""
        ...


class _Condition(threading.Condition):
    """A condition that is taken and given back in one step each, which Ctrl-C cannot part.

    `threading.Condition` does both in Python code: an interrupt in there comes behind the lock and
    in front of whoever would give it back, and all that need it hang from then on. The methods of
    the lock itself are not interrupted; `with` looks both up before it calls the first.
    """

    def __init__(self) -> None:
        self._mutex = threading.RLock()
        super().__init__(self._mutex)

    __enter__ = property(attrgetter("_mutex.__enter__"))
    __exit__ = property(attrgetter("_mutex.__exit__"))

    def wait(self, timeout: float | None = None) -> bool:
        """As `threading` has it. Whoever leaves it has the lock, also by an interrupt that comes
        when it has just been given back: else the end of `with` makes a RuntimeError of Ctrl-C.
        """
        try:
            return super().wait(timeout)
        except Exception:
            raise
        except BaseException:
            if not self._is_owned():  # type: ignore[attr-defined]
                self._mutex.acquire()
            raise


class _Event(threading.Event):
    """An event over such a condition."""

    def __init__(self) -> None:
        super().__init__()
        self._cond = _Condition()


class SystemThreads:
    """`threading`, as it is, but for what Ctrl-C could leave locked."""

    lock = staticmethod(threading.Lock)
    condition = staticmethod(_Condition)
    event = staticmethod(_Event)

    @staticmethod
    def spawn(target: Callable[[], None], *, name: str) -> threading.Thread:
        """Start a daemon thread, so that a forgotten log never keeps the process alive."""
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread
