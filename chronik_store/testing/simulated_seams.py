"""What happens around each disk and bucket call of a simulated machine.

Place: between `scheduler` and the simulated disk and bucket. Promise: every call is a place where
others may run, before it takes effect and, if it changes anything, between its effect and its
return; it takes virtual time; a gate may hold it at either place. Invariant: no lock is held over
a call, else the run fails.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from chronik_store.testing.scheduler import Incarnation, Scheduler, Task

_DISK_READS = ("read_at", "size", "map", "open", "close", "exists", "stat", "list", "walk", "usage")
_BUCKET_READS = ("bucket.get", "bucket.get_range", "bucket.head", "bucket.list")
_READS = frozenset((*_DISK_READS, *_BUCKET_READS))
"""They change nothing, so nobody can tell their effect from their return."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Mean seconds of each kind of call (exponentially distributed), and how often one is slow."""

    write_seconds: float = 0.00003
    sync_seconds: float = 0.0005
    read_seconds: float = 0.00005
    name_seconds: float = 0.00003
    bucket_seconds: float = 0.03
    slow_probability: float = 0.005
    slow_factor: float = 100.0

    def draw(self, operation: str, rng: random.Random) -> float:
        """Seconds that this call takes."""
        if operation.startswith("sync"):
            mean = self.sync_seconds
        elif operation == "write_at":
            mean = self.write_seconds
        elif operation in ("read_at", "map"):
            mean = self.read_seconds
        elif operation.startswith("bucket."):
            mean = self.bucket_seconds
        else:
            mean = self.name_seconds
        factor = self.slow_factor if rng.random() < self.slow_probability else 1.0
        return rng.expovariate(1.0) * mean * factor


class Gate:
    """Holds calls in flight until it is opened, for schedules that a test dictates."""

    def __init__(
        self,
        scheduler: Scheduler,
        home: Incarnation,
        operation: str,
        target_end: str,
        machine: str | None,
        *,
        after: bool,
    ) -> None:
        self._scheduler = scheduler
        self._home = home
        self._operation = operation
        self._target_end = target_end
        self._machine = machine
        self._after = after
        self._held: list[Task] = []
        self._watchers: list[Task] = []
        self._is_open = False

    def wait_for_call(self, timeout: float | None = None) -> bool:
        """Wait until a call stands at the gate; False when `timeout` seconds passed first."""
        task = self._scheduler.enter_seam(self._home, f"watch a gate at {self._operation}")
        if task is not None and not self._held:
            self._watchers.append(task)
            self._scheduler.block(f"a call of {self._operation}", self._home, timeout)
        return bool(self._held)

    def open(self) -> None:
        """Let the held calls, and all later ones, through."""
        self._is_open = True
        for task in self._held:
            self._scheduler.wake(task)
        self._held.clear()

    def hold_if_meant(
        self, owner: Incarnation, operation: str, target: str, *, after: bool
    ) -> None:
        """Called by the thread that makes the call."""
        task = self._scheduler.running
        meant = (
            not self._is_open
            and after == self._after
            and operation == self._operation
            and target.endswith(self._target_end)
            and self._machine in (None, owner.machine)
        )
        if meant and task is not None:
            self._held.append(task)
            for watcher in self._watchers:
                self._scheduler.wake(watcher)
            self._watchers.clear()
            self._scheduler.block(f"a gate at {operation} {target}", owner)


class Seams:
    """Time, turns and gates around the calls of all machines."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._gates: list[Gate] = []

    def add_gate(self, gate: Gate) -> Gate:
        self._gates.append(gate)
        return gate

    def before(self, owner: Incarnation, operation: str, target: str, timing: Timing) -> None:
        """The call was made; it takes effect when this returns."""
        if self._scheduler.enter_seam(owner, f"{operation} {target}") is None:
            return
        seconds = timing.draw(operation, self._scheduler.rng)
        self._scheduler.block(f"{operation} {target}", owner, seconds)
        for gate in self._gates:
            gate.hold_if_meant(owner, operation, target, after=False)

    def after(self, owner: Incarnation, operation: str, target: str) -> None:
        """It took effect; its caller goes on when this returns."""
        if operation in _READS or self._scheduler.enter(owner) is None:
            return
        for gate in self._gates:
            gate.hold_if_meant(owner, operation, target, after=True)
        self._scheduler.give_way(owner)
