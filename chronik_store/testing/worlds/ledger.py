"""What the clients of a log know for certain, and what they must never see.

Place: beside every world, model and crash test; fed by whoever uses the log. Promise: a fact that
does not fit those before it raises AssertionError. Invariant: it knows nothing of a log's insides.

Every value is offered once and looks like no other, so a value at two offsets, two values at one
offset, a hole, half a batch and a ghost all show. Acknowledged or read once means there for ever
(until dropped); refused with "not_durable" means never.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable
from typing import Any

from chronik_store.errors import OffsetOutOfRangeError


class Ledger:
    """Facts about one log, gathered over all its lives."""

    def __init__(self, seed: object = 0) -> None:
        self._rng = random.Random(f"{seed}/values")
        self._made = 0
        self.name = b""
        """What each value begins with, where there are logs of several owners."""
        self.known: dict[int, bytes] = {}
        """Offset to value: acknowledged, or shown to a reader."""
        self.acked_values = 0
        self.compared = 0
        """How often a record that was shown has been compared with what is known."""
        self.batches: list[list[bytes]] = []
        self._cuts: list[tuple[int, int]] = []
        """Of so many of the first batches nothing is left from that offset on."""
        self._offset_of: dict[bytes, int] = {}
        self._offered: set[bytes] = set()
        self._refused: set[bytes] = set()
        self.start = 0
        """The log starts here or later: a drop up to it was acknowledged."""
        self.start_wished = 0
        """And not later than here: no drop beyond it was ever asked for."""
        self.cursors: dict[str, int] = {}
        self.cursors_wished: dict[str, set[int | None]] = {}
        self._cursors_ever: dict[str, set[int]] = {}

    # --- what happens ----------------------------------------------------------------------------

    def offer(self, count: int = 1, *, size_max: int = 300) -> list[bytes]:
        """New values, about to be appended as one batch."""
        batch = []
        for _ in range(count):
            self._made += 1
            batch.append(self.name + b"%06d" % self._made + b"v" * self._rng.randrange(size_max))
        self._offered.update(batch)
        self.batches.append(batch)
        return batch

    def acked(self, base_offset: int, batch: Iterable[bytes]) -> None:
        """An append returned."""
        for offset, value in enumerate(batch, base_offset):
            self.acked_values += 1
            self.saw(offset, value)

    def refused(self, batch: Iterable[bytes]) -> None:
        """An append raised and said that nothing was written."""
        for value in batch:
            assert value not in self._offset_of, f"{value[:6]!r} is there and was refused"
            self._refused.add(value)

    def saw(self, offset: int, value: bytes) -> None:
        """A reader was shown this."""
        self.compared += 1
        assert value in self._offered, f"offset {offset} holds {value[:20]!r}, never offered"
        assert value not in self._refused, f"{value[:6]!r} was refused and is at {offset}"
        known = self.known.setdefault(offset, value)
        assert known == value, f"offset {offset} was {known[:6]!r} and is {value[:6]!r}"
        place = self._offset_of.setdefault(value, offset)
        assert place == offset, f"{value[:6]!r} is at {place} and at {offset}"

    def saw_all(self, base_offset: int, values: Iterable[bytes]) -> None:
        for offset, value in enumerate(values, base_offset):
            self.saw(offset, value)

    def wish_start(self, offset: int) -> None:
        """A drop, or retention, up to here is about to be asked for."""
        self.start_wished = max(self.start_wished, offset)

    def dropped(self, offset: int) -> None:
        """It was acknowledged."""
        self.start = max(self.start, offset)

    def wish_cursor(self, name: str, offset: int) -> None:
        """A cursor is about to be committed there."""
        self.cursors_wished.setdefault(name, set()).add(offset)
        self._cursors_ever.setdefault(name, set()).add(offset)

    def forget(self, offset: int) -> None:
        """The log goes on from here, and said so: what is known at or above is a fact no more, and
        those values must not be seen again.

        Drops and cursors stood in the log, too, and may have gone with it. A cursor is where it was
        once committed, or at the new end. A batch is given up whole, but where it was dropped in
        part, and the log now begins behind that.
        """
        for place in [each for each in self.known if each >= offset]:
            value = self.known.pop(place)
            del self._offset_of[value]
            self._refused.add(value)
        if offset <= self.start_wished:
            self.batches = [each for each in self.batches if not self._refused.intersection(each)]
        self.start = 0
        for name, ever in self._cursors_ever.items():
            self.cursors_wished[name] = {None, *(min(each, offset) for each in ever)}

    # --- what must hold --------------------------------------------------------------------------

    def check(self, log: Any, *, learn: bool = True, first: int = 0) -> None:
        """The whole log, read from its start to its end, agrees with every fact.

        learn: what it shows is a fact from now on; not so for one of several possible futures.
        first: what stands before this offset may be gone, and is not read.
        """
        ledger = self if learn else self.copy()
        marks, records = self._read_all(log, first)
        start = max(marks.start, min(first, marks.committed))
        assert [record.offset for record in records] == list(range(start, marks.committed))
        for record in records:
            ledger.saw(record.offset, record.value)
        missing = [offset for offset in self.known if marks.committed <= offset]
        assert not missing, f"acknowledged or shown, and gone: {missing[:10]} ({marks})"
        ledger.check_batches(marks.start, marks.committed)
        for name in {*self.cursors, *self.cursors_wished}:
            found = log.cursor(name).committed_offset
            wished = self.cursors_wished.get(name, set())
            assert found == self.cursors.get(name) or found in wished, (name, found, wished)
            if learn and found is not None:
                self.cursors[name] = found
                self.cursors_wished[name] = set()
                self._cursors_ever.setdefault(name, set()).add(found)  # also where a repair left it
        self.compared = ledger.compared
        if learn:
            self.start = marks.start

    def _read_all(self, log: Any, first: int) -> tuple[Any, list[Any]]:
        """The watermarks, and every record between them (and from `first` on) as one scan shows
        them.

        The log's own pipeline may run meanwhile. A scan holds no pin, so retention overtakes it:
        then, and only then, it is read again, from the later start.
        """
        while True:
            marks = log.watermarks  # whose constructor asserts the plot line
            allowed = range(self.start, max(self.start, self.start_wished) + 1)
            assert marks.start in allowed, f"it starts at {marks.start}, which is not in {allowed}"
            try:
                records = list(log.scan(max(marks.start, min(first, marks.committed))))
            except OffsetOutOfRangeError:
                if log.watermarks.start == marks.start:
                    raise
                continue
            if log.watermarks.start == marks.start:
                return marks, records

    def copy(self) -> Ledger:
        """The same facts, to add to."""
        twin = copy.copy(self)
        twin.known = dict(self.known)
        twin.batches = list(self.batches)
        twin._offered = set(self._offered)
        twin._refused = set(self._refused)
        twin.cursors = dict(self.cursors)
        twin.cursors_wished = {name: set(each) for name, each in self.cursors_wished.items()}
        twin._offset_of = dict(self._offset_of)
        twin._cuts = list(self._cuts)
        return twin

    def moved(self, start: int, end: int, *, name: bytes) -> Ledger:
        """What is known of another log, which took over [start, end) of this one as of now.

        What lies behind `end` is of this one alone, and never of the other.
        """
        twin = self.copy()
        twin.name = name
        twin.known = {offset: value for offset, value in self.known.items() if offset < end}
        twin._offset_of = {value: offset for offset, value in twin.known.items()}
        twin._refused.update(value for offset, value in self.known.items() if offset >= end)
        twin._cuts = [*self._cuts, (len(self.batches), end)]
        twin.acked_values = twin.compared = 0
        twin.start = twin.start_wished = start
        return twin

    def agrees(self, offset: int, value: bytes) -> bool:
        """Whether a reader may be shown this: `saw` would not object."""
        return (
            value in self._offered
            and value not in self._refused
            and self.known.get(offset, value) == value
            and self._offset_of.get(value, offset) == offset
        )

    def check_batches(self, start: int, end: int) -> None:
        """Each batch is there whole and in one piece, or not at all."""
        places = self._offset_of
        for number, offered in enumerate(self.batches):
            batch = offered
            found = [places[value] for value in batch if value in places]
            if not found:
                continue
            first = next(place for place, value in enumerate(batch) if value in places)
            base = places[batch[first]] - first
            cuts = [cut for count, cut in self._cuts if number < count]
            if cuts:
                batch = batch[: max(0, min(cuts) - base)]
            seen = [places.get(value) for value in batch[max(0, start - base) :]]
            assert seen == list(range(max(base, start), base + len(batch))), f"half a batch: {seen}"
            assert base + len(batch) <= end
