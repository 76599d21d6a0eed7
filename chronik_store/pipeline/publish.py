"""Publish: put the manifest into the bucket, as the next number of its folder (protocol 5).

Place: after upload, and once more after index. Promise: what a committed PUBLISHED covers can be
found from the bucket alone; local copies and garbage wait for it. Invariant: numbers are dense,
created only if absent, read back before PUBLISHED is proposed; only committed state goes in, so
`folded_to` is the index of the last change in it.

    put n = last PUBLISHED + 1 -> created: read back, still the newest? -> PUBLISHED(n)
                               -> exists:  a former state of ours       -> PUBLISHED(n) for *it*
                                           a successor's, or foreign    -> FENCED
A crash after the put leaves a manifest that the next run adopts.
"""

from __future__ import annotations

from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import content_hash
from chronik_store.format.control import Published
from chronik_store.format.manifest_file import Manifest, ManifestObject, decode_manifest_object
from chronik_store.lineage import FIRST_NUMBER, manifest_numbers, read_manifest
from chronik_store.log_identity import LOCAL_OWNER
from chronik_store.objectstore.base import PutOutcome
from chronik_store.objectstore.layout import manifest_key
from chronik_store.pipeline.contract import NotNextError
from chronik_store.pipeline.fence import (
    check_is_alone,
    check_name_is_free,
    check_not_deleted,
    fence,
    judge,
)
from chronik_store.pipeline.producers import producers_of_next
from chronik_store.pipeline.turn import Turn

ROUNDS = 3
"""Numbers published in one run at most: one to adopt, one of our own, one to spare."""


def publish(turn: Turn) -> None:
    """Publish the manifest if something in it is not published yet."""
    if turn.term is None:
        return
    for _ in range(ROUNDS):
        manifest = turn.manifest
        if manifest.generation <= manifest.published_folded_to:
            return
        _publish_next(turn, manifest)


def _publish_next(turn: Turn, manifest: Manifest) -> None:
    turn.ready()
    term = turn.check()
    number = manifest.published_number + 1
    store = turn.tiering.store
    key = manifest_key(manifest.topic, manifest.partition, manifest.log_id, number)
    proposed = ManifestObject(
        manifest=manifest,
        term=term,
        folded_to=manifest.generation,
        predecessor_hash=manifest.published_hash,
        successor=None,
        producers=producers_of_next(turn, manifest),
        members=turn.partition.members_at(manifest.next.index),
    )
    body = proposed.encode()
    is_of_cluster = turn.partition.identity.owner != LOCAL_OWNER
    if number == FIRST_NUMBER and is_of_cluster:
        check_name_is_free(turn)
    turn.check()
    outcome = store.put_if_absent(key, body)
    found = store.get(key)
    listed = proposed
    if found != body:
        if outcome is PutOutcome.CREATED:
            raise CorruptionError(f"{store.url}: {key!r} reads back other than was put", path=key)
        listed = decode_manifest_object(found, path=key)
        if judge(manifest, listed) == "foreign":
            fence(turn, listed, number, "another writer took the next manifest number")
        # Put once more: whoever put it may not know that it is kept, and so is durable for certain.
        store.put_if_absent(key, found)
    _check_newest(turn, manifest, number)
    if number == FIRST_NUMBER:
        (check_name_is_free if is_of_cluster else check_is_alone)(turn)
    turn.propose(
        Published(
            number=number,
            folded_to=listed.folded_to,
            hash=content_hash(found),
            clock_us=turn.now_us(),
        )
    )
    if turn.manifest.published_number < number:
        raise NotNextError(f"manifest {number} was not accepted; the pipeline plans again")
    turn.seen_number = number
    turn.done["published"] += 1


def _check_newest(turn: Turn, manifest: Manifest, number: int) -> None:
    """A number that was collected long ago can be created again: only the newest one counts. So can
    one of a folder that was deleted meanwhile, with the claim that had fenced it: then the one
    before it is not there.
    """
    who = (manifest.topic, manifest.partition, manifest.log_id)
    found = manifest_numbers(turn.tiering.store, *who, above=max(0, number - 2))
    if found and found[-1] > number:
        newest, _ = read_manifest(turn.tiering.store, *who, found[-1])
        fence(turn, newest, found[-1], f"this log was about to publish {number}; it is an old copy")
    if number - 1 not in found:
        check_not_deleted(turn)
