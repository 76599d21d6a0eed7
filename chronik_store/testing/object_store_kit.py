"""What every object store must do, as tests to inherit.

Place: shipped with the library, so that an implementation from outside can be held to the same
contract. Promise: each test states one fact of `objectstore.base`; none assumes an empty store.
Use: subclass `ObjectStoreTests` in a test module and provide a `store` fixture.

    class TestMyStore(ObjectStoreTests):
        @pytest.fixture
        def store(self): ...
"""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from chronik_store.errors import ConfigError, UnavailableError
from chronik_store.objectstore.base import ObjectNotFoundError, ObjectStore, PutOutcome
from chronik_store.objectstore.verified import ObjectConflictError, put_verified

_Result = TypeVar("_Result")


def together(count: int, call: Callable[[int], _Result]) -> list[_Result]:
    """Call `call(0)` ... `call(count - 1)` at the same time; results in that order."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


class ObjectStoreTests:
    """The conformance tests. `racers` may be lowered for slow servers."""

    racers = 20

    @pytest.fixture
    def folder(self) -> str:
        """A key prefix of its own for each test."""
        return f"kit/{secrets.token_hex(8)}"

    # ------------------------------------------------------------------ create only if absent

    def test_a_created_object_is_read_back(self, store: ObjectStore, folder: str) -> None:
        assert store.put_if_absent(f"{folder}/a", b"hello") is PutOutcome.CREATED
        assert store.get(f"{folder}/a") == b"hello"

    def test_a_second_put_changes_nothing(self, store: ObjectStore, folder: str) -> None:
        store.put_if_absent(f"{folder}/a", b"first")
        assert store.put_if_absent(f"{folder}/a", b"second") is PutOutcome.EXISTS
        assert store.get(f"{folder}/a") == b"first"

    def test_an_empty_put_never_overwrites(self, store: ObjectStore, folder: str) -> None:
        store.put_if_absent(f"{folder}/a", b"first")
        assert store.put_if_absent(f"{folder}/a", b"") is PutOutcome.EXISTS
        assert store.get(f"{folder}/a") == b"first"

    def test_an_empty_object_is_an_object(self, store: ObjectStore, folder: str) -> None:
        assert store.put_if_absent(f"{folder}/e", b"") is PutOutcome.CREATED
        assert store.put_if_absent(f"{folder}/e", b"late") is PutOutcome.EXISTS
        assert store.get(f"{folder}/e") == b""
        info = store.head(f"{folder}/e")
        assert info is not None
        assert info.size_bytes == 0

    def test_of_many_rivals_exactly_one_wins(self, store: ObjectStore, folder: str) -> None:
        bodies = [f"rival {number}".encode() * 100 for number in range(self.racers)]
        outcomes = together(
            self.racers, lambda number: store.put_if_absent(f"{folder}/race", bodies[number])
        )
        assert outcomes.count(PutOutcome.CREATED) == 1
        assert store.get(f"{folder}/race") == bodies[outcomes.index(PutOutcome.CREATED)]

    def test_any_buffer_is_taken_as_its_bytes(self, store: ObjectStore, folder: str) -> None:
        body = bytes(range(256)) * 5
        store.put_if_absent(f"{folder}/view", memoryview(body)[5:-5])
        store.put_if_absent(f"{folder}/array", bytearray(body))
        assert store.get(f"{folder}/view") == body[5:-5]
        assert store.get(f"{folder}/array") == body

    def test_a_body_of_many_network_packets_arrives_whole(
        self, store: ObjectStore, folder: str
    ) -> None:
        body = secrets.token_bytes(3 << 20)
        assert put_verified(store, f"{folder}/big", memoryview(body)) == "created"
        assert store.get(f"{folder}/big") == body

    # ------------------------------------------------------------------------------- reading

    def test_ranges_are_cut_like_slices(self, store: ObjectStore, folder: str) -> None:
        body = secrets.token_bytes(1000)
        store.put_if_absent(f"{folder}/r", body)
        for start, length in [(0, 10), (990, 100), (0, 1000), (500, 1), (999, 1), (300, 0)]:
            assert store.get_range(f"{folder}/r", start, length) == body[start : start + length]
        assert store.get_range(f"{folder}/r", 1000, 10) == b""
        assert store.get_range(f"{folder}/r", 5000, 10) == b""

    def test_a_negative_start_counts_from_the_end(self, store: ObjectStore, folder: str) -> None:
        body = secrets.token_bytes(100)
        store.put_if_absent(f"{folder}/r", body)
        assert store.get_range(f"{folder}/r", -10, 10) == body[-10:]
        assert store.get_range(f"{folder}/r", -10, 4) == body[-10:-6]
        assert store.get_range(f"{folder}/r", -10, 100) == body[-10:]
        assert store.get_range(f"{folder}/r", -500, 500) == body

    def test_a_range_of_an_empty_object_is_empty(self, store: ObjectStore, folder: str) -> None:
        store.put_if_absent(f"{folder}/e", b"")
        assert store.get_range(f"{folder}/e", 0, 10) == b""
        assert store.get_range(f"{folder}/e", -10, 10) == b""

    def test_a_negative_length_is_a_programming_error(
        self, store: ObjectStore, folder: str
    ) -> None:
        store.put_if_absent(f"{folder}/r", b"12345")
        with pytest.raises(ValueError, match="negative"):
            store.get_range(f"{folder}/r", 0, -1)

    def test_absence_is_told_apart_from_trouble(self, store: ObjectStore, folder: str) -> None:
        assert store.head(f"{folder}/none") is None
        with pytest.raises(ObjectNotFoundError) as whole:
            store.get(f"{folder}/none")
        with pytest.raises(ObjectNotFoundError):
            store.get_range(f"{folder}/none", 0, 10)
        assert not whole.value.retriable
        assert isinstance(pickle.loads(pickle.dumps(whole.value)), ObjectNotFoundError)  # noqa: S301

    def test_head_tells_the_size(self, store: ObjectStore, folder: str) -> None:
        store.put_if_absent(f"{folder}/h", b"12345")
        info = store.head(f"{folder}/h")
        assert info is not None
        assert (info.key, info.size_bytes) == (f"{folder}/h", 5)
        assert info.etag is None or '"' not in info.etag

    # ------------------------------------------------------------------------------- listing

    def test_a_listing_is_in_byte_order_and_bounded(self, store: ObjectStore, folder: str) -> None:
        names = ["a", "a-b", "a.c", "ab", "b/1", "b/2", "b2/1", "c"]
        for name in reversed(names):
            store.put_if_absent(f"{folder}/{name}", name.encode())
        keys = [f"{folder}/{name}" for name in names]
        listed = store.list(f"{folder}/")
        assert [info.key for info in listed] == keys
        assert [info.size_bytes for info in listed] == [len(name) for name in names]
        assert [info.key for info in store.list(f"{folder}/", limit=3)] == keys[:3]
        after = store.list(f"{folder}/", start_after=f"{folder}/ab", limit=2)
        assert [info.key for info in after] == [f"{folder}/b/1", f"{folder}/b/2"]
        assert [info.key for info in store.list(f"{folder}/b/")] == keys[4:6]
        assert [info.key for info in store.list(f"{folder}/b")] == keys[4:7]

    def test_a_prefix_without_objects_lists_as_empty(self, store: ObjectStore, folder: str) -> None:
        assert store.list(f"{folder}/nothing/here/") == []

    def test_start_after_need_not_exist_or_share_the_prefix(
        self, store: ObjectStore, folder: str
    ) -> None:
        store.put_if_absent(f"{folder}/b", b"")
        assert [info.key for info in store.list(f"{folder}/", start_after="a")] == [f"{folder}/b"]
        assert store.list(f"{folder}/", start_after=f"{folder}/c") == []

    # ------------------------------------------------------------------------------ deleting

    def test_deleted_objects_are_gone_and_absent_ones_no_error(
        self, store: ObjectStore, folder: str
    ) -> None:
        keys = [f"{folder}/{number}" for number in range(3)]
        for key in keys:
            store.put_if_absent(key, b"x")
        store.delete([*keys[:2], f"{folder}/never"])
        assert [info.key for info in store.list(f"{folder}/")] == keys[2:]
        assert store.head(keys[0]) is None
        store.delete(keys)
        store.delete([])
        assert store.list(f"{folder}/") == []

    # ------------------------------------------------------------------------ keys and errors

    @pytest.mark.parametrize(
        "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a\0b", "a\nb", "a\\b"]
    )
    def test_a_key_that_could_leave_the_prefix_is_refused(
        self, store: ObjectStore, key: str
    ) -> None:
        with pytest.raises(ConfigError):
            store.put_if_absent(key, b"x")
        with pytest.raises(ConfigError):
            store.get(key)
        with pytest.raises(ConfigError):
            store.delete([key])

    def test_the_url_has_a_scheme_and_no_secret(self, store: ObjectStore) -> None:
        assert "://" in store.url
        assert "@" not in store.url

    # ------------------------------------------------------------------------------ verified

    def test_an_equal_object_is_adopted(self, store: ObjectStore, folder: str) -> None:
        body = secrets.token_bytes(100_000)
        assert put_verified(store, f"{folder}/v", body) == "created"
        assert put_verified(store, f"{folder}/v", body) == "adopted"

    def test_other_bytes_under_the_key_are_a_conflict(
        self, store: ObjectStore, folder: str
    ) -> None:
        store.put_if_absent(f"{folder}/v", b"theirs")
        with pytest.raises(ObjectConflictError, match="other bytes") as equal_size:
            put_verified(store, f"{folder}/v", b"mine!!")
        with pytest.raises(ObjectConflictError, match="has 6 bytes"):
            put_verified(store, f"{folder}/v", b"mine, longer")
        assert equal_size.value.key == f"{folder}/v"
        assert not isinstance(equal_size.value, UnavailableError)
        assert store.get(f"{folder}/v") == b"theirs"

    def test_of_rivals_with_equal_bytes_one_creates_and_all_succeed(
        self, store: ObjectStore, folder: str
    ) -> None:
        body = b"same segment" * 1000
        results = together(5, lambda _: put_verified(store, f"{folder}/seg", body))
        assert sorted(results) == ["adopted"] * 4 + ["created"]

    def test_close_may_be_called_twice(self, store: ObjectStore) -> None:
        store.close()
        store.close()
