"""Index: give each listed segment its search bundle.

Place: last stage, since a build takes seconds for each hundred megabytes and no other stage waits
for it. Promise: segments are indexed oldest first; a segment whose bundle this
engine cannot read counts as not indexed and gets a new one; a failure stalls indexing there and
nothing else. Invariant: bundles are not reproducible, so the first committed ADD_INDEX wins and
every bundle key is in the log before its object can exist (INTENT): the loser is named garbage.

    segment (local file, else bucket) -> bundle in scratch -> INTENT(key) -> put -> ADD_INDEX
A build that would take what is kept for the log (`disk_reserve_bytes`) is not begun, or ends: it
writes about as much as the segment has, and in merges once more.
What was built is kept until it is listed, so that a bucket that is down costs one build, not one
in each run. A restart builds anew; the first bundle, if it was put, is garbage by its INTENT.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator

from chronik_store.errors import CorruptionError, UnavailableError
from chronik_store.format.control import AddIndex
from chronik_store.format.entry import EntryKind
from chronik_store.format.manifest_file import Manifest, SegmentInfo
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.fs.base import FileSystem
from chronik_store.objectstore.layout import bundle_key
from chronik_store.pipeline.put import UnreadableFileError, put_file
from chronik_store.pipeline.turn import Turn
from chronik_store.search.bundle import BuiltBundle, build_bundle, is_readable
from chronik_store.search.scratch import Room
from chronik_store.segment.reader import SegmentReader
from chronik_store.segment.source import ByteSource, SegmentAbsentError, SegmentUnreadableError

_log = logging.getLogger("chronik_store.pipeline")
SEGMENTS_PER_RUN = 4
READ_BYTES = 1 << 20
BUILD_SHARE = 2
"""A build needs so much of the segment's size: the index, and a part of it again while it merges
or is packed (0.7 measured, of text that does not compress)."""


def index(turn: Turn) -> None:
    """Index the oldest segments that have no readable bundle, or whose bundle shall be new."""
    if turn.term is None or not turn.tiering.config.indexing_enabled:
        return
    for _ in range(SEGMENTS_PER_RUN):
        segment = wanted(turn, turn.manifest)
        if segment is None:
            return
        _index_one(turn, segment)


def wanted(turn: Turn, manifest: Manifest) -> SegmentInfo | None:
    """The oldest segment without a bundle that this engine reads, or whose bundle shall be new."""
    looked_at = manifest.generation, turn.lane.rebuild
    if turn.lane.all_indexed == looked_at:
        return None
    for segment in manifest.segments:
        bundle = segment.bundle
        if bundle is None or bundle.key in looked_at[1] or not is_readable(bundle):
            return segment
    turn.lane.all_indexed = looked_at
    return None


def _index_one(turn: Turn, segment: SegmentInfo) -> None:
    turn.ready()
    replaces = None if segment.bundle is None else segment.bundle.key
    built = _built(turn, segment, replaces)
    who = turn.partition.identity
    run = (segment.base_offset, segment.end_offset, segment.term, built.info.hash)
    key = bundle_key(who.topic, who.partition, *run)
    turn.intend(key, 0)
    try:
        put_file(turn, _fs(turn), built.path, key, built.info.hash)
    except (FileNotFoundError, CorruptionError, UnreadableFileError) as error:
        _forget_bundle(turn)
        raise UnavailableError(f"{built.path}: {error}; the next run builds it anew") from error
    turn.propose(
        AddIndex(
            segment_key=segment.key,
            replaces=replaces,
            bundle=dataclasses.replace(built.info, key=key),
            clock_us=turn.now_us(),
        )
    )
    turn.lane.put.discard(key)
    _forget_bundle(turn)
    # Not listed: another bundle won, or retention took the segment. Either way it is garbage now.
    for each in turn.manifest.segments:
        turn.done["indexed"] += each.bundle is not None and each.bundle.key == key


def _built(turn: Turn, segment: SegmentInfo, replaces: str | None) -> BuiltBundle:
    kept = turn.lane.bundle
    if kept is not None:
        if kept[:2] == (segment.key, replaces):
            return kept[2]
        _forget_bundle(turn)
    try:
        built = _build(turn, segment, turn.local.source(segment.key))
    except (SegmentAbsentError, SegmentUnreadableError, CorruptionError) as error:
        if not isinstance(error, SegmentAbsentError):
            _log.warning(
                "%s: the local copy is of no use, the bucket is asked: %s", segment.key, error
            )
        built = _build(turn, segment, turn.tiering.open_object(segment))
    turn.lane.bundle = (segment.key, replaces, built)
    return built


def _build(turn: Turn, segment: SegmentInfo, source: ByteSource) -> BuiltBundle:
    who = turn.partition.identity
    directory = f"{turn.partition.paths.scratch}/index"
    if turn.tiering.index_directory is not None:
        directory = f"{turn.tiering.index_directory()}/{who.topic}/{who.partition}"
    room = Room(_fs(turn), turn.tiering.config.disk_reserve_bytes)
    what = f"the search index of {segment.key}"
    room.need(directory, BUILD_SHARE * segment.size_bytes, what)
    left_bytes = room.left(directory)

    def look() -> None:
        """Compressed records may have an index many times the segment's size."""
        if room.left(directory) < left_bytes // 2:  # the merges may write all of it once more
            raise room.is_short(directory, what)

    return build_bundle(
        _batches(turn, SegmentReader.open(source, segment), look),
        fs=_fs(turn),
        directory=directory,
        base_offset=segment.base_offset,
        end_offset=segment.end_offset,
    )


def _batches(turn: Turn, reader: SegmentReader, look: Callable[[], None]) -> Iterator[StoredBatch]:
    read_bytes = 0
    for header, payload in reader.iterate(chunk_bytes=READ_BYTES):
        if header.kind == EntryKind.RECORDS:
            turn.check()  # a build takes seconds: give up soon after losing the lead or closing
            read_bytes += len(payload)
            if read_bytes >= READ_BYTES:
                look()
                read_bytes = 0
            yield StoredBatch(payload, header.base_offset, header.timestamp_us, verify=False)


def _forget_bundle(turn: Turn) -> None:
    kept, turn.lane.bundle = turn.lane.bundle, None
    if kept is not None:
        kept[2].discard()


def _fs(turn: Turn) -> FileSystem:
    return turn.tiering.index_fs or turn.tiering.env.fs
