"""Building one partition's log out of the rooms, and taking it apart again.

Place: between `log_store`, which knows which partitions exist, and the rooms, none of which knows
another. Promise: a log that was assembled is recovered, started and wired to read chain, search
and pipeline; one that could not be is left as it was found. Invariant: everything shared (WAL
services, cache, footers, pipeline, disk guard) belongs to the store and outlives its logs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from chronik_store.config import LogConfig
from chronik_store.disk_errors import disk_error, disk_errors
from chronik_store.disk_guard import DiskGuard
from chronik_store.environment import Environment
from chronik_store.errors import CorruptionError
from chronik_store.format.control import Intent, decode_command
from chronik_store.format.entry import EntryKind
from chronik_store.format.manifest_file import Manifest
from chronik_store.format.store_file import TopicEntry
from chronik_store.fs.tree import remove_tree
from chronik_store.log_core import LogCore
from chronik_store.log_identity import LOCAL_OWNER, NO_ID, LogIdentity, LogPaths
from chronik_store.log_search import LogSearch
from chronik_store.manifest.state import FoldedState
from chronik_store.model import Progress, VerifyReport
from chronik_store.partition_log import PartitionLog
from chronik_store.pipeline import ByteBudget, Pipeline, SteadyTime, Tiering
from chronik_store.read_chain import ReadChain
from chronik_store.replica import Replica
from chronik_store.search.bundle_cache import BundleCache
from chronik_store.search.scratch import remove_tree as remove_scratch
from chronik_store.search_scratch import SearchScratch
from chronik_store.segment.footers import FooterCache
from chronik_store.segment.source import LocalSegments
from chronik_store.store_bucket import StoreBucket
from chronik_store.verify import verify_log
from chronik_store.wal.chain import log_id_in
from chronik_store.wal.services import OPEN_FILES, WalServices
from chronik_store.wal.settings import WalIdentity, WalSettings
from chronik_store.wal.wal import Wal

READ_BYTES = 4 << 20


class LogAssembly:
    """The factory of a store's logs. Thread-safe."""

    def __init__(
        self,
        env: Environment,
        config: LogConfig,
        bucket: StoreBucket,
        guard: DiskGuard,
        *,
        read_only: bool,
        owner: str,
        scratch: SearchScratch,
    ) -> None:
        self._env = env
        self._config = config
        self._bucket = bucket
        self._guard = guard
        self._read_only = read_only
        self._owner = owner
        self._services = WalServices.create(
            env,
            commit_threads=config.commit_threads,
            tail_bytes=config.tail_bytes_max,
            # A file that the writer elsewhere removes takes its room until this process closes it.
            open_files=0 if read_only else OPEN_FILES,
        )
        self._scratch = scratch
        self._bundles = BundleCache(
            scratch.fs,
            scratch.bundles,
            env.threads,
            bytes_max=config.search_cache_bytes,
            reserve_bytes=config.disk_reserve_bytes,
        )
        self._footers = FooterCache(env.threads)
        self.dispatch: Callable[[Callable[[], None]], None] | None = None
        """How a replica's callbacks reach its owner; None: logs of no cluster."""
        self.told: dict[tuple[str, int], str] = {}
        """Ids of a cluster's logs as its metadata has them: a damaged file does not say its own."""
        self.kept: set[str] = set()
        """Topics that neither retention nor pruning touches."""
        self.on_unsworn: Callable[[LogCore], None] = _ignore
        self.on_sealed: Callable[[LogCore], None] = _ignore
        self.pipeline = Pipeline(
            Tiering(
                env=env,
                config=config,
                store=bucket.store,
                budget=ByteBudget(env.threads, config.segment_bytes),
                time=SteadyTime(env.clock),
                prepare_bucket=bucket.prepare,
                open_object=bucket.open_object,
                index_fs=scratch.fs,
                index_directory=scratch.building,
                kept=self.kept,
            )
        )

    def has_wal(self, paths: LogPaths) -> bool:
        """There is at least one WAL file."""
        fs = self._env.fs
        with disk_errors(paths.wal, "look into"):
            found = fs.list(paths.wal) if fs.exists(paths.wal) else []
        return any(name.endswith(".log") for name in found)

    def create(
        self, entry: TopicEntry, partition: int, paths: LogPaths, *, log_id: str | None = None
    ) -> None:
        """Make the first WAL file of a new partition, and its directory, durably. The others are
        made by whoever puts something there.

        log_id: of a log that a cluster owns; None makes one.
        """
        self._env.fs.make_directories(paths.wal)
        fresh = self._fresh_id() if log_id is None else log_id
        core = self._core(entry, partition, paths, log_id=fresh)
        core.begin()
        core.close()

    def open(
        self,
        entry: TopicEntry,
        partition: int,
        paths: LogPaths,
        *,
        on_close: Callable[[PartitionLog], None],
        check_listed: Callable[[], None] | None = None,
    ) -> PartitionLog:
        """Recover and start one partition. CorruptionError when its WAL is suspect.

        check_listed: asked by a reader's looks; TopicNotFoundError when the topic was deleted.
        """
        try:
            if not self._read_only:
                remove_tree(self._env.fs, paths.scratch)
                self.sweep(entry.name, partition)
            core = self._core(entry, partition, paths, log_id=None)
            core.start()
        except OSError as error:
            raise disk_error(paths.wal, "open", error) from error
        if self._read_only and check_listed is not None:
            core.wal.check_listed = check_listed
        if self.dispatch is not None:
            core.replica = Replica(core, self.dispatch)
        local = LocalSegments(self._env.fs, paths.segments)
        chain = ReadChain(
            wal=core.wal,
            manifest=lambda: core.manifest,
            refresh=core.refreshed_manifest,
            local=local,
            objects=self._bucket.objects,
            footers=self._footers,
            clock=self._env.clock,
        )
        search = LogSearch(
            env=self._env,
            config=self._config,
            view=core,
            chain=chain,
            bucket=self._bucket,
            bundles=self._bundles,
            scratch=self._scratch,
            rewinds=lambda: core.state.rewinds,
        )

        def verify(bucket: bool, deep: bool, progress: Progress | None) -> VerifyReport:
            store = self._bucket.store if bucket else None
            return verify_log(core, self._env, store, deep=deep, progress=progress)

        log = PartitionLog(
            view=core,
            core=core,
            chain=chain,
            search=search,
            config=self._config,
            run_pipeline=lambda: self.pipeline.run_once(core),
            verify=verify,
            on_close=lambda: on_close(log),
        )
        return log

    def _core(
        self, entry: TopicEntry, partition: int, paths: LogPaths, *, log_id: str | None
    ) -> LogCore:
        if log_id is None and self.dispatch is not None:
            # When all of it is damaged, a snapshot of this log makes it good: it must know which.
            log_id = log_id_in(self._env.fs, paths.wal) or self.told.get((entry.name, partition))
            if log_id is None:
                raise CorruptionError(
                    f"no header of the WAL files in {paths.wal} can be read, and which log this is "
                    "has not been heard yet from the cluster",
                    path=paths.wal,
                )
        state = FoldedState(
            topic=entry.name,
            partition=partition,
            topic_id=entry.topic_id,
            log_id=log_id or NO_ID,
            producers_max=self._config.producers_max,
        )
        wal = Wal.recover(
            self._env,
            paths.wal,
            WalIdentity(entry.name, partition, entry.topic_id, self._owner, log_id),
            WalSettings(
                file_bytes=self._config.wal_file_bytes,
                group_bytes=self._config.group_bytes_max,
                fill_keep_free_bytes=self._config.disk_throttle_bytes,
            ),
            state,
            services=self._services,
            quarantine=paths.quarantine,
            read_only=self._read_only,
            # A node of a cluster rejoins without a vote; alone, somebody must decide (protocol 9).
            accept_suspect=self._config.accept_suspect or self.dispatch is not None,
        )
        if state.manifest.log_id == NO_ID and not self._read_only:
            # No checkpoint is readable. A header may be, and files of two logs do not mix.
            log_id = log_id_in(self._env.fs, paths.wal) or self._fresh_id()
            state.manifest = dataclasses.replace(state.manifest, log_id=log_id)
        identity = LogIdentity(
            entry.name, partition, entry.topic_id, state.manifest.log_id, self._owner
        )
        return LogCore(
            env=self._env,
            config=self._config,
            identity=identity,
            paths=paths,
            wal=wal,
            state=state,
            committer=self._services.committer,
            guard=self._guard,
            on_unsworn=self.on_unsworn,
            on_sealed=self.on_sealed,
            read_only=self._read_only,
        )

    def _fresh_id(self) -> str:
        return self._env.entropy.token_bytes(16).hex()

    def sweep(self, topic: str, partition: int) -> None:
        """Remove what search has left of a partition that is closed. Never raises."""
        for directory in self._scratch.left_of(topic, partition):
            remove_scratch(self._scratch.fs, directory)

    def read_names(
        self, entry: TopicEntry, partition: int, paths: LogPaths
    ) -> tuple[Manifest, set[str]]:
        """The folded manifest of a log that is not open, and every key that its WAL announces.

        The last INTENT counts although no mark on disk says that it is committed: its object may
        have been put before a crash took the mark. Writes nothing.
        """
        core = self._core(entry, partition, paths, log_id=None)
        core.show_committed()
        wal, announced = core.wal, set[str]()
        index = max(core.committed.index, wal.first_index)
        while index <= wal.last_index:
            for header, payload in wal.read(index, wal.last_index, READ_BYTES):
                index = header.index + 1
                if header.kind == EntryKind.INTENT:
                    command = decode_command(header.kind, payload, path=paths.wal)
                    assert isinstance(command, Intent)
                    announced.update(command.keys)
        wal.close()
        return core.manifest, announced

    def read_whole(self, entry: TopicEntry, partition: int, paths: LogPaths) -> Manifest:
        """The manifest of a log that is not open, folded over every entry that is here, committed
        or not. Writes nothing.
        """
        core = self._core(entry, partition, paths, log_id=None)
        core.show_committed()
        core.state.commit(core.wal.last_index)
        core.wal.close()
        return core.manifest

    def close(self, log: PartitionLog) -> None:
        """Acknowledge what is in flight, release everything of this log. When it returns, the
        pipeline does nothing for it any more.
        """
        try:
            log._search.close()
        finally:
            if log._core is not None:
                self._close_core(log._core)

    def _close_core(self, core: LogCore) -> None:
        try:
            core.close()
        except Exception:
            raise
        except BaseException as error:  # Ctrl-C
            # Others may write here soon: what is in another thread's hands is not acknowledged.
            core.wal.give_up(error)
            raise
        finally:
            self.pipeline.forget(core)

    def close_services(self) -> None:
        """After every log is closed."""
        self._services.close()
        self._bundles.close()
        self._scratch.close()


def _ignore(_core: LogCore) -> None:
    """No background work: what is due is done on demand."""


__all__ = ["LOCAL_OWNER", "LogAssembly"]
