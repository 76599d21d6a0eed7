"""The Raft side of a partition log (protocol 16): the log that a consensus engine writes.

Place: over `log_core`, used by `chronik_server` only. Promise: no call blocks or waits for the
disk; each change returns a ticket, and `when_synced(ticket, callback)` tells when it is durable,
in the order in which tickets were given. Invariant: entries enter through `append_entries` (a
follower's) and `propose` (the leader's) alone; one at or below the commit index is never
truncated; what an appender needs of the past is read from the last live entry, never kept beside
it.

A reply to a peer may leave only after the tickets of the frames that it speaks of are synced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from chronik_store.errors import (
    FencedError,
    IdentityMismatchError,
    OffsetConflictError,
    UnavailableError,
)
from chronik_store.format.control import Command, Members, Seal
from chronik_store.format.entry import (
    Entry,
    EntryHeader,
    EntryKind,
    new_entry_header,
    pack_header,
)
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import Position
from chronik_store.replica_matching import check_offsets, find_conflict, skip_known
from chronik_store.replica_tickets import Failure, TicketQueue
from chronik_store.replica_values import Appended, Conflict, Snapshot, Staged, arrive

if TYPE_CHECKING:
    from chronik_store.log_core import LogCore

__all__ = ["Appended", "Conflict", "Replica", "Snapshot", "Staged"]

RECORDS = int(EntryKind.RECORDS)


class Replica:
    """The Raft face of one log. Thread-safe.

    dispatch: how synced-callbacks reach their owner, in order (an event loop's
    `call_soon_threadsafe`); called from the committing thread.
    """

    def __init__(self, core: LogCore, dispatch: Callable[[Callable[[], None]], None]) -> None:
        self._core = core
        self._wal = core.wal
        self._lock = core.wal.lock
        self._dispatch = dispatch
        self._tickets = TicketQueue(core.wal.lock, lambda: core.wal.synced_seq, dispatch)
        self._failure = Failure(dispatch)

    # --- what the log holds ----------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """Of the first entry held; below it there is only the snapshot."""
        return self._wal.first_index

    @property
    def last_index(self) -> int:
        """Of the last entry, synced or not."""
        return self._wal.last_index

    @property
    def last_term(self) -> int:
        """Term of the last entry, or of the snapshot's; 0 for an empty log."""
        return self._wal.last_term

    @property
    def last_ticket(self) -> int:
        """Covers everything that was changed until now."""
        return self._wal.last_seq

    @property
    def synced_ticket(self) -> int:
        """Everything up to this ticket is durable."""
        return self._wal.synced_seq

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait for this node's disk."""
        return self._wal.pending_bytes

    @property
    def durable_index(self) -> int:
        """Inclusive: entries up to here are on this disk. A node counts itself up to here only."""
        return self._wal.durable.index - 1

    @property
    def commit_index(self) -> int:
        """Inclusive: min(what the leader said, durable)."""
        return self._core.committed.index - 1

    @property
    def hard_state(self) -> tuple[int, str]:
        """(term, vote); vote "" for none. As staged; durable by its ticket."""
        return self._core.state.term, self._core.state.vote

    @property
    def current_term(self) -> int:
        """The term of `hard_state`."""
        return self._core.state.term

    @property
    def suspect(self) -> bool:
        """This node may have lost acknowledged entries: no vote, no count (protocol 9)."""
        return self._wal.suspect

    def go_on_by_roll_call(self) -> str:
        """Every voter is suspect, and this log the longest: whole from here on. What that costs."""
        self.set_suspect(False)
        return self._wal.note_cut()

    @property
    def members(self) -> tuple[int, Members] | None:
        """(index, members) of the last MEMBERS entry in the log, committed or not (protocol 12)."""
        return self._core.state.members.in_force()

    @property
    def committed_members(self) -> tuple[int, Members] | None:
        """The same, of the last one that is known to be committed here."""
        return self._core.state.members.as_of(self.commit_index)

    def term(self, index: int) -> int:
        """Term of an entry, or of the snapshot's last one. IndexError when not known here."""
        with self._lock:
            return self._wal.term(index)

    def known_term(self, index: int) -> int:
        """Term of an entry, 0 when it is below everything held here."""
        with self._lock:
            return self._wal.term(index) if index >= self._wal.base.index else 0

    def entries(self, first_index: int, max_bytes: int) -> list[Entry]:
        """Entries from `first_index` on, verbatim: memory first, then files (then it reads the
        disk: call it from a worker when `first_index` is below `tail_first_index`).

        IndexError below `first_index`: send a snapshot.
        """
        return self._wal.read(first_index, self._wal.last_index, max_bytes)

    @property
    def tail_first_index(self) -> int:
        """Entries from here on are in memory."""
        return self._wal.tail_first_index

    # --- changing it -----------------------------------------------------------------------------

    def has_room(self, entries: Sequence[Entry], *, last: bool = False) -> bool:
        """Whether this disk still takes records of this size: below the reserve it does not, for
        an append that fails half-way ends the log. Commands always pass: room is kept for them.
        last: as of `DiskGuard.has_last_room`.
        """
        size = sum(each.header.entry_bytes for each in entries if each.header.kind == RECORDS)
        guard = self._core.guard
        return not size or (guard.has_last_room(size) if last else guard.has_room(size))

    def has_space(self) -> bool:
        """Whether this disk takes records at all. UnavailableError when it does not answer."""
        return self._core.guard.has_room(1)

    def append_entries(
        self, prev_index: int, prev_term: int, entries: Sequence[Entry], *, commit: bool = True
    ) -> Appended:
        """Take entries that follow (prev_index, prev_term); paper figure 2, receiver rules 2 to 4.
        commit False: as for `propose`.

        What is there with the same term stays; a conflicting suffix is truncated. Entries are
        checked on arrival (bytes, index, offsets): CorruptionError, and nothing is taken.
        AssertionError if a committed entry would be truncated: that is a defect of the engine.
        """
        arrived = [arrive(entry, prev_index + 1 + n) for n, entry in enumerate(entries)]
        now_us = self._core.env.clock.time_us()
        try:
            with self._lock:
                committed = self._core.committed.index - 1
                conflict = find_conflict(self._wal, committed, prev_index, prev_term)
                if conflict is not None:
                    return Appended(self._wal.last_seq, prev_index, conflict)
                fresh = skip_known(self._wal, arrived)
                if fresh:
                    check_offsets(self._wal, fresh)
                    if fresh[0].header.index <= self._wal.last_index:
                        self._truncate_locked(fresh[0].header.index)
                for header, payload, content in fresh:
                    self._stage_locked(pack_header(header), header, payload, content, now_us)
                ticket = self._wal.last_seq
        except BaseException as error:
            self._wal.unwind(error)
            raise
        if fresh and commit:
            self._core.request_commit()
        return Appended(ticket, prev_index + len(entries), None)

    def _stage_locked(
        self,
        encoded: bytes,
        header: EntryHeader,
        payload: bytes,
        content: RecordBatch | Command,
        now_us: int,
    ) -> None:
        wal, state = self._wal, self._core.state
        wal.stage_entry(encoded, header, payload)
        try:
            if isinstance(content, RecordBatch):
                state.note_records(header, content, now_us)
                return
            state.note_command(header, content)
            if isinstance(content, Seal):
                wal.stage_rotation()  # a file that ends with a segment can go with it
        except BaseException as error:
            wal.spoil_locked(error)
            raise

    def propose(
        self,
        term: int,
        payloads: Sequence[RecordBatch | Command],
        *,
        expected_offset: int | None = None,
        commit: bool = True,
    ) -> Staged:
        """Append entries of the leader's own term, one for each payload, in order, all or none.
        commit False: the caller calls `request_commit` soon, after others perhaps.

        A batch of an idempotent producer comes alone; a duplicate stages nothing and shares the
        outcome of its original (protocol 3). expected_offset: only if the log ends there, else
        OffsetConflictError. ProducerSequenceError, FencedError; LogPoisonedError and
        LogClosedError as `Wal.stage_entry`. Nothing was staged then.
        """
        now_us = self._core.env.clock.time_us()
        try:
            with self._lock:
                staged = self._propose_locked(term, payloads, expected_offset, now_us)
        except BaseException as error:
            self._wal.unwind(error)
            raise
        if commit and not staged.duplicate:
            self._core.request_commit()
        return staged

    def _propose_locked(
        self,
        term: int,
        payloads: Sequence[RecordBatch | Command],
        expected_offset: int | None,
        now_us: int,
    ) -> Staged:
        state, wal = self._core.state, self._wal
        assert term == state.term, f"proposing for term {term} in term {state.term}"
        for payload in payloads:
            if isinstance(payload, RecordBatch):
                original = self._admit_locked(payload, alone=len(payloads) == 1)
                if original is not None:
                    return Staged(
                        wal.last_seq,
                        original.index,
                        original.base_offset,
                        original.end_offset,
                        duplicate=True,
                    )
        base_offset, before = wal.end_offset, wal.last_seq
        if expected_offset is not None and expected_offset != base_offset:
            raise OffsetConflictError(
                f"expected the log to end at {expected_offset}, it ends at {base_offset}: "
                "read what was appended in between, then decide again",
                expected_offset=expected_offset,
                end_offset=base_offset,
            )
        try:
            for payload in payloads:
                self._stage_own_locked(payload, now_us)
            staged = Staged(wal.last_seq, wal.last_index, base_offset, wal.end_offset)
            if state.open_bytes >= self._core.config.segment_bytes and not state.seal_waits:
                # Here and not in the pipeline, which may sit in an upload: sizes stay bounded.
                seal = Seal(state.manifest.open_first_index, "size", now_us)
                self._stage_own_locked(seal, now_us)
        except BaseException as error:
            if wal.last_seq != before:  # some of them are staged, which is to be none
                wal.spoil_locked(error)
            raise
        return staged

    def request_commit(self) -> None:
        """Have everything that is staged written and synced soon."""
        self._core.request_commit()

    def _admit_locked(self, batch: RecordBatch, *, alone: bool) -> ProducerEntry | None:
        core = self._core
        if core.state.manifest.fenced is not None and core.config.on_fenced == "stop":
            raise FencedError(
                "a successor has taken over this log's bucket folder and on_fenced is 'stop'; "
                "append to the successor",
                durability="not_durable",
            )
        if not batch.producer_id:
            return None
        if not alone:
            raise ValueError("a batch of an idempotent producer is proposed alone")
        return core.state.producers.check(
            batch.producer_id, batch.producer_epoch, batch.base_sequence, batch.record_count
        )

    def _stage_own_locked(self, content: RecordBatch | Command, now_us: int) -> None:
        state, wal = self._core.state, self._wal
        timestamp_us, count = wal.last_timestamp_us, 0
        if isinstance(content, RecordBatch):
            kind, count, payload = RECORDS, content.record_count, content.buffer
            high_us = content.max_timestamp_us if content.has_timestamps else now_us
            bound_us = now_us + int(self._core.config.max_future_seconds * 1_000_000)
            timestamp_us = max(timestamp_us, min(high_us, bound_us))  # protocol 17
        else:
            kind, payload = int(content.KIND), content.encode()
        encoded, header = new_entry_header(
            kind, state.term, wal.last_index + 1, wal.end_offset, count, timestamp_us, payload
        )
        self._stage_locked(encoded, header, payload, content, now_us)

    def truncate_suffix(self, index: int) -> int:
        """Remove entries at or above `index`, none of which may be committed. Returns a ticket."""
        with self._wal.changing():
            if index <= self._wal.last_index:
                self._truncate_locked(index)
            ticket = self._wal.last_seq
        self._core.request_commit()
        return ticket

    def _truncate_locked(self, index: int) -> None:
        committed = self._core.committed.index - 1
        assert index > committed, f"truncating {index}, committed is {committed}"
        self._wal.stage_truncate(index)
        with self._wal.whole_locked():
            self._core.state.on_truncate(index)

    def save_hard_state(self, term: int, vote: str) -> int:
        """Term and vote, one record. Returns a ticket; nothing that shows them may leave before."""
        with self._wal.changing():
            state = self._core.state
            assert term >= state.term, f"term goes back from {state.term} to {term}"
            ticket = self._wal.stage_hard_state(term, vote)
            state.on_hard_state(term, vote)
        self._core.request_commit()
        return ticket

    def set_suspect(self, flag: bool) -> int:
        """Set or clear suspicion, durably. Returns a ticket."""
        with self._wal.changing():
            ticket = self._wal.stage_suspect(flag)
        self._core.request_commit()
        return ticket

    def advance_commit(self, index: int) -> None:
        """The leader says that entries up to `index` are committed; remembered, and in force as
        soon as they are durable here.
        """
        self._core.advance_commit(index)

    # --- tickets ---------------------------------------------------------------------------------

    def when_synced(self, ticket: int, callback: Callable[[], None]) -> None:
        """Dispatch `callback` once everything up to `ticket` is durable; at once if it is.

        Not called when the log is poisoned: who asked by `on_poisoned` is, and the process ends.
        """
        self._tickets.wait(ticket, callback)

    def on_synced(self) -> None:
        """The core calls this after each group, without the lock."""
        self._tickets.dispatch_ready()

    def on_failed(self, error: BaseException) -> None:
        """The core calls this once when the log is poisoned, without the lock."""
        self._failure.report(error)

    def on_poisoned(self, callback: Callable[[BaseException], None]) -> None:
        """Dispatch it once when a write or sync has failed, now or before: nothing more will become
        durable.
        """
        self._failure.listen(callback)

    # --- snapshots -------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """What a peer needs to begin behind the last segment in the manifest (protocol 2).

        UnavailableError until producer state as of that segment is known here (it is in the
        segment's footer; `load_producers` takes what was read from it).
        """
        with self._lock:
            state = self._core.state
            manifest, folded_to = state.manifest, state.folded_to
            producers = state.tiered_producers
            if producers is None:
                raise UnavailableError(
                    "producer state as of the last segment is not loaded; load it, then ask again"
                )
            index, members = state.members.as_of(manifest.next.index) or (0, None)
        return Snapshot(manifest.next, manifest, folded_to, producers, members, index)

    def load_producers(self, last_index: int, producers: tuple[ProducerEntry, ...]) -> None:
        """Producer state as of the last segment, read from its footer by the caller."""
        with self._lock:
            if last_index == self._core.state.manifest.next.index:
                self._core.state.tiered_producers = producers

    def install_snapshot(self, snapshot: Snapshot) -> int:
        """Begin behind `snapshot.base`. Returns a ticket.

        When our entry at the base matches, everything up to it is here, and committed: nothing is
        replaced, the suffix stays. IdentityMismatchError when it is another log's.
        """
        core, base = self._core, snapshot.base
        if snapshot.manifest.log_id != core.identity.log_id:
            raise IdentityMismatchError(
                f"a snapshot of log {snapshot.manifest.log_id} came to {core.identity.log_id}"
            )
        with self._wal.changing():
            if base.index < core.committed.index:
                return self._wal.last_seq  # we are past it: nothing to install
            held = self._wal.base.index <= base.index <= self._wal.last_index
            held = held and self._wal.term(base.index) == base.term
            if not held:
                checkpoint = snapshot.checkpoint(core.identity.owner, core.boot_id)
                _, replaced = self._wal.stage_snapshot(checkpoint)
                assert replaced, f"a snapshot at {base.index} found its entry in the log"
                state = core.state
                with self._wal.whole_locked():
                    state.on_truncate(0)
                    state.on_checkpoint(checkpoint)
                    core.jump_locked(Position(base.index + 1, base.offset))
            ticket = self._wal.last_seq
        if held:
            core.advance_commit(base.index)
        else:
            core.request_commit()
        return ticket
