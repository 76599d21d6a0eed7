"""Carrying out the deletion of a topic (protocol 6).

Place: called by `log_store` for topics whose state is "deleting", at the call and, after a crash
or an outage, again by the background. Promise: exactly the objects that the topic's own logs and
manifests name are deleted, by topic id, so a namesake created later loses nothing; a tombstone
stays beside the manifests. Invariant: bucket first, local directories second, the catalog last:
until the last step everything can be done again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from chronik_store.data_directory import DataDirectory, disk_error, remove_tree
from chronik_store.environment import Environment
from chronik_store.errors import CorruptionError, UnavailableError
from chronik_store.format.manifest_file import decode_manifest_object
from chronik_store.format.store_file import TopicEntry
from chronik_store.log_assembly import LogAssembly
from chronik_store.manifest.keys import named_keys
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.layout import STORE_KEY, manifest_prefix, tombstone_key
from chronik_store.store_bucket import StoreBucket

logger = logging.getLogger("chronik_store.topics")

DELETE_BATCH = 500


def delete_topic_data(
    env: Environment,
    directory: DataDirectory,
    bucket: StoreBucket,
    assembly: LogAssembly,
    entry: TopicEntry,
) -> None:
    """Delete a topic's objects and directories. Raises what stands in the way; repeatable."""
    keys: set[str] = set()
    published = unsure = False
    for partition in range(entry.partitions):
        paths = directory.paths(entry.name, partition)
        if not assembly.has_wal(paths):
            unsure = True  # lost, or removed by a deletion that was cut short: ask the bucket
        else:
            try:
                manifest, announced = assembly.read_names(entry, partition, paths)
            except CorruptionError as error:
                unsure = True
                logger.warning(
                    "deleting %s/%s by its bucket manifests: %s", entry.name, partition, error
                )
            else:
                keys |= named_keys(manifest) | announced
                published = published or manifest.published_number > 0
    claimed = (published or unsure or bool(keys)) and bucket.check_identity()
    if published and not claimed:
        raise UnavailableError(
            f"{bucket.store.url} holds no {STORE_KEY} object, though topic {entry.name} was "
            "published there: is this the bucket? Its objects are deleted when it is back"
        )
    if claimed:
        bucket.store.put_if_absent(
            tombstone_key(entry.name, entry.topic_id), entry.topic_id.encode()
        )
        delete_published(bucket.store, entry, keys)
    try:
        for partition in range(entry.partitions):
            paths = directory.paths(entry.name, partition)
            for path in (paths.segments, paths.scratch, paths.wal):
                remove_tree(env, path)
            assembly.sweep(entry.name, partition)
    except OSError as error:
        raise disk_error(directory.path, "delete a topic in", error) from error


def delete_published(
    store: ObjectStore, entry: TopicEntry, keys: Collection[str] = frozenset()
) -> None:
    """Delete what the topic's published manifests name, these manifests, and `keys`."""
    ordered = sorted({*keys, *_bucket_keys(store, entry)})
    for first in range(0, len(ordered), DELETE_BATCH):
        store.delete(ordered[first : first + DELETE_BATCH])


def _bucket_keys(store: ObjectStore, entry: TopicEntry) -> set[str]:
    """The topic's published manifests, and what they name."""
    keys: set[str] = set()
    for partition in range(entry.partitions):
        prefix, after = manifest_prefix(entry.name, partition), ""
        while page := store.list(prefix, start_after=after):
            after = page[-1].key
            for info in page:
                try:
                    found = decode_manifest_object(store.get(info.key), path=info.key)
                except CorruptionError:
                    continue  # not ours to read: `verify --bucket --deep` lists it
                if found.manifest.topic_id == entry.topic_id:
                    keys.add(info.key)
                    keys |= named_keys(found.manifest)
    return keys
