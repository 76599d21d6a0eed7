"""An object as a source of byte ranges, past every cache.

Place: for those who look at what is stored itself (`verify`), or read each object once (`restore`).
Promise: every read is one ranged GET. Invariant: holds nothing.
"""

from __future__ import annotations

from chronik_store.objectstore.base import ObjectStore


class ObjectSource:
    """The bytes of one object. Thread-safe. Errors: those of `ObjectStore.get_range`."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store = store
        self._key = key

    def read_range(self, start: int, length: int) -> bytes:
        """The bytes [start, start + length)."""
        return self._store.get_range(self._key, start, length)

    def read_tail(self, length: int) -> bytes:
        """The last `length` bytes, or all of a shorter object."""
        return self._store.get_range(self._key, -length, length)
