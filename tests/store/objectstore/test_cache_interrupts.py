"""Ctrl-C amid a read through the cache: whoever reads the same next is answered."""

from __future__ import annotations

import os
import threading
from itertools import count

import pytest

from chronik_store.fs.posix import PosixFileSystem
from chronik_store.objectstore.cache import BLOCK_BYTES, BlockCache, CachedObject
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.threads import SystemThreads
from tests.store.objectstore.test_cache import wait_for
from tests.store.search.test_interrupts import interrupted
from tests.store.test_threads import gets_through

BODY = os.urandom(5 * BLOCK_BYTES)


@pytest.fixture
def store() -> MemoryObjectStore:
    store = MemoryObjectStore()
    store.put_if_absent("k", BODY)
    return store


def fresh(store: MemoryObjectStore) -> CachedObject:
    """The object through a cache that has the block in its middle, so that two gaps are fetched."""
    cache = BlockCache(
        threads=SystemThreads(),
        fs=PosixFileSystem(),
        directory=None,
        memory_bytes=100 * BLOCK_BYTES,
        disk_bytes=0,
        read_ahead_bytes=0,
    )
    source = cache.open_object(store, "k", len(BODY))
    source.read_range(2 * BLOCK_BYTES, 1)
    return source


def test_a_read_may_be_interrupted_anywhere(store: MemoryObjectStore) -> None:
    def is_interrupted(number: int) -> bool:
        source = fresh(store)
        was_cut = interrupted(lambda: source.read_range(0, len(BODY)), number)
        read: list[bytes] = []
        assert gets_through(lambda: read.append(source.read_range(0, len(BODY)))), number
        assert [BODY] == read, number
        return was_cut

    assert next(number for number in count(1) if not is_interrupted(number)) > 20


def test_an_interrupt_reaches_nobody_who_waits_for_the_same_blocks(
    store: MemoryObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, get_range = fresh(store), store.get_range
    read: list[bytes] = []
    waiting = threading.Thread(target=lambda: read.append(source.read_range(0, 100)), daemon=True)

    def interrupt(key: str, start: int, length: int) -> bytes:
        monkeypatch.setattr(store, "get_range", get_range)
        waiting.start()
        wait_for(lambda: source._cache.stats().waits)
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "get_range", interrupt)
    with pytest.raises(KeyboardInterrupt):
        source.read_range(0, 100)
    waiting.join(30)

    assert [BODY[:100]] == read
