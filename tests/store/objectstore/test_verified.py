import dataclasses
import pickle

import pytest

from chronik_store.clock import SystemClock
from chronik_store.errors import UnavailableError
from chronik_store.objectstore.base import PutOutcome
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.objectstore.verified import (
    COMPARE_BLOCK_BYTES,
    VERIFY_TAIL_BYTES,
    ObjectConflictError,
    put_verified,
)
from chronik_store.testing.faulty_object_store import Fault, FaultyObjectStore


class EtagStore(MemoryObjectStore):
    """A store whose ETags are something else, as with encryption or on a file system."""

    def __init__(self, etag):
        super().__init__()
        self._etag = etag
        self.ranges = []

    def head(self, key):
        info = super().head(key)
        return info and dataclasses.replace(info, etag=self._etag)

    def get_range(self, key, start, length):
        self.ranges.append((start, length))
        return super().get_range(key, start, length)


OTHER_ETAGS = [None, "abc-3", "f" * 32]


@pytest.mark.parametrize("etag", OTHER_ETAGS)
def test_without_an_md5_a_created_object_is_verified_by_its_tail(etag):
    store = EtagStore(etag)
    assert put_verified(store, "k", b"x" * 100_000) == "created"
    assert store.ranges == [(100_000 - VERIFY_TAIL_BYTES, VERIFY_TAIL_BYTES)]


@pytest.mark.parametrize("etag", OTHER_ETAGS)
def test_without_an_md5_an_adopted_object_is_compared_whole(etag):
    store = EtagStore(etag)
    body = b"x" * (COMPARE_BLOCK_BYTES + 5)
    store.put_if_absent("k", body)
    assert put_verified(store, "k", body) == "adopted"
    assert store.ranges == [(0, COMPARE_BLOCK_BYTES), (COMPARE_BLOCK_BYTES, 5)]
    with pytest.raises(ObjectConflictError, match=f"offset {COMPARE_BLOCK_BYTES}"):
        put_verified(store, "k", body[:-1] + b"y")


def test_a_store_that_changes_the_bytes_is_found_out():
    class Lying(EtagStore):
        def put_if_absent(self, key, data):
            return super().put_if_absent(key, bytes(data)[:-1] + b"!")

    with pytest.raises(ObjectConflictError, match="other bytes"):
        put_verified(Lying(None), "k", b"body")


def test_a_store_that_stores_less_is_found_out():
    class Short(MemoryObjectStore):
        def put_if_absent(self, key, data):
            return super().put_if_absent(key, bytes(data)[:-1])

    with pytest.raises(ObjectConflictError, match="has 3 bytes, not our 4"):
        put_verified(Short(), "k", b"body")


def test_an_object_that_is_gone_again_is_unknown():
    class Forgetful(MemoryObjectStore):
        def put_if_absent(self, key, data):
            return PutOutcome.CREATED

    with pytest.raises(UnavailableError) as caught:
        put_verified(Forgetful(), "k", b"body")
    assert caught.value.durability == "unknown"


def test_an_outage_after_the_put_is_no_verdict():
    store = FaultyObjectStore(MemoryObjectStore(), clock=SystemClock())
    store.add(Fault("unavailable", "head"))
    with pytest.raises(UnavailableError):
        put_verified(store, "k", b"body")
    assert put_verified(store, "k", b"body") == "adopted"


def test_an_empty_object_is_verified_too():
    store = EtagStore(None)
    assert put_verified(store, "k", b"") == "created"
    assert put_verified(store, "k", b"") == "adopted"


def test_the_conflict_survives_pickling():
    error = pickle.loads(pickle.dumps(ObjectConflictError("text", key="k")))
    assert (str(error), error.key) == ("text", "k")
