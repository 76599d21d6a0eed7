"""Carrying out the deletion of a topic (protocol 6).

Place: called by `log_store` for topics whose state is "deleting", at the call and, after a crash
or an outage, again by the background. Promise: exactly the objects that the topic's own logs and
manifests name are deleted, by topic id, so a namesake created later loses nothing; a tombstone
stays beside the manifests. What a restore has taken over is its new owner's, and what the original
of this copy goes on with is the original's, under the same topic id: then only what is local goes;
the next number of a folder tells who was first. Invariant: bucket first, local directories second,
the catalog last: until the last step everything can be done again.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from chronik_store.data_directory import DataDirectory
from chronik_store.disk_errors import disk_errors
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError, CorruptionError, UnavailableError
from chronik_store.format.manifest_file import (
    Manifest,
    ManifestObject,
    decode_manifest_object,
)
from chronik_store.format.store_file import TopicEntry
from chronik_store.fs.tree import remove_tree
from chronik_store.lineage import Head, end_of, is_farewell
from chronik_store.log_assembly import LogAssembly
from chronik_store.log_identity import LogPaths
from chronik_store.manifest.keys import announced_keys, live_keys, named_keys
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.layout import (
    STORE_KEY,
    ManifestKey,
    manifest_key,
    manifest_prefix,
    parse_manifest_key,
    tombstone_key,
)
from chronik_store.pipeline.fence import judge
from chronik_store.store_bucket import StoreBucket

logger = logging.getLogger("chronik_store.topics")

DELETE_BATCH = 500


class OwnFilesError(UnavailableError):
    """The disk does not let go of a topic's own files; those of others it may."""


class OwnLog(NamedTuple):
    """A log whose topic is deleted. published_number: its newest as far as it knows, if it does.
    whole: reads what all of its WAL says, also behind the last mark: a PUBLISHED may stand there,
    or what a manifest lists that was put and never proposed.
    """

    log_id: str
    published_number: int | None = None
    whole: Callable[[], Manifest] | None = None


def delete_topic_data(
    env: Environment,
    directory: DataDirectory,
    bucket: StoreBucket,
    assembly: LogAssembly,
    entry: TopicEntry,
) -> None:
    """Delete a topic's objects and directories. Raises what stands in the way; repeatable."""
    keys: set[str] = set()
    own: dict[int, OwnLog] = {}
    published = unsure = fenced = False
    for partition in range(entry.partitions):
        paths = directory.paths(entry.name, partition)
        found = _read_names(assembly, entry, partition, paths)
        if found is None:
            unsure = True
            continue
        manifest, announced = found
        keys |= named_keys(manifest) | announced
        whole = partial(assembly.read_whole, entry, partition, paths)
        own[partition] = OwnLog(manifest.log_id, manifest.published_number, whole)
        # By a log, not by the topic's own end: that is another one's part of this.
        is_taken = manifest.fenced is not None and (
            manifest.fenced.successor_log_id != entry.topic_id
        )
        fenced = fenced or is_taken
        published = published or manifest.published_number > 0
    claimed = (published or unsure or bool(keys)) and bucket.check_identity()
    if published and not claimed:
        raise UnavailableError(
            f"{bucket.store.url} holds no {STORE_KEY} object, though topic {entry.name} was "
            "published there: is this the bucket? Its objects are deleted when it is back"
        )
    if claimed:
        _delete_objects(bucket.store, entry, own, keys, fenced=fenced)
    with _of_its_own_files(), disk_errors(directory.path, f"delete topic {entry.name} in"):
        for partition in range(entry.partitions):
            paths = directory.paths(entry.name, partition)
            for path in (paths.segments, paths.scratch, paths.wal):
                remove_tree(env.fs, path)
                _sync_names(env, path)
            assembly.sweep(entry.name, partition)


def _read_names(
    assembly: LogAssembly, entry: TopicEntry, partition: int, paths: LogPaths
) -> tuple[Manifest, set[str]] | None:
    """What a log says itself; None: the bucket has to be asked, for its files are damaged, lost, or
    removed by a deletion that was cut short.
    """
    with _of_its_own_files():
        if not assembly.has_wal(paths):
            return None
        try:
            return assembly.read_names(entry, partition, paths)
        except (CorruptionError, UnavailableError) as error:
            if not _is_damage(error):
                raise
            logger.warning(
                "deleting %s/%s by its bucket manifests: %s", entry.name, partition, error
            )
    return None


@contextmanager
def _of_its_own_files() -> Iterator[None]:
    """Within this the bucket is not asked."""
    try:
        yield
    except UnavailableError as error:
        raise OwnFilesError(str(error.args[0])) from error


def _is_damage(error: ChronikError) -> bool:
    """Trying again does not mend it: bytes are wrong, or on a sector that the disk cannot read."""
    cause = error.__cause__
    is_unreadable = isinstance(cause, OSError) and cause.errno == errno.EIO
    return isinstance(error, CorruptionError) or is_unreadable


