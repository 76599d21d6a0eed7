from hypothesis import given
from hypothesis import strategies as st

from chronik_store.objectstore.lru import ByteBoundedLru


def test_the_least_recently_used_goes_first():
    lru = ByteBoundedLru(3)
    for key in "abc":
        assert lru.put(key, key, 1) == []
    assert lru.get("a") == "a"
    assert lru.put("d", "d", 1) == [("b", "b")]
    assert list(lru) == ["c", "a", "d"]


def test_a_value_over_the_bound_goes_out_at_once():
    lru = ByteBoundedLru(3)
    lru.put("a", 1, 1)
    assert lru.put("big", 2, 4) == [("a", 1), ("big", 2)]
    assert lru.size_bytes == 0


def test_a_value_that_is_replaced_is_returned():
    lru = ByteBoundedLru(3)
    lru.put("a", 1, 2)
    assert lru.put("a", 2, 3) == [("a", 1)]
    assert (lru.get("a"), lru.size_bytes, len(lru)) == (2, 3, 1)
    assert lru.pop("a") == 2
    assert lru.pop("a") is None


@given(
    st.integers(0, 50),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20)), max_size=60),
)
def test_the_bound_always_holds_and_nothing_goes_unseen(limit, puts):
    lru = ByteBoundedLru(limit)
    held = {}
    for number, (key, size) in enumerate(puts):
        before = {**held, key: (number, size)}
        evicted = lru.put(key, number, size)
        held = {each: before[each] for each in lru}
        gone = {each for each, _ in evicted}
        assert set(before) - set(held) <= gone
        assert lru.size_bytes == sum(size for _, size in held.values()) <= limit
