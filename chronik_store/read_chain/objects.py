"""The coldest tier: segment objects behind the block cache.

Place: between the planner and the `objectstore` room. Promise: what is damaged in the cache is not
taken for damage in the bucket: `forget` makes the next read fetch anew. Invariant: stateless.
"""

from __future__ import annotations

from typing import Protocol

from chronik_store.format.manifest_file import SegmentInfo
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.cache import BlockCache, CachedObject
from chronik_store.segment.source import ByteSource


class ObjectTier(Protocol):
    """What the planner asks of the coldest tier. Thread-safe."""

    def source(self, info: SegmentInfo) -> ByteSource:
        """The segment's object. Sends nothing yet; its reads raise ObjectNotFoundError."""
        ...

    def forget(self, info: SegmentInfo) -> None:
        """Read it from the bucket again, not from any cache."""
        ...

    def prefetch(self, info: SegmentInfo, length: int) -> None:
        """Its first bytes will be read soon. Never blocks or fails."""
        ...


class CachedObjects:
    """The objects of one store through one cache."""

    __slots__ = ("_cache", "_store")

    def __init__(self, cache: BlockCache, store: ObjectStore) -> None:
        self._cache = cache
        self._store = store

    def source(self, info: SegmentInfo) -> CachedObject:
        """See `ObjectTier`."""
        return self._cache.open_object(self._store, info.key, info.size_bytes)

    def forget(self, info: SegmentInfo) -> None:
        """See `ObjectTier`."""
        self._cache.forget(info.key)

    def prefetch(self, info: SegmentInfo, length: int) -> None:
        """See `ObjectTier`."""
        self.source(info).prefetch(0, length)
