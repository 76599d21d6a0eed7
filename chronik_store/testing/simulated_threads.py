"""Clock, chance, threads, locks and waits of a simulated machine.

Place: implementations of `clock` and `threads` on a `Scheduler`. Promise: what Python's own do, and
nothing more: a lock may be taken by whoever comes first, not by whoever waited longest; `notify`
wakes any waiter. Invariant: each belongs to one incarnation of a machine; once that is dead they
refuse, so that nothing that is unwound reaches anything.

Checked, and a failed run: a lock held over a seam call, taken twice by its holder, released by
another, or left behind by a thread that ends.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

from chronik_store.testing.scheduler import (
    Incarnation,
    LockHeldError,
    Scheduler,
    SimulationError,
    Task,
)

EPOCH_US = 1_700_000_000_000_000
"""The wall clock of every machine at the start of a simulation, before its skew."""


class SimulatedClock:
    """Virtual time, as one machine sees it."""

    def __init__(self, scheduler: Scheduler, owner: Incarnation) -> None:
        self._scheduler = scheduler
        self._owner = owner
        self.skew_seconds = 0.0
        """How far the wall clock is ahead; may be changed at any time, either way."""

    def monotonic(self) -> float:
        return self._scheduler.now

    def time_us(self) -> int:
        return EPOCH_US + round((self._scheduler.now + self.skew_seconds) * 1e6)

    def sleep(self, seconds: float) -> None:
        if self._scheduler.enter_seam(self._owner, "sleep") is not None:
            self._scheduler.block(f"{seconds} s to pass", self._owner, seconds)


class SimulatedEntropy:
    """Chance from a seed."""

    def __init__(self, seed: str) -> None:
        self._rng = random.Random(seed)

    def token_bytes(self, count: int) -> bytes:
        return self._rng.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._rng.uniform(low, high)


class SimulatedLock:
    """Mutual exclusion. Taking it is a place where chance may let others go first."""

    def __init__(self, scheduler: Scheduler, owner: Incarnation, name: str) -> None:
        self._scheduler = scheduler
        self._owner = owner
        self.name = name
        self._holder: Task | None = None
        self._waiters: list[Task] = []

    def __enter__(self) -> Self:
        scheduler = self._scheduler
        task = scheduler.enter(self._owner)
        if task is not None:
            if self._holder is task:
                scheduler.fail(SimulationError(f"{task.name} takes {self.name} twice"))
            if scheduler.rng.random() < scheduler.preemption:
                scheduler.give_way(self._owner)
            self.take(task)
        elif self._holder is not None:
            raise SimulationError(f"{self.name} is held by {self._holder.name}, which stands still")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._owner.is_alive:
            return
        task = self._scheduler.enter(self._owner)
        if task is not None:
            if self._holder is not task:
                self._scheduler.fail(SimulationError(f"{task.name} does not hold {self.name}"))
            self.give_up(task)

    def is_held_by(self, task: Task) -> bool:
        return self._holder is task

    def take(self, task: Task) -> None:
        """Wait until it is free, and have it."""
        while self._holder is not None:
            self._waiters.append(task)
            try:
                self._scheduler.block(f"{self.name}, held by {self._holder.name}", self._owner)
            finally:
                if task in self._waiters:
                    self._waiters.remove(task)
        self._holder = task
        task.held.append(self)

    def give_up(self, task: Task) -> None:
        """Free it, and tell one of those that wait; another may still be faster."""
        self._holder = None
        task.held.remove(self)
        wake_some(self._scheduler, self._waiters, 1)

    def abandon(self, task: Task) -> None:
        """Its holder is gone. Matters to other machines' threads only, if they share memory."""
        self.give_up(task)


