"""The append path of an embedded log: admit, stage, lead the group, acknowledge.

Place: beside `log_core`, whose lock and state it works on; the hot path of the library. Promise:
one batch is staged whole or not at all, or the log has ended before anybody builds on the half of
it; an append returns only after its entry is durable and committed; a retried batch of an
idempotent producer shares the outcome of its original. Invariant: no Python object per record;
everything that needs the disk or the clock is done before the lock is taken.

With one appender there is no hand-off: the caller's own thread writes and syncs its group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chronik_store.append_outcome import PendingAppend, Sink
from chronik_store.arguments import check_offset
from chronik_store.errors import (
    BackpressureError,
    ChronikError,
    LogPoisonedError,
    OffsetConflictError,
)
from chronik_store.format.control import Seal
from chronik_store.format.entry import EntryKind, new_entry_header
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import AppendResult

if TYPE_CHECKING:
    from chronik_store.log_core import LogCore

RECORDS = int(EntryKind.RECORDS)


class AppendPath:
    """How records enter one log. Thread-safe."""

    def __init__(self, core: LogCore) -> None:
        self._core = core
        self._wal = core.wal
        self._lock = core.wal.lock
        self._max_future_us = int(core.config.max_future_seconds * 1_000_000)
        self._queue_bytes_max = core.config.queue_bytes_max
        self._segment_bytes = core.config.segment_bytes

    def append(self, batch: RecordBatch, expected_offset: int | None) -> AppendResult:
        """Append one batch and return when it is durable and committed. Blocks while the queue
        is full. Errors: see `PartitionLog.append`.
        """
        self._core.guard.admit(len(batch.buffer))
        self.begin()
        wal = self._wal
        if wal.pending_bytes > self._queue_bytes_max:
            self._wait_for_staged()
        now_us = self._core.env.clock.time_us()
        try:
            with self._lock:
                index, seq, place = self._stage_locked(batch, expected_offset, now_us)
        except BaseException as error:
            wal.unwind(error)
            # What this one lost against may be on its way to the disk. It is what the caller reads
            # next: who finds nothing there asks again at once, and keeps the writer from its work.
            if isinstance(error, OffsetConflictError):
                self._wait_for_staged()
            raise
        wal.lead(seq)
        assert index < self._core.committed.index, "an embedded log commits what is durable"
        return place

    def append_nowait(
        self, batch: RecordBatch, expected_offset: int | None, sink: Sink, token: object
    ) -> None:
        """Stage one batch; its outcome is delivered to `sink`. BackpressureError when full; may
        sleep where the disk is nearly so.
        """
        self._core.guard.admit(len(batch.buffer))
        self.enqueue(batch, expected_offset, sink, token)

    def enqueue(
        self, batch: RecordBatch, expected_offset: int | None, sink: Sink, token: object
    ) -> None:
        """As `append_nowait`, for an event loop, which has asked the disk guard itself."""
        self.begin()
        wal = self._wal
        if wal.pending_bytes > self._queue_bytes_max and wal.poisoned is None:
            raise BackpressureError(
                f"{wal.pending_bytes} bytes wait for the disk (queue_bytes_max is "
                f"{self._queue_bytes_max}); append again after some have been acknowledged"
            )
        now_us = self._core.env.clock.time_us()
        try:
            with self._lock:
                index, _, place = self._stage_locked(batch, expected_offset, now_us)
                try:
                    pending = PendingAppend(index, place, sink, token)
                    waits = self._join_locked(pending)
                except BaseException as error:
                    wal.spoil_locked(error)
                    raise
        except BaseException as error:
            wal.unwind(error)
            raise
        if waits:  # not by its result: another thread may have resolved it since
            self._core.request_commit()
        else:
            sink.deliver([pending])

    def _wait_for_staged(self) -> None:
        """Return when what waits for the disk now is there. Nothing of this append is staged."""
        wal = self._wal
        try:
            wal.lead(wal.last_seq)
        except LogPoisonedError as error:
            error.durability = "not_durable"
            raise

    def _join_locked(self, pending: PendingAppend) -> bool:
        """Wait with the others for `committed`; False: it has been there before."""
        core, index, place = self._core, pending.index, pending.place
        if index < core.committed.index:
            pending.result = place
            return False
        if place.duplicate:
            # Waiters stand in index order; a duplicate joins behind those of its original.
            position = len(core.waiters)
            while position and core.waiters[position - 1].index > index:
                position -= 1
            core.waiters.insert(position, pending)
        else:
            core.waiters.append(pending)
        return True

    def begin(self) -> None:
        """What must be there before the lock is taken: a file. DiskFullError: it has no room, and
        the log is as it was.

        Nothing is staged yet: whatever fails here, this batch is not on disk.
        """
        core = self._core
        if not core.started and not core.read_only:
            try:
                core.check_open()
                core.guard.admit(0)  # a file that breaks off at its first bytes would end the log
                core.begin()
            except ChronikError as error:
                error.durability = "not_durable"
                raise

    def _stage_locked(
        self, batch: RecordBatch, expected_offset: int | None, now_us: int
    ) -> tuple[int, int, AppendResult]:
        """Stage a batch: (its index, the seq that makes it durable, its place). A duplicate has
        them from its original.
        """
        core, wal = self._core, self._wal
        state = core.state
        core.check_writable_locked()
        base_offset = wal.end_offset
        if expected_offset is not None:
            try:
                check_offset(expected_offset, "expected_offset")
            except ChronikError as error:
                error.durability = "not_durable"
                raise
        # Before the offset is compared: what is repeated was appended where it was expected to be.
        if batch.producer_id:
            original = state.producers.check(
                batch.producer_id, batch.producer_epoch, batch.base_sequence, batch.record_count
            )
            if original is not None:  # A retried batch shares its outcome (protocol 3).
                seq = 0 if original.index < core.committed.index else wal.last_seq
                place = AppendResult(original.base_offset, original.end_offset, duplicate=True)
                return original.index, seq, place
        if expected_offset is not None and expected_offset != base_offset:
            raise _conflict(expected_offset, base_offset)
        core.control.lead_locked()
        high_us = batch.max_timestamp_us if batch.has_timestamps else now_us
        timestamp_us = max(wal.last_timestamp_us, min(high_us, now_us + self._max_future_us))
        index, count, payload = wal.last_index + 1, batch.record_count, batch.buffer
        encoded, header = new_entry_header(
            RECORDS, state.term, index, base_offset, count, timestamp_us, payload
        )
        try:
            seq = wal.stage_entry(encoded, header, payload)
            state.note_records(header, batch, now_us)
            core.known_commit = max(core.known_commit, index)
            if state.open_bytes >= self._segment_bytes and not state.seal_waits:
                # Here and not in the pipeline, which may sit in an upload: sizes stay bounded.
                seal = Seal(state.manifest.open_first_index, "size", now_us)
                core.control.stage_locked(seal)
            return index, seq, AppendResult(base_offset, base_offset + count)
        except BaseException as error:  # MemoryError, Ctrl-C: no longer whole, and not undone
            wal.spoil_locked(error)
            raise


def _conflict(expected_offset: int, end_offset: int) -> OffsetConflictError:
    return OffsetConflictError(
        f"expected the log to end at {expected_offset}, it ends at {end_offset}: read what was "
        "appended in between, then decide again",
        expected_offset=expected_offset,
        end_offset=end_offset,
    )
