"""One answer: every offset asked for is searched once, or named as missing with the reason."""

from __future__ import annotations

import dataclasses
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronik_store.errors import (
    CorruptionError,
    LogClosedError,
    OffsetOutOfRangeError,
    UnavailableError,
)
from chronik_store.model import Record, SearchResult
from chronik_store.search import coverage, engine, searcher
from chronik_store.search.searcher import (
    SearchOptions,
    unindexed,
)
from chronik_store.search.tail import TailIndex
from tests.store.search import reference
from tests.store.search.partition import Partition, log_of, offsets
from tests.store.search.reference import Clause
from tests.store.search.small_disk import SmallDisk


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


@pytest.mark.parametrize(("limit", "most"), [(100, 12), (12, 12), (3, 20), (0, 12)])
def test_hits_are_not_put_in_order_anew_for_each_index(
    partition: Partition, monkeypatch: pytest.MonkeyPatch, limit: int, most: int
) -> None:
    """A million hits of a thousand bundles were: 45 s with the interpreter's lock held."""
    counts: list[int] = []

    def counted(hits: list[tuple[int, float]], order: engine.Order) -> list[tuple[int, float]]:
        counts.append(len(hits))
        return engine.ordered(hits, order)

    monkeypatch.setattr(searcher, "ordered", counted)

    result = partition.search("disk", limit=limit)

    assert list(range(12))[::-1][:limit] == offsets(result)
    assert result.total == 12
    assert sum(counts) <= most


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


def test_a_bundle_at_the_very_edge_of_the_times_asked_for_is_opened(partition: Partition) -> None:
    """since is a time that counts, until is one that does not."""
    info = partition.bundles[0].info

    last = partition.search("disk", since_us=info.max_timestamp_us, order="oldest")
    first = partition.search("disk", until_us=info.min_timestamp_us + 1, order="oldest")
    none = partition.search("disk", until_us=info.min_timestamp_us, order="oldest")

    assert (3, 0) == (offsets(last)[0], offsets(first)[0])
    assert [] == offsets(none)


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
    (reason,) = result.coverage[0].reasons
    assert reason.startswith("segment damaged")
    assert list(range(11, 3, -1)) == offsets(result)


def test_a_tail_that_is_full_is_said(partition: Partition) -> None:
    partition.tail = TailIndex(
        partition.clock, partition.threads, fs=partition.fs, directory=None, text_bytes_max=1
    )
    result = partition.search("disk")

    assert ((9, 12),) == result.coverage[0].missing
    assert ("not indexed yet: the tail index is full",) == result.coverage[0].reasons


def test_a_disk_without_room_for_the_tail_is_said(partition: Partition, tmp_path: Path) -> None:
    """It was called a full tail index, which no room on the disk would have cured."""
    disk = SmallDisk(tmp_path / "tail", 50_000)
    partition.tail = TailIndex(
        partition.clock, partition.threads, fs=disk, directory=f"{tmp_path}/tail",
        reserve_bytes=50_000,
    )  # fmt: skip

    [reason] = partition.search("disk").coverage[0].reasons
    assert "not indexed yet: " in reason
    assert "no room for the tail index beside the 50000 bytes" in reason

    disk.size_bytes = 1_000_000
    assert partition.search("disk").complete


def test_what_a_bundle_has_taken_over_makes_room_for_what_is_new(tmp_path: Path) -> None:
    """A part that was partly replaced went on growing, and with it all that it held."""
    made = Partition(tmp_path, log_of(12))
    made.tail = TailIndex(made.clock, made.threads, fs=made.fs, directory=None, text_bytes_max=70)
    made.end = 6
    assert made.search("disk").total == 6
    made.bundle(0, 6)
    made.end = 12

    result = made.search("disk")

    assert (12, True) == (result.total, result.complete)
    assert ((6, 12),) == made.tail.covered()


def test_in_an_outage_of_the_bucket_the_tail_is_fed_once(partition: Partition) -> None:
    def down(_position: int, _length: int) -> bytes:
        raise UnavailableError("the bucket is down")

    ref = partition.bundles[0]
    partition.bundles[0] = dataclasses.replace(ref, read_range=down)
    for _ in range(3):
        result = partition.search("disk")
        assert (12, True) == (result.total, result.complete)
    assert [(8, 12), (0, 4)] == partition.read

    partition.bundles[0] = ref
    for _ in range(2):
        assert partition.search("disk").total == 12
    assert ((6, 12),) == partition.tail.covered()


def test_nobody_gives_up_what_a_search_under_way_has_planned_with(partition: Partition) -> None:
    """Another search knows of a bundle that there was none of when this one began."""
    fed, go_on = threading.Event(), threading.Event()
    search = partition.tail.search

    def slow(*arguments: Any, **options: Any) -> Any:
        fed.set()
        assert go_on.wait(30)
        return search(*arguments, **options)

    partition.tail.search = slow  # type: ignore[method-assign]
    first: list[SearchResult] = []
    searching = threading.Thread(target=lambda: first.append(partition.search("disk")))
    searching.start()
    assert fed.wait(10)
    partition.tail.search = search  # type: ignore[method-assign]
    partition.bundles = [*partition.bundles]
    partition.bundle(8, 12)
    second = partition.search("disk")
    go_on.set()
    searching.join(30)

    for result in (first[0], second):
        assert (12, True) == (result.total, result.complete)
    assert partition.search("disk").complete
    assert () == partition.tail.covered()


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


def test_a_path_without_a_value_is_known(tmp_path: Path) -> None:
    made = Partition(tmp_path, [Record(b'{"tags": [], "user": null, "list": [[], [null]]}')])

    assert () == made.search("json.tags:x json.user:x json.list:x").unknown_paths


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


def test_what_was_dropped_meanwhile_keeps_nothing_else_out_of_the_limit(
    partition: Partition,
) -> None:
    error = OffsetOutOfRangeError("dropped", offset=0, first_offset=5, end_offset=12)
    partition.lost = dict.fromkeys(range(5), error)
    result = partition.search("disk", limit=3, order="oldest")

    assert [5, 6, 7] == offsets(result)
    assert (7, True, True) == (result.total, result.total_is_exact, result.complete)


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


@pytest.mark.parametrize(
    "options", [{"order": "best"}, {"limit": -1}, {"limit": 10_000_000}, {"deadline_seconds": -1.0}]
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options)).split("_")[0]):
        SearchOptions(**options)  # type: ignore[arg-type]
