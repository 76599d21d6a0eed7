"""Which log of a partition is in force, as the bucket tells it (protocol 5 and 6).

Place: above `objectstore`, below whoever publishes, restores or opens from the bucket alone.
Promise: a partition's logs form a chain: the newest manifest of each names its successor or none;
the one in force is the end of the chain. Unknown is not empty: a bucket that does not answer is an
error. Invariant: a manifest number is read as published or not at all.

    A/1 .. A/57, A/58 -> B          A was taken over by B with number 58
    B/1 .. B/9                      B is in force; its next number is 10
    A/58 -> B, B has no folder      B was begun and not finished: a claim of B/1 takes it over
    A/58 -> the topic's own id      the topic is deleted, whether its tombstone stands yet or not
    B/9, C/1 that nobody names      B is in force; C was late, and will be taken back by its owner
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from chronik_store.errors import FROM_A_COPY, CorruptionError
from chronik_store.format.checksum import content_hash
from chronik_store.format.manifest_file import ManifestObject, decode_manifest_object
from chronik_store.objectstore.base import ObjectNotFoundError, ObjectStore
from chronik_store.objectstore.layout import (
    MANIFESTS_PREFIX,
    check_topic_name,
    manifest_key,
    manifest_prefix,
    parse_manifest_key,
    parse_tombstone_key,
    tombstone_key,
)

PAGE = 1000
FIRST_NUMBER = 1
"""The number of a log's first manifest; a restored log's is put by the restore itself."""
READ_AGAIN = 5
"""A listed manifest may be collected before it is read: a newer one exists, list again. So it is
with a claim that a listing of several pages has missed."""


class Head(NamedTuple):
    """The end of a partition's chain.

    log_id: the log in force. number: its newest manifest; 0 when it was named by a claim and has
    published nothing. object: that manifest, or the claim. hash: of the object's bytes.
    """

    log_id: str
    number: int
    object: ManifestObject
    hash: str


class Lineage(NamedTuple):
    """A partition's logs: the one in force (None: none, or deleted), the newest of each by id."""

    head: Head | None
    newest: dict[str, Head]


class Survey(NamedTuple):
    """What a bucket holds: the partitions with manifests, and the topic ids that were deleted."""

    partitions: tuple[tuple[str, int], ...]
    deleted: frozenset[str]


def survey(store: ObjectStore, topic: str | None = None) -> Survey:
    """List every partition that has a manifest, of all topics or of this one. One page a thousand
    keys, at most 64 keys a log.
    """
    partitions: set[tuple[str, int]] = set()
    deleted: set[str] = set()
    prefix = MANIFESTS_PREFIX if topic is None else f"{MANIFESTS_PREFIX}{check_topic_name(topic)}/"
    after = ""
    while page := store.list(prefix, start_after=after, limit=PAGE):
        after = page[-1].key
        for each in page:
            manifest = parse_manifest_key(each.key)
            tombstone = parse_tombstone_key(each.key)
            if manifest is not None:
                partitions.add((manifest.topic, manifest.partition))
            elif tombstone is not None:
                deleted.add(tombstone.topic_id)
    return Survey(tuple(sorted(partitions)), frozenset(deleted))


def lineage_of(
    store: ObjectStore, topic: str, partition: int, deleted: frozenset[str] = frozenset()
) -> Lineage:
    """Read the newest manifest of each log of a partition, those of deleted topics left out.

    CorruptionError when several are in force and none names another: two stores wrote there.
    """
    return _lineage(store, topic, partition, lambda _every: deleted)


def live_lineage_of(store: ObjectStore, topic: str, partition: int) -> Lineage:
    """As `lineage_of`; which of the topic's ids are deleted is asked of the bucket, which is one
    HEAD for each id. What a deletion was too late for, or left half done, names nothing.
    """
    return _lineage(store, topic, partition, partial(_deleted, store, topic))


def beside(
    store: ObjectStore, topic: str, partition: int, log_id: str
) -> tuple[Head | None, list[Head]]:
    """This log's own newest manifest, and the logs of its name that are in force beside it."""
    every: dict[str, Head] = {}
    others: list[Head] = []
    for _ in range(READ_AGAIN):
        every = _read_newest(store, topic, partition)
        ends = _ends(_not_of(every, _deleted(store, topic, every)))
        others = [each for each in ends if each.log_id != log_id]
        if not others:
            break
    return every.get(log_id), others


