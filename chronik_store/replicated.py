"""A store whose logs a cluster owns: opened as a node, its partitions made as the cluster says.

Place: over `log_store`, used by `chronik_server` only. Promise: topic ids and log ids are those
that the cluster agreed on, so that every replica derives the same keys; whoever else opens the
directory gets it read-only (protocol 11). Invariant: records enter through each log's `replica`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from chronik_store.config import LogConfig
from chronik_store.data_directory import disk_error
from chronik_store.environment import Environment
from chronik_store.errors import CorruptionError, ReadOnlyError, UnavailableError
from chronik_store.format.checksum import content_hash
from chronik_store.format.store_file import TopicEntry
from chronik_store.log_core import LogCore
from chronik_store.log_store import LogStore
from chronik_store.partition_log import PartitionLog
from chronik_store.replica_values import Snapshot
from chronik_store.segment.reader import load_footer

NODE_NAME = "NODE"
Dispatch = Callable[[Callable[[], None]], None]


def open_as_node(
    path: str | os.PathLike[str],
    *,
    cluster_id: str,
    node_id: str,
    dispatch: Dispatch,
    config: LogConfig,
    env: Environment,
) -> LogStore:
    """Open (or create) the data directory of one node.

    cluster_id: 32 hex digits, the store id that all nodes share; config.object_store must be the
    bucket that they share. dispatch: brings callbacks of replicas to their event loop. Errors: as
    `LogStore.open`; ReadOnlyError when the directory belongs to somebody else.
    """
    owner = f"{cluster_id}/{node_id}"
    store = LogStore._open_as(
        owner, cluster_id, path, object_store=None, config=config, read_only=False, env=env
    )
    if store._directory.owner != owner:
        found = store._directory.owner
        store.close()
        raise ReadOnlyError(
            f"{os.fspath(path)!r} belongs to {found}, not to node {node_id} of cluster {cluster_id}"
        )
    store._assembly.dispatch = dispatch
    return store


def install_topic(store: LogStore, name: str, topic_id: str, log_ids: Sequence[str]) -> None:
    """Make the partitions of a topic that are not here yet, durably. Repeatable."""
    directory, assembly = store._directory, store._assembly
    entry = TopicEntry(name, topic_id, len(log_ids), "live")
    try:
        for partition, log_id in enumerate(log_ids):
            paths = directory.paths(name, partition)
            if not assembly.has_wal(paths):
                assembly.create(entry, partition, paths, log_id=log_id)
    except OSError as error:
        raise disk_error(directory.path, "create a topic in", error) from error
    if directory.topic(name) != entry:
        directory.put_topic(entry)


def node_uuid(store: LogStore) -> str:
    """Which directory this is, for life: 32 hex digits, made at the first call (protocol 12).

    CorruptionError when the file that holds it is damaged.
    """
    directory = store._directory
    path = f"{directory.path}/{NODE_NAME}"
    data = directory.read(NODE_NAME)
    if data is None:
        fresh = store._env.entropy.token_bytes(16).hex().encode()
        directory.write(NODE_NAME, fresh + b" " + content_hash(fresh).encode() + b"\n")
        return fresh.decode()
    found, _, digest = data.rstrip(b"\n").partition(b" ")
    if len(found) != 32 or content_hash(found).encode() != digest:
        raise CorruptionError(f"{path} does not hold a node's id", path=path)
    return found.decode()


def snapshot_of(store: LogStore, log: PartitionLog) -> Snapshot:
    """What a peer far behind begins with. May read the bucket: call it from a worker.

    Producer state as of the last segment stands in its footer, which is read when this open has
    not uploaded that segment itself. UnavailableError, CorruptionError when it cannot be had.
    """
    replica = log.replica
    try:
        return replica.snapshot()
    except UnavailableError:
        manifest = core_of(log).manifest
        if not manifest.segments:
            raise
        last = manifest.segments[-1]
        footer = load_footer(store._bucket.open_object(last), last)
        replica.load_producers(manifest.next.index, footer.producers)
        return replica.snapshot()


def core_of(log: PartitionLog) -> LogCore:
    """The core of a log that can be written to."""
    return log._writable()
