"""The folder of a log's published manifests, and who owns it (protocol 5 and 11).

Place: below `publish`, used by every stage that is about to change the bucket. Promise: a log
whose folder holds a manifest that it cannot have made, or one that names a successor, is fenced:
a FENCED entry stops tiering on every replica. Invariant: numbers are dense and created only if
absent, so of two rivals at most one gets a number, and the newest one tells who.

A published manifest of this very log (put by a predecessor whose PUBLISHED did not commit) is
adopted; a *copy* of this log (a restored disk image) has the same log_id and other history, which
shows in its segments.
"""

from __future__ import annotations

from typing import Final, Literal, NoReturn

from chronik_store.errors import FencedError, IdentityMismatchError, UnavailableError
from chronik_store.format.control import Fenced
from chronik_store.format.manifest_file import Manifest, ManifestObject
from chronik_store.lineage import (
    FIRST_NUMBER,
    Head,
    beside,
    is_farewell,
    manifest_numbers,
    namesake,
    read_manifest,
)
from chronik_store.objectstore.base import ObjectNotFoundError
from chronik_store.objectstore.layout import manifest_key, tombstone_key
from chronik_store.pipeline.contract import NotNextError, SteppedDownError
from chronik_store.pipeline.turn import Turn

DELETED: Final = "its topic was deleted in the bucket"


def check_own_folder(turn: Turn) -> None:
    """The newest manifest in this log's folder is its own, or may be adopted; else it is fenced.

    Raises:
        FencedError: it is somebody else's, or was deleted; FENCED is committed.
        IdentityMismatchError: the bucket does not hold what this log published there.
    """
    manifest = turn.manifest
    published = manifest.published_number
    numbers = manifest_numbers(
        turn.tiering.store,
        manifest.topic,
        manifest.partition,
        manifest.log_id,
        above=max(0, published - 1),
    )
    newest = numbers[-1] if numbers else 0
    if newest != published or newest == 0:
        check_not_deleted(turn)
    if newest < published:
        raise _is_lost(turn, manifest)
    if newest == 0:
        return
    found, found_hash = _read(turn, manifest, newest)
    if newest == published:
        if found_hash != manifest.published_hash:
            fence(turn, found, newest, "the newest manifest is not the one that this log published")
    elif newest > published + 1:
        fence(turn, found, newest, f"this log knows of {published}; it may be an old copy")
    elif judge(manifest, found) == "foreign":
        fence(turn, found, newest, "it was not published by this log")


def check_published(turn: Turn, manifest: Manifest) -> None:
    """The newest manifest that is known here is in the bucket still: one HEAD, once in a run,
    before something is put, or a local copy goes, that nobody would find without it.

    Raises:
        IdentityMismatchError: the bucket has lost it. FencedError: as `check_own_folder`.
        SteppedDownError: this follower lags, and its leader has collected it by now.
    """
    number = manifest.published_number
    if number in {0, turn.seen_number}:
        return
    who = (manifest.topic, manifest.partition, manifest.log_id)
    if turn.tiering.store.head(manifest_key(*who, number)) is None:
        if turn.term is not None:
            check_own_folder(turn)
        elif not manifest_numbers(turn.tiering.store, *who, above=number):
            raise _is_lost(turn, manifest)
        else:
            raise SteppedDownError(f"manifest {number} was replaced by what this log lags behind")
    turn.seen_number = number


def _is_lost(turn: Turn, manifest: Manifest) -> IdentityMismatchError:
    return IdentityMismatchError(
        f"{turn.tiering.store.url}: manifest {manifest.published_number} of "
        f"{manifest.topic}/{manifest.partition} is not there; is this another bucket, or were "
        "objects deleted? Nothing is uploaded or pruned until it is back"
    )


def check_not_deleted(turn: Turn) -> None:
    """Who took this log over may have deleted the topic since, and the claim with it: an empty
    folder is nobody's invitation. FencedError when the topic's tombstone stands; FENCED is
    committed, and what this log has published since is deleted with the rest of the topic.
    """
    manifest, store = turn.manifest, turn.tiering.store
    if store.head(tombstone_key(manifest.topic, manifest.topic_id)) is None:
        return
    who = (manifest.topic, manifest.partition, manifest.log_id)
    numbers = manifest_numbers(store, *who)
    if numbers:
        store.delete([manifest_key(*who, number) for number in numbers])
    turn.propose(
        Fenced(successor_log_id=manifest.topic_id, number=manifest.published_number, reason=DELETED)
    )
    raise FencedError(
        f"{store.url}: topic {manifest.topic} of id {manifest.topic_id} was deleted "
        "there, by a store that had taken it over. Tiering has stopped here; records stay "
        "readable, what is not in the bucket is in this directory only"
    )


