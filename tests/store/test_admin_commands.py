"""What is asked of a log beside records: refused, nothing to do, or one command."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chronik_store import admin_commands
from chronik_store.errors import ConfigError, OffsetConflictError, OffsetOutOfRangeError
from chronik_store.format.control import CursorSet, DropPrefix, Seal
from chronik_store.manifest.state import FoldedState, OpenSegment

EMPTY = FoldedState(
    topic="t", partition=0, topic_id="ab" * 16, log_id="cd" * 16, producers_max=10
).manifest
MANIFEST = replace(EMPTY, start_offset=3, cursors=(("a", 7),))


def commit(name: str, offset: int, *, reset: bool = False, most: int = 2) -> CursorSet | None:
    return admin_commands.cursor_commit(MANIFEST, 10, name, offset, reset=reset, most=most)


def test_a_cursor_moves_forward_and_back_only_when_told() -> None:
    assert commit("a", 10) == CursorSet("a", 10, False)
    assert commit("a", 7) is None
    assert commit("a", 2, reset=True) == CursorSet("a", 2, True)
    assert commit("a", 2, reset="yes") == CursorSet("a", 2, True)
    with pytest.raises(OffsetConflictError, match="stands at 7") as caught:
        commit("a", 6)
    assert (caught.value.expected_offset, caught.value.end_offset) == (7, 6)


def test_a_cursor_stands_on_what_is_committed() -> None:
    for wrong in (11, -1):
        with pytest.raises(OffsetOutOfRangeError):
            commit("a", wrong)


def test_there_are_so_many_cursors_and_no_more() -> None:
    assert commit("b", 5) == CursorSet("b", 5, False)
    with pytest.raises(ConfigError, match="cursors_max"):
        commit("b", 5, most=1)
    assert commit("a", 9, most=1) == CursorSet("a", 9, False)


def test_a_cursor_that_is_not_there_is_gone_already() -> None:
    assert admin_commands.cursor_deletion(MANIFEST, "a") == CursorSet("a", None, True)
    assert admin_commands.cursor_deletion(MANIFEST, "b") is None


def test_a_segment_without_records_is_not_sealed() -> None:
    segment = OpenSegment(4, 3, 0, 0, None)
    assert admin_commands.seal_now(segment, 77) is None
    full = replace(segment, record_count=1)
    assert admin_commands.seal_now(full, 77) == Seal(4, "admin", 77)


def test_a_prefix_is_dropped_once_and_never_past_the_end() -> None:
    assert admin_commands.prefix_drop(MANIFEST, 10, 10, 77) == DropPrefix(10, "admin", 77)
    assert admin_commands.prefix_drop(MANIFEST, 10, 3, 77) is None
    with pytest.raises(OffsetOutOfRangeError, match=r"outside \[3, 10\)") as caught:
        admin_commands.prefix_drop(MANIFEST, 10, 11, 77)
    assert (caught.value.first_offset, caught.value.end_offset) == (3, 10)
