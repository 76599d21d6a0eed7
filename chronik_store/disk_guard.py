"""Free space of the data directory: throttle first, refuse in time.

Place: shared by all logs of a store; asked before an append is staged. Promise: appends are
refused with a retriable DiskFullError while `reserve_bytes` are still free, so that hard state,
truncations, control entries and recovery always have room; before that they are slowed down.
Invariant: no lock is held while the file system is asked.
"""

from __future__ import annotations

from chronik_store.clock import Clock
from chronik_store.errors import DiskFullError, UnavailableError
from chronik_store.fs.base import FileSystem

LOOK_EVERY_SECONDS = 1.0
THROTTLE_SECONDS = 0.005


class DiskGuard:
    """Thread-safe: races cost one extra look at the disk."""

    def __init__(
        self, fs: FileSystem, clock: Clock, path: str, *, reserve_bytes: int, throttle_bytes: int
    ) -> None:
        self._fs = fs
        self._clock = clock
        self._path = path
        self._reserve_bytes = reserve_bytes
        self._throttle_bytes = max(throttle_bytes, reserve_bytes)
        self._free_bytes = 0
        self._allowance_bytes = 0
        self._looked_at = float("-inf")

    def admit(self, size_bytes: int) -> None:
        """Called before `size_bytes` are queued. May sleep; errors as of `pause_seconds`."""
        pause = self.pause_seconds(size_bytes)
        if pause:
            self._clock.sleep(pause)

    def pause_seconds(self, size_bytes: int) -> float:
        """As `admit`, for an event loop, which sleeps in its own way: 0 while there is plenty.

        DiskFullError when full, UnavailableError when the disk does not answer.
        """
        if not self.has_room(size_bytes):
            raise DiskFullError(
                f"{self._free_bytes} bytes are free in {self._path}, and "
                f"{self._reserve_bytes} are kept for recovery: free space or let the pipeline "
                "upload, then append again",
                durability="not_durable",
            )
        return THROTTLE_SECONDS if self._free_bytes <= self._throttle_bytes else 0.0

    def has_room(self, size_bytes: int) -> bool:
        """As `admit`, for whoever must not wait and has its own way to refuse.

        UnavailableError when the disk does not answer.
        """
        self._allowance_bytes -= size_bytes
        now = self._clock.monotonic()
        is_recent = now - self._looked_at < LOOK_EVERY_SECONDS
        if is_recent and self._allowance_bytes > 0 and self._free_bytes > self._throttle_bytes:
            return True
        self._look(now)
        return self._free_bytes - size_bytes >= self._reserve_bytes

    def has_last_room(self, size_bytes: int) -> bool:
        """As `has_room`, where what is refused stands in the way of what would free the disk: half
        of the reserve is for that.
        """
        self._look(self._clock.monotonic())
        return self._free_bytes - size_bytes >= self._reserve_bytes // 2

    def _look(self, now: float) -> None:
        try:
            usage = self._fs.usage(self._path)
        except OSError as error:
            raise UnavailableError(
                f"{self._path}: its free space cannot be asked for: {error}",
                durability="not_durable",
            ) from error
        self._free_bytes = usage.free_bytes
        self._looked_at = now
        # Look again after a quarter of the room above the throttle, in bytes of our own; what
        # others take of the disk meanwhile is seen by the clock.
        self._allowance_bytes = max(0, (usage.free_bytes - self._throttle_bytes) // 4)
