"""What is known of idempotent producers as of a given entry, wherever it is kept (protocol 2).

Place: asked by `upload` for a segment's footer and by `publish` for the manifest. Promise: state as
of exactly the entry asked for, the same on every replica, since it is part of segment bytes.
Invariant: never newer than the data that it goes with.
"""

from __future__ import annotations

import logging

from chronik_store.errors import CorruptionError, UnavailableError
from chronik_store.format.entry import EntryKind
from chronik_store.format.manifest_file import Manifest, SealedRange
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.format.record_batch import RecordBatch
from chronik_store.lineage import read_manifest
from chronik_store.manifest.producers import ProducerTable
from chronik_store.manifest.state import producer_entry
from chronik_store.pipeline.turn import Turn
from chronik_store.segment.reader import load_footer
from chronik_store.segment.source import SegmentAbsentError

_log = logging.getLogger("chronik_store.pipeline")


def producers_at_seal(turn: Turn, sealed: SealedRange) -> tuple[ProducerEntry, ...]:
    """As of the SEAL of the next range to upload.

    The log knows it, unless it was recovered from a checkpoint behind that SEAL. Then it is folded
    again: from the end of the last segment, whose footer has it, over the range's own entries.
    """
    try:
        return turn.partition.producers_at(sealed.last_index)
    except KeyError:
        manifest = turn.manifest
    table = ProducerTable(turn.tiering.config.producers_max)
    table.restore(producers_of_next(turn, manifest), manifest.next.index)
    for entry in turn.entries(sealed.first_index, sealed.last_index):
        if entry.header.kind == EntryKind.RECORDS:
            batch = RecordBatch.from_buffer(entry.payload, verify=False)
            if batch.producer_id:
                table.append(producer_entry(entry.header, batch))
    table.commit(sealed.last_index)
    return table.entries()


def producers_of_next(turn: Turn, manifest: Manifest) -> tuple[ProducerEntry, ...]:
    """Producer state as of `manifest.next`, never newer than the data in the bucket (protocol 2).

    From the log, else from what the upload remembers, else from the last segment's footer, else
    (all segments were dropped) from the manifest published before. Older than `next` is safe: a
    producer whose sequence it does not know gets a typed error; newer would swallow a retry.
    """
    try:
        return turn.partition.producers_at(manifest.next.index)
    except KeyError:
        remembered, end_offset = turn.lane.producers, manifest.next.offset
    if remembered is not None and remembered[0] == end_offset:
        return remembered[1]
    if end_offset == 0:
        return ()
    if manifest.segments:
        found = _footer_producers(turn, manifest)
    elif manifest.published_number:
        who = (manifest.topic, manifest.partition, manifest.log_id)
        found = read_manifest(turn.tiering.store, *who, manifest.published_number)[0].producers
    else:
        found = ()
    turn.lane.producers = (end_offset, found)
    return found


def _footer_producers(turn: Turn, manifest: Manifest) -> tuple[ProducerEntry, ...]:
    last = manifest.segments[-1]
    try:
        footer = load_footer(turn.local.source(last.key), last)
    except (SegmentAbsentError, CorruptionError, UnavailableError) as error:
        if not isinstance(error, SegmentAbsentError):
            _log.warning("%s: local copy not readable, the bucket is asked: %s", last.key, error)
        footer = load_footer(turn.tiering.open_object(last), last)
    return footer.producers
