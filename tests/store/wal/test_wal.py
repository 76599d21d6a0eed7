"""The face of the WAL: open, append, read, reopen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chronik_store.errors import LogClosedError, OffsetOutOfRangeError, ReadOnlyError
from chronik_store.format.manifest_file import LogBase
from chronik_store.model import Position

Opens = Callable[..., Any]


def test_an_empty_directory_is_a_clean_empty_log(open_wal: Opens) -> None:
    wal = open_wal(start=False).wal

    assert wal.recovery.verdict == "clean"
    assert (wal.first_index, wal.last_index, wal.end_offset) == (1, 0, 0)
    assert wal.durable == Position(1, 0)


def test_what_was_led_is_there_after_reopening(open_wal: Opens) -> None:
    owner = open_wal()
    for number in range(10):
        owner.append(values=[b"a%d" % number, b"b"])
    owner.close()

    again = open_wal()

    assert again.copy.entries.keys() == set(range(1, 11))
    assert again.wal.end_offset == 20
    assert again.wal.durable == Position(11, 20)
    assert again.live() == {index: payload for index, (_, _, payload) in again.copy.entries.items()}


def test_entries_are_read_from_memory_and_from_files_alike(open_wal: Opens) -> None:
    small = open_wal(tail_bytes=0)
    for number in range(20):
        small.append(b"payload %d" % number)
    from_files = small.live()

    assert small.wal.tail_first_index == 21
    assert from_files == {n + 1: b"payload %d" % n for n in range(20)}


def test_a_clean_close_leaves_nothing_to_copy(open_wal: Opens) -> None:
    owner = open_wal()
    owner.append(b"x")
    owner.close()

    assert open_wal().wal.recovery.copied_bytes == 0


def test_offsets_times_and_terms_are_found_without_the_disk(open_wal: Opens) -> None:
    owner = open_wal()
    owner.append(values=[b"a", b"b", b"c"])
    owner.append(b"control")
    owner.term = 7
    owner.append(values=[b"d", b"e"])
    wal = owner.wal

    assert [wal.index_for_offset(offset) for offset in range(5)] == [1, 1, 1, 3, 3]
    assert [wal.term(index) for index in (0, 1, 2, 3)] == [0, 1, 1, 7]
    assert wal.position_after(1) == Position(2, 3)
    assert wal.index_for_timestamp(2) == 2
    assert wal.index_for_timestamp(99) is None


def test_reading_what_is_not_stored_is_an_index_error(open_wal: Opens) -> None:
    owner = open_wal()
    owner.append(b"x")

    with pytest.raises(IndexError):
        owner.wal.read(2, 2, 100)
    with pytest.raises(OffsetOutOfRangeError):
        owner.wal.index_for_offset(-1)


def test_nothing_is_staged_before_start_or_after_close(open_wal: Opens) -> None:
    early = open_wal(start=False)
    with pytest.raises(ReadOnlyError):
        early.stage(b"x")

    owner = open_wal()
    owner.close()
    with pytest.raises(LogClosedError):
        owner.stage(b"x")
    owner.close()


def test_a_log_is_started_once(open_wal: Opens) -> None:
    owner = open_wal()
    owner.append(b"x")

    with pytest.raises(AssertionError, match="twice"):
        owner.start()


def test_opening_an_idle_log_again_and_again_leaves_one_file(open_wal: Opens) -> None:
    owner = open_wal()
    owner.close()
    for _ in range(5):
        owner = open_wal()
        owner.close()

    assert len(owner.wal.files()) == 1


def test_a_log_without_files_begins_where_its_checkpoint_says(open_wal: Opens) -> None:
    owner = open_wal(start=False)
    owner.folded = replace(owner.folded, base=LogBase(40, 3, 100, 7), committed_index=40)
    owner.start()

    assert (owner.wal.first_index, owner.wal.end_offset) == (41, 100)
    assert owner.wal.durable == Position(41, 100)
    assert owner.append(values=[b"a"]) == 41
