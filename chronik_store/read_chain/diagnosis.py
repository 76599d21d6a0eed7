"""Why a place cannot be read, in typed errors.

Place: beside the planner. Promise: each error says which of three things is the case: retention has
dropped the place (read on at the new start), a copy may come back (try again), or every copy is
damaged or missing (repair). Invariant: pure functions.
"""

from __future__ import annotations

from typing import Final

from chronik_store.errors import (
    ChronikError,
    CorruptionError,
    OffsetOutOfRangeError,
    UnavailableError,
)
from chronik_store.format.manifest_file import Manifest
from chronik_store.model import Position
from chronik_store.objectstore.base import ObjectNotFoundError
from chronik_store.read_chain.views import WalView
from chronik_store.segment.reader import Place

_VERIFY: Final = "`chronik verify` tells more"


def require_start(manifest: Manifest, place: Place, limit: Position) -> None:
    """OffsetOutOfRangeError when retention has dropped the place."""
    start = manifest.start_offset
    if place.offset >= start:
        return
    raise OffsetOutOfRangeError(
        f"offset {place.offset} is gone: the log starts at {start} now; read on from there",
        offset=place.offset,
        first_offset=start,
        end_offset=max(start, limit.offset),
    )


def most_telling(failures: list[ChronikError]) -> ChronikError:
    """The error to raise for several copies: one that may pass before one that will not.

    An object that a manifest lists and the bucket does not have is unavailable: this replica's
    manifest may be behind a collection, or somebody has deleted it.
    """
    for error in failures:
        if isinstance(error, ObjectNotFoundError):
            missing = UnavailableError(
                f"the bucket has no object for a segment that the manifest lists: {error}; this "
                "manifest may be behind (try again), or the object was deleted by other hands"
            )
            missing.__cause__ = error
            return missing
        if isinstance(error, UnavailableError):
            return error
    return failures[0]


def hole(manifest: Manifest, wal: WalView | None, place: Place, limit: Position) -> ChronikError:
    """Nobody has the place, and nobody says why: a range is missing from the middle of the log.

    Unless a reader of the bucket is past the end of all: its limit is of the log before a restore.
    """
    end = max(manifest.next.offset, manifest.start_offset)
    if wal is None and place.offset >= end:
        return UnavailableError(
            f"a restore has cut the log while it was read: it ends at offset {end} now, not at "
            f"{limit.offset}; try again"
        )
    starts = [each.base_offset for each in manifest.segments if each.base_offset > place.offset]
    if wal is not None and wal.base.offset > place.offset:
        starts.append(wal.base.offset)
    end = min([limit.offset, *starts])
    return CorruptionError(
        f"offsets {place.offset} to {end - 1} are in no tier although the log starts at "
        f"{manifest.start_offset}",
        offset_range=(place.offset, end),
        advice=_VERIFY,
    )
