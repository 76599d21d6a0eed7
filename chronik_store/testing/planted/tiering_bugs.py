"""Bugs of the pipeline and the bucket: uploaded, published, pruned, dropped, deleted.

Place: see the package. Promise: each function puts one bug in, and its docstring names it.
Invariant: a bug replaces what a good function does, never where it is called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from chronik_store import pipeline, topic_deletion
from chronik_store.errors import UnavailableError
from chronik_store.format.control import AddSegment, DropPrefix, Seal
from chronik_store.lineage import lineage_of
from chronik_store.objectstore import retry, verified
from chronik_store.objectstore.base import PutOutcome
from chronik_store.objectstore.layout import segment_key, tombstone_key
from chronik_store.pipeline import collect, fence, prune, publish, turn, upload
from chronik_store.pipeline import put as putting
from chronik_store.restore import takeover

_Put = Callable[[Any, str, Any], None]


def _stage(put: _Put, name: str, stage: Callable[[Any], None]) -> None:
    """Another function for one stage of the pipeline."""
    stages = tuple((each, stage if each == name else good) for each, good in pipeline.STAGES)
    put(pipeline, "STAGES", stages)


class _Store:
    """An object store of which some calls are different."""

    def __init__(self, store: Any) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def prune_before_published(put: _Put) -> None:
    """Local files go as soon as their segment is in the bucket, before a manifest lists it."""
    coverage = prune.coverage

    def bold(manifest: Any) -> Any:
        return coverage(dataclasses.replace(manifest, published_folded_to=manifest.generation))

    def prune_anyway(turn: Any) -> None:
        prune._prune_wal(turn, turn.manifest, set())
        prune._prune_local(turn, turn.manifest, set())

    put(prune, "coverage", bold)
    _stage(put, "prune", prune_anyway)


def prune_without_looking(put: _Put) -> None:
    """The last local copy goes without asking the bucket for the object once more."""
    put(prune, "_check_object", lambda _turn, _segment, _heads: None)


def prune_past_coverage(put: _Put) -> None:
    """The newest WAL file but one goes, whatever it holds."""
    put(prune, "_superfluous", lambda files, _covered: files[:-1])
    put(prune, "_assert_covered", lambda _going, _covered: None)


class _Overwriting(_Store):
    def put_if_absent(self, key: str, data: Any) -> PutOutcome:
        if self.store.put_if_absent(key, data) is PutOutcome.EXISTS:
            self.store.delete([key])
            self.store.put_if_absent(key, data)
        return PutOutcome.CREATED


def overwrite_the_manifest(put: _Put) -> None:
    """A manifest is put over whatever is there, instead of created only."""
    publish_next = publish._publish_next

    def overwrite(turn: Any, manifest: Any) -> None:
        good = turn.tiering
        turn.tiering = dataclasses.replace(good, store=_Overwriting(good.store))
        try:
            publish_next(turn, manifest)
        finally:
            turn.tiering = good

    put(publish, "_publish_next", overwrite)


def adopt_any_manifest(put: _Put) -> None:
    """Whatever stands under the next number, or is newer, is taken for this log's own."""
    put(publish, "judge", lambda _manifest, _found: "adopt")
    put(publish, "_check_newest", lambda _turn, _manifest, _number: None)
    put(fence, "check_own_folder", lambda _turn: None)


def exists_is_success(put: _Put) -> None:
    """A put that finds an object under its key takes that for its own, without comparing."""
    put_verified = verified.put_verified

    def believe(store: Any, key: str, data: Any) -> str:
        if store.head(key) is not None:
            return "adopted"
        return put_verified(store, key, data)

    put(putting, "put_verified", believe)


def created_is_verified(put: _Put) -> None:
    """A put that returned is not looked at again: what the bucket made of it stays unknown."""
    put(verified, "_check_created", lambda _store, _found, _view: None)