class SimulatedCondition:
    """A lock with a wait queue."""

    def __init__(self, scheduler: Scheduler, owner: Incarnation, name: str) -> None:
        self._scheduler = scheduler
        self._owner = owner
        self._lock = SimulatedLock(scheduler, owner, name)
        self._waiters: list[Task] = []

    def __enter__(self) -> Self:
        self._lock.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.__exit__(kind, error, trace)

    def wait(self, timeout: float | None = None) -> bool:
        """Release, block until notified or `timeout` seconds passed, take again."""
        task = self._check_held("wait for")
        if task is None:
            raise RuntimeError("only a thread of a running simulation can wait")
        others = [lock.name for lock in task.held if lock is not self._lock]
        if others:
            held = ", ".join(others)
            self._scheduler.fail(
                LockHeldError(f"{task.name} holds {held} over a wait for {self._lock.name}")
            )
        self._lock.give_up(task)
        self._waiters.append(task)
        try:
            woken = self._scheduler.block(f"{self._lock.name} to be notified", self._owner, timeout)
        finally:
            if task in self._waiters:
                self._waiters.remove(task)
        self._lock.take(task)
        return woken

    def notify(self, n: int = 1) -> None:
        """Wake up to `n` waiters, any of them."""
        self._check_held("notify")
        wake_some(self._scheduler, self._waiters, n)

    def notify_all(self) -> None:
        self.notify(len(self._waiters))

    def _check_held(self, verb: str) -> Task | None:
        task = self._scheduler.enter(self._owner)
        if task is not None and not self._lock.is_held_by(task):
            self._scheduler.fail(
                SimulationError(f"{task.name} does not hold {self._lock.name} to {verb} it")
            )
        return task


class SimulatedEvent:
    """A flag to wait for."""

    def __init__(self, scheduler: Scheduler, owner: Incarnation, name: str) -> None:
        self._scheduler = scheduler
        self._owner = owner
        self._name = name
        self._is_set = False
        self._waiters: list[Task] = []

    def set(self) -> None:
        self._scheduler.enter(self._owner)
        self._is_set = True
        wake_some(self._scheduler, self._waiters, len(self._waiters))

    def clear(self) -> None:
        self._scheduler.enter(self._owner)
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """True once set; False when `timeout` seconds passed first."""
        task = self._scheduler.enter_seam(self._owner, f"wait for {self._name}")
        if task is None or self._is_set:
            return self._is_set
        self._waiters.append(task)
        try:
            woken = self._scheduler.block(self._name, self._owner, timeout)
        finally:
            if task in self._waiters:
                self._waiters.remove(task)
        return woken or self._is_set


class SimulatedThread:
    """A started thread."""

    def __init__(self, scheduler: Scheduler, task: Task) -> None:
        self._scheduler = scheduler
        self._task = task

    @property
    def name(self) -> str:
        return self._task.name

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or died with its machine. Any thread may join any other."""
        waiter = self._scheduler.running
        if waiter is not None:
            self._scheduler.enter_seam(waiter.owner, f"join {self.name}")
            if not self._task.is_over:
                self._task.joiners.append(waiter)
                self._scheduler.block(f"{self.name} to end", waiter.owner, timeout)

    def is_alive(self) -> bool:
        return not self._task.is_over

    @property
    def error(self) -> BaseException | None:
        """What ended it; a CrashError only if it used a machine that was not its own."""
        return self._task.error


class SimulatedThreads:
    """The factory of all of these, for one incarnation."""

    def __init__(self, scheduler: Scheduler, owner: Incarnation) -> None:
        self._scheduler = scheduler
        self._owner = owner
        self._made = 0

    def lock(self) -> SimulatedLock:
        return SimulatedLock(self._scheduler, self._owner, self._name("lock"))

    def condition(self) -> SimulatedCondition:
        return SimulatedCondition(self._scheduler, self._owner, self._name("condition"))

    def event(self) -> SimulatedEvent:
        return SimulatedEvent(self._scheduler, self._owner, self._name("event"))

    def spawn(self, target: Callable[[], None], *, name: str) -> SimulatedThread:
        """Start a thread. An exception that leaves `target` fails the run."""
        self._scheduler.enter_seam(self._owner, f"spawn {name}")
        task = self._scheduler.start_task(self._owner, target, name)
        return SimulatedThread(self._scheduler, task)

    def _name(self, kind: str) -> str:
        """A name that says where it was made; there is nothing else to tell locks apart by."""
        self._made += 1
        caller = sys._getframe(2)  # noqa: SLF001
        place = f"{os.path.basename(caller.f_code.co_filename)}:{caller.f_lineno}"
        return f"{kind} {self._made} of {self._owner.name} (made at {place})"


def wake_some(scheduler: Scheduler, waiters: list[Task], count: int) -> None:
    """Wake up to `count` of them, by chance, and take them (and those long gone) off the list."""
    while count > 0 and waiters:
        index = int(scheduler.rng.random() * len(waiters))
        if scheduler.wake(waiters.pop(index)):
            count -= 1
