"""A machine of a simulation: a disk, clocks, threads and a way to the bucket, that can die.

Place: made by `Simulation.machine`. Promise: `environment` is all that a store needs, and none of
it works any more once the machine has crashed, been killed or restarted. Invariant: the disk is
what ties one life to the next; threads, locks and everything in memory end with the life.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from chronik_store.environment import Environment
from chronik_store.objectstore.base import ObjectStore
from chronik_store.testing.crash import CrashError, CrashMode
from chronik_store.testing.scheduler import Incarnation, Scheduler
from chronik_store.testing.simulated_bucket import BucketFaults, SimulatedBucket
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.simulated_seams import Seams, Timing
from chronik_store.testing.simulated_threads import (
    SimulatedClock,
    SimulatedEntropy,
    SimulatedThread,
    SimulatedThreads,
)

T = TypeVar("T")


class Machine:
    """One machine, or one process on it. Switched on when it is made.

    Attributes that may be changed at any time:
        timing: how long its calls take.
        crash_mode: what a crash from within (a hook that raises CrashError) leaves of the disk.
        bucket_faults: what stands between it and its buckets.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        seams: Seams,
        seed: str,
        name: str,
        *,
        disk: SimulatedDisk | None = None,
        capacity_bytes: int | None = None,
        timing: Timing | None = None,
    ) -> None:
        self.name = name
        self.timing = timing or Timing()
        self.crash_mode: CrashMode = "any"
        self.bucket_faults = BucketFaults()
        self._scheduler = scheduler
        self._seams = seams
        self._seed = seed
        self._rng = random.Random(f"{seed}/disk")
        self._lives = 0
        self._paused_until = 0.0
        self._skew_seconds = 0.0
        self.disk = disk or SimulatedDisk(
            self._rng.getrandbits(64), capacity_bytes=capacity_bytes, time_us=self._time_us
        )
        self._begin_life()

    def _begin_life(self) -> None:
        self._lives += 1
        self._paused_until = 0.0  # a pause ends with the life that it stopped
        self._life = Incarnation(self.name, self._lives)
        self._scheduler.owners.append(self._life)
        self._clock = SimulatedClock(self._scheduler, self._life)
        self._clock.skew_seconds = self._skew_seconds
        self.disk.pace = _DiskPace(self, self._seams, self._life)
        self._environment = Environment(
            clock=self._clock,
            entropy=SimulatedEntropy(f"{self._seed}/{self._lives}"),
            threads=SimulatedThreads(self._scheduler, self._life),
            fs=self.disk,
        )

    def _time_us(self) -> int:
        return self._clock.time_us()

    # ----------------------------------------------------------------------------- what runs on it

    @property
    def is_up(self) -> bool:
        return self._life.is_alive

    @property
    def environment(self) -> Environment:
        """The seams of this life; CrashError if it is over."""
        self._check_up()
        return self._environment

    def bucket(self, store: ObjectStore) -> SimulatedBucket:
        """The way of this life to an object store; ask again after a restart."""
        self._check_up()
        return SimulatedBucket(
            store,
            self._seams,
            self._life,
            lambda: self.timing,
            self.bucket_faults,
            lambda: self.crash(self.crash_mode),
        )

    def spawn(self, target: Callable[[], None], *, name: str = "main") -> SimulatedThread:
        """Start a thread on it. An exception that leaves `target` fails the run."""
        return self.environment.threads.spawn(target, name=name)  # type: ignore[return-value]

    def call(self, target: Callable[[], T], *, name: str = "call") -> T:
        """Run `target` in a thread of the machine and wait for it.

        Raises what it raised; CrashError if the machine died first.
        """
        results: list[T] = []
        errors: list[Exception] = []

        def keep_outcome() -> None:
            try:
                results.append(target())
            except Exception as error:  # noqa: BLE001  (raised again, in the calling thread)
                errors.append(error)

        self.spawn(keep_outcome, name=name).join()
        if errors:
            raise errors[0]
        if not results:
            raise CrashError(f"{self.name} died in {name}")
        return results[0]

    # --------------------------------------------------------------------------- what befalls it

    def crash(self, mode: CrashMode = "any") -> None:
        """Cut the power. A machine that is down stays as it is. Does not return to its threads."""
        if self.is_up:
            self.disk = self.disk.crash(mode, self._rng)
            self._scheduler.end_life(self._life)

    def kill(self) -> None:
        """Kill the process (kill -9): what it wrote is in the page cache, if not on the disk."""
        if self.is_up:
            self.disk = self.disk.kill()
            self._scheduler.end_life(self._life)

    def restart(self) -> Environment:
        """Switch it on again, on the disk that its last life left."""
        if self.is_up:
            raise RuntimeError(f"{self.name} is up; crash or kill it first")
        self._begin_life()
        return self._environment

    def pause(self, seconds: float) -> None:
        """Stop its threads for a while (SIGSTOP): time and timers go on without them."""
        life = self._life
        life.is_paused = True
        self._paused_until = max(self._paused_until, self._scheduler.now + seconds)

        def resume() -> None:
            if self._scheduler.now >= self._paused_until:
                self._scheduler.resume(life)

        self._scheduler.later(seconds, resume)

    @property
    def clock_skew_seconds(self) -> float:
        """How far its wall clock is ahead of the others'; setting it is a jump."""
        return self._skew_seconds

    @clock_skew_seconds.setter
    def clock_skew_seconds(self, seconds: float) -> None:
        self._skew_seconds = seconds
        self._clock.skew_seconds = seconds

    def _check_up(self) -> None:
        if not self.is_up:
            raise CrashError(f"{self.name} is down; restart it first")


class _DiskPace:
    """Lets the calls of one life's disk take time and turns."""

    def __init__(self, machine: Machine, seams: Seams, life: Incarnation) -> None:
        self._machine = machine
        self._seams = seams
        self._life = life

    def before(self, operation: str, path: str) -> None:
        self._seams.before(self._life, operation, path, self._machine.timing)

    def after(self, operation: str, path: str) -> None:
        self._seams.after(self._life, operation, path)

    def halt(self) -> None:
        self._machine.crash(self._machine.crash_mode)
