"""What a power loss leaves of a file, and the error that stands for the end of a machine.

Place: the bottom of the test kit. Promise: every outcome that a disk with atomic 512-byte sectors
may show, and no other: what a sector holds after the crash is what it held when it was last synced
or after one of the later writes that touched it, chosen for each sector apart. A write is never
seen without the earlier ones to the same sector, because the page cache holds them together.
Invariant: equal bytes, mode and random state give equal outcomes.
"""

from __future__ import annotations

import random
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ClassVar, Literal, NamedTuple

from chronik_store.threads import SystemThreads

SECTOR_BYTES = 512

CrashMode = Literal["lost", "kept", "torn", "any"]
"""What becomes of unsynced writes and names. "lost": none of them survives; "kept": all do;
"torn": each sector and each name by itself, at least one sector of each file either way where
there are two; "any": one of these, a torn tail or a scatter, drawn for each file apart."""


class CrashError(BaseException):
    """The machine is gone: raised by the call that it died in, and by each later one.

    Not an Exception, so that no handler of the product takes it for a failed call.
    """


class MortalThreads(SystemThreads):
    """Real threads for a store on a simulated disk: one that a crash hits ends without a report.

    Those that a crash leaves waiting wait for ever, until `end`: a test with many crash points
    ends them, or it gathers thousands.
    """

    known: ClassVar[weakref.WeakSet[MortalThreads]] = weakref.WeakSet()
    """All that have not been collected."""

    def __init__(self) -> None:
        self.ended = False
        self._conditions: weakref.WeakSet[_MortalCondition] = weakref.WeakSet()
        self.known.add(self)

    def condition(self) -> threading.Condition:  # type: ignore[override]
        """A condition whose waits end with a CrashError once the machine has ended."""
        made = _MortalCondition(self)
        self._conditions.add(made)
        return made

    def end(self) -> None:
        """The machine and all that waits on it end. Idempotent."""
        self.ended = True
        for condition in list(self._conditions):
            with condition:
                condition.notify_all()

    @staticmethod
    def spawn(target: Callable[[], None], *, name: str) -> threading.Thread:
        """Start a daemon thread that a CrashError ends."""

        def until_crash() -> None:
            with suppress(CrashError):
                target()

        return SystemThreads.spawn(until_crash, name=name)


class _MortalCondition(threading.Condition):
    def __init__(self, threads: MortalThreads) -> None:
        super().__init__()
        self._threads = threads

    def wait(self, timeout: float | None = None) -> bool:
        woken = not self._threads.ended and super().wait(timeout)
        if self._threads.ended:
            raise CrashError("the machine that this thread waited on has ended")
        return woken


class PendingWrite(NamedTuple):
    """A write that the page cache has and the disk may not have."""

    number: int
    position: int
    data: bytes


def surviving_bytes(
    durable: bytes | bytearray,
    size_bytes: int,
    pending: Sequence[PendingWrite],
    mode: CrashMode,
    rng: random.Random,
) -> bytearray:
    """The file after a power loss.

    `durable` is what the disk surely has, `size_bytes` the file's size in the page cache.
    """
    image = bytearray(durable)
    if not pending or mode == "lost":
        return image
    if mode == "kept":
        for write in pending:
            _apply(image, write, write.position, write.position + len(write.data))
        return image
    if mode == "torn":
        _scatter(image, pending, rng, force_both=True)
        return _grown(image, size_bytes, rng)
    fate = rng.choice(("lost", "kept", "torn", "torn_tail", "scatter"))
    if fate == "torn_tail":
        _keep_first(image, pending, rng)
        return _grown(image, size_bytes, rng)
    if fate == "scatter":
        _scatter(image, pending, rng, force_both=False)
        return _cut(_grown(image, size_bytes, rng), len(durable), rng)
    plain: dict[str, CrashMode] = {"lost": "lost", "kept": "kept", "torn": "torn"}
    return surviving_bytes(durable, size_bytes, pending, plain[fate], rng)


def _apply(image: bytearray, write: PendingWrite, start: int, end: int) -> None:
    """Put the part of `write` that lies in [start, end) into the image."""
    start = max(start, write.position)
    end = min(end, write.position + len(write.data))
    if start >= end:
        return
    if len(image) < start:
        image.extend(bytes(start - len(image)))
    image[start:end] = write.data[start - write.position : end - write.position]


def _scatter(
    image: bytearray, pending: Sequence[PendingWrite], rng: random.Random, *, force_both: bool
) -> None:
    """Keep, for each sector, the first few of the writes that touched it."""
    touched: dict[int, list[PendingWrite]] = {}
    for write in pending:
        first = write.position // SECTOR_BYTES
        end = -(-(write.position + len(write.data)) // SECTOR_BYTES)
        for sector in range(first, end):
            touched.setdefault(sector, []).append(write)
    kept = {sector: rng.randint(0, len(writes)) for sector, writes in touched.items()}
    if force_both and len(kept) > 1:
        lost, whole = rng.sample(list(kept), 2)
        kept[lost] = 0
        kept[whole] = len(touched[whole])
    for sector, writes in touched.items():
        for write in writes[: kept[sector]]:
            _apply(image, write, sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)


def _keep_first(image: bytearray, pending: Sequence[PendingWrite], rng: random.Random) -> None:
    """Keep the writes in order up to one of them, and of that one the first sectors."""
    whole = rng.randrange(len(pending))
    for write in pending[:whole]:
        _apply(image, write, write.position, write.position + len(write.data))
    last = pending[whole]
    first = last.position // SECTOR_BYTES
    end = -(-(last.position + len(last.data)) // SECTOR_BYTES)
    _apply(image, last, last.position, rng.randint(first, end) * SECTOR_BYTES)


def _grown(image: bytearray, size_bytes: int, rng: random.Random) -> bytearray:
    """The size may have reached the disk without the bytes: then zeros stand in for them."""
    if len(image) < size_bytes and rng.random() < 0.5:
        image.extend(bytes(size_bytes - len(image)))
    return image


def _cut(image: bytearray, durable_bytes: int, rng: random.Random) -> bytearray:
    """The bytes may have reached the disk without the size: then the file ends before them."""
    if len(image) > durable_bytes and rng.random() < 0.5:
        cut = rng.randint(durable_bytes, len(image))
        del image[max(durable_bytes, cut - cut % SECTOR_BYTES) :]
    return image
