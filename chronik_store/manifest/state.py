"""The folded state of one log: the same `apply` for recovery and for live entries.

Place: `wal` recovery replays into it (it satisfies the Replayer protocol), the partition core
feeds it live. Promise: `manifest` holds committed control entries only; producers and members see
the whole log and are undone by truncation. Invariant: `folded_to` only grows; an entry at or below
the index that a value is folded to is skipped (protocol 1).

Not thread-safe: the log's lock guards it, except that `manifest` is a frozen value behind one
attribute, which readers may take at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chronik_store.format.checkpoint import Checkpoint
from chronik_store.format.control import Command, Members, Seal, decode_command
from chronik_store.format.entry import EntryHeader, EntryKind
from chronik_store.format.manifest_file import LogBase, Manifest
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.format.record_batch import RecordBatch
from chronik_store.fs.base import Buffer
from chronik_store.manifest.fold import Applied, apply_command, sealed_end
from chronik_store.manifest.members import MemberHistory
from chronik_store.manifest.producers import ProducerTable
from chronik_store.manifest.tally import SegmentTally

RECORDS = int(EntryKind.RECORDS)
REFUSALS_KEPT = 1024
"""So many refused commands are remembered, each for who proposed it and asks at once."""


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """What is committed and not sealed. `oldest_us`: when its first record was appended."""

    first_index: int
    base_offset: int
    record_count: int
    payload_bytes: int
    oldest_us: int | None


class FoldedState:
    """Manifest, producers, members, open-segment tally and hard state of one log."""

    def __init__(
        self, *, topic: str, partition: int, topic_id: str, log_id: str, producers_max: int
    ) -> None:
        self.term = 0
        self.vote = ""
        self.rewinds = 0
        """How often folded entries went: in a reader beside a log that `repair` lets go on from
        less than was shown, or whose files were pruned unread, so that nobody can tell.
        """
        self._producers_max = producers_max
        self._begin(empty_manifest(topic, partition, topic_id, log_id))

    def _begin(self, manifest: Manifest) -> None:
        """Fold from nothing."""
        self.manifest = manifest
        self.folded_to = 0
        self.producers = ProducerTable(self._producers_max)
        self.members = MemberHistory()
        self.refused: dict[str, int] = {}
        self._refusals: dict[int, str] = {}
        self._refusals_from = 0
        self._started = False
        self._hole_to = 0
        self._last_index = 0
        # Lists where few wait: an empty deque takes 760 bytes, and idle logs are many.
        self._waiting: list[tuple[EntryHeader, Command]] = []
        self._producers_at: dict[int, tuple[ProducerEntry, ...]] = {}
        self.tiered_producers: tuple[ProducerEntry, ...] | None = ()
        """Producers as of `manifest.next`; None when only that segment's footer has them."""
        self._tally = SegmentTally()

    # --- the Replayer side: physical order, live and at recovery -------------------------------

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """The first checkpoint is where folding starts; later ones repeat what was replayed.

        Except one that replaces the log (its base is not where replay stands), one whose manifest
        is folded further than the log goes: an installed snapshot (protocol 1, 2), and one that
        closes a hole: the first file's checkpoint was written while `committed` lagged behind the
        file before it, which has been pruned since, so what lies between its fold and its base is
        folded in a later checkpoint only.
        """
        if self._started and checkpoint.base.index == self._last_index:
            if self._hole_to and checkpoint.manifest_folded_to >= self._hole_to:
                self._close_hole(checkpoint)
            elif checkpoint.manifest_folded_to > max(self._last_index, self.folded_to):
                self.manifest = checkpoint.manifest
                self.folded_to = checkpoint.manifest_folded_to
            return
        self._started = True
        self._last_index = checkpoint.base.index
        folded_to = min(checkpoint.manifest_folded_to, checkpoint.producers_folded_to)
        self._hole_to = checkpoint.base.index if folded_to < checkpoint.base.index else 0
        self.manifest = checkpoint.manifest
        self.folded_to = checkpoint.manifest_folded_to
        at_base = checkpoint.producers_folded_to == checkpoint.manifest.next.index
        self.tiered_producers = checkpoint.producers if at_base else None
        self.producers.restore(checkpoint.producers, checkpoint.producers_folded_to)
        self.members.restore(checkpoint.members, checkpoint.members_index)
        self._waiting.clear()
        self._producers_at.clear()
        self._tally = SegmentTally()

    def _close_hole(self, checkpoint: Checkpoint) -> None:
        """Start the fold at this later checkpoint; entries above it wait on as they are.

        Producers as of a SEAL below it are not known any more: `producers_at` has none for those.
        """
        self._hole_to = 0
        self.manifest = checkpoint.manifest
        self.folded_to = checkpoint.manifest_folded_to
        self.tiered_producers = None
        self.producers.restart(checkpoint.producers, checkpoint.producers_folded_to)
        self.members.restart(checkpoint.members, checkpoint.members_index)
        while self._waiting and self._waiting[0][0].index <= self.folded_to:
            header, command = self._waiting.pop(0)
            if isinstance(command, Seal) and header.index == self.manifest.open_first_index - 1:
                self._tally.sealed(header.index)
            elif isinstance(command, Seal):
                self._tally.refused(header.index)  # or long superseded: the last one counts

    def on_entry(self, header: EntryHeader, payload: Buffer) -> None:
        """An entry entered the log: remember what a commit will fold.

        The index timestamp stands in for the clock at which it was appended: never more than
        `max_future_seconds` later (protocol 17), so a restart seals by age sooner, not never.
        """
        if header.kind == RECORDS:
            batch = RecordBatch.from_buffer(payload, verify=False)
            self.note_records(header, batch, header.timestamp_us)
        else:
            self.note_command(header, decode_command(header.kind, payload))

    def note_records(self, header: EntryHeader, batch: RecordBatch, clock_us: int) -> None:
        """A records entry entered the log, appended when the clock said `clock_us`."""
        self._last_index = header.index
        if header.index >= self.manifest.open_first_index:
            self._tally.add(header.index, header.payload_bytes, clock_us)
        if batch.producer_id:
            self.producers.append(producer_entry(header, batch))

    def note_command(self, header: EntryHeader, command: Command) -> None:
        """A control entry entered the log."""
        self._last_index = header.index
        if isinstance(command, Seal):
            self._tally.seal(header.index)
        elif isinstance(command, Members):
            self.members.append(header.index, command)
        self._waiting.append((header, command))

    def on_truncate(self, index: int) -> None:
        """Entries at or above `index` are gone; none of them is committed, or see `rewinds`."""
        self.rewinds += index <= self.folded_to
        self._last_index = index - 1
        while self._waiting and self._waiting[-1][0].index >= index:
            self._waiting.pop()
        self.producers.truncate(index)
        self.members.truncate(index)
        self._tally.truncate(index)

    def on_hard_state(self, term: int, vote: str) -> None:
        """Term and vote as last written."""
        self.term, self.vote = term, vote

    def lacks(self, base_index: int, committed_index: int) -> Literal["", "segments", "records"]:
        """See `Replayer`."""
        self.commit(committed_index)
        if self._hole_to:
            return "segments"
        return "records" if self.manifest.next.index < base_index else ""

    def on_nothing(self) -> None:
        """All that was replayed is taken back; term and vote stay."""
        known = self.manifest
        self._begin(empty_manifest(known.topic, known.partition, known.topic_id, known.log_id))

    @property
    def open_bytes(self) -> int:
        """Payload bytes staged behind the last SEAL that took effect."""
        return self._tally.open_bytes

    @property
    def seal_waits(self) -> bool:
        """A SEAL is in the log and no commit has folded it yet."""
        return self._tally.seal_waits

    # --- commit ---------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """There are control entries that no commit has folded yet."""
        return bool(self._waiting)

    def commit(self, index: int) -> None:
        """Fold every control entry at or below `index`, in order; counted reasons for no-ops."""
        waiting = self._waiting
        while waiting and waiting[0][0].index <= index:
            header, command = waiting.pop(0)
            self.producers.commit(header.index)
            if header.index > self.folded_to:
                self._fold(header, command)
            elif isinstance(command, Seal):
                self._note_sealed(header.index)
        self.producers.commit(index)
        # A snapshot carries the members as of `next`: keep the history from there on.
        self.members.commit(min(index, self.manifest.next.index))
        self.folded_to = max(self.folded_to, index)

    def _fold(self, header: EntryHeader, command: Command) -> None:
        applied: Applied = apply_command(self.manifest, header, command)
        if applied.refused is not None:
            if isinstance(command, Seal):
                self._tally.refused(header.index)
            name = EntryKind(header.kind).name
            self.refused[name] = self.refused.get(name, 0) + 1
            self.note_refusal(header.index, applied.refused)
            return
        before, self.manifest = self.manifest.next.index, applied.manifest
        if isinstance(command, Seal):
            self._note_sealed(header.index)
        # Not by ADD_SEGMENT alone: `next` moves over ranges that were dropped before their upload.
        if self.manifest.next.index != before:
            self.tiered_producers = self._producers_at.get(self.manifest.next.index)

    def _note_sealed(self, index: int) -> None:
        """A SEAL took effect here, or long ago in the checkpoint that this log started from."""
        self._tally.sealed(index)
        self._producers_at[index] = self.producers.entries()
        live = {self.manifest.next.index, *(each.last_index for each in self.manifest.sealed)}
        self._producers_at = {at: kept for at, kept in self._producers_at.items() if at in live}

    # --- what the folded values are used for ----------------------------------------------------

    def note_refusal(self, index: int, reason: str) -> None:
        """The command at `index` was folded and changed nothing."""
        if len(self._refusals) >= REFUSALS_KEPT:
            oldest = next(iter(self._refusals))
            del self._refusals[oldest]
            self._refusals_from = oldest + 1
        self._refusals[index] = reason

    def refusal_of(self, index: int) -> str | None:
        """Why the command at `index`, which is folded, changed nothing; None: it took effect."""
        if index < self._refusals_from:
            return "what became of it is not remembered any more"
        return self._refusals.get(index)

    def producers_at(self, last_index: int) -> tuple[ProducerEntry, ...]:
        """Producer state as of `manifest.next`, or of a SEAL behind it. KeyError if not known."""
        if last_index == self.manifest.next.index and self.tiered_producers is not None:
            return self.tiered_producers
        return self._producers_at[last_index]

    def open_segment(self, committed_offset: int) -> OpenSegment:
        """What is committed and not sealed."""
        _, base_offset = sealed_end(self.manifest)
        count = max(0, committed_offset - base_offset)
        first_index = self.manifest.open_first_index
        size, oldest_us = self._tally.open(first_index)
        return OpenSegment(
            first_index=first_index,
            base_offset=base_offset,
            record_count=count,
            payload_bytes=size if count else 0,
            oldest_us=oldest_us if count else None,
        )

    def checkpoint(
        self,
        *,
        committed_index: int,
        owner: str,
        boot_id: str,
    ) -> Checkpoint:
        """Everything that pruning an earlier WAL file would otherwise lose (protocol 1).

        The WAL fills in what only it knows: base, hard state, suspicion, where the older files end.
        """
        members = self.members.as_of(self.folded_to)
        return Checkpoint(
            log_id=self.manifest.log_id,
            term=self.term,
            vote=self.vote,
            base=LogBase(0, 0, 0, 0),
            committed_index=committed_index,
            manifest=self.manifest,
            manifest_folded_to=self.folded_to,
            producers=self.producers.entries(),
            producers_folded_to=self.producers.folded_to,
            members=None if members is None else members[1],
            members_index=0 if members is None else members[0],
            previous_end=None,
            owner=owner,
            boot_id=boot_id,
        )


def producer_entry(header: EntryHeader, batch: RecordBatch) -> ProducerEntry:
    """What the log remembers of one batch of an idempotent producer."""
    return ProducerEntry(
        producer_id=batch.producer_id,
        epoch=batch.producer_epoch,
        last_sequence=batch.base_sequence + header.record_count - 1,
        last_base_sequence=batch.base_sequence,
        base_offset=header.base_offset,
        end_offset=header.base_offset + header.record_count,
        index=header.index,
    )


def empty_manifest(topic: str, partition: int, topic_id: str, log_id: str) -> Manifest:
    """The manifest of a log without entries."""
    return Manifest(topic=topic, partition=partition, topic_id=topic_id, log_id=log_id)
