"""One partition at a glance: what `chronik status` prints.

Place: beside `log_core`, which it reads. Promise: looks, never changes; what stands still is named
in the notes. Invariant: byte counts are of local files, as they are now.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from chronik_store.disk_errors import disk_errors
from chronik_store.log_view import watermarks_of
from chronik_store.model import LogStatus

if TYPE_CHECKING:
    from chronik_store.log_core import LogCore

SUSPECT = "suspect"
"""How the note begins of a log whose WAL was damaged, and not made good since."""
LOST = f"{SUSPECT}: acknowledged records may be missing behind the end that is shown"
"""Of a log that has no other copies to catch up from."""
CUT = "cut short"
"""How the note begins of a log all whose copies were damaged: it goes on where the best ends."""


def status_of(core: LogCore) -> LogStatus:
    """The state of `core` now. Thread-safe; lists one directory."""
    manifest = core.manifest
    files = core.wal.files()
    return LogStatus(
        topic=core.identity.topic,
        partition=core.identity.partition,
        topic_id=core.identity.topic_id,
        log_id=manifest.log_id,
        watermarks=watermarks_of(core),
        writable=not core.read_only and core.wal.poisoned is None,
        wal_files=len(files),
        wal_bytes=_bytes_of(core, [each.path for each in files]),
        local_segment_bytes=_bytes_of(core, _in_directory(core, core.paths.segments)),
        segments=len(manifest.segments),
        bundles=sum(each.bundle is not None for each in manifest.segments),
        segment_bytes=sum(each.size_bytes for each in manifest.segments),
        published_number=manifest.published_number,
        fenced=manifest.fenced is not None,
        cursors=dict(manifest.cursors),
        last_error=core.last_error,
        notes=_notes(core),
    )


def _notes(core: LogCore) -> tuple[str, ...]:
    notes = [f"{count} {kind} entries were no-ops" for kind, count in core.refused_commands.items()]
    if core.replica is not None:
        if core.replica.suspect:
            notes.append(f"{SUSPECT}: this node has no vote here until it has caught up")
        if core.wal.cut:
            notes.append(f"{CUT}: no voter was sure of its copy; {core.wal.cut}")
    elif core.recovery.verdict == "suspect":
        notes.append(LOST)
    if damaged := sum(file.damaged for file in core.wal.files()):
        notes.append(f"damaged WAL files that nothing is read from: {damaged}; `verify` names them")
    if core.manifest.fenced is not None:
        fenced = core.manifest.fenced
        is_deleted = fenced.successor_log_id == core.manifest.topic_id
        whom = "" if is_deleted else f", for log {fenced.successor_log_id}"
        notes.append(f"fenced: {fenced.reason}{whom}; tiering has ended here")
    if core.read_only:
        return tuple(notes)  # what else stands still is the writer's to say
    if not core.config.indexing_enabled:
        notes.append("indexing is off: `indexed` stands still")
    if not core.config.pipeline_enabled:
        notes.append("the pipeline runs on demand only: sealing and uploading stand still")
    return tuple(notes)


def _in_directory(core: LogCore, path: str) -> list[str]:
    fs = core.env.fs
    with disk_errors(path, "look into"):
        return [f"{path}/{name}" for name in fs.list(path)] if fs.exists(path) else []


def _bytes_of(core: LogCore, paths: list[str]) -> int:
    """What the files take on the disk; one that the pipeline removes meanwhile takes nothing.

    A WAL file that was left keeps its size, and its blocks only as far as there are frames.
    """
    total = 0
    for path in paths:
        with disk_errors(path, "look at"), suppress(FileNotFoundError):
            found = core.env.fs.stat(path)
            total += min(found.size_bytes, found.blocks_bytes or found.size_bytes)
    return total
