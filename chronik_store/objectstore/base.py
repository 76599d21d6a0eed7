"""The contract of the object store: seven calls, three outcomes.

Place: the bottom of the `objectstore` room; implementations stand beside it. Promise: objects are
immutable once created; `put_if_absent` is the only way to create one and is atomic among all
rivals. Every mutating call has three outcomes: done (it returned), not done (it raised an error
whose `durability` is "not_durable"), unknown (any other UnavailableError): the caller then reads
back and compares. Keys are relative to the store's prefix, '/'-separated, never start with '/'.

Errors: ObjectNotFoundError, AccessDeniedError, ObjectStoreRefusedError and UnavailableError leave
a store, and ConfigError for a key that could leave its prefix; nothing else does.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chronik_store.errors import UnavailableError

Buffer = bytes | bytearray | memoryview


class ObjectNotFoundError(UnavailableError, LookupError):
    """No object has this key now. Internal to the library: callers decide what absence means."""

    retriable = False


class ObjectStoreRefusedError(UnavailableError):
    """The store answered that it will not do this: no such bucket, not implemented, bad request.

    Not retried: the message names what to change in the configuration or the bucket.
    """

    retriable = False


class PutOutcome(enum.Enum):
    """What a create-only put found."""

    CREATED = "created"
    EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing or HEAD tells of an object."""

    key: str
    size_bytes: int
    etag: str | None = None
    """Quotes stripped; an MD5 in hex where the store gives one."""
    modified_us: int | None = None


class ObjectStore(Protocol):
    """A bucket prefix. Thread-safe; never called from an event loop."""

    @property
    def url(self) -> str:
        """Where it is, without secrets."""
        ...

    def put_if_absent(self, key: str, data: Buffer) -> PutOutcome:
        """Create the object unless the key exists; visible whole or not at all, durable on return.

        EXISTS does not say whose bytes are there (it may be our own retried put): compare.
        """
        ...

    def get(self, key: str) -> bytes:
        """The whole object."""
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly one ranged read; a negative `start` counts from the end.

        Shorter only where the object ends; empty past it.
        """
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """Size and etag, or None if there is proof that it is absent."""
        ...

    def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        """Up to `limit` objects whose key starts with `prefix` and sorts after `start_after`, in
        order. Fewer than `limit`: there are no more, and nobody asks again for the rest.
        """
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; absent ones are no error. Partial failure raises UnavailableError."""
        ...

    def close(self) -> None:
        """Release connections. Idempotent."""
        ...
