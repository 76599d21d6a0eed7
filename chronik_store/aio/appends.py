"""Appends on their way from the tasks of one event loop into the log's queue, and back.

Place: in `aio`, over the core's append path. Promise: appends that tasks make in one turn of the
loop are staged together, in the order of the calls, and their outcomes wake the loop once per
group; so what a record costs is a future and two list items, not a batch, an entry and a lock.
Invariant: each append stays whole: its records lie side by side in one batch, which is stored
whole or not at all. What asks for a batch of its own (an expected offset, a RecordBatch, times,
headers, large records) gets it, behind what was queued before. The loop never sleeps: where the
disk is nearly full, what is gathered waits for its pause as it does for room.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque

from chronik_store.append_outcome import PendingAppend
from chronik_store.batching import Appendable, items_of
from chronik_store.errors import BackpressureError
from chronik_store.format.record_batch import RecordBatch
from chronik_store.log_core import LogCore
from chronik_store.model import AppendResult, Record

TOGETHER_BYTES = 1 << 18
"""Appends of one turn share batches of about this size."""
SMALL_BYTES = 1 << 14
"""A larger record goes alone: its batch costs little beside it."""
FEW_RECORDS = 8
"""An append of more records than this is worth its own batch."""
RECORD_BYTES = 16
"""What a record takes in a batch beside its value and key, at most."""
LOOK_AGAIN_SECONDS = 0.005

Future = asyncio.Future[AppendResult]
Share = tuple[Future, int]
"""Who waits for a part of a batch, and how many of its records are theirs."""


class LoopAppends:
    """The way in for one log and one loop: a `Sink`. All but `deliver` is called on the loop."""

    def __init__(self, core: LogCore, loop: asyncio.AbstractEventLoop) -> None:
        self._core = core
        self._loop = loop
        limits = core.config
        self._small_bytes = min(SMALL_BYTES, limits.record_bytes_max)
        # A shared batch stays within the limit that each of its appends keeps: half of it, and the
        # append that goes over that, which is at most a quarter; the rest is for the header.
        self._alone_bytes = limits.batch_bytes_max // 4
        self._together_bytes = min(
            TOGETHER_BYTES, limits.queue_bytes_max, limits.batch_bytes_max // 2
        )
        self._records: list[Record | bytes] = []
        self._shares: list[Share] = []
        self._bytes = 0
        self._turn_ends = False
        self._full = False
        self._pausing = False
        self._rested = False
        self._room = asyncio.Event()
        self._outcomes: deque[list[PendingAppend]] = deque()
        self._armed = False

    # --- in --------------------------------------------------------------------------------------

    def gather(self, value: bytes) -> Future | None:
        """Queue one small value until this turn ends; None: it has to go through `enqueue`."""
        size = len(value) + RECORD_BYTES
        if len(value) > self._small_bytes or size > self._alone_bytes or self._full:
            return None
        future: Future = self._loop.create_future()
        self._records.append(value)
        self._shares.append((future, 1))
        self._gathered(size)
        return future

    async def enqueue(self, records: Appendable, expected_offset: int | None) -> Future:
        """Queue any append, behind what was queued before; waits while the log's queue is full.

        Raises as `AppendPath.append_nowait`, BackpressureError excepted.
        """
        core = self._core
        items: list[Record | bytes] = []
        size = None
        if expected_offset is None and type(records) is not RecordBatch:
            records = items = items_of(records)
            size = self._size_together(items)
        batch = core.batching.batch(records) if size is None else None
        future: Future = self._loop.create_future()
        while self._full:
            await self._room.wait()
        if size is not None:
            self._records += items
            self._shares.append((future, len(items)))
            self._gathered(size)
            return future
        if batch is None:
            end = core.committed.offset
            future.set_result(AppendResult(end, end))
            return future
        rested = False
        while True:
            await self.drain()
            if not rested and self._pause(len(batch.buffer)):
                rested = True
                continue
            try:
                core.appends.enqueue(batch, expected_offset, self, [(future, len(batch))])
                return future
            except BackpressureError:
                self._wait_for_room()

    async def drain(self) -> None:
        """Return when all that was gathered has its place in the log's queue."""
        self._flush()
        while self._full:
            await self._room.wait()

    def _size_together(self, items: list[Record | bytes]) -> int | None:
        """Bytes of an append that may share a batch; None: it gets its own."""
        if not 0 < len(items) <= FEW_RECORDS:
            return None
        total = 0
        for item in items:
            value, key = item, None
            if isinstance(item, Record):
                value, key = item.value, item.key
                if item.timestamp_us is not None or item.headers:
                    return None
            if type(value) is not bytes or not (key is None or type(key) is bytes):
                return None
            size = len(value) + len(key or b"")
            if size > self._small_bytes:
                return None
            total += size + RECORD_BYTES
        return total if total <= self._alone_bytes else None

    def _gathered(self, size: int) -> None:
        self._bytes += size
        if self._bytes >= self._together_bytes:
            self._flush()
        elif not self._turn_ends:
            self._turn_ends = True
            self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turn_ends = False
        self._flush()

    def _flush(self) -> None:
        """Stage what is gathered as one batch; it stays where it is while the log is full."""
        if not self._shares or self._full:
            return
        try:
            batch = self._core.batching.batch(self._records)
            assert batch is not None
            if not self._rested and self._pause(len(batch.buffer)):
                self._rested = True
                return
            self._core.appends.enqueue(batch, None, self, self._shares)
        except BackpressureError:
            self._wait_for_room()
            return
        except Exception as error:  # noqa: BLE001 (each of those who wait gets it)
            _fail(self._shares, error)
        self._records, self._shares, self._bytes = [], [], 0
        self._rested = False

    def _wait_for_room(self) -> None:
        """What fills the queue may be others' appends, so look again without being told."""
        self._full = True
        self._room.clear()
        self._loop.call_later(LOOK_AGAIN_SECONDS, self._look_again)

    def _pause(self, size_bytes: int) -> bool:
        """True: the disk is nearly full, and nothing is staged for a moment. DiskFullError."""
        seconds = self._core.guard.pause_seconds(size_bytes)
        if not seconds:
            return False
        self._full = self._pausing = True
        self._room.clear()
        self._loop.call_later(seconds, self._end_pause)
        return True

    def _end_pause(self) -> None:
        self._pausing = False
        self._look_again()

    def _look_again(self) -> None:
        if self._full and not self._pausing:
            self._full = False
            self._flush()
            if not self._full:
                self._room.set()

    # --- out -------------------------------------------------------------------------------------

    def deliver(self, outcomes: list[PendingAppend]) -> None:
        """Called by the committing thread, once per group."""
        self._outcomes.append(outcomes)
        if not self._armed:
            self._armed = True
            try:
                self._loop.call_soon_threadsafe(self._resolve)
            except RuntimeError:
                self._outcomes.clear()  # the loop is closed: nobody waits any more
            except BaseException:
                self._armed = False  # the next delivery wakes the loop for this one, too
                raise

    def _resolve(self) -> None:
        # Disarm first: an outcome that arrives from here on arms the next wake-up.
        self._armed = False
        outcomes = self._outcomes
        while outcomes:
            for pending in outcomes.popleft():
                shares: list[Share] = pending.token  # type: ignore[assignment]
                if pending.error is not None:
                    _fail(shares, pending.error)
                elif pending.result is not None:
                    _succeed(shares, pending.result)
        self._look_again()


def _succeed(shares: list[Share], whole: AppendResult) -> None:
    """Give everybody their part; one whose wait was cancelled does not get it."""
    start = whole.base_offset
    for future, count in shares:
        end = start + count
        if not future.done():
            future.set_result(AppendResult(start, end, whole.duplicate))
        start = end


def _fail(shares: list[Share], error: BaseException) -> None:
    """Everybody gets the error: a copy, since each raises it with a traceback of its own."""
    for future, _ in shares:
        if not future.done():
            future.set_exception(copy.copy(error))
