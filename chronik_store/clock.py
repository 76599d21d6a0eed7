"""Time and chance, as injected values.

Place: a low room; everything that needs time or randomness receives these. Promise: no other
module of the library reads a clock or an entropy source (lint forbids it), so that the simulator
owns both. Invariant: `monotonic` never goes back; `time_us` may jump, and nothing that decides a
deletion may trust it alone.
"""

from __future__ import annotations

import random
import secrets
import time
from typing import Protocol


class Clock(Protocol):
    """A source of time. Thread-safe."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never goes back."""
        ...

    def time_us(self) -> int:
        """Microseconds since 1970 UTC by the wall clock; may jump either way."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for `seconds`; a seam, so a switch point in the simulator."""
        ...


class SystemClock:
    """The machine's own clocks."""

    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)

    @staticmethod
    def time_us() -> int:
        """Wall clock, microseconds since 1970 UTC."""
        return time.time_ns() // 1000


class Entropy(Protocol):
    """A source of chance. Thread-safe."""

    def token_bytes(self, count: int) -> bytes:
        """`count` unpredictable bytes (identities: log ids, store ids, topic ids)."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A float in [low, high] (jitter)."""
        ...


class SystemEntropy:
    """The operating system's entropy."""

    token_bytes = staticmethod(secrets.token_bytes)

    @staticmethod
    def uniform(low: float, high: float) -> float:
        """Jitter only, nothing that must not be guessed."""
        return random.uniform(low, high)  # noqa: S311
