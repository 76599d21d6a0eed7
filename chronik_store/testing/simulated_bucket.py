"""An object store as a simulated machine reaches it: late, not at all, or without the reply.

Place: wraps any `objectstore.base.ObjectStore`; made by `Machine.bucket`. Promise: a call takes
effect at one instant between its start and its return, and may take effect without returning.
Invariant: the store below is the bucket itself: it outlives every machine, and no call of a dead
one reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from chronik_store.errors import UnavailableError
from chronik_store.objectstore.base import ObjectStore
from chronik_store.testing.called_bucket import CalledBucket
from chronik_store.testing.crash import CrashError
from chronik_store.testing.scheduler import Incarnation
from chronik_store.testing.simulated_calls import Hook
from chronik_store.testing.simulated_seams import Seams, Timing

T = TypeVar("T")


class BucketFaults:
    """What stands between one machine and its buckets; change it at any time."""

    def __init__(self) -> None:
        self.is_down = False
        """Every call fails, and has no effect."""
        self.hook: Hook | None = None
        """Before a call takes effect, with (call number, "bucket.put_if_absent", key): may raise
        UnavailableError (nothing happened) or CrashError (the machine dies, nothing happened)."""
        self.reply_hook: Hook | None = None
        """The same after it took effect: an error here is a lost reply."""
        self.calls = 0


class SimulatedBucket(CalledBucket):
    """Implements `ObjectStore` for one life of a machine. Hooks see a deletion's first key."""

    def __init__(
        self,
        store: ObjectStore,
        seams: Seams,
        owner: Incarnation,
        timing: Callable[[], Timing],
        faults: BucketFaults,
        on_crash: Callable[[], None],
    ) -> None:
        super().__init__(store)
        self._seams = seams
        self._owner = owner
        self._timing = timing
        self._faults = faults
        self._on_crash = on_crash

    def _call(self, name: str, keys: Sequence[str], effect: Callable[[], T]) -> T:
        operation, key = f"bucket.{name}", keys[0] if keys else ""
        self._seams.before(self._owner, operation, key, self._timing())
        faults = self._faults
        faults.calls += 1
        number = faults.calls
        self._fault(faults.hook, number, operation, key)
        if faults.is_down:
            raise UnavailableError(f"{self.url}: the bucket does not answer")
        result = effect()
        self._seams.after(self._owner, operation, key)
        self._fault(faults.reply_hook, number, operation, key)
        return result

    def _fault(self, hook: Hook | None, number: int, operation: str, key: str) -> None:
        if hook is not None:
            try:
                hook(number, operation, key)
            except CrashError:
                self._on_crash()
                raise