def namesake(store: ObjectStore, topic: str, partition: int, topic_id: str) -> Head | None:
    """A log that is in force of *another* topic of this name, in any other partition; None: none.

    The first one that has more than a first manifest decides, whichever topic it is of. Where none
    has, every other topic's counts, and our own vouch for nothing: they may not have looked yet.
    A partition whose manifests are damaged names nobody.
    """
    prefix, after = f"{MANIFESTS_PREFIX}{check_topic_name(topic)}/", ""
    tried: Head | None = None
    while page := store.list(prefix, start_after=after, limit=1):
        found, after = parse_manifest_key(page[0].key), page[0].key
        if found is None:  # a tombstone
            continue
        after = f"{manifest_prefix(topic, found.partition)}~"  # behind all of this partition
        if found.partition == partition:
            continue
        with suppress(CorruptionError):
            head, newest = live_lineage_of(store, topic, found.partition)
            if head is not None:
                other = head if head.object.manifest.topic_id != topic_id else None
                if not is_tried(head, newest):
                    return other
                tried = tried or other
    return tried


def _deleted(store: ObjectStore, topic: str, every: Mapping[str, Head]) -> set[str]:
    topic_ids = {head.object.manifest.topic_id for head in every.values()}
    # The tombstone is put before a manifest is deleted: asked for after these were read.
    return {each for each in topic_ids if store.head(tombstone_key(topic, each)) is not None}


def _not_of(every: Mapping[str, Head], deleted: Collection[str]) -> dict[str, Head]:
    gone = {*deleted, *_farewells(every)}
    return {
        log_id: head for log_id, head in every.items() if head.object.manifest.topic_id not in gone
    }


def _farewells(every: Mapping[str, Head]) -> set[str]:
    """The ids of topics that their owner has said to be deleted, by the last number of a folder."""
    return {head.object.manifest.topic_id for head in every.values() if is_farewell(head.object)}


def is_farewell(found: ManifestObject) -> bool:
    """Whether it says that the topic is deleted: it names no log, but the topic, as its successor.
    A restore's claim would have the same number, so one of the two is refused.
    """
    return found.successor == found.manifest.topic_id


def is_deleted(store: ObjectStore, topic: str, partition: int, topic_id: str) -> bool:
    """Whether the topic of this id is deleted, as far as this partition and its tombstone tell."""
    if topic_id in _farewells(_read_newest(store, topic, partition)):
        return True
    # It is put before manifests are deleted: asked for after these were read.
    return store.head(tombstone_key(topic, topic_id)) is not None


def end_of(store: ObjectStore, topic: str, partition: int, topic_id: str) -> Head | None:
    """The log of a topic's partition that is in force, or ended with a farewell; None: none is."""
    every = _read_newest(store, topic, partition)
    own = {key: head for key, head in every.items() if head.object.manifest.topic_id == topic_id}
    said = [head for head in own.values() if is_farewell(head.object)]
    return next(iter([*said, *_ends(own)]), None)


def _ends(newest: dict[str, Head]) -> list[Head]:
    return [_end(head) for head in newest.values() if _is_end(head, newest)]


def _lineage(
    store: ObjectStore,
    topic: str,
    partition: int,
    deleted: Callable[[Mapping[str, Head]], Collection[str]],
) -> Lineage:
    newest: dict[str, Head] = {}
    ends: list[Head] = []
    for _ in range(READ_AGAIN):
        every = _read_newest(store, topic, partition)
        newest = _not_of(every, deleted(every))
        ends = _ends(newest)
        if len(ends) <= 1:
            return Lineage(ends[0] if ends else None, newest)
        # Pages of a listing are not of one moment: a log may be on one, its claim behind another.
    ranks = [_rank(each, newest) for each in ends]
    if max(ranks) > TRIED and ranks.count(max(ranks)) == 1:
        return Lineage(ends[ranks.index(max(ranks))], newest)
    raise CorruptionError(
        f"{store.url}: logs {sorted(each.log_id for each in ends)} all claim "
        f"{topic}/{partition} and none names another; two stores wrote under one prefix",
        path=manifest_prefix(topic, partition),
        advice="stop one, and take its log's folder away from there: `chronik inspect` of the "
        "newest manifest in it tells what it lists",
    )


