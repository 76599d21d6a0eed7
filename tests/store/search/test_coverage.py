"""Ranges of offsets add up."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from chronik_store.search.coverage import covered, gaps, merged

limits = st.integers(0, 20)
ranges = st.lists(st.tuples(limits, limits), max_size=6)


def offsets(spans: object) -> set[int]:
    return {offset for low, high in spans for offset in range(low, high)}  # type: ignore[attr-defined]


@given(ranges)
def test_merged_is_the_same_offsets_in_the_fewest_sorted_ranges(
    spans: list[tuple[int, int]],
) -> None:
    found = merged(spans)

    assert offsets(spans) == offsets(found)
    assert all(low < high for low, high in found)
    assert all(left[1] < right[0] for left, right in pairwise(found))


@given(ranges, limits, limits)
def test_covered_and_gaps_split_the_bounds(
    spans: list[tuple[int, int]], start: int, stop: int
) -> None:
    inside, outside = offsets(covered(spans, start, stop)), offsets(gaps(spans, start, stop))

    assert set(range(start, stop)) == inside | outside
    assert not inside & outside
    assert inside == offsets(spans) & set(range(start, stop))
