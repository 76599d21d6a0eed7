"""A log opened from its bucket alone: no directory, no lock, nothing written.

Place: beside `log_core`, as the other `LogView`. Promise: shows exactly what the newest published
manifest lists; a newer one is found by `refresh`. Invariant: an unreachable bucket is an error,
never an empty log; the manifest only moves to a newer number of the same log, or to a successor
that it names, once that has published its first.
"""

from __future__ import annotations

from contextlib import ExitStack

from chronik_store import fork_guard
from chronik_store.arguments import check_partition
from chronik_store.config import LogConfig, check_config
from chronik_store.environment import Environment
from chronik_store.errors import LogClosedError, TopicNotFoundError
from chronik_store.format.manifest_file import Manifest, ManifestObject
from chronik_store.lineage import last_published, live_lineage_of
from chronik_store.log_search import LogSearch
from chronik_store.log_view import watermarks_of
from chronik_store.model import (
    LogStatus,
    Position,
    Progress,
    RecoveryReport,
    VerifyReport,
)
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.layout import (
    check_topic_name,
)
from chronik_store.objectstore.open import open_object_store
from chronik_store.partition_log import PartitionLog
from chronik_store.read_chain import ReadChain
from chronik_store.search.bundle_cache import BundleCache
from chronik_store.search_scratch import SearchScratch
from chronik_store.segment.footers import FooterCache
from chronik_store.store_bucket import StoreBucket


def open_bucket(
    url: str,
    *,
    topic: str,
    partition: int = 0,
    config: LogConfig = LogConfig(),  # noqa: B008 (frozen)
    env: Environment | None = None,
) -> PartitionLog:
    """Open one partition from the bucket alone, read-only.

    Shows what was tiered and published when it was opened, and later what `read` at the end or
    `scan(follow=True)` finds. Errors: TopicNotFoundError, ConfigError, UnavailableError,
    AccessDeniedError, CorruptionError, FutureVersionError.
    """
    env = Environment() if env is None else env
    check_topic_name(topic)
    check_partition(partition)
    check_config(config)
    store = open_object_store(url, env=env, s3=config.s3, read_only=True, must_exist=True)
    bucket = StoreBucket(env, config, store, store_id=None, owner="reader", cache_directory=None)
    try:
        view = BucketView(env, store, topic, partition)
    except BaseException:
        bucket.close()
        raise
    chain = ReadChain(
        wal=None,
        manifest=lambda: view.manifest,
        refresh=view.refreshed_manifest,
        local=None,
        objects=bucket.objects,
        footers=FooterCache(env.threads),
        clock=env.clock,
    )
    scratch = SearchScratch(env.fs, env.threads, None)
    bundles = BundleCache(
        scratch.fs,
        scratch.bundles,
        env.threads,
        bytes_max=config.search_cache_bytes,
        reserve_bytes=config.disk_reserve_bytes,
    )
    search = LogSearch(
        env=env,
        config=config,
        view=view,
        chain=chain,
        bucket=bucket,
        bundles=bundles,
        scratch=scratch,
    )

    def close() -> None:
        with ExitStack() as last:  # the last one first, and all of them: an interrupt ends a wait
            for release in (bucket, scratch, bundles, search, view):
                last.callback(release.close)

    return PartitionLog(
        view=view,
        core=None,
        chain=chain,
        search=search,
        config=config,
        run_pipeline=None,
        verify=view.verify,
        on_close=close,
    )


