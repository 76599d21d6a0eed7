"""One partition of a restore: claim the old log, publish the new one, write its WAL.

Place: below `restore`. Promise: each step finds what an earlier run of it did and goes on; of two
restores at the same time one wins, in all partitions, and the other is told. Invariant: the new
log's first manifest is put before any of its local files counts, and both follow from the claim
alone.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass

from chronik_store.config import LogConfig
from chronik_store.environment import Environment
from chronik_store.errors import FencedError, UnavailableError
from chronik_store.format.checksum import content_hash
from chronik_store.format.manifest_file import Manifest, ManifestObject, SegmentInfo
from chronik_store.lineage import (
    FIRST_NUMBER,
    Head,
    beside,
    is_deleted,
    lineage_of,
    manifest_numbers,
)
from chronik_store.log_identity import LogPaths
from chronik_store.manifest.state import empty_manifest
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.layout import manifest_key
from chronik_store.objectstore.object_source import ObjectSource
from chronik_store.restore.cut_segment import CutSegment, put_cut_segment
from chronik_store.restore.first_wal import LogWriter
from chronik_store.restore.plan import PlannedLog, RestorePlan
from chronik_store.restore.succession import (
    Kept,
    cut_offset,
    keep,
    new_term,
    succeed,
)
from chronik_store.segment.reader import SegmentReader
from chronik_store.segment.sealer import SegmentIdentity
from chronik_store.wal.services import WalServices

_log = logging.getLogger("chronik_store.restore")
_Claim = tuple[ManifestObject, str]
"""The claim that names our log, and the hash of its bytes."""
ROUNDS = 10
"""How often a claim is tried against an owner that goes on publishing."""


@dataclass(frozen=True, slots=True)
class RestoredLog:
    """One partition: offsets [start_offset, end_offset) are there again.

    old_log_id: None when the partition had nothing in the bucket. cut_offsets: how many tiered
    offsets were left out on request. missing: offset ranges that the old log is known to have held
    past its tiered end; there may have been more. cursors_moved: cursors that stood past the end.
    """

    topic: str
    partition: int
    log_id: str
    old_log_id: str | None
    start_offset: int
    end_offset: int
    segments: int
    cut_offsets: int = 0
    missing: tuple[tuple[int, int], ...] = ()
    cursors_moved: tuple[str, ...] = ()


def restore_log(
    env: Environment,
    config: LogConfig,
    store: ObjectStore,
    services: WalServices,
    plan: RestorePlan,
    log: PlannedLog,
    paths: LogPaths,
    deleted: frozenset[str],
    first: PlannedLog | None,
) -> RestoredLog | None:
    """Take one partition over and write its local files. `paths` are empty. None: its topic was
    deleted since this was planned. first: the one that this restore has taken first, if it has.
    Errors: `restore`.
    """
    writer = LogWriter(env, config, services, log, paths)
    claim, begun = _claim_or_begin(store, log, deleted, first)
    if claim is None:
        if begun is None:
            return None
        writer.write(begun, content_hash(begun.encode()))
        return RestoredLog(log.topic, log.partition, log.log_id, None, 0, 0, 0)
    old, old_hash = claim

    def open_reader(info: SegmentInfo) -> SegmentReader:
        return SegmentReader.open(ObjectSource(store, info.key), info)

    end_offset = cut_offset(
        old.manifest,
        until_offset=plan.until_offset,
        until_us=plan.until_us,
        open_reader=open_reader,
    )
    kept = keep(old, end_offset, open_reader)
    if kept.split is not None:
        cut = CutSegment(kept, new_term(old), plan.started_us, config.producers_max, open_reader)
        who = SegmentIdentity(log.topic, log.partition, log.topic_id)
        info = put_cut_segment(env, store, who, paths.segments, cut)
        kept = Kept((*kept.segments, info), cut.base, cut.producers, None, end_offset)
    made = succeed(old, old_hash, kept, log_id=log.log_id, now_us=plan.started_us)
    writer.write(made, _publish(store, log, made))
    return _report(log, old.manifest, kept)


def _report(log: PlannedLog, old: Manifest, kept: Kept) -> RestoredLog:
    end = kept.base.offset
    return RestoredLog(
        topic=log.topic,
        partition=log.partition,
        log_id=log.log_id,
        old_log_id=old.log_id,
        start_offset=old.start_offset,
        end_offset=end,
        segments=len(kept.segments),
        cut_offsets=max(0, old.next.offset - end),
        missing=tuple((each.base_offset, each.end_offset) for each in old.sealed),
        cursors_moved=tuple(name for name, offset in old.cursors if offset > end),
    )


# --- the bucket -------------------------------------------------------------------------------


def _claim_or_begin(
    store: ObjectStore, log: PlannedLog, deleted: frozenset[str], first: PlannedLog | None
) -> tuple[_Claim | None, ManifestObject | None]:
    """The claim; or, where nothing is to be claimed, the first manifest of a log without entries,
    which keeps the place: an old owner that lives, and publishes there later, finds it taken.
    Neither: the topic was deleted.
    """
    for _ in range(ROUNDS):
        claim = _claim(store, log, deleted, first)
        if claim is not None:
            return claim, None
        if is_deleted(store, log.topic, log.partition, log.topic_id):
            return None, None
        begun = _begun(log)
        _publish(store, log, begun)
        who = (log.topic, log.partition, log.log_id)
        others = [each.object.manifest.topic_id for each in beside(store, *who)[1]]
        if log.topic_id not in others:  # a namesake's owner learns of ours, as of any other
            return None, begun
        # It has published meanwhile: then there is something to claim.
        store.delete([manifest_key(*who, FIRST_NUMBER)])
    raise _is_too_fast(store, log)


def _begun(log: PlannedLog) -> ManifestObject:
    """Alike each time: an interrupted restore finds its own."""
    manifest = empty_manifest(log.topic, log.partition, log.topic_id, log.log_id)
    return ManifestObject(
        manifest=manifest,
        term=1,
        folded_to=0,
        predecessor_hash=manifest.published_hash,
        successor=None,
        producers=(),
        members=None,
    )


def _claim(
    store: ObjectStore, log: PlannedLog, deleted: frozenset[str], first: PlannedLog | None
) -> _Claim | None:
    """The claim that names our log, put by us now or in an earlier run; None: nothing to claim.

    What is claimed may be the log of a restore that runs beside this one. Both go the same way, and
    who has the first partition is to have them all. That is looked at behind the log which is to be
    claimed: so nothing is taken from one that has overtaken us, and will not come here again.
    """
    for _ in range(ROUNDS):
        head, newest = lineage_of(store, log.topic, log.partition, deleted)
        if head is None or head.object.manifest.topic_id != log.topic_id:
            return None  # a namesake's, which was made since: the plan has that, too
        if head.log_id == log.log_id:
            mine = [each for each in newest.values() if each.object.successor == log.log_id]
            return _put_again(store, mine[0]) if mine else None  # begun by us before
        own = newest.get(log.log_id)
        if own is not None and own.object.successor is None:
            return None  # begun by us before, beside one that has published more by now
        if own is not None:
            raise _overtaken(store, log, head.log_id)
        if first is not None:
            _check_is_ours(store, first, deleted)
        _put_claim(store, log, head)
    raise _is_too_fast(store, log)


def _check_is_ours(store: ObjectStore, first: PlannedLog, deleted: frozenset[str]) -> None:
    head = lineage_of(store, first.topic, first.partition, deleted).head
    is_there = head is not None and head.object.manifest.topic_id == first.topic_id
    if head is not None and is_there and head.log_id != first.log_id:
        raise _overtaken(store, first, head.log_id)


def _put_again(store: ObjectStore, claim: Head) -> _Claim:
    """Our own, which is found: an earlier run of this may not have known that it is kept."""
    manifest = claim.object.manifest
    key = manifest_key(manifest.topic, manifest.partition, claim.log_id, claim.number)
    store.put_if_absent(key, claim.object.encode())
    return claim.object, claim.hash


def _is_too_fast(store: ObjectStore, log: PlannedLog) -> UnavailableError:
    return UnavailableError(
        f"{store.url}: the log of {log.topic}/{log.partition} publishes faster than it can be "
        "taken over; stop its owner, then run the restore again"
    )


def _put_claim(store: ObjectStore, log: PlannedLog, head: Head) -> None:
    """Create the head's next number, naming us. Whether it counts, the next look tells."""
    body = dataclasses.replace(
        head.object, predecessor_hash=head.hash, successor=log.log_id
    ).encode()
    key = manifest_key(log.topic, log.partition, head.log_id, head.number + 1)
    outcome = store.put_if_absent(key, body)
    _log.info("%s: claim of %s: %s", store.url, key, outcome.value)


def _publish(store: ObjectStore, log: PlannedLog, first: ManifestObject) -> str:
    """Put the new log's number 1; the hash of its bytes. FencedError if it was taken from us."""
    body = first.encode()
    key = manifest_key(log.topic, log.partition, log.log_id, FIRST_NUMBER)
    store.put_if_absent(key, body)
    if store.get(key) != body:
        raise _overtaken(store, log, "another")
    newer = manifest_numbers(store, log.topic, log.partition, log.log_id, above=FIRST_NUMBER)
    if newer:
        raise _overtaken(store, log, "another")
    return content_hash(body)


def _overtaken(store: ObjectStore, log: PlannedLog, by: str) -> FencedError:
    return FencedError(
        f"{store.url}: {log.topic}/{log.partition} was taken over from this restore by log {by}; "
        "this directory must not be used, restore into an empty one"
    )
