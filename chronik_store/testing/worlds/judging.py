"""What must be true of each answer that a reader gets, whoever it is and wherever it reads.

Place: under `watched_world`, over `ledger` and `wording`; used for the writer's own log, a reader's
beside it, and one of the bucket. Promise: an answer that no scan of the same records would give
raises AssertionError. Invariant: others may append, drop and retain meanwhile; what they may have
changed between two looks is left open, nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from chronik_store.errors import OffsetOutOfRangeError
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.model import Coverage, SearchResult, StoredRecord, Watermarks
from chronik_store.partition_log import PartitionLog
from chronik_store.search import coverage
from chronik_store.testing.worlds.ledger import Ledger
from chronik_store.testing.worlds.wording import Question, check_whole

LIMITS = ("start", "indexed", "tiered", "sealed", "committed")
"""Those that only move right."""


class Facts:
    """All that is known of one partition, by whoever was shown it: for ever."""

    def __init__(self, partition: int, ledger: Ledger) -> None:
        self.partition = partition
        self.ledger = ledger
        self.times: dict[int, int] = {}
        """Index timestamps, by offset."""

    def saw(self, record: StoredRecord) -> None:
        self.ledger.saw(record.offset, record.value)
        check_whole(record)

    def saw_run(self, offset: int, records: Iterable[StoredRecord]) -> int:
        """Records that follow each other from `offset` on; where they end."""
        for record in records:
            assert record.offset == offset, f"{record.offset} comes where {offset} is next"
            self.saw(record)
            offset += 1
        return offset

    def saw_batch(self, batch: StoredBatch) -> None:
        for offset in range(batch.base_offset, batch.end_offset):
            known = self.times.setdefault(offset, batch.timestamp_us)
            assert known == batch.timestamp_us, f"{offset} was of {known}: {batch.timestamp_us}"

    def may_be_gone(self, offset: int) -> bool:
        """A drop or retention beyond it was asked for."""
        return offset < self.ledger.start_wished


class Marks:
    """The limits that one opened log has shown: they only move right while it is open."""

    def __init__(self) -> None:
        self.newest: Watermarks | None = None

    def look(self, log: PartitionLog) -> Watermarks:
        before, marks = self.newest, log.watermarks
        for name in LIMITS if before is not None else ():
            was, found = getattr(before, name), getattr(marks, name)
            # Another thread may have looked later, and been told sooner.
            overtaken = self.newest is not before
            assert was <= found or overtaken, f"{name} went back from {was} to {found}"
        if before is None or marks.committed >= before.committed:
            self.newest = marks
        return marks


def check_search(
    ask: Callable[..., SearchResult],
    logs: Sequence[PartitionLog],
    facts: Sequence[Facts],
    question: Question,
) -> SearchResult:
    """Search by `ask` these partitions, and compare with a scan of what the answer covers.

    Hits of several partitions go by the time of their records, those of one by offset.
    """
    by_time = len(logs) > 1
    of = {known.partition: (log, known) for log, known in zip(logs, facts, strict=True)}
    before = [log.watermarks for log in logs]
    result = ask(question.query, **question.options)
    assert len(result.coverage) == len(logs)
    assert len(result) <= question.limit
    for hit in result:
        of[hit.partition][1].saw(hit.record)
        assert hit.offset == hit.record.offset
        assert question.is_met_by(hit.record), f"{question} does not mean {hit}"
    after = [log.watermarks for log in logs]
    _check_order(question, result, by_time=by_time)
    total = 0
    for part, earlier, later in zip(result.coverage, before, after, strict=True):
        _check_coverage(question, earlier, later, part)
        found = [hit.offset for hit in result if hit.partition == part.partition]
        expected = _expected(*of[part.partition], question, later, part)
        if expected is None:
            total = -1
            break
        if not by_time:
            _check_first(question, found, expected, part, later.start)
        elif result.total <= question.limit:
            lacking = [offset for offset in expected if offset not in found]
            assert not lacking, f"{question} misses {lacking} of {part}: {found}"
        total += len(expected)
    if total >= 0 and result.complete and all_there(before, after):
        assert result.total == total, f"{question}: {result.total}, a scan finds {total}"
        assert result.total_is_exact
    return result


def _check_coverage(
    question: Question, before: Watermarks, after: Watermarks, part: Coverage
) -> None:
    """Each offset that was asked for is searched or missing, and none is both."""
    spans = coverage.merged((*part.searched, *part.missing))
    start = question.options.get("start", 0)
    stop = question.options.get("stop", after.committed)
    asked = max(after.start, start), min(before.committed, stop)
    assert not coverage.gaps(spans, *asked), f"{spans} lack a part of {asked}"
    widest = max(before.start, start), min(after.committed, stop)
    for low, high in spans:
        assert widest[0] <= low, (spans, widest)
        assert high <= widest[1], (spans, widest)
    both = [span for each in part.missing for span in coverage.covered(part.searched, *each)]
    assert not both, f"searched and missing: {both}"


def _expected(
    log: PartitionLog, facts: Facts, question: Question, marks: Watermarks, part: Coverage
) -> list[int] | None:
    """What a scan finds in the ranges that were searched, as far as they are there by now; None:
    retention is faster than the scan.
    """
    found: list[int] = []
    for low, high in part.searched:
        start = max(low, marks.start)
        try:
            records = list(log.scan(start, high)) if start < high else []
        except OffsetOutOfRangeError:
            if not facts.may_be_gone(start):
                raise
            return None
        assert facts.saw_run(start, records) >= high, f"a scan ends before {high}"
        found += [record.offset for record in records if question.is_met_by(record)]
    return found


def _check_order(question: Question, result: SearchResult, *, by_time: bool) -> None:
    found = [
        (hit.record.timestamp_us if by_time else 0, hit.partition, hit.offset) for hit in result
    ]
    in_order = found if question.is_oldest_first else found[::-1]
    assert all(one < other for one, other in pairwise(in_order)), f"{question}: {found}"


def _check_first(
    question: Question, found: Sequence[int], expected: Sequence[int], part: Coverage, start: int
) -> None:
    """The first `limit` of what matches are there, apart from hits that could not be read; those
    that have been dropped since took the places of others.
    """
    first = expected if question.is_oldest_first else expected[::-1]
    unread = sum(high - low == 1 for low, high in part.missing)
    left = max(0, question.limit - unread - sum(offset < start for offset in found))
    lacking = [offset for offset in first[:left] if offset not in found]
    assert not lacking, f"{question} misses {lacking} of {part}: {found}"


def all_there(before: Sequence[Watermarks], after: Sequence[Watermarks]) -> bool:
    """Nothing was dropped between these looks."""
    return [marks.start for marks in before] == [marks.start for marks in after]


def check_moment(log: PartitionLog, facts: Facts, rng: random.Random) -> None:
    """A look-up by time finds what a scan over the index timestamps finds."""
    before = log.watermarks
    at = _probe(facts, rng)
    found = log.offset_for_timestamp(at)
    after = log.watermarks
    try:
        for batch in log.read_batches(after.start):
            facts.saw_batch(batch)
    except OffsetOutOfRangeError:
        if not facts.may_be_gone(after.start):
            raise
        return
    times = [facts.times[offset] for offset in range(after.start, after.committed)]
    assert all(one <= other for one, other in pairwise(times)), "index timestamps go back"
    first = next((n for n, time in enumerate(times, after.start) if time >= at), None)
    if found is None:
        late = first is None or first >= before.committed
        assert late, f"{at} is nowhere, and the time of {first}"
    elif found < after.start:
        assert before.start <= found, f"{found} is below the start {before.start}"
        assert not times or first == after.start, f"{at} is at {found} and at {first}"
    else:
        assert found == first, f"{at} is at {found}, by a scan at {first}"


def _probe(facts: Facts, rng: random.Random) -> int:
    known = sorted(set(facts.times.values()))
    if not known or rng.random() < 0.1:
        return rng.choice((0, 1 << 61))
    return rng.choice(known) + rng.choice((-1, 0, 0, 1))
