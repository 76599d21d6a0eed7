"""One partition's core: stage, commit, fold, acknowledge.

Place: between `wal` (bytes and syncs) and `partition_log` (the public face); the pipeline and the
replica face work on it too. Promise: an append is acknowledged only after its entry is durable
and `committed` has moved over it, so a writer reads its own write (protocol 4, 16). Embedded, the
log is its own quorum: committed = durable. Invariant: one lock guards watermarks, folded state and
waiters; it is never held over I/O; `committed` = min(known commit, durable), recomputed whenever
either moves, and never goes back within one open.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from chronik_store import fork_guard
from chronik_store.commit.committer import Committer
from chronik_store.config import LogConfig
from chronik_store.disk_guard import DiskGuard
from chronik_store.environment import Environment
from chronik_store.errors import (
    BackpressureError,
    ChronikError,
    FencedError,
    LogClosedError,
    LogPoisonedError,
    OffsetConflictError,
    ReadOnlyError,
    UnavailableError,
)
from chronik_store.format.control import Command, Members, Noop
from chronik_store.format.entry import EntryHeader, EntryKind, encode_entry_header
from chronik_store.format.entry import decode_entry_header
from chronik_store.format.manifest_file import Manifest
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.format.record_batch import RecordBatch
from chronik_store.manifest.state import FoldedState, OpenSegment
from chronik_store.model import AppendResult, Position
from chronik_store.wal.wal import Wal

logger = logging.getLogger("chronik_store.log")

RECORDS = int(EntryKind.RECORDS)
LOCAL_OWNER = "local"


class StaleTermError(UnavailableError):
    """The term for which the caller acts has passed; plan again."""


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Which log this is. Ids are 32 hex digits; `owner` is "local" or names a cluster's node."""

    topic: str
    partition: int
    topic_id: str
    log_id: str
    owner: str = LOCAL_OWNER


@dataclass(frozen=True, slots=True)
class LogPaths:
    """Directories of one partition."""

    wal: str
    segments: str
    scratch: str
    quarantine: str


class Sink(Protocol):
    """Where the outcomes of appends that nobody waits for in a thread are delivered."""

    def deliver(self, outcomes: list[PendingAppend]) -> None:
        """Called once per group, from the committing thread, without a lock. Must not block."""
        ...


class PendingAppend:
    """An append on its way: staged, then resolved once with `result` or `error`."""

    __slots__ = ("base_offset", "duplicate", "end_offset", "error", "index", "result", "seq",
                 "sink", "token")  # fmt: skip

    def __init__(
        self,
        index: int,
        base_offset: int,
        end_offset: int,
        seq: int,
        sink: Sink | None,
        token: object,
        *,
        duplicate: bool = False,
    ) -> None:
        self.index = index
        self.base_offset = base_offset
        self.end_offset = end_offset
        self.duplicate = duplicate
        self.seq = seq
        self.sink = sink
        self.token = token
        self.result: AppendResult | None = None
        self.error: BaseException | None = None


