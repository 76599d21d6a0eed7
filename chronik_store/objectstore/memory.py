"""Objects in this process's memory: `memory://name/prefix`, and the reference model.

Place: an implementation of `base.ObjectStore`. Promise: the contract in its plainest form, so
that other implementations are tested against it; stores of one name share their objects within
the process (a "bucket" that outlives the log that wrote it). Invariant: each operation is one
atomic step on one dict; there is no lock, hence nothing to hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from chronik_store.clock import Clock, SystemClock
from chronik_store.objectstore.base import Buffer, ObjectInfo, ObjectNotFoundError, PutOutcome
from chronik_store.objectstore.layout import check_key, check_prefix
from chronik_store.objectstore.ranges import clip_range


class _Object(NamedTuple):
    data: bytes
    etag: str
    modified_us: int


_BUCKETS: dict[str, dict[str, _Object]] = {}
"""By name. `dict.setdefault` is atomic, and so are the single steps on the inner dicts."""


def forget_memory_bucket(name: str) -> None:
    """Drop what `memory://name` holds, for stores opened from now on."""
    _BUCKETS.pop(name, None)


class MemoryObjectStore:
    """A dict as an object store. Thread-safe.

    Args:
        name: stores of one name share their objects; None: a private one.
        prefix: put before each key, without '/' at its ends.
        clock: source of the objects' modification times.
    """

    def __init__(
        self, name: str | None = None, prefix: str = "", *, clock: Clock | None = None
    ) -> None:
        self._objects = {} if name is None else _BUCKETS.setdefault(name, {})
        self._prefix = f"{prefix}/" if prefix else ""
        self._clock = SystemClock() if clock is None else clock
        self._url = f"memory://{name or 'private'}" + (f"/{prefix}" if prefix else "")

    @property
    def url(self) -> str:
        return self._url

    def put_if_absent(self, key: str, data: Buffer) -> PutOutcome:
        body = bytes(data)
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        created = _Object(body, etag, self._clock.time_us())
        winner = self._objects.setdefault(self._prefix + check_key(key), created)
        return PutOutcome.CREATED if winner is created else PutOutcome.EXISTS

    def get(self, key: str) -> bytes:
        found = self._objects.get(self._prefix + check_key(key))
        if found is None:
            raise ObjectNotFoundError(f"{self._url}: no object {key!r}")
        return found.data

    def get_range(self, key: str, start: int, length: int) -> bytes:
        data = self.get(key)
        first, stop = clip_range(start, length, len(data))
        return data[first:stop]

    def head(self, key: str) -> ObjectInfo | None:
        found = self._objects.get(self._prefix + check_key(key))
        if found is None:
            return None
        return ObjectInfo(key, len(found.data), found.etag, found.modified_us)

    def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        whole = self._prefix + check_prefix(prefix)
        after = self._prefix + start_after if start_after else ""
        found: list[ObjectInfo] = []
        for name, stored in sorted(self._objects.copy().items()):
            if name.startswith(whole) and name > after and len(found) < limit:
                key = name[len(self._prefix) :]
                found.append(ObjectInfo(key, len(stored.data), stored.etag, stored.modified_us))
        return found

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._objects.pop(self._prefix + check_key(key), None)

    def close(self) -> None:
        """Nothing to release; the objects stay with their name."""
