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
from typing import TYPE_CHECKING

from chronik_store import fork_guard
from chronik_store.append_outcome import Outbox, PendingAppend
from chronik_store.append_path import AppendPath
from chronik_store.batching import Batching
from chronik_store.commit.committer import Committer
from chronik_store.commit_watch import CommitWatch, SharedLook
from chronik_store.config import LogConfig
from chronik_store.control_path import ControlPath
from chronik_store.disk_guard import DiskGuard
from chronik_store.environment import Environment
from chronik_store.errors import (
    Durability,
    FencedError,
    LogClosedError,
    LogPoisonedError,
    NotReplicatedError,
    ReadOnlyError,
)
from chronik_store.format.checkpoint import Checkpoint
from chronik_store.format.control import Command, Members
from chronik_store.format.manifest_file import Manifest, SealedRange
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.log_identity import LOCAL_OWNER, LogIdentity, LogPaths
from chronik_store.log_status import status_of
from chronik_store.manifest.state import FoldedState, OpenSegment
from chronik_store.model import LogStatus, Position, RecoveryReport
from chronik_store.wal.wal import Wal

if TYPE_CHECKING:
    from chronik_store.replica import Replica

logger = logging.getLogger("chronik_store.log")


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
        on_unsworn: Callable[[LogCore], None],
        on_sealed: Callable[[LogCore], None],
        read_only: bool,
    ) -> None:
        self.env = env
        self.config = config
        self.identity = identity
        self.paths = paths
        self.wal = wal
        self.read_only = read_only
        self.last_error: str | None = None
        self.state = state
        self._lock = wal.lock
        self.committer = committer
        self.guard = guard
        self._on_unsworn = on_unsworn
        self._on_sealed = on_sealed
        self._seen_sealed: tuple[SealedRange, ...] = ()
        self.replica: Replica | None = None
        self._sworn_seq = 0
        self._seen_seq = 0
        self.boot_id = env.entropy.token_bytes(16).hex()
        self._fork_generation = fork_guard.generation()
        self.known_commit = 0
        self._committed = Position(wal.base.index + 1, wal.base.offset)
        self.watch = CommitWatch(env.threads, env.clock)
        self._beside = SharedLook(env.threads, env.clock, self._look) if read_only else None
        self.batching = Batching(config, env.clock)
        self._begun = env.threads.condition()
        self.waiters: deque[PendingAppend] = deque()
        self._outbox = Outbox(wal.lock)
        self.closed = False
        self._starting = False
        self.started = False
        self.appends = AppendPath(self)
        self.control = ControlPath(self)
        wal.on_durable = self._advance_locked
        wal.on_synced = self._on_synced
        wal.on_failed = self._on_failed
        wal.checkpoint_source = self.checkpoint_locked

    # --- start -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Bring a recovered log to life.

        What marks prove committed is shown at once. A tail above the newest mark is copied into a
        new WAL file and synced before it counts (protocol 4); without one the new file waits for
        the first append, so that opening a thousand idle partitions writes nothing.
        """
        self.show_committed()
        unsworn = self.known_commit < self.wal.last_index
        if not self.read_only and (unsworn or self.identity.owner != LOCAL_OWNER):
            self.begin()

    def show_committed(self) -> None:
        """Fold and show what marks prove committed; writes nothing."""
        with self._lock:
            self.known_commit = self.wal.recovery_commit_index
            self._advance_locked()

    def begin(self) -> None:
        """Make the new WAL file of this open, if it is not there yet; everything recovered is
        durable and, embedded, committed afterwards.
        """
        mine = False
        try:
            with self._begun:
                while self._starting:
                    self._begun.wait(1.0)
                if self.started:
                    return
                mine = self._starting = True
            self.wal.start(self.checkpoint())
            with self._lock, self.wal.whole_locked():
                if self.identity.owner == LOCAL_OWNER:
                    self.known_commit = self.wal.last_index
                self.started = True
                self._advance_locked()
        except BaseException as error:
            if mine:
                self.wal.unwind(error)
            raise
        finally:
            if mine:
                with self._begun:
                    self._starting = False
                    self._begun.notify_all()

    # --- commands --------------------------------------------------------------------------------

    def leader_term(self) -> int | None:
        """The term in which this log may seal, upload and publish now; None: it may not."""
        return self.control.leader_term()

    def propose(self, command: Command, *, term: int | None = None) -> int:
        """Append a control entry; its index once it is committed and folded."""
        return self.control.propose(command, term=term)

    def advance_commit(self, index: int) -> None:
        """A quorum holds entries up to `index`: in force as soon as they are durable here."""
        with self.wal.changing():
            if index > self.known_commit:
                self.known_commit = index
                self._advance_locked()
        self._on_moved()

    def jump_locked(self, base: Position) -> None:
        """A snapshot was installed: everything below `base` is committed without being here.

        The mark in frames follows once it is durable: frames written before it may be all that a
        crash leaves, and what they find at these indexes was never committed.
        """
        self.known_commit = max(self.known_commit, base.index - 1)
        self._committed = max(self._committed, base)

    def request_commit(self) -> None:
        """Have the committer's threads write what is staged."""
        try:
            self.committer.notify(self.wal)
        except BaseException as error:
            # It is staged, and perhaps nobody writes it: whoever waits must not wait for ever.
            self.wal.give_up(error)
            raise

    def wait_offset(self, offset: int, timeout_seconds: float) -> bool:
        """Block until `offset` is committed, the WAL ends or the time is up; True: committed."""
        if self._beside is not None:
            self._beside.wait(
                lambda: self.refresh().offset > offset or self.closed, timeout_seconds
            )
            return self._committed.offset > offset
        was = self.wal.poisoned  # who asks again once it has ended waits in full: no loop spins
        self.watch.wait(
            lambda: self._committed.offset > offset or self.closed or self.wal.poisoned is not was,
            timeout_seconds,
        )
        return self._committed.offset > offset

    # --- commit ----------------------------------------------------------------------------------

    def _advance_locked(self) -> None:
        """`durable` or the known commit moved: recompute `committed`, fold, resolve waiters.

        Called with the lock held, by the WAL at the very moment `durable` moves, so that whoever
        waited for the sync finds its append committed.
        """
        wal = self.wal
        position = wal.durable
        limit = min(position.index, self.known_commit + 1)
        wal.commit_mark = max(wal.commit_mark, limit - 1)
        if limit <= self._committed.index:
            return
        if limit < position.index:
            position = wal.position_after(limit - 1)
        waiters = self.waiters
        try:
            self.state.commit(limit - 1)
            self._committed = position
            while waiters and (pending := waiters[0]).index < limit:
                pending.result = pending.place
                self._outbox.resolved.append(pending)
                waiters.popleft()
        except BaseException as error:  # folded by half
            wal.spoil_locked(error)
            raise

    def _on_synced(self) -> None:
        """A group is on disk (called by whoever led it, without the lock, one at a time). The
        replica comes last: from there on an event loop wants the interpreter, too.
        """
        self._on_moved()
        if self.wal.synced_seq != self._sworn_seq:
            self._on_unsworn(self)
        if self.replica is not None:
            self.replica.on_synced()

    def _on_moved(self) -> None:
        """`committed` may have moved: tell those who wait for it."""
        sealed = self.state.manifest.sealed
        if sealed is not self._seen_sealed:
            self._seen_sealed = sealed
            if sealed:
                self._on_sealed(self)
        if self._outbox.resolved:
            self._outbox.deliver()
        self.watch.tell()

    def _on_failed(self, error: BaseException) -> None:
        """The WAL has ended: nothing more is acknowledged until the log is reopened. What had its
        result before keeps it.
        """
        logger.error(
            "log %s/%s is poisoned: %r", self.identity.topic, self.identity.partition, error
        )
        self.last_error = f"poisoned: {error!r}"
        with self._lock:
            for pending in self.waiters:
                if pending.result is None:
                    pending.error = self.poisoned_error()
            self._outbox.resolved += self.waiters
            self.waiters.clear()
        try:
            self._outbox.deliver()
        finally:
            self.watch.tell()
            if self.replica is not None:
                self.replica.on_failed(error)

    def poisoned_error(self, durability: Durability | None = "unknown") -> LogPoisonedError:
        """What an append gets once the WAL has ended: in flight then, or made later."""
        cause = self.wal.poisoned
        return LogPoisonedError(
            f"a write or sync of {self.paths.wal} failed or was interrupted ({cause!r}); what was "
            "in flight may or may not be on disk: close the log and open it again, then read its "
            "end",
            cause=cause,
            durability=durability,
        )

    # --- state -----------------------------------------------------------------------------------

    @property
    def manifest(self) -> Manifest:
        """Folded over committed control entries; a frozen value."""
        return self.state.manifest

    @property
    def committed(self) -> Position:
        """Exclusive: everything below may be read, sealed, uploaded."""
        return self._committed

    @property
    def durable(self) -> Position:
        """Exclusive: everything below is on this disk."""
        return self.wal.durable

    @property
    def end_offset(self) -> int:
        """The offset that the next record gets."""
        return self.wal.end_offset

    @property
    def recovery(self) -> RecoveryReport:
        """What opening found and did."""
        return self.wal.recovery

    @property
    def term(self) -> int:
        """The current term (hard state)."""
        return self.state.term

    def members_at(self, index: int) -> Members | None:
        """Members as of an entry, not below `manifest.next`."""
        with self._lock:
            found = self.state.members.as_of(index)
        return None if found is None else found[1]

    @property
    def refused_commands(self) -> dict[str, int]:
        """How many control entries were no-ops, by kind."""
        return dict(self.state.refused)

    def open_segment(self) -> OpenSegment:
        """What is committed and not sealed."""
        with self._lock:
            return self.state.open_segment(self._committed.offset)

    def producers_at(self, last_index: int) -> tuple[ProducerEntry, ...]:
        """Producer state as of a SEAL that waits for its segment. KeyError if there is none."""
        with self._lock:
            return self.state.producers_at(last_index)

    def checkpoint(self) -> Checkpoint:
        """Folded committed state for a new WAL file; the WAL fills in what is its own."""
        with self._lock:
            return self.checkpoint_locked()

    def checkpoint_locked(self) -> Checkpoint:
        """The same for the WAL, which holds the lock when it asks."""
        return self.state.checkpoint(
            committed_index=self._committed.index - 1,
            owner=self.identity.owner,
            boot_id=self.boot_id,
        )

    def note_error(self, stage: str, error: BaseException | None) -> None:
        """Remembered for `status`; None clears what that stage had noted."""
        if error is not None:
            self.last_error = f"{stage}: {error}"
        elif self.last_error is not None and self.last_error.startswith(f"{stage}: "):
            self.last_error = None

    def refresh(self) -> Position:
        """Read-only: replay what the writer elsewhere has written since. Returns `committed`."""
        if self._beside is not None:
            self._beside.look()
        return self._committed

    def _look(self) -> None:
        try:
            self.wal.refresh()
        finally:
            self.show_committed()

    def swear(self) -> None:
        """After a pause: write a mark over the last group, so that read-only followers see it
        without waiting for the next append, and give up the descriptor.
        """
        with self.wal.changing():
            if self.closed or not self.started or self.wal.poisoned is not None:
                return
            seq = self._sworn_seq = self.wal.stage_mark()
        self.wal.lead(seq)
        self.wal.rest()

    def quiet(self) -> bool:
        """Nothing was written since the last time this was asked."""
        seq, self._seen_seq = self._seen_seq, self.wal.last_seq
        return seq == self._seen_seq

    def refreshed_manifest(self) -> Manifest:
        """The manifest as of a moment at which the WAL is not being replaced; read-only, after
        looking for what the writer has changed. LogClosedError once it is closed.
        """
        self.check_open()
        self.refresh()
        with self._lock:
            return self.state.manifest

    def status(self) -> LogStatus:
        """What `chronik status` prints of this partition."""
        return status_of(self)

    def check_open(self, durability: Durability | None = None) -> None:
        """ForkedError or LogClosedError when the log cannot be used from here.

        durability: what to say of an append that is refused so.
        """
        fork_guard.check(self._fork_generation)
        if self.closed:
            raise LogClosedError("this log is closed; open it again", durability=durability)

    def check_writable_locked(self, *, fenced_ok: bool = False) -> None:
        fork_guard.check(self._fork_generation)
        if self.closed:
            raise LogClosedError("this log is closed; open it again", durability="not_durable")
        if self.read_only:
            raise ReadOnlyError(
                "this log was opened read-only; open it with read_only=False to append"
            )
        if self.wal.poisoned is not None:
            raise self.poisoned_error("not_durable")
        if self.identity.owner != LOCAL_OWNER:
            raise NotReplicatedError(
                f"this log belongs to {self.identity.owner}: append through the cluster's leader",
                durability="not_durable",
            )
        fenced = self.state.manifest.fenced is not None and not fenced_ok
        if fenced and self.config.on_fenced == "stop":
            raise FencedError(
                "a successor has taken over this log's bucket folder and on_fenced is 'stop'; "
                "append to the successor",
                durability="not_durable",
            )

    # --- close -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Acknowledge what is in flight, then stop. Idempotent, as the WAL's `close` is."""
        with self._lock:
            self.closed = True
        try:
            self.wal.close()
        finally:
            self.watch.tell()
