"""Threads as greenlets, taking turns by a seeded choice on a clock that jumps.

Place: the engine under `virtual_time`; locks, clocks, disks and buckets of a simulation are made
of its `block`, `wake` and `enter_seam`. Promise: equal seeds give equal turns. Invariant: exactly
one thread runs at a time, and it gives way only inside `block` and `give_way`; so whatever a
program does between two seams is one step, for other threads and for crashes.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import os
import random
import traceback
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, NoReturn, Protocol

import greenlet  # type: ignore[import-untyped]

from chronik_store.testing.crash import CrashError

SPIN_STEPS_MAX = 200_000
"""Steps within one instant of virtual time; more is a loop that waits for nothing."""
_KIT = os.path.dirname(__file__)


class SimulationError(AssertionError):
    """A program did under simulation what it must not do. Fails the run even if it is caught."""


class DeadlockError(SimulationError):
    """Nothing can run, and no timer is pending."""


class LockHeldError(SimulationError):
    """A lock was held over a call into a seam: every other thread that needs it waits for I/O."""


class SpinningError(SimulationError):
    """A loop goes round without waiting for anything."""


class OutOfTimeError(SimulationError):
    """The program is not done within its limit of virtual time."""


class ThreadFailedError(SimulationError):
    """An exception left a thread; its cause is that exception."""


class HeldLock(Protocol):
    """What the scheduler needs to know of a lock."""

    @property
    def name(self) -> str: ...
    def abandon(self, task: Task) -> None:
        """Its holder is gone; let others have it."""
        ...


class Incarnation:
    """One life of a machine, from start to crash; the simulation's own never ends."""

    def __init__(self, machine: str, life: int = 1) -> None:
        self.machine = machine
        self.name = f"{machine}.{life}"
        self.is_alive = True
        self.is_paused = False
        self.tasks: dict[int, Task] = {}
        self.held_back: list[Task] = []
        """Threads that could run but for the pause."""


class Task:
    """One thread."""

    def __init__(self, number: int, name: str, owner: Incarnation) -> None:
        self.number = number
        self.name = f"{owner.name}/{name}"
        self.owner = owner
        self.greenlet: greenlet.greenlet
        self.waiting_for = ""
        """What it is blocked on; empty while it runs or could run."""
        self.waiting_at: Incarnation | None = None
        self.wait_number = 0
        """Counts its waits, so that the timer of an old one is told from that of this one."""
        self.was_woken = False
        self.held: list[HeldLock] = []
        self.joiners: list[Task] = []
        self.error: BaseException | None = None
        self.is_main = False
        self.is_over = False
        self.around: tuple[Callable[[], None], Callable[[], None]] | None = None
        """Called before and behind each of its turns: what libraries keep for each real thread."""


class _Timer(NamedTuple):
    when: float
    number: int
    task: Task | None
    wait_number: int
    action: Callable[[], None] | None


_unfinished: dict[Task, None] = {}
"""Every suspended thread. A greenlet that is collected is unwound at that moment, wherever that
may be: an abandoned simulation therefore leaks instead. `close` unwinds in order."""


