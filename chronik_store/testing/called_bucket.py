"""An object store whose every call passes one place, where a kit lets it wait, fail or be lost.

Place: under the buckets of simulated machines and of a cluster's nodes. Promise: a call is what the
store below does when `effect` is run, which may be later, or never. Invariant: bodies are copied
before the call begins: what the caller does to its buffer afterwards changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from chronik_store.objectstore.base import Buffer, ObjectInfo, ObjectStore, PutOutcome

T = TypeVar("T")


class CalledBucket:
    """Implements `ObjectStore` over `_call`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @property
    def url(self) -> str:
        return self._store.url

    def put_if_absent(self, key: str, data: Buffer) -> PutOutcome:
        body = bytes(data)
        return self._call("put_if_absent", [key], lambda: self._store.put_if_absent(key, body))

    def get(self, key: str) -> bytes:
        return self._call("get", [key], lambda: self._store.get(key))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self._call("get_range", [key], lambda: self._store.get_range(key, start, length))

    def head(self, key: str) -> ObjectInfo | None:
        return self._call("head", [key], lambda: self._store.head(key))

    def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        return self._call(
            "list", [prefix], lambda: self._store.list(prefix, start_after=start_after, limit=limit)
        )

    def delete(self, keys: Sequence[str]) -> None:
        wanted = [*keys]
        self._call("delete", wanted, lambda: self._store.delete(wanted))

    def close(self) -> None:
        """Nothing of the bucket's is this caller's to release."""

    def _call(self, name: str, keys: Sequence[str], effect: Callable[[], T]) -> T:
        raise NotImplementedError
