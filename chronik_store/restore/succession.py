"""What a new log takes over from an old one: a manifest and a base.

Place: used by `takeover`; pure but for the footer that it reads. Promise: the new log goes on
exactly where its data ends: its base is the last entry of the last segment that it keeps, so index
and offset run on without a gap; producers are as of that entry, never newer (protocol 2).
Invariant: a function of the claim, the cut and the plan alone, so a restore that is run again
builds the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from chronik_store.format.manifest_file import (
    GarbageItem,
    LogBase,
    Manifest,
    ManifestObject,
    SegmentInfo,
)
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.manifest.keys import live_keys
from chronik_store.segment.reader import SegmentReader

OpenSegmentReader = Callable[[SegmentInfo], SegmentReader]


class Kept(NamedTuple):
    """What stays of the old log: whole segments, the base behind them, the producers as of it.

    split: the segment that the cut falls into; its records below `end_offset` make up one more
    segment. None when the cut is at a border.
    """

    segments: tuple[SegmentInfo, ...]
    base: LogBase
    producers: tuple[ProducerEntry, ...]
    split: SegmentInfo | None
    end_offset: int


def cut_offset(
    manifest: Manifest,
    *,
    until_offset: int | None,
    until_us: int | None,
    open_reader: OpenSegmentReader,
) -> int:
    """Where the new log ends: the tiered end, or the earlier of the limits asked for.

    until_us keeps entries whose index timestamp is at or before it.
    """
    end = manifest.next.offset
    if until_us is not None:
        for segment in manifest.segments:
            if segment.last_timestamp_us > until_us:
                found = open_reader(segment).offset_for_timestamp(until_us + 1)
                end = segment.end_offset if found is None else found
                break
    if until_offset is not None:
        end = min(end, until_offset)
    return max(end, manifest.start_offset)


def keep(old: ManifestObject, end_offset: int, open_reader: OpenSegmentReader) -> Kept:
    """What stays of `old` when the new log ends at `end_offset`."""
    manifest = old.manifest
    kept = tuple(each for each in manifest.segments if each.end_offset <= end_offset)
    if len(kept) == len(manifest.segments):
        base = _whole_base(manifest)
        return Kept(kept, base, old.producers, None, base.offset)
    split = manifest.segments[len(kept)]
    if kept:
        last = kept[-1]
        base = LogBase(last.last_index, last.term, last.end_offset, last.last_timestamp_us)
        producers = open_reader(last).footer.producers
    else:
        base, producers = _base_before(split), ()
    inside = split if split.base_offset < end_offset else None
    return Kept(kept, base, producers, inside, end_offset)


def new_term(old: ManifestObject) -> int:
    """Above every term that the old log is known to have reached."""
    return (
        max(old.term, old.manifest.next.term, *(each.term for each in old.manifest.sealed), 0) + 1
    )


def succeed(
    old: ManifestObject, old_hash: str, kept: Kept, *, log_id: str, now_us: int
) -> ManifestObject:
    """The first manifest of the log that goes on from `kept`, whose split has become a segment."""
    base = kept.base
    manifest = dataclasses.replace(
        old.manifest,
        log_id=log_id,
        generation=base.index,
        next=base,
        # Whatever made these what they are happened before the base: indexes start anew behind it.
        segments=tuple(dataclasses.replace(each, added_index=base.index) for each in kept.segments),
        sealed=(),
        garbage=_garbage(old.manifest, base.index, now_us),
        intents=(),
        published_number=0,
        published_folded_to=0,
        published_hash="0" * 16,
        published_generation=0,
        fenced=None,
        # A cursor past the end would step over records that are appended there from now on.
        cursors=tuple((name, min(offset, base.offset)) for name, offset in old.manifest.cursors),
        open_first_index=base.index + 1,
    )
    return ManifestObject(
        manifest=manifest,
        term=new_term(old),
        folded_to=base.index,
        predecessor_hash=old_hash,
        successor=None,
        producers=kept.producers,
        members=None,
    )


def _whole_base(manifest: Manifest) -> LogBase:
    """Behind all that was tiered; behind the start too, where records were dropped past that."""
    end = manifest.next
    return end._replace(offset=max(end.offset, manifest.start_offset))


def _base_before(segment: SegmentInfo) -> LogBase:
    if segment.first_index == 1:
        # No entry lies before. Offsets may: a log that was restored without records begins at its
        # start (`_whole_base`).
        return LogBase(0, 0, segment.base_offset, 0)
    return LogBase(
        segment.first_index - 1, segment.term, segment.base_offset, segment.first_timestamp_us
    )


def _garbage(manifest: Manifest, index: int, now_us: int) -> tuple[GarbageItem, ...]:
    """The old log's garbage and the bundles that it announced and never listed.

    Not the segments: an announced one may hold the only copy of records that were acknowledged.
    It stays where it is, named by the old log's last manifest. So does what was cut off.
    """
    alive = live_keys(manifest)
    since = {each.key: each.since_us for each in manifest.garbage}
    for intent in manifest.intents:
        for key in intent.keys if intent.first_index == 0 else ():
            since.setdefault(key, now_us)
    return tuple(
        GarbageItem(key, since_us, index) for key, since_us in since.items() if key not in alive
    )
