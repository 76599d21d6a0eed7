"""Simulations: plain synchronous code on virtual time, with every wait a seeded choice.

Place: the face of the simulator; `scheduler` is its engine, `simulated_machine` its machines.
Promise: equal seeds give equal runs, event by event (`trace_hash`); an hour costs as much as what
happens in it; a crash falls inside any wait. Invariant: the program under test is the product's own
code, and knows nothing of this.

    with Simulation(seed=7) as simulation:
        node = simulation.machine("node")

        def main() -> int:                          # a thread of its own, on no machine
            node.spawn(lambda: work(node.environment), name="work")
            simulation.sleep(0.5)
            node.crash("torn")                      # whatever it was waiting for, it waits for ever
            node.restart()
            return node.call(lambda: recover(node.environment))

        recovered = simulation.run(main)

Each thread is a greenlet. It gives way only inside a seam: a disk or bucket call, a wait, a sleep,
taking a lock. A crash resumes nothing: the greenlets of the dead machine stay suspended where they
were, and none of their `finally` blocks runs. (At the end of the `with` they are unwound to free
their memory; their seams refuse, so that even then they reach nothing.)
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self, TypeVar

from chronik_store.testing.crash import CrashError
from chronik_store.testing.scheduler import (
    DeadlockError,
    Incarnation,
    LockHeldError,
    OutOfTimeError,
    Scheduler,
    SimulationError,
    SpinningError,
    ThreadFailedError,
)
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.simulated_machine import Machine
from chronik_store.testing.simulated_seams import Gate, Seams, Timing
from chronik_store.testing.simulated_threads import (
    SimulatedClock,
    SimulatedEntropy,
    SimulatedThread,
    SimulatedThreads,
)

__all__ = [
    "CrashError",
    "DeadlockError",
    "Gate",
    "LockHeldError",
    "Machine",
    "OutOfTimeError",
    "Simulation",
    "SimulationError",
    "SpinningError",
    "ThreadFailedError",
    "Timing",
]

T = TypeVar("T")


class Simulation:
    """A seeded world of machines. Not thread-safe: one OS thread runs all of it.

    Args:
        seed: decides every schedule, latency and fault.
        preemption: how likely a thread gives way before it takes a lock, from 0 to 1.
        trace_events: how many of the newest events `trace` keeps; the hash covers all.
    """

    def __init__(
        self, seed: int = 0, *, preemption: float = 0.1, trace_events: int = 10_000
    ) -> None:
        self.seed = seed
        self._scheduler = Scheduler(seed, preemption=preemption, trace_events=trace_events)
        self._seams = Seams(self._scheduler)
        self._driver = Incarnation("simulation")
        self._scheduler.owners.append(self._driver)
        self.clock = SimulatedClock(self._scheduler, self._driver)
        self.threads = SimulatedThreads(self._scheduler, self._driver)
        self.entropy = SimulatedEntropy(f"{seed}/simulation")
        self.machines: list[Machine] = []

    def machine(
        self,
        name: str,
        *,
        disk: SimulatedDisk | None = None,
        capacity_bytes: int | None = None,
        timing: Timing | None = None,
    ) -> Machine:
        """A new machine, switched on, with an empty disk or the given one.

        A second process on the disk of another: `disk=other.disk.another_process()`. A crash of
        one is then to be one of both.
        """
        machine = Machine(
            self._scheduler,
            self._seams,
            f"{self.seed}/{name}",
            name,
            disk=disk,
            capacity_bytes=capacity_bytes,
            timing=timing,
        )
        self.machines.append(machine)
        return machine

    def spawn(self, target: Callable[[], None], *, name: str) -> SimulatedThread:
        """A thread that belongs to no machine, hence never crashes: a client, a nemesis.

        Where it calls into a machine that dies, it gets a CrashError.
        """
        return self.threads.spawn(target, name=name)

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass, for the calling thread."""
        self.clock.sleep(seconds)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something that waits for nothing when that much virtual time has passed."""
        self._scheduler.later(seconds, action)

    def at_step(self, step: int, action: Callable[[], None]) -> None:
        """Do something that waits for nothing just before step number `step` (from 1).

        With a crash it is the finest crash point: a run of N steps (`steps`) has N of them, and
        equal seeds make equal steps up to there.
        """
        self._scheduler.at_step[step] = action

    def gate(
        self,
        operation: str,
        *,
        target_end: str = "",
        machine: Machine | None = None,
        after: bool = False,
    ) -> Gate:
        """Hold every coming disk or bucket call of this kind until the gate is opened.

        `operation` is "sync_data", "rename", ..., "bucket.put_if_absent", "bucket.delete", ...;
        `target_end` is the end of its path or key; `after`: when it has taken effect, but before
        its caller knows.
        """
        name = None if machine is None else machine.name
        return self._seams.add_gate(
            Gate(self._scheduler, self._driver, operation, target_end, name, after=after)
        )

    def run(self, main: Callable[[], T], *, limit_seconds: float = 86_400.0) -> T:
        """Run `main` as a thread of no machine until it returns, and everything else beside it.

        Threads that are not done then stay as they are; another `run` goes on with them.
        Raises what `main` raised, or SimulationError.
        """
        results: list[T] = []
        self._scheduler.run(self._driver, lambda: results.append(main()), limit_seconds)
        return results[0]

    def result_of(self, future: Future[T], timeout: float | None = None) -> T:
        """What `future.result` gives, waited for on virtual time; TimeoutError after `timeout`.

        (`future.result` itself would stop the one real thread, and with it the simulation.)
        """
        done = self.threads.event()
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout):
            raise TimeoutError(f"no result within {timeout} s")
        return future.result(timeout=0)

    @property
    def now(self) -> float:
        """Seconds of virtual time since the start."""
        return self._scheduler.now

    @property
    def steps(self) -> int:
        """How often a thread has been given its turn."""
        return self._scheduler.steps

    @property
    def trace(self) -> list[str]:
        """The newest events, one line each: when, which thread, what."""
        return [f"{when:.6f} {name} {what}" for when, name, what in self._scheduler.trace]

    @property
    def trace_hash(self) -> str:
        """A digest of every event and every turn so far."""
        return self._scheduler.digest.hexdigest()

    def close(self) -> None:
        """Unwind all threads, the dead and the living; their seams refuse. Idempotent.

        A simulation that is not closed keeps its threads, and what they refer to, for ever.
        """
        self._scheduler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