class Scheduler:
    """See the module. Not thread-safe: one OS thread runs all of it."""

    def __init__(self, seed: int, *, preemption: float, trace_events: int) -> None:
        self.rng = random.Random(f"{seed}/schedule")
        self.preemption = preemption
        self.now = 0.0
        self.steps = 0
        self.at_step: dict[int, Callable[[], None]] = {}
        self.owners: list[Incarnation] = []
        self._ready: list[Task] = []
        self._timers: list[_Timer] = []
        self._numbers = itertools.count(1)
        self._running: Task | None = None
        self._hub: greenlet.greenlet | None = None
        self._defect: SimulationError | None = None
        self._steps_before_now = 0
        self.trace: deque[tuple[float, str, str]] = deque(maxlen=trace_events)
        self.digest = hashlib.blake2b(digest_size=16)

    # ---------------------------------------------------------------------------------- for seams

    @property
    def running(self) -> Task | None:
        """The thread that runs; None outside of `run`, and for actions between two steps."""
        return self._running

    def enter(self, owner: Incarnation) -> Task | None:
        """The running thread as it comes to a seam of `owner`; None outside of `run`."""
        if not owner.is_alive:
            raise CrashError(f"{owner.name} is dead")
        return self._running

    def enter_seam(self, owner: Incarnation, what: str) -> Task | None:
        """The same, where no lock may be held."""
        task = self.enter(owner)
        if task is not None:
            if task.held:
                held = ", ".join(lock.name for lock in task.held)
                self.fail(LockHeldError(f"{task.name} holds {held} over {what}"))
            self.record(what)
        return task

    def block(self, what: str, owner: Incarnation, timeout: float | None = None) -> bool:
        """Suspend the running thread until it is woken (True) or `timeout` seconds passed.

        CrashError if `owner`, whose seam this is, died meanwhile.
        """
        task = self._running
        if task is None or self._hub is None:
            raise RuntimeError(f"only a thread of a running simulation can wait for {what}")
        task.waiting_for = what
        task.waiting_at = owner
        task.was_woken = False
        if timeout is not None:
            when = self.now + max(0.0, timeout)
            timer = _Timer(when, next(self._numbers), task, task.wait_number, None)
            heapq.heappush(self._timers, timer)
        self._hub.switch()
        self.enter(owner)
        return task.was_woken

    def give_way(self, owner: Incarnation) -> None:
        """Put the running thread among those that could run, and let chance pick one."""
        task = self._running
        if task is not None and self._hub is not None:
            self._ready.append(task)
            self._hub.switch()
            self.enter(owner)

    def wake(self, task: Task) -> bool:
        """Make a blocked thread ready; False if it does not wait."""
        if not task.waiting_for:
            return False
        self._make_ready(task)
        task.was_woken = True
        return True

    def start_task(self, owner: Incarnation, target: Callable[[], None], name: str) -> Task:
        """A new thread; it runs when chance picks it."""
        number = next(self._numbers)
        task = Task(number, f"{name}#{number}", owner)
        task.greenlet = greenlet.greenlet(lambda: self._live(task, target), parent=self._hub)
        owner.tasks[number] = task
        _unfinished[task] = None
        self._ready.append(task)
        return task

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` (that waits for nothing) when that much time has passed."""
        timer = _Timer(self.now + seconds, next(self._numbers), None, 0, action)
        heapq.heappush(self._timers, timer)

    def record(self, what: str) -> None:
        """Add an event to the trace."""
        name = self._running.name if self._running is not None else "-"
        self.trace.append((self.now, name, what))
        self.digest.update(f"{self.now!r} {name} {what}\n".encode())

    def fail(self, defect: SimulationError) -> NoReturn:
        """Fail the run, whatever the program does about the exception."""
        self._defect = self._defect or defect
        raise defect

    # ------------------------------------------------------------------------------- for machines

    def end_life(self, owner: Incarnation) -> None:
        """Stop all threads of an incarnation where they are. Does not return to one of them.

        A thread of somebody else that waits in its seams gets a CrashError there.
        """
        running = self._running
        self.record(f"end of {owner.name}")
        owner.is_alive = False
        for task in list(owner.tasks.values()):
            self._bury(task)
        owner.held_back.clear()
        self._ready = [task for task in self._ready if not task.is_over]
        for other in self.owners:
            for task in other.tasks.values():
                if task.waiting_at is owner:
                    self.wake(task)
        if running is not None and running.is_over and self._hub is not None:
            self._hub.switch()

    def resume(self, owner: Incarnation) -> None:
        """End a pause."""
        owner.is_paused = False
        self._ready += owner.held_back
        owner.held_back.clear()

    # ------------------------------------------------------------------------------------- running

    def run(self, owner: Incarnation, main: Callable[[], None], limit_seconds: float) -> None:
        """Run `main` as a thread until it returns, and all other threads beside it."""
        if self._hub is not None:
            raise RuntimeError("a simulation does not run inside itself")
        deadline = self.now + limit_seconds
        self._hub = greenlet.getcurrent()
        task = self.start_task(owner, main, "main")
        task.is_main = True
        try:
            while not task.is_over:
                self._step(deadline)
        finally:
            self._hub = None
            self._running = None
        if self._defect is not None:
            raise self._defect from task.error
        if task.error is not None:
            raise task.error

    def close(self) -> None:
        """Unwind all threads, the dead and the living; their seams refuse. Idempotent."""
        for owner in self.owners:
            owner.is_alive = False
        left = [task for task in _unfinished if task.owner in self.owners]
        for task in left:
            self._bury(task)
        for task in left:
            if task.greenlet:
                before, behind = task.around or (_nothing, _nothing)
                before()
                task.greenlet.throw(greenlet.GreenletExit)
                behind()
            _unfinished.pop(task, None)

    def _step(self, deadline: float) -> None:
        """Run one thread to its next switch, or let time pass to the next timer."""
        if self._defect is not None:
            raise self._defect
        if not self._ready:
            self._pass_time(deadline)
            return
        index = int(self.rng.random() * len(self._ready))
        task = self._ready[index]
        if task.owner.is_paused:
            self._ready.pop(index)
            task.owner.held_back.append(task)
            return
        self.steps += 1
        if self.steps - self._steps_before_now > SPIN_STEPS_MAX:
            raise SpinningError(f"{task.name} or others spin at {self.now} s\n{self.report()}")
        action = self.at_step.pop(self.steps, None)
        if action is not None:
            action()
            if task.is_over or task.owner.is_paused:
                return
            index = self._ready.index(task)
        self._ready[index] = self._ready[-1]
        self._ready.pop()
        self.digest.update(b"%d\n" % task.number)
        self._running = task
        around = task.around
        if around is not None:
            around[0]()
        task.greenlet.switch()
        if task.around is not None:
            task.around[1]()
        self._running = None

    def _pass_time(self, deadline: float) -> None:
        """Jump to the next timer that somebody still waits for, and fire all of that instant."""
        while self._timers:
            when = self._timers[0].when
            if self._is_stale(self._timers[0]):
                heapq.heappop(self._timers)
                continue
            if when > deadline:
                raise OutOfTimeError(f"not done at {deadline} s\n{self.report()}")
            if when > self.now:
                self.now = when
                self._steps_before_now = self.steps
            while self._timers and self._timers[0].when == when:
                self._fire(heapq.heappop(self._timers))
            return
        raise DeadlockError(f"nothing can run at {self.now} s\n{self.report()}")

    def _fire(self, timer: _Timer) -> None:
        if timer.action is not None:
            timer.action()
        elif timer.task is not None and not self._is_stale(timer):
            self._make_ready(timer.task)

    @staticmethod
    def _is_stale(timer: _Timer) -> bool:
        return timer.task is not None and timer.task.wait_number != timer.wait_number

    def _make_ready(self, task: Task) -> None:
        task.wait_number += 1
        task.waiting_for = ""
        task.waiting_at = None
        self._ready.append(task)

    def _live(self, task: Task, target: Callable[[], None]) -> None:
        """The life of a thread, in its own greenlet."""
        try:
            target()
        except BaseException as error:  # noqa: BLE001  (told to whoever joins it or runs it)
            task.error = error
        if task.is_over:
            return  # buried, and unwound by `close`
        self.record("ends" if task.error is None else f"ends by {task.error!r}")
        self._settle(task)
        _unfinished.pop(task, None)
        defect: SimulationError | None = None
        if task.held:
            defect = LockHeldError(f"{task.name} ended and holds {task.held[0].name}")
        elif not (task.error is None or task.is_main or isinstance(task.error, CrashError)):
            defect = ThreadFailedError(f"{task.name}: {task.error!r}")
            defect.__cause__ = task.error
        self._defect = self._defect or defect

    def _bury(self, task: Task) -> None:
        """The thread never runs again. Its greenlet stays where it is, in `_unfinished`."""
        self._settle(task)
        for lock in list(task.held):
            lock.abandon(task)

    def _settle(self, task: Task) -> None:
        task.is_over = True
        task.waiting_for = ""
        task.wait_number += 1
        task.owner.tasks.pop(task.number, None)
        for joiner in task.joiners:
            self.wake(joiner)

    def report(self) -> str:
        """Every thread, what it waits for, and where in the program it does."""
        lines = []
        for owner in self.owners:
            for task in owner.tasks.values():
                lines.append(f"{task.name} {_state(task)}")
                lines += [f"    {place}" for place in _places(task)]
        return "\n".join(lines)


def _nothing() -> None:
    """No library is to be told."""


def _state(task: Task) -> str:
    if task.waiting_for:
        return f"waits for {task.waiting_for}"
    return "is paused" if task.owner.is_paused else "could run"


def _places(task: Task) -> list[str]:
    """The innermost lines of the program, without those of the kit."""
    frame = task.greenlet.gr_frame
    if frame is None:
        return []
    stack = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)
    outside = [at for at in stack if os.path.dirname(at.filename) != _KIT]
    return [f"{at.filename}:{at.lineno} in {at.name}" for at in outside[:4]]
