"""Upload: each sealed range becomes one object, in order, exactly once.

Place: second stage. Promise: ADD_SEGMENT is proposed only for an object that was verified in the
bucket; a range whose upload fails is tried again and nothing behind it goes first, so the bucket
has no holes. Invariant: the key follows from the log alone (base, end, term of the SEAL, hash of
deterministic bytes), so whoever tries again (this process, the next one, the next leader) derives
the same key and adopts what is there.

    sealed[0] -> local segment file -> INTENT(key) -> put, verified -> ADD_SEGMENT
A crash after each arrow leaves: nothing; a local file that is written again; a named key without
an object; an object that the next try adopts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Literal

from chronik_store.errors import CorruptionError, DiskFullError, UnavailableError
from chronik_store.format.control import AddSegment
from chronik_store.format.manifest_file import SealedRange, SegmentInfo
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.manifest.keys import announced_keys
from chronik_store.objectstore.layout import segment_key
from chronik_store.pipeline.contract import NotNextError, SteppedDownError
from chronik_store.pipeline.full_disk import upload_from_memory
from chronik_store.pipeline.producers import producers_at_seal
from chronik_store.pipeline.put import UnreadableFileError, put_file
from chronik_store.pipeline.turn import Turn
from chronik_store.segment.sealer import SegmentIdentity, write_segment

_log = logging.getLogger("chronik_store.pipeline")
SEGMENTS_PER_RUN = 16


def upload(turn: Turn) -> None:
    """Upload the sealed ranges at the head of the queue."""
    if turn.term is None:
        if turn.tiering.config.upload == "all":
            _offer_next(turn)
        return
    for _ in range(SEGMENTS_PER_RUN):
        sealed = turn.manifest.sealed
        if not sealed:
            return
        _upload_next(turn, sealed[0])


def _upload_next(turn: Turn, sealed: SealedRange) -> None:
    turn.ready()
    written = turn.lane.written.get(sealed.first_index)
    producers = producers_at_seal(turn, sealed) if written is None else written[1]
    try:
        info = _write_local(turn, sealed, producers) if written is None else written[0]
        turn.intend(info.key, sealed.first_index)
        outcome = _put(turn, sealed, info)
    except DiskFullError as error:
        _log.warning("%s; it is built in memory, since only the upload frees the disk", error)
        info, outcome = upload_from_memory(turn, sealed, producers)
    turn.done["uploaded" if outcome == "created" else "adopted"] += 1
    turn.done["uploaded_bytes"] += info.size_bytes if outcome == "created" else 0
    turn.propose(AddSegment(segment=info))
    turn.lane.put.discard(info.key)
    if sealed in turn.manifest.sealed:
        raise NotNextError(
            f"segment {info.key} is in the bucket but was not accepted as the next one; the "
            "pipeline plans again"
        )
    turn.lane.written.pop(sealed.first_index, None)
    turn.lane.producers = (sealed.end_offset, producers)


def _offer_next(turn: Turn) -> None:
    """As a follower, put the next segment as well, under the same key; its leader adopts it.

    Only what the leader has announced, so that every object that can exist is named in the log.
    It costs each replica's bandwidth and stores nothing twice: for comparison only.
    """
    if not turn.manifest.sealed:
        return
    sealed = turn.manifest.sealed[0]
    for first_index in [each for each in turn.lane.written if each < sealed.first_index]:
        del turn.lane.written[first_index]  # listed by the leader meanwhile
    written = turn.lane.written.get(sealed.first_index)
    if written is None:
        info = _write_local(turn, sealed, producers_at_seal(turn, sealed))
    else:
        info = written[0]

    def check() -> None:
        manifest = turn.manifest
        garbage = {item.key for item in manifest.garbage}
        if info.key in garbage or info.key not in announced_keys(manifest):
            raise SteppedDownError(f"{info.key} is not announced by the leader")

    if turn.lane.offered != info.key and info.key in announced_keys(turn.manifest):
        turn.tiering.prepare_bucket()
        outcome = _put(turn, sealed, info, check)
        turn.lane.offered = info.key
        turn.done["uploaded" if outcome == "created" else "adopted"] += 1
        turn.done["uploaded_bytes"] += info.size_bytes if outcome == "created" else 0


def _put(
    turn: Turn,
    sealed: SealedRange,
    info: SegmentInfo,
    check: Callable[[], object] | None = None,
) -> Literal["created", "adopted"]:
    path = turn.local.path_of(info.key)
    try:
        return put_file(turn, turn.tiering.env.fs, path, info.key, info.hash, check=check)
    except (CorruptionError, UnreadableFileError):
        turn.lane.written.pop(sealed.first_index, None)  # the WAL has it: the next run writes anew
        raise
    except FileNotFoundError as error:
        turn.lane.written.pop(sealed.first_index, None)
        raise UnavailableError(
            f"{path}: the sealed file vanished; the next run writes it anew from the WAL"
        ) from error


def _write_local(
    turn: Turn, sealed: SealedRange, producers: tuple[ProducerEntry, ...]
) -> SegmentInfo:
    """The range as a segment file, from the WAL's entries, each verified on the way.

    DiskFullError when it would take the room that is kept for the log itself: the WAL's next write
    must not be the one that finds the disk full.
    """
    who, config = turn.partition.identity, turn.tiering.config
    try:
        turn.tiering.env.fs.make_directories(turn.local.directory)
        free_bytes = turn.tiering.env.fs.usage(turn.local.directory).free_bytes
    except OSError as error:
        raise UnavailableError(f"{turn.local.directory} cannot be made: {error}") from error
    if config.disk_reserve_bytes and free_bytes < config.segment_bytes + config.disk_reserve_bytes:
        raise DiskFullError(
            f"{turn.local.directory}: {free_bytes} bytes are free, a segment takes up to "
            f"{config.segment_bytes}, and {config.disk_reserve_bytes} are kept for the log"
        )
    info = write_segment(
        turn.tiering.env.fs,
        turn.local.directory,
        SegmentIdentity(who.topic, who.partition, who.topic_id),
        sealed,
        turn.entries(sealed.first_index, sealed.last_index),
        producers,
        key_of=partial(segment_key, who.topic, who.partition),
    )
    turn.lane.written[sealed.first_index] = (info, producers)
    return info
