"""Which bundles stay: passes over more than can, sets that come into use, and the bounds."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from chronik_store.search.keeping import Keeping

COUNT_MAX = 64
ALL = 1 << 40


class Cache:
    """What `bundle_cache` does with it: a bundle that is used is busy, and then is not."""

    def __init__(
        self, bytes_max: int = ALL, size_bytes: int = 1, count_max: int = COUNT_MAX
    ) -> None:
        self.keeping = Keeping(count_max)
        self.count_max, self.bytes_max, self.size_bytes = count_max, bytes_max, size_bytes
        self.sizes: dict[str, int] = {}
        self.hits = 0

    def use(self, number: int) -> None:
        key = f"{number}"
        self.hits += key in self.sizes
        self.sizes.setdefault(key, self.size_bytes)
        self.keeping.use(key)
        self.settle()

    def settle(self, busy: Iterable[str] = ()) -> None:
        for key in self.keeping.surplus(self.sizes, set(busy), self.bytes_max):
            del self.sizes[key]
        assert len(self.sizes) <= self.count_max
        assert sum(self.sizes.values()) <= self.bytes_max

    def hits_of(self, numbers: Iterable[int]) -> int:
        before = self.hits
        for number in numbers:
            self.use(number)
        return self.hits - before


@pytest.mark.parametrize("times", [1.1, 2, 4, 10, 50])
@pytest.mark.parametrize("bound", ["count", "bytes"])
def test_a_pass_over_n_times_as_many_finds_one_in_n(times: float, bound: str) -> None:
    cache = Cache() if bound == "count" else Cache(64_000, 1000, 1 << 20)
    numbers = range(int(64 * times))
    cache.hits_of(numbers)
    for _ in range(5):
        assert 64 * 7 // 8 <= cache.hits_of(numbers) <= 64


def test_bundles_that_are_large_for_the_bound_stay_too() -> None:
    """Three of twelve fit, none into an eighth: the third is the one that came last."""
    cache = Cache(1000, 300)
    cache.hits_of(range(12))

    assert [2, 2] == [cache.hits_of(range(12)) for _ in range(2)]
    assert {"0", "1", "11"} == set(cache.sizes)


def test_what_comes_newest_first_to_a_growing_log_is_found_too() -> None:
    cache = Cache()
    for newest in range(200, 220):
        found = cache.hits_of(range(newest, -1, -1))

    assert 64 * 7 // 8 <= found


def test_a_pass_behind_another_finds_what_that_one_fetched_and_pushes_nothing_out() -> None:
    cache = Cache()
    numbers = [number for step in range(200) for number in (step, step - 5) if number >= 0]
    cache.hits_of(numbers)
    found = cache.hits_of(numbers)

    assert 195 + 64 * 7 // 8 - 5 <= found


def test_what_is_drawn_at_random_is_found_as_often_as_it_can_be() -> None:
    chance = random.Random(7)
    cache = Cache()
    cache.hits_of(chance.randrange(256) for _ in range(10_000))

    assert 0.22 <= cache.hits_of(chance.randrange(256) for _ in range(20_000)) / 20_000


def test_a_set_that_comes_into_use_is_there_from_the_third_time_on() -> None:
    cache = Cache()
    for _ in range(3):
        cache.hits_of(range(256))
    cache.hits_of(range(1000, 1050))
    cache.hits_of(range(1000, 1050))

    assert [50, 50] == [cache.hits_of(range(1000, 1050)) for _ in range(2)]


def test_one_that_is_asked_for_alone_is_there_at_once() -> None:
    cache = Cache()
    cache.hits_of(range(256))
    cache.use(1000)

    assert 9 == cache.hits_of([1000] * 9)


def test_a_set_in_use_outlives_a_pass_over_everything() -> None:
    cache = Cache()
    for _ in range(3):
        cache.hits_of(range(1000, 1040))
    cache.hits_of(range(500))

    assert 40 == cache.hits_of(range(1000, 1040))


def test_what_is_busy_stays_and_what_is_not_goes_for_it() -> None:
    keeping = Keeping(2)
    for key in "abc":
        keeping.use(key)

    assert ["b"] == keeping.surplus(dict.fromkeys("abc", 1), {"a", "c"}, ALL)
    assert [] == keeping.surplus(dict.fromkeys("ac", 9), {"a", "c"}, 1)
    assert ["c"] == keeping.surplus(dict.fromkeys("ac", 9), {"a"}, 1)


def test_smaller_bounds_for_once_let_go_what_a_pass_would_not_find() -> None:
    """A short disk: the same choice with the bytes that there are, the last arrival stays."""
    cache = Cache(100, 10)
    cache.hits_of(range(10))
    gone = cache.keeping.surplus(cache.sizes, set(), 70)

    assert ["6", "7", "8"] == sorted(gone)


def test_what_is_remembered_is_bounded() -> None:
    cache = Cache()
    cache.hits_of(range(10_000))

    assert 2048 + COUNT_MAX >= len(cache.keeping._last)
    assert COUNT_MAX >= len(cache.keeping._arrivals) + len(cache.keeping._kept)


def test_what_could_not_be_fetched_takes_no_place() -> None:
    keeping = Keeping(1)
    keeping.use("a")
    keeping.use("b")
    keeping.leave("b")

    assert [] == keeping.surplus({"a": 1}, set(), ALL)
    assert ["a"] == keeping.surplus({"a": 1}, set(), 0)


def test_who_comes_back_takes_the_place_of_the_one_not_used_for_longest() -> None:
    cache = Cache(count_max=16)
    cache.hits_of(range(17))  # 14 are kept, the last two have arrived
    cache.use(0)
    cache.hits_of([100, 101, 102, 100])  # 100 goes for 102, and comes back sooner than 1 was used

    assert {"0", "100"} <= set(cache.sizes)
    cache.hits_of([101, 102, 103, 104])
    assert {"0", "100"} <= set(cache.sizes)
    assert "1" not in cache.sizes