def _delete_objects(
    store: ObjectStore,
    entry: TopicEntry,
    own: Mapping[int, OwnLog],
    keys: Collection[str],
    *,
    fenced: bool,
) -> None:
    if fenced or is_taken_over(store, entry, own) or not _say_farewell(store, entry, own):
        logger.warning(
            "topic %s is deleted here, and stays in %s, where it is not this directory's alone: a "
            "restore has taken it over, or this is a copy, or another node deletes it there",
            entry.name, store.url,
        )  # fmt: skip
        return
    store.put_if_absent(tombstone_key(entry.name, entry.topic_id), entry.topic_id.encode())
    # Read once more: a put that was given up before may have arrived until the tombstone stood.
    delete_published(store, entry, keys)


def _say_farewell(store: ObjectStore, entry: TopicEntry, own: Mapping[int, OwnLog]) -> bool:
    """End each folder with a number that says so, the first partition first. False: a restore,
    which goes the same way, has claimed one of them meanwhile, or a copy's original published.
    """
    for partition in range(entry.partitions):
        while (head := _end_of(store, entry, partition)) is not None:
            if is_farewell(head.object):
                break
            mine = own.get(partition, OwnLog(head.log_id))
            if not head.number or mine.log_id != head.log_id:
                return False
            if not _may_be_ours(mine, head.number, head.object):
                return False
            body = dataclasses.replace(
                head.object, predecessor_hash=head.hash, successor=entry.topic_id
            ).encode()
            # Whose it is that stands there then, the next look tells.
            store.put_if_absent(
                manifest_key(entry.name, partition, head.log_id, head.number + 1), body
            )
    return True


def _end_of(store: ObjectStore, entry: TopicEntry, partition: int) -> Head | None:
    """The end of a partition's chain; None also where that is damaged: nobody can restore it."""
    try:
        return end_of(store, entry.name, partition, entry.topic_id)
    except CorruptionError:
        return None


def _sync_names(env: Environment, path: str) -> None:
    """What is gone stays gone: once the list forgets the topic nobody removes what a power loss
    brings back.
    """
    parent = path.rpartition("/")[0]
    if env.fs.exists(parent):
        env.fs.sync_directory(parent)


def delete_published(
    store: ObjectStore, entry: TopicEntry, keys: Collection[str] = frozenset()
) -> None:
    """Delete what the topic's published manifests name, and `keys`; last of all these manifests:
    whoever goes on behind an interruption finds what is left by nothing else.
    """
    named, manifests = set(keys), []
    for key, _, found in _published(store, entry):
        manifests.append(key)
        named |= named_keys(found.manifest)
    for ordered in (sorted(named), manifests):
        for first in range(0, len(ordered), DELETE_BATCH):
            store.delete(ordered[first : first + DELETE_BATCH])


def is_taken_over(store: ObjectStore, entry: TopicEntry, own: Mapping[int, OwnLog]) -> bool:
    """Whether another log goes on from one of ours, by its claim or as a copy of it (protocol 5):
    then nothing of the topic in the bucket is ours any more. own: by partition, as far as known.

    Where none is known to have published, every claim may be of ours.
    """
    unknown = ours = False
    for _, key, found in _published(store, entry):
        mine = own.get(key.partition)
        if is_farewell(found):
            continue  # of an earlier try
        if mine is None:
            unknown = unknown or found.successor is not None
        elif key.log_id == mine.log_id:
            ours = True
            if found.successor is not None or not _may_be_ours(mine, key.number, found):
                return True
    return unknown and not ours


def _may_be_ours(mine: OwnLog, number: int, found: ManifestObject) -> bool:
    """Whether a manifest in our folder is our own. Of one that we do not know of, a crash kept us
    from writing that down, or we are a copy of the log that put it: told apart as the pipeline
    does (`fence.check_own_folder`), and by what it names, since each key is in our log first.
    """
    if mine.published_number is None or number <= mine.published_number:
        return True
    if mine.whole is None:
        return False
    whole = mine.whole()
    if number != whole.published_number + 1:
        return number <= whole.published_number
    named = live_keys(found.manifest) | announced_keys(found.manifest)
    return judge(whole, found) == "adopt" and named <= named_keys(whole)


def _published(
    store: ObjectStore, entry: TopicEntry
) -> Iterator[tuple[str, ManifestKey, ManifestObject]]:
    """The topic's published manifests, each with its key and what that says."""
    for partition in range(entry.partitions):
        prefix, after = manifest_prefix(entry.name, partition), ""
        while page := store.list(prefix, start_after=after):
            after = page[-1].key
            for info in page:
                key = parse_manifest_key(info.key)
                try:
                    found = decode_manifest_object(store.get(info.key), path=info.key)
                except CorruptionError:
                    continue  # not ours to read: `verify --bucket --deep` lists it
                if key is not None and found.manifest.topic_id == entry.topic_id:
                    yield info.key, key, found