class BucketView:
    """The newest published manifest of one partition. Thread-safe: values are swapped whole."""

    def __init__(self, env: Environment, store: ObjectStore, topic: str, partition: int) -> None:
        self._env = env
        self._store = store
        self._topic = topic
        self._partition = partition
        self._fork_generation = fork_guard.generation()
        self._closed = False
        self._lock = env.threads.lock()
        self._looks = self._applied = 0
        """Guarded by `_lock`: how many looks have begun, and which of them was applied last."""
        self._left: set[str] = set()
        """The logs before this one that were shown. Guarded by `_lock`."""
        self._number, self._object = self._newest()

    def _newest(self) -> tuple[int, ManifestObject]:
        # Not the head: one that a restore has only begun may get other records at these offsets.
        head = last_published(live_lineage_of(self._store, self._topic, self._partition))
        if head is None:
            raise TopicNotFoundError(
                f"{self._store.url} holds no manifest of {self._topic}/{self._partition}: check "
                "topic and prefix; a log appears here once its first segment is sealed (by its "
                "size, its age, or seal()) and published",
                topic=self._topic,
            )
        return head.number, head.object

    @property
    def manifest(self) -> Manifest:
        """As published."""
        return self._object.manifest

    @property
    def committed(self) -> Position:
        """The end of the last segment: everything in the bucket is committed."""
        manifest = self._object.manifest
        end = manifest.next
        return Position(end.index + 1, max(end.offset, manifest.start_offset))

    @property
    def durable(self) -> Position:
        """The same: the bucket is the disk."""
        return self.committed

    @property
    def end_offset(self) -> int:
        """The same."""
        return self.committed.offset

    @property
    def recovery(self) -> RecoveryReport:
        """Nothing is recovered: the manifest is whole or refused."""
        end = self._object.manifest.next
        return RecoveryReport(
            verdict="clean",
            last_index=end.index,
            end_offset=end.offset,
            committed_offset=end.offset,
        )

    def check_open(self) -> None:
        """LogClosedError or ForkedError when the log cannot be used from here."""
        fork_guard.check(self._fork_generation)
        if self._closed:
            raise LogClosedError("this log is closed; open it again")

    def refresh(self) -> Position:
        """Look for a newer manifest. TopicNotFoundError: the topic was deleted."""
        with self._lock:
            self._looks += 1
            mine = self._looks
        number, newest = self._newest()
        if newest.manifest.topic_id != self.manifest.topic_id:
            raise TopicNotFoundError(
                f"{self._store.url}: topic {self._topic!r} was deleted, and its name is that of "
                "another one now: open it again to read that",
                topic=self._topic,
            )
        with self._lock:
            # One that began earlier and took longer may have seen the log before its successor.
            if mine > self._applied:
                self._applied = mine
                # So may one that began later, and listed earlier.
                shown, found = self.manifest.log_id, newest.manifest.log_id
                if found not in self._left and (found != shown or number > self._number):
                    self._left |= {shown} - {found}
                    self._number, self._object = number, newest
        return self.committed

    def refreshed_manifest(self) -> Manifest:
        """The newest manifest."""
        self.refresh()
        return self.manifest

    def wait_offset(self, offset: int, timeout_seconds: float) -> bool:
        """Poll the bucket until `offset` is there; False when the time is up."""
        deadline = self._env.clock.monotonic() + timeout_seconds
        while self.refresh().offset <= offset and not self._closed:
            left = deadline - self._env.clock.monotonic()
            if left <= 0:
                return False
            self._env.clock.sleep(min(left, 1.0))
        return self.committed.offset > offset

    def status(self) -> LogStatus:
        """What `chronik status` prints."""
        manifest = self.manifest
        return LogStatus(
            topic=manifest.topic,
            partition=manifest.partition,
            topic_id=manifest.topic_id,
            log_id=manifest.log_id,
            watermarks=watermarks_of(self),
            writable=False,
            wal_files=0,
            wal_bytes=0,
            local_segment_bytes=0,
            segments=len(manifest.segments),
            bundles=sum(each.bundle is not None for each in manifest.segments),
            segment_bytes=sum(each.size_bytes for each in manifest.segments),
            published_number=self._number,
            fenced=manifest.fenced is not None,
            cursors=dict(manifest.cursors),
            notes=(f"opened from {self._store.url}",),
        )

    def verify(self, bucket: bool, deep: bool, progress: Progress | None) -> VerifyReport:
        """Every listed object is there with its size; deep: each segment is read and hashed."""
        del bucket  # there is nothing else to check
        from chronik_store.verify import verify_objects

        newest = self.refreshed_manifest
        return verify_objects(
            self.manifest, newest, self._store, self._env, deep=deep, progress=progress
        )

    def close(self) -> None:
        """Refuse further calls."""
        self._closed = True
