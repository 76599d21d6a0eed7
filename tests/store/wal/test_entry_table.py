"""The entry table against a list."""

from __future__ import annotations

import random

import pytest

from chronik_store.format.entry import EntryHeader
from chronik_store.format.manifest_file import LogBase
from chronik_store.model import Position
from chronik_store.wal.entry_table import EntryTable, LogFile


def header(index: int, term: int, offset: int, count: int, timestamp_us: int) -> EntryHeader:
    return EntryHeader(1 if count else 2, term, index, offset, count, timestamp_us, 0, 0)


class Model:
    """The same log as a list of headers behind a base."""

    def __init__(self) -> None:
        self.table = EntryTable()
        self.base = LogBase(0, 0, 0, 0)
        self.entries: list[EntryHeader] = []
        self.file_of: dict[int, int] = {}
        self.files: list[int] = []

    @property
    def last(self) -> LogBase:
        if not self.entries:
            return self.base
        last = self.entries[-1]
        return LogBase(last.index, last.term, last.end_offset, last.timestamp_us)

    def add_file(self) -> None:
        seq = self.files[-1] + 1 if self.files else 1
        self.table.files.append(LogFile(seq, f"file {seq}", self.table.last_index))
        self.files.append(seq)

    def append(self, rng: random.Random) -> None:
        last = self.last
        term = last.term + (rng.random() < 0.2)
        step = rng.choice((0, 0, 5))
        entry = header(
            last.index + 1, term, last.offset, rng.choice((0, 1, 7)), last.timestamp_us + step
        )
        self.table.append(entry, 10 * entry.index, 8)
        self.entries.append(entry)
        self.file_of[entry.index] = self.files[-1]

    def truncate(self, rng: random.Random) -> None:
        if self.entries:
            index = rng.randint(self.entries[0].index, self.entries[-1].index + 1)
            self.table.truncate(index)
            self.entries = [entry for entry in self.entries if entry.index < index]

    def drop(self, rng: random.Random) -> None:
        count = rng.randint(0, len(self.files) - 1)
        gone = set(self.files[:count])
        self.table.drop_front(count)
        self.files = self.files[count:]
        dropped = [entry for entry in self.entries if self.file_of[entry.index] in gone]
        if dropped:
            last = dropped[-1]
            self.base = LogBase(last.index, last.term, last.end_offset, last.timestamp_us)
            self.entries = self.entries[len(dropped) :]

    def reset(self, rng: random.Random) -> None:
        last = self.last
        self.base = LogBase(last.index + rng.randint(1, 9), last.term + 1, last.offset + 3, 99_999)
        self.table.reset(self.base)
        self.entries = []

    def check(self, rng: random.Random) -> None:
        table, entries = self.table, self.entries
        assert table.base == self.base
        assert table.last() == self.last
        assert table.first_index == self.base.index + 1
        for entry in entries:
            file, place = table.locate(entry.index)
            assert (file.seq, place) == (
                self.file_of[entry.index],
                entry.index - file.first_index,
            )
            assert table.term(entry.index) == entry.term
            assert table.position_after(entry.index) == Position(entry.index + 1, entry.end_offset)
        assert table.term(self.base.index) == self.base.term
        for outside in (self.base.index - 1, self.last.index + 1):
            with pytest.raises(IndexError):
                table.term(outside)
        for offset in range(self.base.offset, self.last.offset):
            index = table.index_for_offset(offset)
            holder = next(entry for entry in entries if entry.index == index)
            assert holder.base_offset <= offset < holder.end_offset
        time = self.last.timestamp_us - rng.randint(-2, 20)
        low = rng.randint(0, self.last.index + 1)
        found = [e.index for e in entries if e.index >= low and e.timestamp_us >= time]
        assert table.index_for_timestamp(time, low) == (found[0] if found else None)
        covered = [i for f in table.files for i in range(f.first_index, f.last_index + 1)]
        assert covered == [entry.index for entry in entries]


@pytest.mark.parametrize("seed", range(25))
def test_the_table_agrees_with_a_list(seed: int) -> None:
    rng = random.Random(seed)
    model = Model()
    model.add_file()
    actions = (model.append,) * 12 + (model.truncate,) * 2 + (model.drop, model.reset)
    for _ in range(120):
        if rng.random() < 0.15:
            model.add_file()
        rng.choice(actions)(rng)
        model.check(rng)


def test_what_does_not_follow_is_refused() -> None:
    table = EntryTable()
    table.files.append(LogFile(1, "file", 0))
    table.append(header(1, 1, 0, 4, 0), 0, 8)

    for wrong in (header(3, 1, 4, 1, 0), header(2, 1, 5, 1, 0), header(1, 1, 4, 1, 0)):
        with pytest.raises(ValueError, match="does not follow"):
            table.append(wrong, 0, 8)
