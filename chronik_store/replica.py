"""The Raft side of a partition log (protocol 16): the log that a consensus engine writes.

Place: over `log_core`, used by `chronik_server` only. Promise: no call blocks or waits for the
disk; each change returns a ticket, and `when_synced(ticket, callback)` tells when it is durable,
in the order in which tickets were given. Invariant: entries enter through `append_entries` alone;
one at or below the commit index is never truncated; what an appender needs of the past is read
from the last live entry, never kept beside it.

A reply to a peer may leave only after the tickets of the frames that it speaks of are synced.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from chronik_store.errors import CorruptionError, UnavailableError
from chronik_store.format.checkpoint import Checkpoint
from chronik_store.format.control import Members, decode_command
from chronik_store.format.entry import Entry, EntryKind, verify_payload
from chronik_store.format.manifest_file import LogBase, Manifest
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import Position

if TYPE_CHECKING:
    from chronik_store.log_core import LogCore

logger = logging.getLogger("chronik_store.replica")

RECORDS, SEAL = int(EntryKind.RECORDS), int(EntryKind.SEAL)


class Conflict(NamedTuple):
    """Why entries were not taken: go back to `index` (the first of `term`, or one past our end)."""

    index: int  # type: ignore[assignment]
    term: int | None


class Appended(NamedTuple):
    """The answer of `append_entries`. `last_index`: prev_index + entries taken, not our own end."""

    ticket: int
    last_index: int
    conflict: Conflict | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A log that begins behind `base` (protocol 2): the manifest is the data.

    manifest: may be newer than `base`, folded to `folded_to`. producers, members: as of `base`.
    """

    base: LogBase
    manifest: Manifest
    folded_to: int
    producers: tuple[ProducerEntry, ...]
    members: Members | None
    members_index: int


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
        self._callbacks: deque[tuple[int, Callable[[], None]]] = deque()

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
    def suspect(self) -> bool:
        """This node may have lost acknowledged entries: no vote, no count (protocol 9)."""
        return self._wal.suspect

    @property
    def members(self) -> tuple[int, Members] | None:
        """(index, members) of the last MEMBERS entry in the log, committed or not (protocol 12)."""
        return self._core.state.members.in_force()

    def term(self, index: int) -> int:
        """Term of an entry, or of the snapshot's last one. IndexError when not known here."""
        with self._lock:
            return self._wal.term(index)

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

    def append_entries(self, prev_index: int, prev_term: int, entries: Sequence[Entry]) -> Appended:
        """Take entries that follow (prev_index, prev_term); paper figure 2, receiver rules 2 to 4.

        What is there with the same term stays; a conflicting suffix is truncated. Entries are
        checked on arrival (bytes, index, base offset): CorruptionError, and nothing is taken.
        AssertionError if a committed entry would be truncated: that is a defect of the engine.
        """
        for position, entry in enumerate(entries):
            verify_payload(entry.header, entry.payload)
            if entry.header.index != prev_index + 1 + position:
                raise CorruptionError(
                    f"entry {entry.header.index} arrived where {prev_index + 1 + position} follows"
                )
        with self._lock:
            conflict = self._conflict_locked(prev_index, prev_term)
            if conflict is not None:
                return Appended(self._wal.last_seq, prev_index, conflict)
            fresh = self._skip_known_locked(entries)
            if fresh and fresh[0].header.index <= self._wal.last_index:
                self._truncate_locked(fresh[0].header.index)
            for entry in fresh:
                self._stage_locked(entry)
            ticket = self._wal.last_seq
        self._core.request_commit()
        return Appended(ticket, prev_index + len(entries), None)

    def _conflict_locked(self, prev_index: int, prev_term: int) -> Conflict | None:
        wal = self._wal
        if prev_index > wal.last_index:
            return Conflict(wal.last_index + 1, None)
        if prev_index < wal.base.index:
            return None  # behind the snapshot everything is committed, hence equal
        own = wal.term(prev_index)
        if own == prev_term:
            return None
        index = prev_index
        floor = max(wal.base.index, self._core.committed.index - 1)
        while index - 1 > floor and wal.term(index - 1) == own:
            index -= 1
        return Conflict(index, own)

    def _skip_known_locked(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        wal = self._wal
        for position, entry in enumerate(entries):
            index = entry.header.index
            if index <= wal.base.index:
                continue
            if index > wal.last_index or wal.term(index) != entry.header.term:
                return entries[position:]
        return ()

    def _stage_locked(self, entry: Entry) -> None:
        header, payload = entry
        wal = self._wal
        if header.base_offset != wal.end_offset:
            raise CorruptionError(
                f"entry {header.index} says offset {header.base_offset}, this log ends at "
                f"{wal.end_offset}"
            )
        encoded = entry.encode()
        body = memoryview(encoded)[len(encoded) - header.payload_bytes :]
        wal.stage_entry(encoded[: len(encoded) - header.payload_bytes], header, body)
        if header.kind == RECORDS:
            batch = RecordBatch.from_buffer(payload, verify=False)
            self._core.state.note_records(header, batch, self._core.env.clock.time_us())
        else:
            self._core.state.note_command(header, decode_command(header.kind, payload))
            if header.kind == SEAL:
                wal.stage_rotation()  # a file that ends with a segment can go with it

    def truncate_suffix(self, index: int) -> int:
        """Remove entries at or above `index`, none of which may be committed. Returns a ticket."""
        with self._lock:
            if index <= self._wal.last_index:
                self._truncate_locked(index)
            ticket = self._wal.last_seq
        self._core.request_commit()
        return ticket

    def _truncate_locked(self, index: int) -> None:
        committed = self._core.committed.index - 1
        assert index > committed, f"truncating {index}, committed is {committed}"
        self._wal.stage_truncate(index)
        self._core.state.on_truncate(index)

    def save_hard_state(self, term: int, vote: str) -> int:
        """Term and vote, one record. Returns a ticket; nothing that shows them may leave before."""
        with self._lock:
            state = self._core.state
            assert term >= state.term, f"term goes back from {state.term} to {term}"
            state.on_hard_state(term, vote)
            ticket = self._wal.stage_hard_state(term, vote)
        self._core.request_commit()
        return ticket

    def set_suspect(self, flag: bool) -> int:
        """Set or clear suspicion, durably. Returns a ticket."""
        with self._lock:
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

        Not called when the log is poisoned: the process ends then.
        """
        with self._lock:
            if ticket > self._wal.synced_seq:
                position = len(self._callbacks)
                while position and self._callbacks[position - 1][0] > ticket:
                    position -= 1
                self._callbacks.insert(position, (ticket, callback))
                return
        self._dispatch(callback)

    def on_synced(self) -> None:
        """The core calls this after each group, without the lock."""
        ready: list[Callable[[], None]] = []
        with self._lock:
            synced = self._wal.synced_seq
            while self._callbacks and self._callbacks[0][0] <= synced:
                ready.append(self._callbacks.popleft()[1])
        for callback in ready:
            self._dispatch(callback)

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
            members = state.members.as_of(manifest.next.index)
        return Snapshot(
            base=manifest.next,
            manifest=manifest,
            folded_to=folded_to,
            producers=producers,
            members=None if members is None else members[1],
            members_index=0 if members is None else members[0],
        )

    def load_producers(self, last_index: int, producers: tuple[ProducerEntry, ...]) -> None:
        """Producer state as of the last segment, read from its footer by the caller."""
        with self._lock:
            if last_index == self._core.state.manifest.next.index:
                self._core.state.tiered_producers = producers

    def install_snapshot(self, snapshot: Snapshot) -> int:
        """Begin behind `snapshot.base`; a suffix that matches it stays. Returns a ticket."""
        with self._lock:
            if snapshot.base.index < self._core.committed.index:
                return self._wal.last_seq  # we are past it: nothing to install
            checkpoint = Checkpoint(
                log_id=self._core.identity.log_id,
                term=0,
                vote="",
                base=snapshot.base,
                committed_index=snapshot.base.index,
                manifest=snapshot.manifest,
                manifest_folded_to=snapshot.folded_to,
                producers=snapshot.producers,
                producers_folded_to=snapshot.base.index,
                members=snapshot.members,
                members_index=snapshot.members_index,
                owner=self._core.identity.owner,
                boot_id=self._core.boot_id,
            )
            ticket, replaced = self._wal.stage_snapshot(checkpoint)
            state = self._core.state
            if replaced:
                state.on_truncate(0)
            state.on_checkpoint(dataclasses.replace(checkpoint, term=state.term, vote=state.vote))
            self._core.jump_locked(Position(snapshot.base.index + 1, snapshot.base.offset))
        self._core.request_commit()
        return ticket
