"""One answer: every offset asked for is searched once, or named as missing with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronik_store.clock import SystemClock
from chronik_store.errors import (
    CorruptionError,
    LogClosedError,
    OffsetOutOfRangeError,
    UnavailableError,
)
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.model import Record, SearchResult, StoredRecord
from chronik_store.search import coverage
from chronik_store.search.bundle import build_bundle
from chronik_store.search.bundle_cache import BundleCache
from chronik_store.search.query import check_query
from chronik_store.search.searcher import (
    BundleRef,
    SearchOptions,
    SearchPlan,
    execute,
    merge_results,
    unindexed,
)
from chronik_store.search.tail import TailIndex
from chronik_store.threads import SystemThreads
from tests.store.search import reference
from tests.store.search.reference import Clause


class Partition:
    """A partition as the searcher sees it: a log, bundles of parts of it, a tail, faults."""

    def __init__(self, directory: Path, log: list[Record], base: int = 0) -> None:
        self.directory = directory
        self.fs = PosixFileSystem()
        self.base = base
        self.log = log
        self.stored = reference.stored(log, base)
        self.start = base
        self.end = base + len(log)
        self.bundles: list[BundleRef] = []
        self.opened: list[int] = []
        self.bad: set[int] = set()
        self.clock = SystemClock()
        self.threads = SystemThreads()
        self.cache = BundleCache(self.fs, f"{directory}/cache", self.threads)
        self.tail = TailIndex(self.clock, self.threads, fs=self.fs, directory=None)
        self.read: list[tuple[int, int]] = []
        self.read_error: Exception | None = None
        self.lost: dict[int, Exception] = {}

    def bundle(self, start: int, stop: int) -> BundleRef:
        records = self.log[start - self.base : stop - self.base]
        built = build_bundle(
            reference.batches_of(records, start),
            fs=self.fs,
            directory=f"{self.directory}/build",
            base_offset=start,
            end_offset=stop,
        )
        data = Path(built.path).read_bytes()
        built.discard()

        def read_range(position: int, length: int) -> bytes:
            if position == 0:
                self.opened.append(start)
            if start in self.bad:
                return bytes(min(length, len(data) - position))
            return data[position : position + length]

        info = dataclasses.replace(built.info, key=f"bundle-{start}")
        self.bundles.append(BundleRef(start, stop, info, read_range))
        return self.bundles[-1]

    def read_batches(self, start: int, stop: int) -> Iterable[StoredBatch]:
        self.read.append((start, stop))
        if self.read_error is not None:
            raise self.read_error
        first = self.base + (start - self.base) // 3 * 3
        batches = reference.batches_of(self.log[first - self.base : stop - self.base], first)
        return iter(batches)

    def fetch(self, offset: int) -> StoredRecord:
        if offset in self.lost:
            raise self.lost[offset]
        return self.stored[offset - self.base]

    def plan(self, query: str, **options: object) -> SearchPlan:
        return SearchPlan(
            query=check_query(query),
            options=SearchOptions(**({"limit": 1000} | options)),  # type: ignore[arg-type]
            bundles=self.bundles,
            cache=self.cache,
            tail=self.tail,
            read_batches=self.read_batches,
            fetch=self.fetch,
            clock=self.clock,
            start_offset=self.start,
            end_offset=self.end,
            topic="logs",
            partition=2,
        )

    def search(self, query: str, **options: object) -> SearchResult:
        return execute(self.plan(query, **options))


def log_of(count: int) -> list[Record]:
    return [Record(b"word%d disk" % number, timestamp_us=number * 10) for number in range(count)]


def offsets(result: SearchResult) -> list[int]:
    return [hit.offset for hit in result]


@pytest.fixture
def partition(tmp_path: Path) -> Partition:
    """Offsets 0 to 12: two bundles, then four records that have none."""
    made = Partition(tmp_path, log_of(12))
    made.bundle(0, 4)
    made.bundle(4, 8)
    return made


@given(
    log=st.lists(reference.records, min_size=1, max_size=14),
    cuts=st.lists(st.integers(0, 14), max_size=3),
    holes=st.sets(st.integers(0, 3)),
    bad=st.sets(st.integers(0, 3)),
    clause=reference.queries,
    since=st.one_of(st.none(), reference.times),
    until=st.one_of(st.none(), reference.times),
    start=st.one_of(st.none(), st.integers(0, 14)),
    stop=st.one_of(st.none(), st.integers(0, 16)),
    limit=st.integers(0, 4),
    order=st.sampled_from(["newest", "oldest"]),
)
def test_any_mix_of_bundles_and_tail_answers_as_a_scan(
    log: list[Record],
    cuts: list[int],
    holes: set[int],
    bad: set[int],
    clause: Clause,
    since: int | None,
    until: int | None,
    start: int | None,
    stop: int | None,
    limit: int,
    order: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    made = Partition(tmp_path_factory.mktemp("partition"), log)
    edges = sorted({0, len(log), *(cut for cut in cuts if cut < len(log))})
    for number, (low, high) in enumerate(pairwise(edges)):
        if number not in holes:
            made.bundle(low, high)
            made.bad |= {low} if number in bad else set()

    result = made.search(
        clause.text,
        since_us=since,
        until_us=until,
        start=start,
        stop=stop,
        limit=limit,
        order=order,
    )

    expected = [
        record
        for record in made.stored
        if clause.matches(record)
        and (start or 0) <= record.offset < (len(log) if stop is None else stop)
        and (since is None or record.timestamp_us >= since)
        and (until is None or record.timestamp_us < until)
    ]
    expected.sort(key=lambda record: record.offset, reverse=order == "newest")
    assert expected[:limit] == [hit.record for hit in result]
    assert len(expected) == result.total
    assert result.complete
    assert result.total_is_exact
    low, high = start or 0, len(log) if stop is None else min(stop, len(log))
    assert coverage.merged([(low, high)]) == result.coverage[0].searched


def test_hits_carry_record_topic_and_partition(partition: Partition) -> None:
    (hit,) = partition.search("word9")

    assert (9, partition.stored[9], "logs", 2, 0.0) == (
        hit.offset,
        hit.record,
        hit.topic,
        hit.partition,
        hit.score,
    )


def test_the_tail_is_fed_once_and_only_what_has_no_bundle(partition: Partition) -> None:
    partition.search("disk")
    partition.search("disk")

    assert [(8, 12)] == partition.read
    assert [4, 0] == partition.opened


def test_only_what_was_asked_for_is_opened_or_fed(partition: Partition) -> None:
    assert [5, 4] == offsets(partition.search("disk", start=4, stop=6))
    assert [4] == partition.opened
    assert [] == partition.read


def test_what_time_or_paths_rule_out_counts_as_searched_unopened(partition: Partition) -> None:
    late = partition.search("disk", since_us=80)
    early = partition.search("disk", until_us=40, order="oldest")
    paths = partition.search("json.level:error")

    assert [11, 10, 9, 8] == offsets(late)
    assert [0, 1, 2, 3] == offsets(early)
    assert [] == offsets(paths)
    assert [0] == partition.opened
    for result in (late, early, paths):
        assert ((0, 12),) == result.coverage[0].searched
        assert result.complete


def test_a_corrupt_bundle_is_searched_as_tail(partition: Partition) -> None:
    partition.bad.add(0)
    result = partition.search("disk")

    assert list(range(11, -1, -1)) == offsets(result)
    assert result.complete
    assert [(8, 12), (0, 4)] == partition.read


def test_a_bundle_of_another_engine_is_searched_as_tail(partition: Partition) -> None:
    first = partition.bundles[0]
    info = dataclasses.replace(first.info, engine="tantivy 0.1.0 format 1 chronik-words-1")
    partition.bundles[0] = dataclasses.replace(first, info=info)
    result = partition.search("disk")

    assert 12 == result.total
    assert result.complete
    assert ((0, 4), (8, 12)) == unindexed(partition.bundles, partition.cache, 0, 12)


def test_what_can_be_searched_nowhere_is_missing_with_the_reason(partition: Partition) -> None:
    partition.bad.add(4)
    partition.read_error = UnavailableError("the bucket is down")
    result = partition.search("disk")

    (part,) = result.coverage
    assert [3, 2, 1, 0] == offsets(result)
    assert ((0, 4),) == part.searched
    assert ((4, 8), (8, 12)) == part.missing
    assert ("the bucket is down", "the bucket is down") == part.reasons
    assert 2 == part.partition
    assert not result.complete
    assert not result.total_is_exact

    with pytest.raises(UnavailableError, match=r"\[4, 8\): the bucket is down"):
        partition.search("disk", require_complete=True)


def test_a_hole_in_the_middle_is_named(partition: Partition) -> None:
    del partition.bundles[0]
    partition.tail.feed(reference.batches_of(partition.log[8:], 8))
    partition.read_error = CorruptionError("segment damaged")
    result = partition.search("disk", start=2)

    assert (((4, 12),), ((2, 4),)) == (result.coverage[0].searched, result.coverage[0].missing)
    assert ("segment damaged",) == result.coverage[0].reasons
    assert list(range(11, 3, -1)) == offsets(result)


def test_without_time_only_what_is_open_already_is_searched(partition: Partition) -> None:
    nothing = partition.search("disk", deadline_seconds=0.0)
    assert ((0, 4), (4, 8), (8, 12)) == nothing.coverage[0].missing
    assert {"deadline", "not indexed yet: deadline"} == set(nothing.coverage[0].reasons)
    assert [] == partition.opened

    partition.search("disk")
    again = partition.search("disk", deadline_seconds=0.0)
    # The batch that offset 8 is in begins at 6, so the tail holds a little of the bundle too.
    assert ((6, 12),) == again.coverage[0].searched
    assert [11, 10, 9, 8, 7, 6] == offsets(again)


def test_no_deadline_waits_for_all(partition: Partition) -> None:
    assert partition.search("disk", deadline_seconds=None).complete


def test_a_tail_that_is_full_is_said(partition: Partition) -> None:
    partition.tail = TailIndex(
        partition.clock, partition.threads, fs=partition.fs, directory=None, text_bytes_max=1
    )
    result = partition.search("disk")

    assert ((9, 12),) == result.coverage[0].missing
    assert ("not indexed yet: the tail index is full",) == result.coverage[0].reasons


def test_nothing_is_an_answer_too(tmp_path: Path) -> None:
    result = Partition(tmp_path, []).search("disk AND json.level:error")

    assert (0, (), True) == (result.total, result.hits, result.complete)
    assert ((), ()) == (result.coverage[0].searched, result.coverage[0].missing)
    assert ("json.level",) == result.unknown_paths


def test_below_the_start_and_past_the_end_there_is_nothing(partition: Partition) -> None:
    partition.start, partition.end = 2, 10
    result = partition.search("disk", start=0, stop=99)

    assert ((2, 10),) == result.coverage[0].searched
    assert list(range(9, 1, -1)) == offsets(result)


def test_unknown_paths_are_those_that_occur_in_no_index(tmp_path: Path) -> None:
    log = [
        Record(b'{"level": "info"}'),
        Record(b"x", headers=(("trace", b"t"),)),
        Record(b'{"user": 1}'),
    ]
    made = Partition(tmp_path, log)
    made.bundle(0, 2)
    query = "json.level:a header.trace:b json.user:c json.levle:d header.Trace:e"

    assert ("header.Trace", "json.levle") == made.search(query).unknown_paths


def test_no_path_is_called_unknown_where_some_are_not_listed(tmp_path: Path) -> None:
    made = Partition(tmp_path, [Record(b'{"key%d": 1}' % number) for number in range(700)])
    made.bundle(0, 700)

    assert () == made.search("json.absent:x").unknown_paths
    assert [699] == offsets(made.search("json.key699:1"))


def test_a_record_dropped_meanwhile_is_left_out(partition: Partition) -> None:
    error = OffsetOutOfRangeError("dropped", offset=1, first_offset=2, end_offset=12)
    partition.lost = {0: error, 1: error}
    result = partition.search("disk")

    assert (10, 10, True) == (len(result), result.total, result.complete)


def test_a_record_out_of_reach_is_missing(partition: Partition) -> None:
    partition.lost = {5: UnavailableError("the segment is unreachable")}
    result = partition.search("disk")

    (part,) = result.coverage
    assert (11, 11) == (len(result), result.total)
    assert (((0, 5), (6, 12)), ((5, 6),)) == (part.searched, part.missing)
    assert ("the segment is unreachable",) == part.reasons
    with pytest.raises(UnavailableError, match="unreachable"):
        partition.search("disk", require_complete=True)


def test_a_closed_log_says_so(partition: Partition) -> None:
    partition.tail.close()
    with pytest.raises(LogClosedError):
        partition.search("disk")


def test_score_order_merges_by_score_then_offset(tmp_path: Path) -> None:
    made = Partition(tmp_path, [Record(b"disk disk"), Record(b"disk full up"), Record(b"disk")])
    made.bundle(0, 1)
    result = made.search("disk", order="score")

    scores = [(hit.score, hit.offset) for hit in result]
    assert sorted(scores, reverse=True) == scores
    assert {0, 1, 2} == set(offsets(result))
    assert all(score > 0 for score, _ in scores)


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_partitions_merge_by_time(order: str, tmp_path: Path) -> None:
    results = []
    for number, base in enumerate((0, 100)):
        log = [Record(b"disk", timestamp_us=time * 2 + number) for time in range(3)]
        (tmp_path / str(number)).mkdir()
        made = Partition(tmp_path / str(number), log, base)
        results.append(made.search("disk json.a:x", order=order))
    merged = merge_results(results, order=order, limit=4, elapsed_seconds=1.5)  # type: ignore[arg-type]

    times = [hit.record.timestamp_us for hit in merged]
    assert ([5, 4, 3, 2] if order == "newest" else [0, 1, 2, 3]) == times
    assert (6, True, True, 1.5, ("json.a",)) == (
        merged.total,
        merged.total_is_exact,
        merged.complete,
        merged.elapsed_seconds,
        merged.unknown_paths,
    )
    assert 2 == len(merged.coverage)


def test_a_path_known_in_one_partition_is_known() -> None:
    def result(*unknown: str) -> SearchResult:
        return SearchResult((), 0, True, (), unknown, 0.0)

    results = [result("json.a", "json.b"), result("json.b")]
    merged = merge_results(results, order="newest", limit=1, elapsed_seconds=0.0)
    assert ("json.b",) == merged.unknown_paths
    empty = merge_results([], order="newest", limit=1, elapsed_seconds=0.0)
    assert ((), ()) == (empty.hits, empty.unknown_paths)


@pytest.mark.parametrize(
    "options", [{"order": "best"}, {"limit": -1}, {"limit": 10_000_000}, {"deadline_seconds": -1.0}]
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options)).split("_")[0]):
        SearchOptions(**options)  # type: ignore[arg-type]