def lost_reply_is_not_done(put: _Put) -> None:
    """A put whose reply was lost counts as not done: the retry's EXISTS is a rival's object."""
    insist = retry.RetryingObjectStore._insist

    def forget(self: Any, verb: str, key: str, attempt: Any) -> Any:
        try:
            return insist(self, verb, key, attempt)
        except UnavailableError as error:
            if error.durability == "unknown":
                error.durability = "not_durable"
            raise

    put(retry.RetryingObjectStore, "_insist", forget)
    put(publish, "judge", lambda _manifest, _found: "foreign")


def upload_under_a_new_key(put: _Put) -> None:
    """A segment's key has the uploader's term, not the SEAL's: who comes next uploads again."""
    write_local = upload._write_local

    def write(turn: Any, sealed: Any, producers: Any) -> Any:
        info = write_local(turn, sealed, producers)
        who = turn.partition.identity
        run = (info.base_offset, info.end_offset, turn.term, info.hash)
        moved = dataclasses.replace(info, key=segment_key(who.topic, who.partition, *run))
        turn.tiering.env.fs.rename(turn.local.path_of(info.key), turn.local.path_of(moved.key))
        turn.lane.written[sealed.first_index] = (moved, producers)
        return moved

    put(upload, "_write_local", write)


def put_before_intent(put: _Put) -> None:
    """Objects are put without being named in the log first."""
    put(turn.Turn, "intend", lambda _self, _key, _first_index: None)


def list_before_the_put(put: _Put) -> None:
    """ADD_SEGMENT is proposed before the object is in the bucket."""
    put_segment = upload._put

    def propose_first(turn: Any, sealed: Any, info: Any) -> Any:
        turn.propose(AddSegment(segment=info))
        return put_segment(turn, sealed, info)

    put(upload, "_put", propose_first)


def retain_past_tiered(put: _Put) -> None:
    """Retention by bytes counts what is not uploaded yet, and drops it."""

    def drop(turn: Any) -> None:
        config, manifest = turn.tiering.config, turn.manifest
        end = turn.partition.open_segment().base_offset
        if config.retention_bytes is None or turn.term is None or end <= manifest.start_offset:
            return
        turn.propose(DropPrefix(offset=end, reason="retention_bytes", clock_us=turn.now_us()))

    _stage(put, "retain", drop)


def collect_before_published(put: _Put) -> None:
    """Dropped objects are deleted while the newest published manifest still lists them."""
    collectable = collect.collectable

    def eager(manifest: Any, now_us: int, _garbage_seconds: float) -> list[str]:
        bold = dataclasses.replace(manifest, published_folded_to=manifest.generation)
        return collectable(bold, now_us, 0)

    put(collect, "collectable", eager)


def collect_at_once(put: _Put) -> None:
    """Garbage goes without waiting for those who read by an older manifest."""
    collectable = collect.collectable
    put(collect, "collectable", lambda manifest, now_us, _wait: collectable(manifest, now_us, 0))


def never_collect(put: _Put) -> None:
    """What was dropped stays in the bucket for ever."""
    _stage(put, "collect", lambda _turn: None)


def seal_without_records(put: _Put) -> None:
    """An idle log is sealed whenever its age says so: control entries count as data."""

    def seal_by_age(turn: Any) -> None:
        segment = turn.partition.open_segment()
        now = turn.tiering.env.clock.monotonic()
        seen = turn.lane.open_seen
        if seen is None or seen[0] != segment.first_index:
            seen = turn.lane.open_seen = (segment.first_index, now)
        if turn.term is not None and now - seen[1] >= turn.tiering.config.segment_age_seconds:
            turn.propose(Seal(segment.first_index, "age", turn.now_us()))

    _stage(put, "seal", seal_by_age)


def restore_without_claim(put: _Put) -> None:
    """A restore opens a new log and tells nobody: the old owner goes on."""

    def quiet(store: Any, log: Any, deleted: Any, _first: Any) -> Any:
        head, _ = lineage_of(store, log.topic, log.partition, deleted)
        return None if head is None else (head.object, head.hash)

    put(takeover, "_claim", quiet)


def delete_without_tombstone(put: _Put) -> None:
    """A topic's deletion removes its objects and leaves no word of it in the bucket."""
    put(
        topic_deletion, "tombstone_key", lambda name, topic_id: f"x/{tombstone_key(name, topic_id)}"
    )
