"""Put an object and know that these very bytes are there.

Place: above `base`, used by whoever uploads. Promise: "created" or "adopted" means that the
object under the key has exactly these bytes, as far as the store can show it without sending
them back (size and MD5; else its tail), or, where the key existed before, with certainty (MD5,
else every byte compared). Invariant: the body is in memory once; what is read back comes in
blocks.

An EXISTS may be our own put whose reply was lost, the same segment put by a predecessor, or
somebody else's object: only comparing tells.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from chronik_store.errors import ChronikError, UnavailableError
from chronik_store.objectstore.base import Buffer, ObjectInfo, ObjectStore, PutOutcome

VERIFY_TAIL_BYTES = 64 * 1024
COMPARE_BLOCK_BYTES = 4 * 1024 * 1024
_MD5 = re.compile(r"[0-9a-fA-F]{32}")


class ObjectConflictError(ChronikError):
    """Other bytes are under a key that is made of their own hash, or arrived changed.

    Nothing was overwritten. The object is not ours, or it is damaged: the upload cannot go on
    under this key; `chronik verify --bucket --deep` tells which.
    """

    def __init__(self, message: str, *, key: str = "") -> None:
        super().__init__(message)
        self.key = key


def put_verified(store: ObjectStore, key: str, data: Buffer) -> Literal["created", "adopted"]:
    """Create `key` with `data`, or adopt an equal object that is there already.

    Raises:
        ObjectConflictError: other bytes are under the key.
        UnavailableError: the store did not answer; `durability` says what is known of the put.
            Calling again with the same bytes is always right.
    """
    view = memoryview(data).cast("B")
    outcome = store.put_if_absent(key, data)
    found = store.head(key)
    if found is None:
        raise UnavailableError(
            f"{store.url}: {key!r} was put ({outcome.value}) and is absent now; was it deleted, or "
            "does the store show its objects late?",
            durability="unknown",
        )
    if found.size_bytes != len(view):
        raise ObjectConflictError(
            f"{store.url}: {key!r} has {found.size_bytes} bytes, not our {len(view)}; nothing was "
            "overwritten",
            key=key,
        )
    if outcome is PutOutcome.CREATED:
        _check_created(store, found, view)
        return "created"
    if not _same_md5(found, view):
        _compare_from(store, key, view, 0)
    return "adopted"


def _check_created(store: ObjectStore, found: ObjectInfo, view: memoryview) -> None:
    """The store took our bytes: look at its digest, or else at the tail."""
    if not _same_md5(found, view):
        _compare_from(store, found.key, view, max(0, len(view) - VERIFY_TAIL_BYTES))


def _same_md5(found: ObjectInfo, view: memoryview) -> bool:
    """True proves equality. False proves nothing: encrypted objects have other 32-digit ETags."""
    if found.etag is None or not _MD5.fullmatch(found.etag):
        return False
    return hashlib.md5(view, usedforsecurity=False).hexdigest() == found.etag.lower()


def _compare_from(store: ObjectStore, key: str, view: memoryview, start: int) -> None:
    for position in range(start, len(view), COMPARE_BLOCK_BYTES):
        length = min(COMPARE_BLOCK_BYTES, len(view) - position)
        if store.get_range(key, position, length) != view[position : position + length]:
            raise ObjectConflictError(
                f"{store.url}: {key!r} has other bytes than ours from offset {position} on; "
                "nothing was overwritten",
                key=key,
            )
