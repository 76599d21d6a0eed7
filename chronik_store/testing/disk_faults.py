"""Ready-made hooks for `SimulatedDisk`: crash, fail or hold a call that is named by number or kind.

Place: beside `simulated_disk`; each is a `Hook`. Promise: a hook that has done its work lets every
later call through. Invariant: no hook draws chance but from the generator it was given.

    disk.hook = all_of(fail_next("sync_data", errno.EIO, path_end=".log"), crash_at(40))
"""

from __future__ import annotations

import random
import threading

from chronik_store.testing.crash import CrashError
from chronik_store.testing.simulated_calls import Hook
from chronik_store.testing.tree import failure

GATE_SECONDS_MAX = 30.0
"""A held call gives up after this, so that a wrong test fails instead of hanging."""


def crash_at(call: int) -> Hook:
    """The machine dies as call number `call` is made, before it takes effect.

    With a scenario of N calls, `call` from 1 to N (and a crash after it) is every crash point:
    what a call does half-way is one of the outcomes of a crash before the next one.
    """

    def hook(number: int, operation: str, path: str) -> None:
        if number == call:
            raise CrashError(f"crashed at call {number}: {operation} {path}")

    return hook


def fail_at(call: int, code: int) -> Hook:
    """Call number `call` fails with errno `code`."""

    def hook(number: int, operation: str, path: str) -> None:
        if number == call:
            raise failure(code, path)

    return hook


def fail_next(operation: str, code: int, *, path_end: str = "", times: int = 1) -> Hook:
    """The next `times` calls of `operation` on a path that ends in `path_end` fail."""
    left = times

    def hook(number: int, called: str, path: str) -> None:
        nonlocal left
        if left > 0 and called == operation and path.endswith(path_end):
            left -= 1
            raise failure(code, path)

    return hook


def fail_often(rng: random.Random, probability: dict[str, float], code: int) -> Hook:
    """Each call fails with the probability that is given for its operation."""

    def hook(number: int, operation: str, path: str) -> None:
        if rng.random() < probability.get(operation, 0.0):
            raise failure(code, path)

    return hook


def all_of(*hooks: Hook) -> Hook:
    """One hook that calls each, in order; the first that raises decides."""

    def hook(number: int, operation: str, path: str) -> None:
        for each in hooks:
            each(number, operation, path)

    return hook


class Gate:
    """Holds the next call of `operation` in flight, for tests with real threads.

    The call has been made and has not taken effect: `arrived.wait()` until it is there, `open()`
    to let it go on. A simulation has gates of its own (`Simulation.gate`).
    """

    def __init__(self, operation: str, *, path_end: str = "") -> None:
        self.arrived = threading.Event()
        self._opened = threading.Event()
        self._operation = operation
        self._path_end = path_end

    def open(self) -> None:
        """Let the held call, and all later ones, through."""
        self._opened.set()

    def __call__(self, number: int, operation: str, path: str) -> None:
        if operation == self._operation and path.endswith(self._path_end):
            self.arrived.set()
            if not self._opened.wait(GATE_SECONDS_MAX):
                raise AssertionError(f"nobody opened the gate at {operation} {path}")
