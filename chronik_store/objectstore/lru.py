"""A least-recently-used map that is bounded by the bytes of its values.

Place: the bottom of the `objectstore` room. Promise: the sum of the sizes never exceeds the bound
after `put` returned. Invariant: plain bookkeeping; whoever shares it between threads brings the
lock, and whoever must act on an eviction (remove a file) does so after the lock is released, with
what `put` returned. (Not cachetools: it evicts by calling back, under the caller's lock.)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class ByteBoundedLru(Generic[_Key, _Value]):
    """Not thread-safe. `limit_bytes` 0 keeps nothing."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        self._entries: OrderedDict[_Key, tuple[_Value, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[_Key]:
        return iter(list(self._entries))

    def get(self, key: _Key) -> _Value | None:
        """The value, now the most recently used, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: _Key, value: _Value, size_bytes: int) -> list[tuple[_Key, _Value]]:
        """Keep a value; returns what went out for it (the value itself if it is too large)."""
        evicted = []
        previous = self.pop(key)
        if previous is not None:
            evicted.append((key, previous))
        self._entries[key] = (value, size_bytes)
        self.size_bytes += size_bytes
        return evicted + self.shrink(self.limit_bytes)

    def pop(self, key: _Key) -> _Value | None:
        """Take a value out, or None."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self.size_bytes -= entry[1]
        return entry[0]

    def shrink(self, limit_bytes: int) -> list[tuple[_Key, _Value]]:
        """Let the least recently used go until at most `limit_bytes` are held; returns them."""
        evicted = []
        while self.size_bytes > limit_bytes:
            key, (value, size_bytes) = self._entries.popitem(last=False)
            self.size_bytes -= size_bytes
            evicted.append((key, value))
        return evicted
