"""A bucket some of whose objects have rotted: other bytes under the same key, size and tag.

Place: between a world's bucket, which keeps the truth, and those who are served. Promise: one bit
of each damaged object is turned over in whatever is read of it. Invariant: nothing is changed that
is put or listed; `heal` brings every object back from a copy.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from chronik_store.objectstore.base import ObjectStore
from chronik_store.testing.called_bucket import CalledBucket

T = TypeVar("T")


class RottenBucket(CalledBucket):
    """Implements `ObjectStore`."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self._places: dict[str, tuple[int, int]] = {}

    @property
    def keys(self) -> frozenset[str]:
        """Of what is damaged now."""
        return frozenset(self._places)

    def rot(self, prefix: str, chance: random.Random) -> str:
        """Damage one of the objects there; its key, "" if there is none."""
        found = [each.key for each in self._store.list(prefix, limit=100_000)]
        if not found:
            return ""
        key = chance.choice((found[-1], chance.choice(found)))
        self._places[key] = (chance.randrange(len(self._store.get(key))), chance.randrange(8))
        return key

    def heal(self) -> None:
        """Every object is as it was put."""
        self._places.clear()

    def get(self, key: str) -> bytes:
        return self._served(key, 0, super().get(key))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._served(key, start, super().get_range(key, start, length))

    def _served(self, key: str, start: int, data: bytes) -> bytes:
        if key not in self._places:
            return data
        position, bit = self._places[key]
        first = start if start >= 0 else len(self._store.get(key)) + start
        served = bytearray(data)
        if first <= position < first + len(data):
            served[position - first] ^= 1 << bit
        return bytes(served)

    def _call(self, _name: str, _keys: Sequence[str], effect: Callable[[], T]) -> T:
        return effect()
