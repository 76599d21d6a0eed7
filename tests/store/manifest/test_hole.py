"""A log whose first file's checkpoint lagged behind `committed` still folds to what it was."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from chronik_store.format.checkpoint import Checkpoint
from chronik_store.format.control import CursorSet, Intent, Members, Noop, Seal
from chronik_store.format.entry import Entry, EntryKind, decode_entry_header, encode_entry_header
from chronik_store.format.manifest_file import LogBase
from chronik_store.format.record_batch import RecordBatch
from chronik_store.manifest.state import FoldedState


def make_log() -> list[Entry]:
    """Records of two producers, seals, cursors and members, one entry each."""
    entries: list[Entry] = []
    offset = 0
    first_index = 1
    for number in range(60):
        index = len(entries) + 1
        command: Any = None
        if number % 10 == 9:
            command = Seal(first_index, "size", number)
            first_index = index + 1
        elif number % 7 == 3:
            command = CursorSet(f"c{number % 3}", offset, True)
        elif number == 25:
            command = Members(("a", "b"), ())
        elif number % 11 == 5:
            command = Intent((f"k{number}",), number, 0)
        if command is None:
            batch = RecordBatch.build([b"v"], producer_id=1 + number % 2, base_sequence=number)
            kind, payload, count = int(EntryKind.RECORDS), batch.buffer, 1
        else:
            kind, payload, count = int(command.KIND), command.encode(), 0
        head = encode_entry_header(kind, 1, index, offset, count, 1000 + number, payload)
        entries.append(Entry(decode_entry_header(head), payload))
        offset += count
    return entries


def new_state() -> FoldedState:
    return FoldedState(
        topic="t", partition=0, topic_id="a" * 32, log_id="b" * 32, producers_max=100
    )


def folded(entries: list[Entry], to: int) -> FoldedState:
    state = new_state()
    for entry in entries:
        state.on_entry(entry.header, entry.payload)
    state.commit(to)
    return state


def checkpoint_at(entries: list[Entry], base: int, folded_to: int) -> Checkpoint:
    """The head of a file that begins behind `base`, written when `folded_to` was committed."""
    made = folded(entries[:base], folded_to).checkpoint(
        committed_index=folded_to, owner="local", boot_id=""
    )
    header = entries[base - 1].header
    at = LogBase(base, header.term, header.end_offset, header.timestamp_us)
    return dataclasses.replace(made, base=at)


@pytest.mark.parametrize(("base", "lag"), [(20, 1), (20, 6), (23, 3), (30, 10)])
@pytest.mark.parametrize(("later", "later_lag"), [(40, 0), (40, 7), (45, 12), (50, 1)])
@pytest.mark.parametrize("committed", [50, 60])
def test_the_fold_starts_at_the_checkpoint_that_closes_the_hole(
    base: int, lag: int, later: int, later_lag: int, committed: int
) -> None:
    entries = make_log()
    state = new_state()
    state.on_checkpoint(checkpoint_at(entries, base, base - lag))
    for entry in entries[base:later]:
        state.on_entry(entry.header, entry.payload)
    state.on_checkpoint(checkpoint_at(entries, later, later - later_lag))
    for entry in entries[later:]:
        state.on_entry(entry.header, entry.payload)
    state.commit(committed)
    whole = folded(entries, committed)
    assert state.manifest == whole.manifest
    assert state.producers.entries() == whole.producers.entries()
    assert state.members.as_of(committed) == whole.members.as_of(committed)
    assert state.folded_to == whole.folded_to
    offset = entries[committed - 1].header.end_offset
    ours, theirs = state.open_segment(offset), whole.open_segment(offset)
    assert dataclasses.replace(ours, oldest_us=None) == dataclasses.replace(theirs, oldest_us=None)


def test_without_a_hole_a_later_checkpoint_changes_nothing() -> None:
    entries = make_log()
    state = new_state()
    state.on_checkpoint(checkpoint_at(entries, 20, 20))
    for entry in entries[20:40]:
        state.on_entry(entry.header, entry.payload)
    before = state.manifest
    state.on_checkpoint(checkpoint_at(entries, 40, 35))
    assert state.manifest is before
    state.commit(40)
    assert state.producers_at(40) == folded(entries, 40).producers_at(40)


def test_a_new_term_is_folded_after_the_hole() -> None:
    entries = make_log()
    state = new_state()
    state.on_checkpoint(checkpoint_at(entries, 20, 15))
    for entry in entries[20:40]:
        state.on_entry(entry.header, entry.payload)
    state.on_checkpoint(checkpoint_at(entries, 40, 38))
    head = encode_entry_header(int(EntryKind.NOOP), 2, 41, 1, 0, 2000, Noop().encode())
    state.on_entry(decode_entry_header(head), Noop().encode())
    state.commit(41)
    assert state.manifest.intents == ()
    assert state.manifest.garbage
