"""The ledger's look at a whole log, while retention moves the log's start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chronik_store import OffsetOutOfRangeError, PartitionLog, StoredRecord
from chronik_store.testing.worlds.ledger import Ledger


class Overtaken:
    """A log whose first scan is overtaken; `moves`: retention really had moved the start."""

    def __init__(self, log: PartitionLog, *, moves: bool) -> None:
        self._log = log
        self._moves = moves
        self.scans = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def scan(self, start: int) -> Iterator[StoredRecord]:
        self.scans += 1
        if self.scans == 1:
            if self._moves:
                self._log.drop_before(2)
            raise OffsetOutOfRangeError("overtaken", offset=0, first_offset=2, end_offset=6)
        yield from self._log.scan(start)


def life(log: PartitionLog) -> Ledger:
    ledger = Ledger()
    for _ in range(6):
        batch = ledger.offer()
        ledger.acked(log.append(batch).base_offset, batch)
    ledger.wish_start(2)
    return ledger


def test_a_scan_that_retention_overtook_is_read_again_from_the_later_start(tmp_path: Path) -> None:
    with PartitionLog.open(tmp_path / "log", topic="t") as log:
        ledger = life(log)
        overtaken = Overtaken(log, moves=True)
        ledger.check(overtaken)
        assert overtaken.scans == 2
        assert ledger.start == 2


def test_a_scan_that_fails_although_the_start_stood_still_is_a_violation(tmp_path: Path) -> None:
    with PartitionLog.open(tmp_path / "log", topic="t") as log:
        ledger = life(log)
        with pytest.raises(OffsetOutOfRangeError, match="overtaken"):
            ledger.check(Overtaken(log, moves=False))


def three_batches() -> tuple[Ledger, list[list[bytes]]]:
    ledger = Ledger()
    batches = [ledger.offer(2) for _ in range(3)]
    for number, batch in enumerate(batches):
        ledger.acked(2 * number, batch)
    return ledger, batches


def test_what_was_given_up_is_no_fact_any_more_and_must_not_be_seen_again() -> None:
    ledger, batches = three_batches()

    ledger.forget(2)

    assert dict(enumerate(batches[0])) == ledger.known
    ledger.check_batches(0, 2)
    ledger.acked(2, ledger.offer(2))
    with pytest.raises(AssertionError, match="was refused"):
        ledger.saw(4, batches[2][0])


def test_a_batch_is_given_up_whole_or_was_dropped_in_part() -> None:
    ledger, _ = three_batches()
    ledger.forget(3)
    with pytest.raises(AssertionError, match="half a batch"):
        ledger.check_batches(0, 3)

    ledger, _ = three_batches()
    ledger.wish_start(3)
    ledger.forget(3)
    ledger.check_batches(3, 3)


def test_a_cursor_stands_where_it_once_was_or_at_the_new_end(tmp_path: Path) -> None:
    with PartitionLog.open(tmp_path / "log", topic="t") as log:
        ledger = life(log)
        for offset in (1, 4):
            ledger.wish_cursor("a", offset)
            ledger.cursors["a"], ledger.cursors_wished["a"] = offset, set()
        log.cursor("a").commit(1)
        with pytest.raises(AssertionError):
            ledger.check(log)
        ledger.forget(6)
        ledger.check(log)
        log.cursor("a").commit(2)
        with pytest.raises(AssertionError):
            ledger.check(log)
