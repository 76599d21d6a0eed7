"""The answers of several partitions as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronik_store.model import Record, SearchResult
from chronik_store.search.searcher import merge_results
from tests.store.search.partition import Partition


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


@pytest.mark.parametrize(("order", "expected"), [("newest", [1, 0]), ("oldest", [0, 1])])
def test_the_answer_of_one_partition_keeps_its_order(
    order: str, expected: list[int], tmp_path: Path
) -> None:
    """It goes by offset; where times go back, the hit of a limit of 1 was not the first of two."""
    log = [Record(b"disk", timestamp_us=time) for time in (9, 5)]
    result = Partition(tmp_path, log).search("disk", order=order)

    merged = merge_results([result], order=order, limit=2, elapsed_seconds=0.0)  # type: ignore[arg-type]

    assert expected == [hit.offset for hit in merged]


def test_a_path_known_in_one_partition_is_known() -> None:
    def result(*unknown: str) -> SearchResult:
        return SearchResult((), 0, True, (), unknown, 0.0)

    results = [result("json.a", "json.b"), result("json.b")]
    merged = merge_results(results, order="newest", limit=1, elapsed_seconds=0.0)
    assert ("json.b",) == merged.unknown_paths
    empty = merge_results([], order="newest", limit=1, elapsed_seconds=0.0)
    assert ((), ()) == (empty.hits, empty.unknown_paths)


def test_a_total_is_exact_only_if_that_of_each_partition_is() -> None:
    whole, part = (SearchResult((), 1, exact, (), (), 0.0) for exact in (True, False))
    for results in ([whole, part], [part, whole]):
        assert not merge_results(
            results, order="newest", limit=1, elapsed_seconds=0.0
        ).total_is_exact