class LogCore:
    """One partition. Thread-safe."""

    def __init__(
        self,
        *,
        env: Environment,
        config: LogConfig,
        identity: LogIdentity,
        paths: LogPaths,
        wal: Wal,
        state: FoldedState,
        committer: Committer,
        guard: DiskGuard,
        read_only: bool,
    ) -> None:
        self.env = env
        self.config = config
        self.identity = identity
        self.paths = paths
        self.wal = wal
        self.read_only = read_only
        self.last_error: str | None = None
        self._state = state
        self._lock = wal.lock
        self._committer = committer
        self._guard = guard
        self._fork_generation = fork_guard.generation()
        self._known_commit = 0
        self._committed = Position(wal.base.index + 1, wal.base.offset)
        self._moved = env.threads.condition()
        self._watchers = 0
        self._waiters: deque[PendingAppend] = deque()
        self._closed = False
        self._led = False
        self._max_future_us = int(config.max_future_seconds * 1_000_000)
        self._queue_bytes_max = config.queue_bytes_max
        wal.on_synced = self._on_synced
        wal.on_failed = self._on_failed

    # --- start -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Bring a recovered log to life: new WAL file, unsworn tail made durable, then committed.

        Read-only logs show what marks prove committed and write nothing.
        """
        known = self.wal.recovery_commit_index
        with self._lock:
            self._state.commit(known)
        if not self.read_only:
            self.wal.start(self.checkpoint())
            if self.identity.owner == LOCAL_OWNER:
                known = self.wal.last_index
        with self._lock:
            self._known_commit = known
            self._advance_locked()

    # --- append ----------------------------------------------------------------------------------

    def append(self, batch: RecordBatch, expected_offset: int | None) -> AppendResult:
        """Append one batch and return when it is durable and committed. Blocks while the queue
        is full. Errors: see `PartitionLog.append`."""
        self._guard.admit(batch.nbytes)
        wal = self.wal
        if wal.pending_bytes > self._queue_bytes_max:
            wal.lead(wal.last_seq)
        pending = self._stage_append(batch, expected_offset, None, None)
        wal.lead(pending.seq)
        return self._outcome(pending)

    def append_nowait(
        self, batch: RecordBatch, expected_offset: int | None, sink: Sink, token: object
    ) -> PendingAppend:
        """Stage one batch; its outcome is delivered to `sink`. BackpressureError when full."""
        self._guard.admit(batch.nbytes)
        if self.wal.pending_bytes > self._queue_bytes_max:
            raise BackpressureError(
                f"{self.wal.pending_bytes} bytes wait for the disk (queue_bytes_max is "
                f"{self._queue_bytes_max}); append again after some have been acknowledged"
            )
        pending = self._stage_append(batch, expected_offset, sink, token)
        if pending.result is not None:
            sink.deliver([pending])
        else:
            self._committer.notify(self.wal)
        return pending

    def _stage_append(
        self,
        batch: RecordBatch,
        expected_offset: int | None,
        sink: Sink | None,
        token: object,
    ) -> PendingAppend:
        now_us = self.env.clock.time_us()
        wal = self.wal
        state = self._state
        with self._lock:
            self._check_writable_locked()
            base_offset = wal.end_offset
            if expected_offset is not None and expected_offset != base_offset:
                raise OffsetConflictError(
                    f"expected the log to end at {expected_offset}, it ends at {base_offset}: "
                    "read what was appended in between, then decide again",
                    expected_offset=expected_offset,
                    end_offset=base_offset,
                )
            if batch.producer_id:
                original = self._duplicate_locked(batch, sink, token)
                if original is not None:
                    return original
            self._lead_locked()
            count = batch.record_count
            high_us = batch.max_timestamp_us if batch.has_timestamps else now_us
            timestamp_us = max(
                state.last_timestamp_us, min(high_us, now_us + self._max_future_us)
            )
            index = wal.last_index + 1
            encoded = encode_entry_header(
                RECORDS, state.term, index, base_offset, count, timestamp_us, batch.buffer
            )
            header = decode_entry_header(encoded)
            seq = wal.stage_entry(encoded, header, batch.buffer)
            state.note_records(header, batch, now_us)
            pending = PendingAppend(
                index, base_offset, base_offset + count, seq, sink, token
            )
            self._waiters.append(pending)
            if self._known_commit < index:
                self._known_commit = index
        return pending

    def _duplicate_locked(
        self, batch: RecordBatch, sink: Sink | None, token: object
    ) -> PendingAppend | None:
        """A retried batch shares the outcome of its original (protocol 3)."""
        original = self._state.producers.check(
            batch.producer_id, batch.producer_epoch, batch.base_sequence, batch.record_count
        )
        if original is None:
            return None
        pending = PendingAppend(
            original.index,
            original.base_offset,
            original.end_offset,
            self.wal.last_seq,
            sink,
            token,
            duplicate=True,
        )
        if original.index < self._committed.index:
            pending.result = AppendResult(original.base_offset, original.end_offset, True)
            pending.seq = 0
        else:
            # Waiters stand in index order; a duplicate joins behind those of its original.
            position = len(self._waiters)
            while position and self._waiters[position - 1].index > original.index:
                position -= 1
            self._waiters.insert(position, pending)
        return pending

    def _lead_locked(self) -> None:
        """The first entry of an open begins a term of its own, so that terms tell opens apart.

        Intents of an earlier open thereby expire (protocol 18), and a log that turns into a
        cluster's keeps terms that only grow.
        """
        if self._led:
            return
        self._led = True
        state = self._state
        state.on_hard_state(state.term + 1, LOCAL_OWNER)
        self.wal.stage_hard_state(state.term, LOCAL_OWNER)
        self._stage_command_locked(Noop())

    def _outcome(self, pending: PendingAppend) -> AppendResult:
        """The outcome of an append whose group has been synced."""
        if pending.result is None and pending.error is None:
            # The leader of the group has synced it and is about to move `committed`.
            with self._moved:
                self._watchers += 1
                while pending.result is None and pending.error is None:
                    self._moved.wait(1.0)
                self._watchers -= 1
        if pending.error is not None:
            raise pending.error
        assert pending.result is not None
        return pending.result

    # --- control entries -------------------------------------------------------------------------

    def leader_term(self) -> int | None:
        """The term in which this log may seal, upload and publish now; None: it may not."""
        if self.read_only or self._closed or self.wal.poisoned is not None:
            return None
        if self._state.manifest.fenced is not None or self.identity.owner != LOCAL_OWNER:
            return None
        return self._state.term if self._led else self._state.term + 1

    def propose(self, command: Command, *, term: int | None = None) -> int:
        """Append a control entry; returns its index once it is committed and folded.

        StaleTermError when `term` has passed. Whether the precondition held shows in `manifest`.
        """
        with self._lock:
            self._check_writable_locked(fenced_ok=True)
            self._lead_locked()
            if term is not None and term != self._state.term:
                raise StaleTermError(f"term {term} has passed; this log is in {self._state.term}")
            index, seq = self._stage_command_locked(command)
        self.wal.lead(seq)
        self.wait_committed(index)
        return index

    def _stage_command_locked(self, command: Command) -> tuple[int, int]:
        wal = self.wal
        state = self._state
        payload = command.encode()
        index = wal.last_index + 1
        encoded = encode_entry_header(
            int(command.KIND),
            state.term,
            index,
            wal.end_offset,
            0,
            state.last_timestamp_us,
            payload,
        )
        header = decode_entry_header(encoded)
        seq = wal.stage_entry(encoded, header, payload)
        state.note_command(header, command)
        if self._known_commit < index:
            self._known_commit = index
        return index, seq

    def wait_committed(self, index: int) -> None:
        """Block until entry `index` is committed and folded; LogPoisonedError if it cannot be."""
        with self._moved:
            self._watchers += 1
            while self._committed.index <= index and self.wal.poisoned is None:
                self._moved.wait(1.0)
            self._watchers -= 1
        if self._committed.index <= index:
            raise self._poisoned_error()

    def wait_offset(self, offset: int, timeout_seconds: float) -> bool:
        """Block until `offset` is committed or the time is up; True if it is committed."""
        deadline = self.env.clock.monotonic() + timeout_seconds
        with self._moved:
            self._watchers += 1
            try:
                while self._committed.offset <= offset and not self._closed:
                    left = deadline - self.env.clock.monotonic()
                    if left <= 0 or self.wal.poisoned is not None:
                        break
                    self._moved.wait(min(left, 1.0))
            finally:
                self._watchers -= 1
        return self._committed.offset > offset

    # --- commit ----------------------------------------------------------------------------------

    def _on_synced(self) -> None:
        """A group is on disk (called by whoever led it, without the lock)."""
        with self._lock:
            resolved = self._advance_locked()
        if resolved is not None:
            self._deliver(resolved)
        if self._watchers:
            with self._moved:
                self._moved.notify_all()

    def _advance_locked(self) -> list[PendingAppend] | None:
        """Recompute `committed`, fold what it passed, resolve who waited for it."""
        durable = self.wal.durable
        index = self._known_commit
        if index >= durable.index - 1:
            position = durable
        else:
            position = Position(index + 1, self.wal.header(index).end_offset)
        if position.index <= self._committed.index:
            return None
        self._state.commit(position.index - 1)
        self._committed = position
        self.wal.commit_mark = position.index - 1
        waiters = self._waiters
        resolved: list[PendingAppend] | None = None
        while waiters and waiters[0].index < position.index:
            pending = waiters.popleft()
            pending.result = AppendResult(
                pending.base_offset, pending.end_offset, pending.duplicate
            )
            if pending.sink is not None:
                if resolved is None:
                    resolved = []
                resolved.append(pending)
        return resolved

    @staticmethod
    def _deliver(outcomes: list[PendingAppend]) -> None:
        by_sink: dict[int, list[PendingAppend]] = {}
        for pending in outcomes:
            by_sink.setdefault(id(pending.sink), []).append(pending)
        for group in by_sink.values():
            sink = group[0].sink
            assert sink is not None
            sink.deliver(group)

    def _on_failed(self, error: BaseException) -> None:
        """A write or sync failed: nothing more is acknowledged until the log is reopened."""
        logger.error("log %s/%s is poisoned: %r", self.identity.topic, self.identity.partition, error)
        self.last_error = f"poisoned: {error!r}"
        with self._lock:
            failed = list(self._waiters)
            self._waiters.clear()
            for pending in failed:
                pending.error = self._poisoned_error()
        self._deliver([pending for pending in failed if pending.sink is not None])
        with self._moved:
            self._moved.notify_all()

    def _poisoned_error(self) -> LogPoisonedError:
        cause = self.wal.poisoned
        return LogPoisonedError(
            f"a write or sync of {self.paths.wal} failed ({cause!r}); what was in flight may or "
            "may not be on disk: close the log and open it again, then read its end",
            cause=cause,
        )

    # --- state -----------------------------------------------------------------------------------

    @property
    def manifest(self) -> Manifest:
        """Folded over committed control entries; a frozen value."""
        return self._state.manifest

    @property
    def committed(self) -> Position:
        """Exclusive: everything below may be read, sealed, uploaded."""
        return self._committed

    @property
    def term(self) -> int:
        """The current term (hard state)."""
        return self._state.term

    @property
    def members(self) -> Members | None:
        """Members in force by this log."""
        found = self._state.members.in_force()
        return None if found is None else found[1]

    @property
    def refused_commands(self) -> dict[str, int]:
        """How many control entries were no-ops, by kind."""
        return dict(self._state.refused)

    def open_segment(self) -> OpenSegment:
        """What is committed and not sealed."""
        with self._lock:
            return self._state.open_segment(self._committed.offset)

    def producers_at(self, last_index: int) -> tuple[ProducerEntry, ...]:
        """Producer state as of a SEAL that waits for its segment. KeyError if there is none."""
        with self._lock:
            return self._state.producers_at(last_index)

    def checkpoint(self) -> object:
        """Folded committed state for a new WAL file."""
        with self._lock:
            return self.checkpoint_locked()

    def note_error(self, stage: str, error: BaseException | None) -> None:
        """Remembered for `status`; None clears what that stage had noted."""
        if error is not None:
            self.last_error = f"{stage}: {error}"
        elif self.last_error is not None and self.last_error.startswith(f"{stage}: "):
            self.last_error = None

    def check_open(self) -> None:
        """ForkedError or LogClosedError when the log cannot be used from here."""
        fork_guard.check(self._fork_generation)
        if self._closed:
            raise LogClosedError("this log is closed; open it again")

    def _check_writable_locked(self, *, fenced_ok: bool = False) -> None:
        fork_guard.check(self._fork_generation)
        if self._closed:
            raise LogClosedError("this log is closed; open it again", durability="not_durable")
        if self.read_only:
            raise ReadOnlyError(
                "this log was opened read-only; open it with read_only=False to append"
            )
        if self.wal.poisoned is not None:
            raise self._poisoned_error()
        if self._state.manifest.fenced is not None and not fenced_ok:
            if self.config.on_fenced == "stop":
                raise FencedError(
                    "a successor has taken over this log's bucket folder and on_fenced is 'stop'; "
                    "append to the successor",
                    durability="not_durable",
                )

    # --- close -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Acknowledge what is in flight, then stop. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        error: ChronikError | None = None
        if not self.read_only and self.wal.poisoned is None:
            try:
                self.wal.lead(self.wal.last_seq)
            except LogPoisonedError as failure:
                error = failure
        self.wal.close()
        with self._moved:
            self._moved.notify_all()
        if error is not None:
            raise error
