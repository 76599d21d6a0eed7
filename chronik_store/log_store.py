"""A data directory full of partitions that share one lock, commit, cache, budget and pipeline.

Place: the top of the library; `PartitionLog.open` is this plus one partition. Promise: the same
`PartitionLog` object every time for the same partition; a topic is listed only after every one of
its partitions has a durable WAL, so a partition without one is damaged, never new. Invariant:
opening or closing one partition holds no lock over I/O; background work belongs to the store and
ends with `close`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from contextlib import ExitStack
from typing import Any, NoReturn, Self

from chronik_store import fork_guard
from chronik_store.arguments import check_seconds
from chronik_store.config import LogConfig, check_config
from chronik_store.data_directory import DataDirectory, absolute_path
from chronik_store.disk_errors import disk_errors
from chronik_store.disk_guard import DiskGuard
from chronik_store.each_partition import EachPartition, damage_of
from chronik_store.environment import Environment
from chronik_store.errors import (
    ChronikError,
    CorruptionError,
    LogClosedError,
    ReadOnlyError,
    TopicNotFoundError,
    UnavailableError,
)
from chronik_store.format.store_file import TopicEntry
from chronik_store.log_assembly import LogAssembly
from chronik_store.log_identity import LOCAL_OWNER
from chronik_store.model import LogStatus, PipelineReport, SearchResult, StoreStatus, TopicInfo
from chronik_store.objectstore.layout import check_topic_type
from chronik_store.objectstore.open import open_object_store
from chronik_store.open_logs import OpenLogs
from chronik_store.partition_log import PartitionLog
from chronik_store.search.searcher import merge_results
from chronik_store.search_scratch import SearchScratch
from chronik_store.store_bucket import StoreBucket, check_url
from chronik_store.store_ticker import StoreTicker
from chronik_store.topic_changes import TopicChanges

logger = logging.getLogger("chronik_store.store")


class LogStore:
    """The owner of a data directory. A context manager; thread-safe; dead after fork.

    Each call raises LogClosedError after `close`, ForkedError in a forked child; those that change
    something, ReadOnlyError.
    """

    def __init__(
        self,
        env: Environment,
        config: LogConfig,
        directory: DataDirectory,
        bucket: StoreBucket,
        *,
        read_only: bool,
        owner: str,
    ) -> None:
        self._env = env
        self._config = config
        self._directory = directory
        self._bucket = bucket
        self._read_only = read_only
        self._lock = env.threads.lock()
        self._closed = False
        self._closing = False
        self._fork_generation = fork_guard.generation()
        guard = DiskGuard(
            env.fs,
            env.clock,
            directory.path,
            reserve_bytes=config.disk_reserve_bytes,
            throttle_bytes=config.disk_throttle_bytes,
        )
        self._assembly = LogAssembly(
            env,
            config,
            bucket,
            guard,
            read_only=read_only,
            owner=owner,
            scratch=SearchScratch(
                env.fs, env.threads, None if read_only else f"{directory.path}/scratch"
            ),
        )
        self._logs = OpenLogs(env.threads, self._assembly.close)
        self._topics = TopicChanges(env, directory, bucket, self._assembly, self._logs)
        self._each = EachPartition(
            directory, self.partition, self._is_elsewhere, read_only=read_only
        )
        self._ticker = StoreTicker(
            env,
            config,
            self._assembly,
            self._all_logs,
            self._logs.all,
            self._topics.finish_deletions,
            read_only=read_only,
        )

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        object_store: str | None = None,
        config: LogConfig = LogConfig(),  # noqa: B008 (frozen)
        read_only: bool = False,
        env: Environment | None = None,
    ) -> LogStore:
        """Open (and, unless `read_only`, create and lock) a data directory.

        object_store: None for what the directory was created with, at first `{path}/object_store`;
        else a URL: file:///..., s3://bucket/prefix, memory://... . read_only takes no lock, writes
        nothing and follows a writer. env: clock, chance, threads and disk (tests, simulation).
        Errors: ConfigError, DirectoryLockedError, IdentityMismatchError, FutureVersionError,
        CorruptionError, ReadOnlyError, UnavailableError.
        """
        return cls._open_as(
            LOCAL_OWNER,
            None,
            path,
            object_store=object_store,
            config=config,
            read_only=read_only,
            env=Environment() if env is None else env,
        )

    @classmethod
    def _open_as(
        cls,
        owner: str,
        store_id: str | None,
        path: str | os.PathLike[str],
        *,
        object_store: str | None,
        config: LogConfig,
        read_only: bool,
        env: Environment,
    ) -> LogStore:
        """See `open`; and `replicated`, which opens as a node of a cluster."""
        check_config(config)
        absolute = absolute_path(path)
        url = object_store if object_store is not None else config.object_store
        check_url(url, absolute, env, config)
        with ExitStack() as undo:
            directory = DataDirectory.open(
                env, absolute, url=url, read_only=read_only, owner=owner, store_id=store_id
            )
            undo.callback(directory.close)
            # A cluster's directory is read-only for everybody else (protocol 11).
            read_only = read_only or directory.owner != owner
            store = open_object_store(
                directory.url,
                env=env,
                s3=config.s3,
                default_path=f"{absolute}/object_store",
                read_only=read_only,
            )
            undo.callback(store.close)
            bucket = StoreBucket(
                env,
                config,
                store,
                store_id=directory.store_id,
                owner=directory.owner,
                # A bucket in the directory itself is on this disk already.
                cache_directory=None if read_only or directory.url is None else f"{absolute}/cache",
                is_shared=store_id is not None,
            )
            undo.callback(bucket.cache.close)
            if not read_only:
                bucket.check_identity_if_reachable(directory)
            opened = cls(env, config, directory, bucket, read_only=read_only, owner=directory.owner)
            opened._ticker.start()
            undo.pop_all()
        return opened

    # --- topics ----------------------------------------------------------------------------------

    def create_topic(self, name: str, *, partitions: int = 1, exist_ok: bool = False) -> TopicInfo:
        """Create a topic; durable when it returns. TopicExistsError if it is there.

        exist_ok: accept that, and add partitions if it has fewer than asked for. ConfigError for a
        name that cannot stand in a path. UnavailableError with durability "unknown": the disk
        failed so that it may or may not be there, and it takes no records until it is sure.
        """
        self._check_writable()
        return TopicInfo(*self._topics.create(name, partitions, exist_ok=exist_ok)[:3])

    def delete_topic(self, name: str) -> None:
        """Delete a topic with all its records, here and in the bucket.

        Durable when it returns: the topic is gone for every reader. Objects in a bucket that does
        not answer are deleted by the pipeline later. Its logs are closed first, and a run of the
        pipeline over one of them is waited for. TopicNotFoundError; UnavailableError with
        durability "unknown" as for `create_topic`: delete it again.
        """
        self._check_writable()
        self._topics.delete(name, self._not_found)

    def topics(self) -> tuple[TopicInfo, ...]:
        """The topics, by name."""
        self._check_open()
        if self._read_only:
            self._directory.topics.reload()
        topics = self._directory.topics.all
        return tuple(TopicInfo(*entry[:3]) for entry in topics if entry.state == "live")

    # --- partitions ------------------------------------------------------------------------------

    def partition(self, topic: str, partition: int = 0) -> PartitionLog:
        """One partition: the same object every time. TopicNotFoundError, never creates.

        CorruptionError, FutureVersionError, UnavailableError when its log cannot be opened.
        """
        self._check_open()
        key = (topic, partition)
        log = self._logs.get(key) if type(topic) is str and type(partition) is int else None
        if log is not None:
            if not self._read_only or self._is_listed(topic, log._manifest().topic_id):
                return log
            self._logs.close_one(key, log)
        self._listed(topic, partition)
        return self._logs.get_or_open(key, lambda: self._open_partition(topic, partition))

    def _listed(self, topic: str, partition: int) -> TopicEntry:
        """The topic's entry, if it has this partition."""
        entry = self._entry(topic)
        if type(partition) is not int or not 0 <= partition < entry.partitions:
            raise TopicNotFoundError(
                f"topic {topic!r} has partitions 0 to {entry.partitions - 1}, not {partition!r}",
                topic=topic,
            )
        return entry

    def _open_partition(self, topic: str, partition: int) -> PartitionLog:
        entry = self._listed(topic, partition)  # it may have gone while others had it in hand
        paths = self._directory.paths(topic, partition)
        if self._read_only and not self._assembly.has_wal(paths):
            self._directory.topics.reload()  # its owner may have deleted it since the list was read
            entry = self._listed(topic, partition)
        if not self._assembly.has_wal(paths):
            if self._directory.foreign_owner is not None:
                raise UnavailableError(
                    f"this node of the cluster has no copy of {topic}/{partition}: ask another"
                )
            raise CorruptionError(
                f"{paths.wal} has no WAL file, though the topic is listed",
                path=paths.wal,
                advice="restore the directory from the bucket with `chronik restore`",
            )
        return self._assembly.open(
            entry,
            partition,
            paths,
            on_close=lambda log: self._logs.close_one((topic, partition), log),
            check_listed=lambda: self._check_listed(entry),
        )

    def _is_listed(self, topic: str, topic_id: str) -> bool:
        """Beside a writer: it has not deleted this topic, nor made another of its name since."""
        self._directory.topics.look()
        entry = self._directory.topics.get(topic)
        return entry is not None and entry.topic_id == topic_id

    def _check_listed(self, entry: TopicEntry) -> None:
        if not self._is_listed(entry.name, entry.topic_id):
            raise TopicNotFoundError(
                f"topic {entry.name!r} of {self._directory.path} was deleted; ask the store for "
                "its partition again if there is another of its name now",
                topic=entry.name,
            )

    def _entry(self, topic: str) -> TopicEntry:
        check_topic_type(topic)
        self._directory.topics.check_sure(topic)
        if self._read_only:
            self._directory.topics.look()
        entry = self._directory.topics.get(topic)
        if entry is None:
            raise self._not_found(topic)
        return entry

    def _not_found(self, topic: str) -> TopicNotFoundError:
        known = ", ".join(info.name for info in self.topics()[:20]) or "none"
        return TopicNotFoundError(
            f"no topic {topic!r} in {self._directory.path} (topics: {known}); create it first",
            topic=str(topic),
        )

    def _all_logs(self) -> list[PartitionLog | ChronikError]:
        """Every partition, opened if need be, or why it cannot be."""
        return self._each.ask(lambda log: log)

    def _is_elsewhere(self, entry: TopicEntry, partition: int) -> bool:
        """Of a topic some partitions of which other nodes of the cluster have."""
        if self._directory.foreign_owner is None or self._logs.is_held((entry.name, partition)):
            return False
        return not self._assembly.has_wal(self._directory.paths(entry.name, partition))

    # --- all partitions --------------------------------------------------------------------------

    def search(self, topic: str, query: str, **options: Any) -> SearchResult:
        """Search all partitions of a topic and merge; options as in `PartitionLog.search`.

        deadline_seconds is for all together: each partition gets its share of what is left.
        """
        self._check_open()
        entry = self._entry(topic)
        clock, count = self._env.clock, entry.partitions
        started = clock.monotonic()
        seconds = options.pop("deadline_seconds", None)
        if seconds is None:
            seconds = self._config.search_deadline_seconds
        check_seconds(seconds, "deadline_seconds")
        limit, order = options.get("limit", 10), options.get("order", "newest")
        results: list[SearchResult] = []

        def merged() -> SearchResult:
            elapsed = clock.monotonic() - started
            return merge_results(results, order=order, limit=limit, elapsed_seconds=elapsed)

        for partition in range(count):
            left = max(0.0, started + seconds - clock.monotonic())
            share = left / (count - partition)
            log = self.partition(topic, partition)
            results.append(log.search(query, deadline_seconds=share, **options))
            if sum(map(len, results)) > 2 * limit:  # of what is too much nothing is held longer
                results[:] = [merged()]
        return merged()

    def run_pipeline_once(self) -> PipelineReport:
        """One bounded pipeline step for every partition; errors are in the report."""
        self._check_writable()
        return self._ticker.run_pipeline_once()

    def rebuild_indexes(
        self, topic: str, partition: int = 0, *, keys: Collection[str] | None = None
    ) -> int:
        """Have the pipeline build search bundles anew, those with these keys or all; how many.

        For bundles that are lost or damaged in the bucket (`verify` names their keys): they are
        derived from the segments. The work is done by the next pipeline runs.
        """
        self._check_writable()
        core = self.partition(topic, partition)._core
        assert core is not None
        return self._assembly.pipeline.rebuild_indexes(core, keys)

    def status(self) -> StoreStatus:
        """The directory and all its partitions at a glance."""
        self._check_open()
        with disk_errors(self._directory.path, "look at"):
            usage = self._env.fs.usage(self._directory.path)
        cache = self._bucket.cache.stats()
        found = self._each.ask(PartitionLog.status)
        statuses = tuple(each for each in found if isinstance(each, LogStatus))
        failures = tuple(each for each in found if isinstance(each, ChronikError))
        return StoreStatus(
            path=self._directory.path,
            store_id=self._directory.store_id,
            object_store=self._bucket.store.url,
            read_only=self._read_only,
            disk_total_bytes=usage.total_bytes,
            disk_free_bytes=usage.free_bytes,
            cache_memory_bytes=cache.memory_bytes,
            cache_disk_bytes=cache.disk_bytes,
            partitions=statuses,
            unavailable=tuple(map(str, failures)),
            damaged=damage_of(failures),
        )

    # --- life ------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        fork_guard.check(self._fork_generation)
        if self._closed:
            raise LogClosedError(f"the store {self._directory.path} is closed; open it again")

    def _check_writable(self) -> None:
        self._check_open()
        if self._read_only:
            owner = self._directory.foreign_owner
            reason = "was opened read-only"
            if owner is not None:
                cluster, _, node = owner.partition("/")
                reason = (
                    f"is of node {node} of cluster {cluster}, through whose server it is changed"
                )
            raise ReadOnlyError(f"the store {self._directory.path} {reason}; nothing was changed")

    def close(self) -> None:
        """Stop background work, acknowledge what is in flight, release the lock. Idempotent; at
        once while another thread is at it.

        Waits for the pipeline's run under way, which may be that of a whole segment, and for a
        topic that is being made or deleted. An interrupt (Ctrl-C) ends that wait, not the closing;
        what it leaves, such as the lock while somebody writes, is for the next call.
        """
        if fork_guard.is_lost(self._fork_generation):
            return
        errors: list[BaseException] = []
        mine = False
        try:
            with self._lock:
                if self._closing or self._directory.is_given_up:
                    return
                self._closed = mine = self._closing = True
            for release in (
                self._ticker.close,
                self._topics.end,
                self._logs.close,
                self._assembly.close_services,
                self._bucket.close,
            ):
                try:
                    release()
                except BaseException as error:  # noqa: BLE001 (raised when all is released)
                    self._assembly.pipeline.abandon()
                    errors.append(error)
        finally:
            if mine:
                try:  # last, and whatever happened: from here on others may write
                    self._logs.when_empty(lambda: self._topics.when_over(self._directory.close))
                finally:
                    self._closing = False
        if errors:
            raise errors[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a LogStore cannot be pickled: open it where it is used")

    def __repr__(self) -> str:
        return f"<LogStore {self._directory.path} {'closed' if self._closed else 'open'}>"
