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

    def scan(self) -> Iterator[StoredRecord]:
        self.scans += 1
        if self.scans == 1:
            if self._moves:
                self._log.drop_before(2)
            raise OffsetOutOfRangeError("overtaken", offset=0, first_offset=2, end_offset=6)
        yield from self._log.scan()


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
