"""A witness at the doors of a bucket that several owners reach: who may put and delete what.

Place: between a bucket and the machines of a `MovedWorld`; each has a door of its own. Promise: it
knows from the bytes alone which log is in force, and notes whatever touches what that log lists.
Invariant: it looks in the instant in which a call takes effect; it changes nothing.

    a log's numbers are dense, each of one writer, and end with the claim that names its successor
    a log without a predecessor is the only one of its topic
    what the log in force lists, or a claim left behind with a cut, is never deleted or overwritten
    a tombstone comes from the owner of the log in force
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from chronik_store.errors import UnavailableError
from chronik_store.format.manifest_file import Manifest, ManifestObject, decode_manifest_object
from chronik_store.lineage import is_farewell
from chronik_store.manifest.keys import live_keys, named_keys
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.layout import (
    ManifestKey,
    parse_manifest_key,
    parse_tombstone_key,
)
from chronik_store.pipeline.collect import MANIFESTS_KEPT
from chronik_store.testing.called_bucket import CalledBucket

T = TypeVar("T")


@dataclass
class SeenLog:
    """One log, as its published manifests tell. number: its newest; 0: a claim alone names it.

    body: the newest manifest of its own, or the claim that names it. left: what that claim lists
    and its own first manifest does not.
    """

    topic: str
    topic_id: str
    log_id: str
    owner: str
    number: int
    body: ManifestObject
    predecessor: str | None = None
    successor: str | None = None
    left: frozenset[str] = frozenset()


class Witness:
    """All that was ever put, and by whom. `violations` are for the end of the world."""

    def __init__(self, bucket: ObjectStore) -> None:
        self.bucket = bucket
        self.logs: dict[str, SeenLog] = {}
        self.deleted: set[str] = set()
        """Topics by id: their tombstones stand."""
        self.violations: list[str] = []
        self.bodies: dict[str, bytes] = {}
        """What was put under each key that ever was."""
        self.on_claim: Callable[[SeenLog, SeenLog], None] = lambda _old, _new: None
        """A claim has named a successor."""
        self.on_begin: Callable[[SeenLog, Manifest], None] = lambda _log, _first: None
        """A successor's own first manifest is there; `body` is still the claim's."""

    def door(self, owner: str) -> Door:
        return Door(self, owner)

    # --- what is in force ------------------------------------------------------------------------

    def is_in_force(self, log: SeenLog) -> bool:
        return log.successor is None and log.topic_id not in self.deleted

    def in_force(self, topic: str) -> list[SeenLog]:
        return [
            each for each in self.logs.values() if each.topic == topic and self.is_in_force(each)
        ]

    def listed(self) -> set[str]:
        """Objects that must stay: of logs in force, and what their claims have left behind."""
        keys: set[str] = set()
        for log in self.logs.values():
            if log.topic_id not in self.deleted:
                keys |= log.left
                if log.successor is None:
                    keys |= live_keys(log.body.manifest)
        return keys

    def unnamed(self, topic: str) -> set[str]:
        """Segment objects of a topic that no log's newest manifest names, as the bucket is now."""
        newest: dict[str, tuple[int, str]] = {}
        for key in self.keys_of(f"manifests/{topic}/"):
            found = parse_manifest_key(key)
            if found is not None:
                newest[found.log_id] = max(newest.get(found.log_id, (0, "")), (found.number, key))
        named: set[str] = set()
        for _, key in newest.values():
            named |= named_keys(decode_manifest_object(self.bucket.get(key)).manifest)
        return {key for key in self.keys_of(f"segments/{topic}/") if key not in named}

    def left_of_deleted(self) -> list[str]:
        """Manifests of topics that were deleted."""
        keys = [key for key in self.keys_of("manifests/") if parse_manifest_key(key) is not None]
        return [key for key in keys if self._is_of_deleted(self.bucket.get(key))]

    def _is_of_deleted(self, manifest: bytes) -> bool:
        return decode_manifest_object(manifest).manifest.topic_id in self.deleted

    def keys_of(self, prefix: str) -> list[str]:
        return [info.key for info in self.bucket.list(prefix, limit=100_000)]

    # --- the doors -------------------------------------------------------------------------------

    def before(self, owner: str, name: str, keys: Sequence[str]) -> None:
        if name != "delete":
            return
        alive = self.listed()
        for key in keys:
            if key in alive:
                self.note(f"{owner} deletes {key}, which is listed")
            found = parse_manifest_key(key)
            log = None if found is None else self.logs.get(found.log_id)
            if found is None or log is None or log.topic_id in self.deleted:
                continue
            if log.successor is not None or found.number > log.number - MANIFESTS_KEPT:
                self.note(f"{owner} deletes {key}, which is one of the newest")

    def after(self, owner: str, key: str, *, was_there: bool) -> None:
        """A put has taken effect."""
        body = self.bucket.get(key)
        manifest = parse_manifest_key(key)
        if manifest is not None and self._is_of_deleted(body):
            return  # whoever puts it finds out: see `left_of_deleted`
        known = self.bodies.setdefault(key, body)
        if known != body:
            self.note(f"{owner} has put other bytes under {key}")
        if was_there:
            return
        tombstone = parse_tombstone_key(key)
        if manifest is not None:
            self._published(owner, manifest, decode_manifest_object(body))
        elif tombstone is not None:
            for log in self.logs.values():
                is_its_own = log.topic_id == tombstone.topic_id and self.is_in_force(log)
                if is_its_own and log.owner != owner:
                    self.note(f"{owner} deletes topic {log.topic} of {log.owner}, {key}")
            self.deleted.add(tombstone.topic_id)

    def _published(self, owner: str, key: ManifestKey, body: ManifestObject) -> None:
        manifest = body.manifest
        what = f"{key.topic}/{key.log_id[:6]}/{key.number}"
        log = self.logs.get(key.log_id)
        if log is not None and key.number <= log.number - MANIFESTS_KEPT:
            return  # collected long ago, and to be swept again
        if log is None:
            others = [each.owner for each in self.in_force(key.topic)]
            if others:
                self.note(f"{owner} begins {what} beside the log of {others}")
            log = SeenLog(key.topic, manifest.topic_id, key.log_id, owner, 0, body)
            self.logs[key.log_id] = log
        if log.successor is not None:
            self.note(f"{owner} publishes {what} behind the claim of {log.successor[:6]}")
        if key.number != log.number + 1:
            self.note(f"{owner} publishes {what}, the newest is {log.number}")
        for segment in manifest.segments:
            there = self.bucket.head(segment.key)
            if there is None or there.size_bytes != segment.size_bytes:
                self.note(f"{what} lists {segment.key}: not there")
        if is_farewell(body):
            if owner != log.owner:
                self.note(f"{owner} deletes topic {key.topic} of {log.owner}: {what}")
            self.deleted.add(manifest.topic_id)
            log.number, log.body = key.number, body
        elif body.successor is not None:
            self._claimed(owner, log, key, body)
        else:
            self._goes_on(owner, log, key, body)

    def _goes_on(self, owner: str, log: SeenLog, key: ManifestKey, body: ManifestObject) -> None:
        manifest, what = body.manifest, f"{key.topic}/{key.log_id[:6]}/{key.number}"
        if owner != log.owner:
            self.note(f"{owner} publishes {what} in the folder of {log.owner}")
        if log.number == 0 and log.predecessor is not None:
            kept = named_keys(manifest)
            claim = log.body.manifest
            log.left = frozenset(each.key for each in claim.segments if each.key not in kept)
            log.number = key.number
            self.on_begin(log, manifest)
        log.number, log.body = key.number, body

    def _claimed(self, owner: str, log: SeenLog, key: ManifestKey, body: ManifestObject) -> None:
        assert body.successor is not None
        log.successor = body.successor
        claimed = SeenLog(
            log.topic, log.topic_id, body.successor, owner, 0, body, predecessor=log.log_id
        )
        self.logs[body.successor] = claimed
        self.on_claim(log, claimed)

    def note(self, what: str) -> None:
        self.violations.append(what)


class Door(CalledBucket):
    """The way of one owner. A call is judged in the instant in which it takes effect."""

    def __init__(self, witness: Witness, owner: str) -> None:
        super().__init__(witness.bucket)
        self._witness = witness
        self._owner = owner

    def _call(self, name: str, keys: Sequence[str], effect: Callable[[], T]) -> T:
        was_there = name == "put_if_absent" and self._store.head(keys[0]) is not None
        self._witness.before(self._owner, name, keys)
        result = effect()
        if name == "put_if_absent":
            self._witness.after(self._owner, keys[0], was_there=was_there)
        return result


class ClosedDoor(CalledBucket):
    """For an image of a disk that is looked at: it may read, and changes nothing."""

    def _call(self, name: str, keys: Sequence[str], effect: Callable[[], T]) -> T:
        if name in ("put_if_absent", "delete"):
            raise UnavailableError(f"{name} {keys[:1]}: this future has not come")
        return effect()
