"""An object store that fails on command, by script or by dice.

Place: shipped with the test kit; wraps any `base.ObjectStore`. Promise: every fault is one that a
real bucket shows, and keeps the contract's three outcomes: what a mutating call may have done is
never called "not_durable". With no fault armed it is the inner store. Invariant: time passes only
through the injected clock, and chance comes only from the injected entropy, so that a simulation
replays; no lock is held over a call or a sleep.

    kind            on          what happens
    unavailable     any         answered 503: no effect, UnavailableError
    timeout_before  any         no effect, UnavailableError after `seconds`
    timeout_after   any         takes effect, the reply is lost: UnavailableError after `seconds`
    late            put delete  UnavailableError now, takes effect `seconds` later
    denied          any         AccessDeniedError, no effect
    slow            any         `seconds` longer than usual
    flip            get range   one bit of the answer is wrong
    truncate        get range   half of the answer is missing
    stale           list        what was created in the last `seconds` is not shown
    partial         delete      the first half is deleted, then UnavailableError
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

from chronik_store.clock import Clock, Entropy
from chronik_store.errors import AccessDeniedError, Durability, UnavailableError
from chronik_store.objectstore.base import Buffer, ObjectInfo, ObjectStore, PutOutcome

Operation = Literal["put", "get", "range", "head", "list", "delete"]
Kind = Literal[
    "unavailable", "timeout_before", "timeout_after", "late", "denied", "slow", "flip", "truncate",
    "stale", "partial",
]  # fmt: skip
Phase = Literal["before", "after"]
_Result = TypeVar("_Result")
_MUTATING: frozenset[str] = frozenset({"put", "delete"})
_APPLIES: dict[str, frozenset[str]] = {
    "late": _MUTATING,
    "flip": frozenset({"get", "range"}),
    "truncate": frozenset({"get", "range"}),
    "stale": frozenset({"list"}),
    "partial": frozenset({"delete"}),
}


class Call(NamedTuple):
    """One call as it arrived. `size_bytes` is that of the body put or of the range asked for."""

    operation: Operation
    key: str
    size_bytes: int


@dataclass(slots=True)
class Fault:
    """What to do to the calls that match.

    `operation` and `match` (a part of the key) choose them, "" meaning any; the first `skip` that
    match are let through, then `times` are hit (None: all from then on).
    """

    kind: Kind
    operation: Operation | Literal[""] = ""
    match: str = ""
    times: int | None = 1
    skip: int = 0
    seconds: float = 0.0

    def takes(self, operation: Operation, key: str) -> bool:
        """True if this call is hit; counts it."""
        fits = self.operation in {"", operation} and self.match in key
        if not fits or operation not in _APPLIES.get(self.kind, {operation}):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            if self.times == 0:
                return False
            self.times -= 1
        return True


@dataclass(slots=True)
class _Late:
    due: float
    effect: Callable[[], object] = field(repr=False)


class FaultyObjectStore:
    """A wrapper that fails. Thread-safe if the inner store is.

    Args:
        inner: where the objects are.
        clock: for latencies.
        entropy: for `rates`; needed only for them.
        latency_seconds: what each call takes, through `clock.sleep`.
    """

    def __init__(
        self,
        inner: ObjectStore,
        *,
        clock: Clock,
        entropy: Entropy | None = None,
        latency_seconds: float = 0.0,
    ) -> None:
        self.inner = inner
        self.outage = False
        """While true, every call is refused before it has an effect."""
        self.rates: dict[Kind, float] = {}
        """Probability of each kind per call that it applies to; seconds are uniform in [0, 2]."""
        self.calls: list[Call] = []
        self.hook: Callable[[Call, Phase], None] | None = None
        """Called around each effect; may raise to let a crash or an error of its own fall there."""
        self._clock = clock
        self._entropy = entropy
        self._latency_seconds = latency_seconds
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._late: list[_Late] = []
        self._created: dict[str, float] = {}

    def add(self, *faults: Fault) -> None:
        """Arm faults. Of those that match a call, the first one added is taken."""
        with self._lock:
            self._faults.extend(faults)

    def clear(self) -> None:
        """Disarm everything; what is late still arrives."""
        with self._lock:
            self._faults.clear()
        self.rates.clear()
        self.outage = False

    @property
    def url(self) -> str:
        return self.inner.url

    def put_if_absent(self, key: str, data: Buffer) -> PutOutcome:
        body = bytes(data)

        def put() -> PutOutcome:
            outcome = self.inner.put_if_absent(key, body)
            if outcome is PutOutcome.CREATED:
                self._created[key] = self._clock.monotonic()
            return outcome

        return self._perform(Call("put", key, len(body)), put)[0]

    def get(self, key: str) -> bytes:
        data, fault = self._perform(Call("get", key, 0), lambda: self.inner.get(key))
        return self._spoiled(data, fault)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        data, fault = self._perform(
            Call("range", key, length), lambda: self.inner.get_range(key, start, length)
        )
        return self._spoiled(data, fault)

    def head(self, key: str) -> ObjectInfo | None:
        return self._perform(Call("head", key, 0), lambda: self.inner.head(key))[0]

    def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        found, fault = self._perform(
            Call("list", prefix, 0),
            lambda: self.inner.list(prefix, start_after=start_after, limit=limit),
        )
        if fault is None or fault.kind != "stale":
            return found
        horizon = self._clock.monotonic() - fault.seconds
        return [info for info in found if self._created.get(info.key, horizon - 1) < horizon]

    def delete(self, keys: Sequence[str]) -> None:
        first = keys[0] if keys else ""
        half = keys[: (len(keys) + 1) // 2]
        self._perform(
            Call("delete", first, 0),
            lambda: self.inner.delete(keys),
            half_effect=lambda: self.inner.delete(half),
        )

    def close(self) -> None:
        """The inner store stays open: it outlives the incarnations that a test opens over it."""

    def _perform(
        self,
        call: Call,
        effect: Callable[[], _Result],
        *,
        half_effect: Callable[[], None] | None = None,
    ) -> tuple[_Result, Fault | None]:
        """The effect's result, and the fault that is left for the caller to show."""
        self.calls.append(call)
        self._deliver_late()
        fault = self._choose(call)
        kind = None if fault is None else fault.kind
        seconds = self._latency_seconds + (0.0 if fault is None else fault.seconds)
        if kind in {"late", "stale"}:
            seconds = self._latency_seconds
        if seconds:
            self._clock.sleep(seconds)
        if self.hook is not None:
            self.hook(call, "before")
        if self.outage or kind in {"unavailable", "timeout_before"}:
            raise self._unavailable(call, "outage" if self.outage else str(kind))
        if kind == "denied":
            durability: Durability | None = "not_durable" if call.operation in _MUTATING else None
            raise AccessDeniedError(f"{self.url}: {call}: denied", durability=durability)
        if fault is not None and kind == "late":
            self._late.append(_Late(self._clock.monotonic() + fault.seconds, effect))
            raise self._unavailable(call, "late")
        if half_effect is not None and kind == "partial":
            half_effect()
            raise self._unavailable(call, "some objects were not deleted")
        result = effect()
        if self.hook is not None:
            self.hook(call, "after")
        if kind == "timeout_after":
            raise self._unavailable(call, "the reply was lost")
        return result, fault

    def _choose(self, call: Call) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.takes(call.operation, call.key):
                    return fault
        if self._entropy is None:
            return None
        for kind, rate in self.rates.items():
            applies = call.operation in _APPLIES.get(kind, {call.operation})
            if applies and self._entropy.uniform(0.0, 1.0) < rate:
                return Fault(kind, seconds=self._entropy.uniform(0.0, 2.0))
        return None

    def _deliver_late(self) -> None:
        now = self._clock.monotonic()
        due = [late for late in self._late if late.due <= now]
        for late in due:
            self._late.remove(late)
            late.effect()

    def _spoiled(self, data: bytes, fault: Fault | None) -> bytes:
        if fault is None or not data:
            return data
        if fault.kind == "truncate":
            return data[: len(data) // 2]
        if fault.kind == "flip":
            position = len(data) // 2
            if self._entropy is not None:
                position = min(len(data) - 1, int(self._entropy.uniform(0, len(data))))
            return data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]
        return data

    def _unavailable(self, call: Call, reason: str) -> UnavailableError:
        return UnavailableError(
            f"{self.url}: {call.operation} {call.key!r}: {reason}",
            durability="unknown" if call.operation in _MUTATING else None,
        )
