"""A commit of a cursor that another one overtakes between its question and its entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import chronik_store as chronik
from chronik_store.manifest import state

CONFIG = chronik.LogConfig(pipeline_enabled=False)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[chronik.PartitionLog]:
    with chronik.PartitionLog.open(tmp_path / "data", topic="events", config=CONFIG) as opened:
        opened.append([b"x"] * 10)
        opened.cursor("c").commit(1)
        yield opened


@pytest.fixture
def meanwhile(
    log: chronik.PartitionLog, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[Callable[[], None]]]:
    """What others do, each when the log is about to be given the next command."""

    def arrange(*others: Callable[[], None]) -> list[Callable[[], None]]:
        core, left = log._core, list(others)
        assert core is not None
        propose = core.control.propose

        def proposed(command: Any, **options: Any) -> int:
            if left:
                left.pop(0)()
            return propose(command, **options)

        monkeypatch.setattr(core.control, "propose", proposed)
        return left

    return arrange


def commit(log: chronik.PartitionLog, offset: int, *, reset: bool = False) -> Callable[[], None]:
    return lambda: log.cursor("c").commit(offset, reset=reset)


def test_a_commit_that_a_further_one_overtook_is_no_success(log, meanwhile) -> None:
    """It said that the cursor stands where it was told to; it stands elsewhere."""
    meanwhile(commit(log, 9))
    with pytest.raises(chronik.OffsetConflictError, match="stands at 9") as caught:
        log.cursor("c").commit(5)
    assert 9 == caught.value.expected_offset == log.cursor("c").offset


def test_the_last_one_stands_if_it_may(log, meanwhile) -> None:
    left = meanwhile(commit(log, 9))
    log.cursor("c").commit(5, reset=True)
    assert ([], 5) == (left, log.cursor("c").offset)
    left = meanwhile(commit(log, 6))
    log.cursor("c").commit(6)
    assert ([], 6) == (left, log.cursor("c").offset)


def test_one_that_was_refused_is_made_again_if_what_stood_in_its_way_has_gone(
    log, meanwhile
) -> None:
    core, calls = log._core, []
    refusal_of = core.control.refusal_of

    def refused(index: int) -> str | None:
        found = refusal_of(index)
        calls.append(found)
        if len(calls) == 2:  # of this commit: the first is of the one that overtook it
            log.cursor("c").delete()
        return found

    core.control.refusal_of = refused
    meanwhile(commit(log, 9))
    log.cursor("c").commit(5)
    assert 5 == log.cursor("c").offset
    assert "the cursor stands at 9" == calls[1]


def test_two_that_delete_a_cursor_are_content(log, meanwhile) -> None:
    left = meanwhile(log.cursor("c").delete)
    log.cursor("c").delete()
    assert ([], None) == (left, log.cursor("c").committed_offset)


def test_a_refusal_that_is_not_remembered_any_more_is_not_taken_for_success(
    log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "REFUSALS_KEPT", 2)
    core = log._core
    folded = core.state
    for index in (100, 101, 102):
        folded.note_refusal(index, f"reason {index}")
    assert ("reason 101", "reason 102") == (folded.refusal_of(101), folded.refusal_of(102))
    assert folded.refusal_of(100) is not None
    assert folded.refusal_of(103) is None
