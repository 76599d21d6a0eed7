"""Prune: remove local copies of what the bucket holds for certain (protocol 5, 7, 20).

Place: after publish; runs on every replica, leader or not. Promise: a WAL file goes only when

    1. every entry in it lies in a published segment, contiguous from the log's start;
    2. a later durable checkpoint supersedes its other frames: it is folded to at least the file's
       last entry (recovery folds from there) and to every entry that (1) relies on;
    3. the objects that cover it answer a HEAD with the right size, now, and the manifest that lists
       them is there, too;
    4. no read in flight pins it (the WAL keeps it then until the pin goes).

Rule 1 counts entries, not records only: control entries behind the last segment belong to the
next one, and a lagging replica is served from there (protocol 2). They are few: the WAL is rotated
behind each SEAL, so what stays of an idle log is a small file or two; in a cluster one more for
each start that was followed by an election, whose NOOP no segment holds before records come.
`_assert_covered` is the one assertion, over a coverage that is derived anew. Files go front to
back, so what is left has no hole. When only a checkpoint is missing, the WAL is rotated to make
one.

Local segment files go by (1) and (3), the oldest first, when they are indexed (or will not be),
beyond the `local_segment_bytes` newest; a nearly full disk lifts the latter two. Half-written ones
go at once. One of a range that the log gave up, and has cut anew since, may be the only copy of
those records: it goes to quarantine.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

from chronik_store.errors import CorruptionError, UnavailableError
from chronik_store.format.manifest_file import Manifest, SegmentInfo
from chronik_store.fs.tree import move_files
from chronik_store.objectstore.layout import parse_segment_key, segments_prefix
from chronik_store.pipeline.contract import WalFile
from chronik_store.pipeline.fence import check_published
from chronik_store.pipeline.turn import Turn
from chronik_store.segment.sealer import is_unfinished

_log = logging.getLogger("chronik_store.pipeline")


class Coverage(NamedTuple):
    """What the bucket holds by committed and published entries: all up to `last_index`.

    segments: the published ones, contiguous, from the log's start. folded_to: the index up to
    which entries were relied upon to know it.
    """

    segments: tuple[SegmentInfo, ...]
    last_index: int
    folded_to: int


def prune(turn: Turn) -> None:
    """Remove WAL files, then local segment files, that are proved to be superfluous."""
    manifest = turn.manifest
    if manifest.fenced is not None or not manifest.published_number:
        return
    heads: set[str] = set()
    if not turn.is_kept:
        _prune_wal(turn, manifest, heads)
    _prune_local(turn, manifest, heads)


def coverage(manifest: Manifest) -> Coverage:
    """The published part of the manifest. AssertionError if it is not contiguous from the start.

    A prefix that retention dropped counts as covered once the drop itself is published.
    """
    published_to = manifest.published_folded_to
    segments = tuple(each for each in manifest.segments if each.added_index <= published_to)
    if any(left.end_offset != right.base_offset for left, right in pairwise(segments)):
        raise AssertionError(f"published segments are not contiguous: {segments}")
    if segments and segments[0].base_offset > manifest.start_offset:
        raise AssertionError(
            f"published segments begin at {segments[0].base_offset}, behind the log's start "
            f"{manifest.start_offset}"
        )
    last_index = segments[-1].last_index if segments else 0
    if manifest.generation <= published_to:
        last_index = max(last_index, manifest.next.index)
    return Coverage(segments, last_index, published_to)


def _prune_wal(turn: Turn, manifest: Manifest, heads: set[str]) -> None:
    wal = turn.partition.wal
    covered = coverage(manifest)
    if _wants_checkpoint(turn, wal.files(), covered):
        wal.rotate()
    going = _superfluous(wal.files(), covered)
    if not going:
        return
    check_published(turn, manifest)
    first_index = going[0].first_index
    last_index = max(each.last_index for each in going)
    for segment in covered.segments:
        if segment.last_index >= first_index and segment.first_index <= last_index:
            _check_object(turn, segment, heads)
    now = turn.manifest
    if now.start_offset != manifest.start_offset:
        return  # dropped meanwhile: what covered these files is not listed any more; plan again
    if not covered.segments and now.generation != manifest.generation:
        return  # all was dropped, and is no longer all that there is to publish; plan again
    _assert_covered(going, coverage(now))
    count, size_bytes = wal.remove_files(going[-1].seq)
    turn.done["pruned_files"] += count
    turn.done["pruned_bytes"] += size_bytes
    _log.info(
        "%s/%d: removed %d WAL files with entries up to %d; the bucket holds all up to %d",
        *(manifest.topic, manifest.partition, count, last_index, covered.last_index),
    )


def _superfluous(files: Sequence[WalFile], covered: Coverage) -> Sequence[WalFile]:
    """The longest run of files, from the front, that rules 1 and 2 release."""
    for position, file in enumerate(files[:-1]):
        later = max(each.folded_to for each in files[position + 1 :])
        if file.last_index > covered.last_index or later < max(file.last_index, covered.folded_to):
            return files[:position]
    return files[:-1]


class _NextFile(NamedTuple):
    """The file that a rotation would make now."""

    seq: int
    first_index: int
    folded_to: int
    size_bytes: int = 0
    records: int = 0

    @property
    def last_index(self) -> int:
        return self.first_index - 1


def _wants_checkpoint(turn: Turn, files: Sequence[WalFile], covered: Coverage) -> bool:
    """A file with records, or one that a snapshot emptied, could go if a new file were begun.

    The newest does not count unless it has records: an idle log would rotate in every run.
    """
    newest = files[-1]
    made = turn.partition.checkpoint().manifest_folded_to
    rotated = [*files, _NextFile(newest.seq + 1, newest.last_index + 1, made)]
    gained = _superfluous(rotated, covered)[len(_superfluous(files, covered)) :]
    return any(each.records or _is_emptied(each, newest) for each in gained)


def _is_emptied(file: WalFile, newest: WalFile) -> bool:
    """An older file none of whose entries are in the log any more."""
    return file.seq < newest.seq and file.last_index < file.first_index


def _assert_covered(going: Sequence[WalFile], covered: Coverage) -> None:
    """The one assertion: what goes ends where the bucket's contiguous coverage reaches, or before.

    Not an `assert`, which -O would strip: this is where zero loss is decided.
    """
    for file in going:
        if file.last_index > covered.last_index:
            raise AssertionError(
                f"WAL file {file.seq} holds entries up to {file.last_index}, the bucket up to "
                f"{covered.last_index} only"
            )


def _check_object(turn: Turn, segment: SegmentInfo, heads: set[str]) -> None:
    """The object is there with the right size; asked once in a run."""
    if segment.key in heads:
        return
    found = turn.tiering.store.head(segment.key)
    if found is None or found.size_bytes != segment.size_bytes:
        state = "absent" if found is None else f"{found.size_bytes} bytes long"
        raise CorruptionError(
            f"{turn.tiering.store.url}: {segment.key!r} is {state}, but listed with "
            f"{segment.size_bytes} bytes; the local copies stay",
            path=segment.key,
            offset_range=(segment.base_offset, segment.end_offset),
            advice="`chronik verify --bucket` tells more",
        )
    heads.add(segment.key)


def _prune_local(turn: Turn, manifest: Manifest, heads: set[str]) -> None:
    covered = coverage(manifest)
    by_base = {each.base_offset: each for each in covered.segments}
    listed = {each.key.rpartition("/")[2] for each in manifest.segments}
    pressed = _disk_is_short(turn)
    kept_bytes = 0
    names = _names(turn)
    # Upload runs in this thread and is not under way: a crash left these. The range may have gone
    # from memory or from another leader since, and then nobody would write over them.
    for name in filter(is_unfinished, names):
        _remove(turn, f"{turn.local.directory}/{name}")
    keep_bytes = 0 if pressed else turn.tiering.config.local_segment_bytes
    for name, base_offset, end_offset, size_bytes in reversed(_local_files(turn, manifest, names)):
        segment = by_base.get(base_offset)
        if end_offset > manifest.start_offset:
            waits = turn.tiering.config.indexing_enabled and not pressed
            if name not in listed and base_offset < manifest.next.offset:
                _set_aside(turn, name)
                continue
            if segment is None or (segment.bundle is None and waits):
                continue
            kept_bytes += size_bytes
            if kept_bytes <= keep_bytes:
                continue
            check_published(turn, manifest)
            _check_object(turn, segment, heads)
        _remove(turn, f"{turn.local.directory}/{name}")
        turn.done["pruned_files"] += 1
        turn.done["pruned_bytes"] += size_bytes


def _names(turn: Turn) -> list[str]:
    """All that is in the directory of the local segment files."""
    try:
        return turn.tiering.env.fs.list(turn.local.directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UnavailableError(f"{turn.local.directory}: cannot be listed: {error}") from error


def _local_files(
    turn: Turn, manifest: Manifest, names: Sequence[str]
) -> list[tuple[str, int, int, int]]:
    """(name, base, end, bytes) of the local segment files, by base offset."""
    fs = turn.tiering.env.fs
    prefix = segments_prefix(manifest.topic, manifest.partition)
    found = []
    try:
        for name in names:
            run = parse_segment_key(prefix + name)
            if run is not None:
                with suppress(FileNotFoundError):  # gone already
                    size_bytes = fs.stat(f"{turn.local.directory}/{name}").size_bytes
                    found.append((name, run.base_offset, run.end_offset, size_bytes))
    except OSError as error:
        raise UnavailableError(f"{turn.local.directory}: cannot be looked at: {error}") from error
    return found


def _remove(turn: Turn, path: str) -> None:
    try:
        turn.tiering.env.fs.remove(path)
    except FileNotFoundError:
        pass  # gone already: what was wanted
    except OSError as error:
        raise UnavailableError(f"{path}: cannot be removed: {error}") from error


def _set_aside(turn: Turn, name: str) -> None:
    """No segment that the log lists has this file's name, and they hold all up to behind it."""
    source, quarantine = f"{turn.local.directory}/{name}", turn.partition.paths.quarantine
    _log.warning("%s is of a range that the log gave up: it goes to %s", source, quarantine)
    try:
        move_files(turn.tiering.env.fs, [source], quarantine)
    except OSError as error:
        raise UnavailableError(f"{source}: cannot be moved to {quarantine}: {error}") from error


def _disk_is_short(turn: Turn) -> bool:
    try:
        free_bytes = turn.tiering.env.fs.usage(turn.local.directory).free_bytes
    except OSError:
        return False  # no directory yet, hence no local segments either
    return free_bytes < turn.tiering.config.disk_throttle_bytes
