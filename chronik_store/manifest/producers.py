"""What a log remembers of its idempotent producers (protocol 3).

Place: part of the folded state. Promise: a retried batch is recognised over the whole log of this
replica, tail included; a truncation undoes what it cut; nothing is forgotten by a clock, only by
"at most N producers, the least recently appended goes first", so every replica folds the same.
Invariant: `tail` holds the batches above `folded_to` in index order; `committed` those at or
below it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from chronik_store.errors import ProducerSequenceError
from chronik_store.format.producer_state import ProducerEntry

WINDOW = 5
"""Batches remembered for each producer, so that a pipelined client may retry any of the last 5."""


class ProducerTable:
    """Producer state of one log. Not thread-safe: the log's lock guards it."""

    def __init__(self, producers_max: int) -> None:
        self._max = producers_max
        self._committed: dict[int, tuple[ProducerEntry, ...]] = {}
        self._tail: list[ProducerEntry] = []
        self._tail_of: dict[int, deque[ProducerEntry]] = {}
        self.folded_to = 0

    def restore(self, entries: Iterable[ProducerEntry], folded_to: int) -> None:
        """Start from a checkpoint's value: all entries at or below `folded_to`, oldest first."""
        self._committed.clear()
        self._tail.clear()
        self._tail_of.clear()
        for entry in sorted(entries, key=lambda each: each.index):
            self._fold(entry)
        self.folded_to = folded_to

    def restart(self, entries: Iterable[ProducerEntry], folded_to: int) -> None:
        """Like `restore`, but what is above `folded_to` stays in the tail."""
        tail = [entry for entry in self._tail if entry.index > folded_to]
        self.restore(entries, folded_to)
        for entry in tail:
            self.append(entry)

    def check(
        self, producer_id: int, epoch: int, base_sequence: int, record_count: int
    ) -> ProducerEntry | None:
        """The original, when this batch is a duplicate; None when it is the next one.

        ProducerSequenceError otherwise: a gap, an older epoch, or an unknown producer that does
        not begin at 0.
        """
        window = self._window(producer_id)
        latest = window[-1] if window else None
        if latest is None or epoch > latest.epoch:
            if base_sequence == 0:
                return None
            raise ProducerSequenceError(
                f"producer {producer_id:#x} (epoch {epoch}) is not known here and sent sequence "
                f"{base_sequence}; a new producer or epoch begins at 0",
                producer_id=producer_id,
                expected_sequence=0,
                sequence=base_sequence,
            )
        if epoch < latest.epoch:
            raise ProducerSequenceError(
                f"producer {producer_id:#x} is at epoch {latest.epoch}; epoch {epoch} is fenced",
                producer_id=producer_id,
                expected_sequence=None,
                sequence=base_sequence,
            )
        if base_sequence == latest.last_sequence + 1:
            return None
        for entry in window:
            same_end = entry.last_sequence == base_sequence + record_count - 1
            if entry.epoch == epoch and entry.last_base_sequence == base_sequence and same_end:
                return entry
        raise ProducerSequenceError(
            f"producer {producer_id:#x} sent sequence {base_sequence}, expected "
            f"{latest.last_sequence + 1}; resend from there, or start a new epoch at 0",
            producer_id=producer_id,
            expected_sequence=latest.last_sequence + 1,
            sequence=base_sequence,
        )

    def append(self, entry: ProducerEntry) -> None:
        """A batch entered the log (not yet committed)."""
        if entry.index > self.folded_to:
            self._tail.append(entry)
            self._tail_of.setdefault(entry.producer_id, deque()).append(entry)

    def commit(self, index: int) -> None:
        """Fold everything at or below `index`."""
        tail, done = self._tail, 0
        while done < len(tail) and (entry := tail[done]).index <= index:
            self._forget(entry.producer_id).popleft()
            self._fold(entry)
            done += 1
        del tail[:done]
        self.folded_to = max(self.folded_to, index)

    def truncate(self, index: int) -> None:
        """Undo batches at or above `index`, none of which is committed."""
        while self._tail and self._tail[-1].index >= index:
            self._forget(self._tail.pop().producer_id).pop()

    def entries(self) -> tuple[ProducerEntry, ...]:
        """The committed state, oldest first: what checkpoints and segment footers carry."""
        flat = [entry for window in self._committed.values() for entry in window]
        return tuple(sorted(flat, key=lambda each: each.index))

    def _window(self, producer_id: int) -> tuple[ProducerEntry, ...]:
        recent = self._tail_of.get(producer_id, ())
        return (*self._committed.get(producer_id, ()), *recent)[-WINDOW:]

    def _forget(self, producer_id: int) -> deque[ProducerEntry]:
        """The producer's own queue, from which the caller takes one; dropped when it empties."""
        queue = self._tail_of[producer_id]
        if len(queue) == 1:
            del self._tail_of[producer_id]
        return queue

    def _fold(self, entry: ProducerEntry) -> None:
        window = self._committed.pop(entry.producer_id, ())
        # Re-inserted at the end: dict order is recency by index, so the first key is the oldest.
        self._committed[entry.producer_id] = (*window, entry)[-WINDOW:]
        if len(self._committed) > self._max:
            del self._committed[next(iter(self._committed))]
