"""A store whose logs a cluster owns: opened as a node, its partitions made as the cluster says.

Place: over `log_store`, used by `chronik_server` only. Promise: topic ids and log ids are those
that the cluster agreed on, so that every replica derives the same keys; whoever else opens the
directory gets it read-only (protocol 11). Invariant: records enter through each log's `replica`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

from chronik_store.config import LogConfig
from chronik_store.data_directory import STORE_NAME, absolute_path
from chronik_store.disk_errors import disk_error, disk_errors, mended_by_hand
from chronik_store.environment import Environment
from chronik_store.errors import (
    ConfigError,
    CorruptionError,
    ReadOnlyError,
    TopicNotFoundError,
    UnavailableError,
)
from chronik_store.format import cbor
from chronik_store.format.checksum import content_hash
from chronik_store.format.manifest_file import Manifest
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.format.store_file import TopicEntry, decode_store_identity
from chronik_store.fs.tree import remove_tree
from chronik_store.lineage import read_manifest
from chronik_store.log_core import LogCore
from chronik_store.log_identity import LOCAL_OWNER
from chronik_store.log_store import LogStore
from chronik_store.objectstore.layout import tombstone_key
from chronik_store.objectstore.open import open_object_store
from chronik_store.partition_log import PartitionLog
from chronik_store.replica_values import Snapshot
from chronik_store.segment.reader import load_footer
from chronik_store.store_bucket import check_claim
from chronik_store.topic_deletion import OwnLog, delete_published, is_taken_over
from chronik_store.wal.chain import log_id_in

_NUMBER: Final = re.compile(rb"\d+")
_HEX: Final = re.compile(rb"(?:[0-9a-f]{2})+")
_ID: Final = re.compile(rb"[0-9a-f]{32}")
_IDS: Final = re.compile(rb"(?:[0-9a-f]{32}(?:,[0-9a-f]{32})*)?")

NODE_NAME = "NODE"
UNTOLD = (
    "nobody else can tell it: let another node take this one's place, under a new id, "
    "with an empty directory"
)
"""What to do when a file is damaged in which a node keeps what it has promised."""
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


def owner_of(path: str | os.PathLike[str], env: Environment) -> str | None:
    """Whose directory it is: "local", or "CLUSTER_ID/NODE_ID"; None for a new one."""
    absolute = absolute_path(path)
    name = f"{absolute}/{STORE_NAME}"
    with disk_errors(absolute, "look at"):
        if not env.fs.exists(name):
            return None
        file = env.fs.open(name)
        try:
            data = file.read_at(0, file.size())
        finally:
            file.close()
    with mended_by_hand():
        return decode_store_identity(data, path=name).owner


def doubt(
    path: str | os.PathLike[str],
    topic: str,
    partition: int,
    *,
    config: LogConfig,
    env: Environment,
) -> None:
    """Have a node that is down count its copy of a partition as damaged (protocol 9): from its next
    start on it has no vote there until it has caught up, or has part in a roll call. Durable when
    it returns; repeatable.

    ConfigError: it is no node's directory. TopicNotFoundError: it has no copy. Else as
    `open_as_node`.
    """
    owner = owner_of(path, env)
    if owner is None or owner == LOCAL_OWNER:
        raise ConfigError(f"{os.fspath(path)!r} is not the directory of a cluster's node")
    cluster_id, _, node_id = owner.partition("/")
    quiet = config.replace(pipeline_enabled=False)
    with open_as_node(
        path, cluster_id=cluster_id, node_id=node_id, dispatch=_at_once, config=quiet, env=env
    ) as store:
        if not any((topic, partition) == (p.topic, p.partition) for p in local_partitions(store)):
            raise TopicNotFoundError(f"this node has no copy of {topic}/{partition}", topic=topic)
        core = core_of(store.partition(topic, partition))
        core.begin()
        with core.wal.lock:
            seq = core.wal.stage_suspect(True)
        core.wal.lead(seq)


def _at_once(callback: Callable[[], None]) -> None:
    callback()


def claim_bucket(store: LogStore) -> tuple[str, str]:
    """For the node that founds the cluster: (digest of the STORE object, the bucket's URL)."""
    return store._bucket.claim(), store._bucket.store.url


def agree_on_bucket(store: LogStore, digest: str, url: str) -> None:
    """Let uploads begin, if the bucket is the cluster's. IdentityMismatchError if it is another;
    UnavailableError when it does not answer. Repeatable.
    """
    store._bucket.agree(digest, url)


def check_bucket(config: LogConfig, digest: str, url: str, *, env: Environment) -> None:
    """Whether a node that is not made yet would, so configured, reach the bucket of the cluster.
    Errors as of `agree_on_bucket`; nothing is made, and nothing is kept.
    """
    store = open_object_store(config.object_store, env=env, s3=config.s3, read_only=True)
    try:
        check_claim(store, digest, url)
    finally:
        store.close()


def keep_forever(store: LogStore, topic: str) -> None:
    """Of this topic nothing is ever dropped, and all of it stays on every node's disk: what it
    says must be known without the bucket. It is uploaded like any other.
    """
    store._assembly.kept.add(topic)


class LocalPartition(NamedTuple):
    """A partition of which this node has files."""

    topic: str
    topic_id: str
    partition: int


def local_partitions(store: LogStore) -> list[LocalPartition]:
    """What is here of live topics, as the directory says."""
    directory, assembly = store._directory, store._assembly
    return [
        LocalPartition(entry.name, entry.topic_id, partition)
        for entry in directory.topics.all
        if entry.state == "live"
        for partition in range(entry.partitions)
        if assembly.has_wal(directory.paths(entry.name, partition))
    ]


def has_partition(store: LogStore, name: str, partition: int) -> bool:
    """There is a WAL of it."""
    return store._assembly.has_wal(store._directory.paths(name, partition))


def install_partition(
    store: LogStore, name: str, topic_id: str, log_ids: Sequence[str], partition: int
) -> None:
    """Make one partition of a topic if it is not here yet, durably. Repeatable.

    UnavailableError while a deleted namesake still has its directories.
    """
    directory, assembly = store._directory, store._assembly

    def install() -> None:
        if any(each.topic_id != topic_id for each in directory.topics.namesakes(name)):
            raise UnavailableError(f"an older topic {name!r} has not left this node yet")
        known = directory.topics.get(name)
        count = len(log_ids) if known is None else max(len(log_ids), known.partitions)
        entry = TopicEntry(name, topic_id, count, "live")
        if known is not None and known != entry:
            directory.topics.put(entry)  # it has grown: no deletion finds a log that is not listed
        paths = directory.paths(name, partition)
        log_id = log_ids[partition]
        try:
            if known is None and log_id_in(store._env.fs, paths.wal) not in {None, log_id}:
                # Made for a topic that was deleted while this node was down, before it was listed.
                store._topics.set_aside(paths.wal, f"{paths.quarantine}/unlisted-{topic_id}")
            if not assembly.has_wal(paths):
                store._logs.while_closed(  # it is seen before it is whole
                    [(name, partition)],
                    lambda: assembly.create(entry, partition, paths, log_id=log_id),
                )
        except OSError as error:
            raise disk_error(directory.path, "create a topic in", error) from error
        if directory.topics.get(name) != entry or name in directory.topics.in_doubt:
            directory.topics.put(entry)

    store._topics.during(install)


def open_partition(
    store: LogStore, name: str, topic_id: str, log_id: str, partition: int
) -> PartitionLog:
    """The log of this topic, and no other; also where its files do not say any more which it is.

    UnavailableError: an older topic, or another log, is here.
    """
    store._assembly.told[name, partition] = log_id
    log = store.partition(name, partition)
    identity = core_of(log).identity
    if identity.topic_id != topic_id:
        raise UnavailableError(f"an older topic {name!r} has not left this node yet")
    if identity.log_id != log_id:
        raise UnavailableError(
            f"wal/{name}/{partition} of this node's directory is of log {identity.log_id}, not "
            f"{log_id}: stop the node, move that directory away, and start it again; what is "
            "missing is copied from the others"
        )
    return log


def remove_partition(store: LogStore, name: str, partition: int) -> None:
    """Remove this node's copy, and nothing of the bucket. Repeatable.

    The WAL goes in one step: a crash leaves a copy that is whole, or none.
    """
    directory, env = store._directory, store._env
    paths = directory.paths(name, partition)

    def remove() -> None:
        try:
            if env.fs.exists(paths.wal):
                remove_tree(env.fs, paths.scratch)
                env.fs.make_directories(paths.scratch.rpartition("/")[0])
                env.fs.rename(paths.wal, paths.scratch)
                env.fs.sync_directory(paths.wal.rpartition("/")[0])
            for path in (paths.scratch, paths.segments):
                remove_tree(env.fs, path)
        except OSError as error:
            raise disk_error(directory.path, "remove a partition from", error) from error
        entry = directory.topics.get(name)
        if entry is not None and not any(
            has_partition(store, name, number) for number in range(entry.partitions)
        ):
            directory.topics.forget(entry.topic_id)

    store._topics.during(lambda: store._logs.while_closed([(name, partition)], remove))


def delete_topics_here(store: LogStore, topic_ids: Collection[str]) -> None:
    """Delete what this node has of topics, and the objects that their logs name (protocol 6).

    Durable when it returns. UnavailableError while the bucket does not answer: the background
    goes on with it. Repeatable.
    """
    directory = store._directory

    def mark() -> None:
        for entry in directory.topics.all:
            if entry.topic_id in topic_ids and entry.state == "live":
                store._topics.mark_deleting(entry)

    store._topics.during(mark)
    store._topics.finish_deletions()


def is_listed(store: LogStore, topic_id: str) -> bool:
    """This node still has something of a topic, live or not."""
    return any(each.topic_id == topic_id for each in store._directory.topics.all)


def sweep_topic(store: LogStore, name: str, topic_id: str, log_ids: Sequence[str]) -> None:
    """Delete every object that the published manifests of a deleted topic name, and last of all
    its tombstone: no node has anything of it any more. UnavailableError. Repeatable.
    """
    if store._bucket.check_identity():
        entry = TopicEntry(name, topic_id, len(log_ids), "deleting")
        own = {number: OwnLog(log_id) for number, log_id in enumerate(log_ids)}
        if not is_taken_over(store._bucket.store, entry, own):
            delete_published(store._bucket.store, entry)
            store._bucket.store.delete([tombstone_key(name, topic_id)])


def remember(store: LogStore, name: str, number: int) -> None:
    """Keep a number for the next start. Durable when it returns."""
    _keep(store, name, b"%d" % number)


def remembered(store: LogStore, name: str) -> int:
    """The number that was kept under this name; 0 for none. CorruptionError when damaged."""
    text = _kept(store, name, _NUMBER)
    return 0 if text is None else int(text)


def remember_ids(store: LogStore, name: str, ids: Collection[str]) -> None:
    """Keep ids, of 32 hex digits each, for the next start. Durable when it returns."""
    _keep(store, name, ",".join(sorted(ids)).encode())


def remembered_ids(store: LogStore, name: str) -> frozenset[str]:
    """The ids that were kept under this name. CorruptionError when damaged."""
    text = _kept(store, name, _IDS)
    return frozenset(text.decode().split(",") if text else ())


def remember_value(store: LogStore, name: str, value: object) -> None:
    """Keep what CBOR can say for the next start. Durable when it returns."""
    _keep(store, name, cbor.encode(value).hex().encode())


def remembered_value(store: LogStore, name: str) -> object:
    """The value that was kept under this name; None for none. CorruptionError when damaged."""
    text = _kept(store, name, _HEX)
    return None if text is None else cbor.decode(bytes.fromhex(text.decode()), what=name)


def _keep(store: LogStore, name: str, text: bytes) -> None:
    with disk_errors(store._directory.path, "write to"):
        store._directory.files.write(name, text + b" " + content_hash(text).encode() + b"\n")


def _kept(store: LogStore, name: str, shape: re.Pattern[bytes]) -> bytes | None:
    path = f"{store._directory.path}/{name}"
    with disk_errors(store._directory.path, "read from"):
        data = store._directory.files.read(name)
    if data is None:
        return None
    text, _, digest = data.rstrip(b"\n").partition(b" ")
    if not shape.fullmatch(text) or content_hash(text).encode() != digest:
        message = f"{path} does not hold what a node keeps there"
        raise CorruptionError(message, path=path, advice=UNTOLD)
    return text


def node_uuid(store: LogStore) -> str:
    """Which directory this is, for life: 32 hex digits, made at the first call (protocol 12).

    CorruptionError when the file that holds it is damaged.
    """
    found = _kept(store, NODE_NAME, _ID)
    if found is None:
        found = store._env.entropy.token_bytes(16).hex().encode()
        _keep(store, NODE_NAME, found)
    return found.decode()


def snapshot_of(store: LogStore, log: PartitionLog) -> Snapshot:
    """What a peer far behind begins with. May read the bucket: call it from a worker.

    Producer state as of the last segment stands in its footer, which is read when this open has
    not uploaded that segment itself; where retention has left no segment, in the manifest that
    was published. UnavailableError, CorruptionError when it cannot be had.
    """
    replica = log.replica
    try:
        return replica.snapshot()
    except UnavailableError:
        manifest = core_of(log).manifest
        if manifest.segments:
            last = manifest.segments[-1]
            producers = load_footer(store._bucket.open_object(last), last).producers
        elif manifest.published_number:
            producers = _published_producers(store, manifest)
        else:
            raise
        replica.load_producers(manifest.next.index, producers)
        return replica.snapshot()


def _published_producers(store: LogStore, manifest: Manifest) -> tuple[ProducerEntry, ...]:
    who = (manifest.topic, manifest.partition, manifest.log_id)
    found, _ = read_manifest(store._bucket.store, *who, manifest.published_number)
    if found.manifest.next.index != manifest.next.index:
        raise UnavailableError(
            f"the end of what is in the bucket, {manifest.next.offset}, is not published yet"
        )
    return found.producers


def core_of(log: PartitionLog) -> LogCore:
    """The core of a log that can be written to."""
    return log._writable()