def check_is_alone(turn: Turn) -> None:
    """This log's first manifest is out, and no other log of its name is in force. What no manifest
    named when a restore took the bucket over could not be claimed: its owner learns of it here, if
    the new owner has made a topic of that name since. FencedError; FENCED is committed.

    One of another partition counts too, if it is of another topic: with a partition each, the two
    would tear the name, and nobody could restore it.

    Two that publish first at the same moment see each other. Each takes its own back *before* it
    looks whether the other is still there: the one that looks first is fenced, the other finds
    itself alone, or nobody is and both try again (NotNextError). Never are both fenced.

    Of a store of its own only; of a cluster see `check_name_is_free`.
    """
    manifest, store = turn.manifest, turn.tiering.store
    who = (manifest.topic, manifest.partition, manifest.log_id)
    own, others = _beside(turn)
    if own is not None and own.number > FIRST_NUMBER:
        fence(turn, own.object, own.number, "another writer goes on from this log's first manifest")
    if not others:
        turn.tiering.named.add(manifest.topic_id)
        return
    store.delete([manifest_key(*who, FIRST_NUMBER)])
    others = _beside(turn)[1]
    if others:
        other = others[0]
        fence(turn, other.object, other.number, "this name was taken before anything was published")
    raise NotNextError(
        f"another log was about to publish {manifest.topic}/{manifest.partition} first, too, and "
        "has taken that back, as this one has: the pipeline tries again"
    )


def check_name_is_free(turn: Turn) -> None:
    """As `check_is_alone`, of a cluster, before it publishes first and once more behind that. It
    takes nothing back, since its next leader may have adopted it; and it waits where a store of its
    own is fenced: a topic is made anew while the logs of the one that was deleted still look to be
    in force, until the first node has ended them. What goes on for this very topic is a restore's.

    FencedError; FENCED is committed. UnavailableError: another topic has the name.
    """
    manifest, others = turn.manifest, _beside(turn)[1]
    for other in others:
        if other.object.manifest.topic_id == manifest.topic_id:
            fence(turn, other.object, other.number, "a restore has begun this partition")
    if others:
        topic_id = others[0].object.manifest.topic_id
        raise UnavailableError(
            f"{turn.tiering.store.url}: another topic of the name {manifest.topic} is in force "
            f"there, of id {topic_id}. If it was deleted here, that is about to end. Else another "
            "store writes under this prefix: delete the topic there, or here. Until then nothing "
            "of this one is published, and all of it stays on disk"
        )
    turn.tiering.named.add(manifest.topic_id)


def _beside(turn: Turn) -> tuple[Head | None, list[Head]]:
    """This log's own newest manifest, and who else has its name."""
    manifest, store = turn.manifest, turn.tiering.store
    place = (manifest.topic, manifest.partition)
    own, others = beside(store, *place, manifest.log_id)
    if others or manifest.topic_id in turn.tiering.named:
        return own, others
    other = namesake(store, *place, manifest.topic_id)
    return own, [] if other is None else [other]


def judge(manifest: Manifest, found: ManifestObject) -> Literal["adopt", "foreign"]:
    """May the manifest found under our next number be taken for our own?

    It may if it is a former state of ours: what it lists we list too or have dropped since, and
    what we had listed by then it lists.
    """
    theirs = found.manifest
    same_log = theirs.log_id == manifest.log_id and theirs.topic_id == manifest.topic_id
    if not same_log or found.successor is not None:
        return "foreign"
    if found.predecessor_hash != manifest.published_hash:
        return "foreign"
    if found.folded_to > manifest.generation or theirs.start_offset > manifest.start_offset:
        return "foreign"
    ours = {each.key for each in manifest.segments}
    listed = {each.key for each in theirs.segments}
    known = all(
        each.key in ours or each.end_offset <= manifest.start_offset for each in theirs.segments
    )
    complete = all(
        each.key in listed for each in manifest.segments if each.added_index <= found.folded_to
    )
    return "adopt" if known and complete else "foreign"


def fence(turn: Turn, found: ManifestObject, number: int, reason: str) -> NoReturn:
    """Commit FENCED, so that every replica stops tiering; raise FencedError."""
    successor = found.successor or found.manifest.log_id
    whose = f"belongs to log {successor}"
    if is_farewell(found):
        whose, reason = "is its last", DELETED
    elif found.successor is not None:
        reason = "a restore has claimed the folder"
    turn.propose(Fenced(successor_log_id=successor, number=number, reason=reason))
    raise FencedError(
        f"manifest {number} of {found.manifest.topic}/{found.manifest.partition} in "
        f"{turn.tiering.store.url} {whose}: {reason}. Tiering has stopped here; "
        "records stay readable, what is not in the bucket is in this directory only"
    )


def _read(turn: Turn, manifest: Manifest, number: int) -> tuple[ManifestObject, str]:
    try:
        return read_manifest(
            turn.tiering.store, manifest.topic, manifest.partition, manifest.log_id, number
        )
    except ObjectNotFoundError:
        # Collected between LIST and GET: only a newer publisher does that. List again next time.
        turn.lane.own_folder_term = None
        raise
