"""What is asked of a log beside records, as commands: cursors, a seal, the end of a prefix.

Place: over the values of a manifest; the faces of a log ask it, embedded and in a cluster, and
propose what it returns. Promise: what may not be is refused before anything is proposed; None says
that all is so already. Invariant: pure, on one frozen manifest.
"""

from __future__ import annotations

from chronik_store.arguments import check_offset
from chronik_store.errors import ConfigError, OffsetConflictError, OffsetOutOfRangeError
from chronik_store.format.control import CursorSet, DropPrefix, Seal
from chronik_store.format.manifest_file import Manifest
from chronik_store.manifest.state import OpenSegment


def cursor_commit(
    manifest: Manifest, end_offset: int, name: str, next_offset: int, *, reset: bool, most: int
) -> CursorSet | None:
    """The cursor `name` stands at `next_offset`; `end_offset` is committed, `most` cursors allowed.

    OffsetConflictError when that would move it back and `reset` is not set; OffsetOutOfRangeError
    past the committed end; ConfigError when there are too many.
    """
    check_offset(next_offset, "next_offset")
    known = dict(manifest.cursors)
    current = known.get(name)
    if current is not None and next_offset < current and not reset:
        raise OffsetConflictError(
            f"cursor {name!r} stands at {current}; pass reset=True to move it back to "
            f"{next_offset}",
            expected_offset=current,
            end_offset=next_offset,
        )
    if current == next_offset:
        return None
    if next_offset > end_offset:
        raise out_of_range(next_offset, manifest.start_offset, end_offset)
    if current is None and len(known) >= most:
        raise ConfigError(f"this log has {len(known)} cursors (cursors_max); delete some first")
    return CursorSet(name, next_offset, bool(reset))


def cursor_deletion(manifest: Manifest, name: str) -> CursorSet | None:
    """There is no cursor `name`."""
    return CursorSet(name, None, True) if name in dict(manifest.cursors) else None


def seal_now(segment: OpenSegment, now_us: int) -> Seal | None:
    """The open segment ends here; one without records does not."""
    return Seal(segment.first_index, "admin", now_us) if segment.record_count else None


def prefix_drop(manifest: Manifest, end_offset: int, offset: int, now_us: int) -> DropPrefix | None:
    """The log begins at `offset` or later. OffsetOutOfRangeError past the committed end."""
    check_offset(offset, "offset")
    if offset > end_offset:
        raise out_of_range(offset, manifest.start_offset, end_offset)
    return DropPrefix(offset, "admin", now_us) if offset > manifest.start_offset else None


def out_of_range(offset: int, start_offset: int, end_offset: int) -> OffsetOutOfRangeError:
    """The log has no such offset."""
    return OffsetOutOfRangeError(
        f"offset {offset} is outside [{start_offset}, {end_offset}): read from {start_offset}, or "
        f"from {end_offset} to wait for new records",
        offset=offset,
        first_offset=start_offset,
        end_offset=end_offset,
    )