def _is_end(head: Head, newest: dict[str, Head]) -> bool:
    successor = head.object.successor
    return successor is None or successor not in newest


TRIED, BEGUN, SETTLED = range(3)
"""How much a log's word counts beside others that are in force, see `_rank`."""


def is_tried(head: Head, newest: Mapping[str, Head]) -> bool:
    """It counts for nothing beside another log: its owner has not looked yet, and may never."""
    return _rank(head, newest) == TRIED


def _rank(head: Head, newest: Mapping[str, Head]) -> int:
    """A log whose first manifest is the newest looks then whether it is alone (`beside`), and takes
    it back if not: TRIED. Who looked and was has published more, or will. So does a restore with
    that of a partition of which it found nothing (a log without entries): BEGUN, which keeps the
    place against whoever publishes first, and yields to who has published more before it looked.
    What a claim names is SETTLED, and so is a cluster's, which has members.
    """
    if head.number != FIRST_NUMBER or head.object.members is not None:
        return SETTLED
    if any(each.object.successor == head.log_id for each in newest.values()):
        return SETTLED
    return TRIED if head.object.folded_to > 0 else BEGUN


def _end(head: Head) -> Head:
    """The head itself, or the log that its claim names and that has published nothing."""
    successor = head.object.successor
    if successor is None:
        return head
    manifest = dataclasses.replace(head.object.manifest, log_id=successor)
    begun = dataclasses.replace(head.object, manifest=manifest, successor=None)
    return Head(successor, 0, begun, head.hash)


def last_published(lineage: Lineage) -> Head | None:
    """The newest manifest of the head, or the claim on the log before it while it is only begun.

    What a begun log will hold is not known yet: its restore may cut, and says so with number 1.
    Where that number is a claim as well, there never will be anything.
    """
    head, newest = lineage
    claims = {each.object.successor: each for each in newest.values()}
    while head is not None and head.log_id in claims and _is_begun(head):
        head = claims[head.log_id]
    return head


def _is_begun(head: Head) -> bool:
    """The log has published nothing of its own."""
    is_claim = head.object.successor is not None
    return not head.number or (is_claim and head.number == FIRST_NUMBER)


def _read_newest(store: ObjectStore, topic: str, partition: int) -> dict[str, Head]:
    for _ in range(READ_AGAIN):
        try:
            return {
                log_id: Head(
                    log_id, number, *read_manifest(store, topic, partition, log_id, number)
                )
                for log_id, number in _newest_numbers(store, topic, partition).items()
            }
        except ObjectNotFoundError:
            continue
    raise CorruptionError(
        f"{store.url}: the newest manifest of {topic}/{partition} is listed but not there",
        path=manifest_prefix(topic, partition),
    )


def _newest_numbers(store: ObjectStore, topic: str, partition: int) -> dict[str, int]:
    newest: dict[str, int] = {}
    after = ""
    while True:
        page = store.list(manifest_prefix(topic, partition), start_after=after, limit=PAGE)
        for each in page:
            parsed = parse_manifest_key(each.key)
            if parsed is not None:
                newest[parsed.log_id] = max(newest.get(parsed.log_id, 0), parsed.number)
        if len(page) < PAGE:  # no further request: what it found would be of a later moment
            return newest
        after = page[-1].key


def manifest_numbers(
    store: ObjectStore, topic: str, partition: int, log_id: str, *, above: int = 0
) -> list[int]:
    """The numbers published in a log's folder that are greater than `above`, ascending."""
    folder = manifest_prefix(topic, partition, log_id)
    after = manifest_key(topic, partition, log_id, above) if above else ""
    numbers: list[int] = []
    while True:
        page = store.list(folder, start_after=after, limit=PAGE)
        parsed = [parse_manifest_key(each.key) for each in page]
        numbers += [each.number for each in parsed if each is not None]
        if len(page) < PAGE:
            return numbers
        after = page[-1].key


def read_manifest(
    store: ObjectStore, topic: str, partition: int, log_id: str, number: int
) -> tuple[ManifestObject, str]:
    """A published manifest and the hash of its bytes. CorruptionError if it is not one."""
    key = manifest_key(topic, partition, log_id, number)
    body = store.get(key)
    try:
        return decode_manifest_object(body, path=key), content_hash(body)
    except CorruptionError as error:
        raise CorruptionError(error.finding, path=key, advice=FROM_A_COPY) from error
