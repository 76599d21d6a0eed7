"""The calls of one simulated process to its disk: counted, hooked, paced, and refused when dead.

Place: the gate that each call of `simulated_disk` passes on its way in and out. Promise: nothing
happens to the medium in a call that the hook failed or the machine died in, apart from what its
operation says about failing. Invariant: after `stop` no call gets through, whoever makes it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from chronik_store.testing.crash import CrashError
from chronik_store.testing.medium import Medium

Hook = Callable[[int, str, str], None]
"""Called with (call number from 1, operation, path) before each call takes effect. It may raise
OSError (the call fails with it), raise CrashError (the machine dies here), block, or just look."""


class Pace(Protocol):
    """What a simulation puts around each call so that it takes virtual time."""

    def before(self, operation: str, path: str) -> None:
        """The call was made; it takes effect when this returns."""
        ...

    def after(self, operation: str, path: str) -> None:
        """It took effect; the caller goes on when this returns."""
        ...

    def halt(self) -> None:
        """The machine died in this call. Returns only to callers that outlive it."""
        ...


class Calls:
    """Thread-safe as far as counting goes; hook and pace run without any lock."""

    def __init__(self, medium: Medium, rng: random.Random) -> None:
        self.medium = medium
        self.rng = rng
        self.hook: Hook | None = None
        self.pace: Pace | None = None
        self.total = 0
        self.by_operation: Counter[str] = Counter()
        self._stopped = False

    def begin(self, operation: str, path: str) -> None:
        """A call comes in: OSError if it is to fail, CrashError if its process is dead."""
        self.refuse_if_dead()
        if self.pace is not None:
            self.pace.before(operation, path)
        with self.medium.guard:
            self.total += 1
            number = self.total
            self.by_operation[operation] += 1
        if self.hook is not None:
            try:
                self.hook(number, operation, path)
            except CrashError:
                self.stop()
                if self.pace is not None:
                    self.pace.halt()
                raise
        self.refuse_if_dead()

    def finish(self, operation: str, path: str) -> None:
        """The call has taken effect and is about to return."""
        if self.pace is not None:
            self.pace.after(operation, path)
        self.refuse_if_dead()

    def stop(self) -> None:
        """Refuse everything from now on."""
        self._stopped = True

    def refuse_if_dead(self) -> None:
        """CrashError once the process or its machine is gone."""
        if self._stopped or self.medium.powered_off:
            raise CrashError("this incarnation of the machine is dead")
