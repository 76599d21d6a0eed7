"""Search of one partition: which bundles, which tail, where the records come from.

Place: between `partition_log` and the `search` room, which knows no tiers. Promise: every offset
that the manifest and `committed` say exists is searched or listed as missing. Invariant: the query
is checked before anything is read; the tail index exists only once somebody has searched.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Literal

from chronik_store.config import LogConfig
from chronik_store.environment import Environment
from chronik_store.errors import LogClosedError
from chronik_store.format.manifest_file import Manifest
from chronik_store.format.record_batch import StoredBatch
from chronik_store.log_view import LogView
from chronik_store.model import Position, SearchResult, StoredRecord
from chronik_store.objectstore.patience import patience
from chronik_store.read_chain import ReadChain
from chronik_store.search.bundle_cache import BundleCache
from chronik_store.search.query import check_query
from chronik_store.search.query_tree import CheckedQuery
from chronik_store.search.searcher import BundleRef, SearchOptions, SearchPlan, execute, unindexed
from chronik_store.search.tail import TailIndex
from chronik_store.search_scratch import SearchScratch
from chronik_store.store_bucket import StoreBucket

TAIL_CHUNK_BYTES = 1 << 20


class LogSearch:
    """The searching side of one log. Thread-safe."""

    def __init__(
        self,
        *,
        env: Environment,
        config: LogConfig,
        view: LogView,
        chain: ReadChain,
        bucket: StoreBucket,
        bundles: BundleCache,
        scratch: SearchScratch,
    ) -> None:
        self._env = env
        self._config = config
        self._view = view
        self._chain = chain
        self._bucket = bucket
        self._bundles = bundles
        self._scratch = scratch
        self._lock = env.threads.lock()
        self._tails: dict[str, TailIndex] = {}
        """By log id: a reader of the bucket moves on to the log that a restore made, which may have
        other records at the same offsets.
        """
        self._closed = False

    def _tail_index(self, manifest: Manifest) -> TailIndex:
        """The tail index, made by the first search: most logs of a large store have none."""
        with self._lock:
            if self._closed:
                raise LogClosedError("this log is closed; open it again")
            tail = self._tails.get(manifest.log_id)
            if tail is None:
                directory = self._scratch.tail(manifest.topic, manifest.partition)
                tail = self._tails[manifest.log_id] = TailIndex(
                    self._env.clock,
                    self._env.threads,
                    fs=self._scratch.fs,
                    directory=f"{directory}/{manifest.log_id}",
                    heap_bytes=self._config.tail_index_bytes,
                    reserve_bytes=self._config.disk_reserve_bytes,
                )
            return tail

    def search(
        self,
        query: str,
        *,
        since_us: int | None,
        until_us: int | None,
        start: int | None,
        stop: int | None,
        limit: int,
        order: Literal["newest", "oldest", "score"],
        deadline_seconds: float | None,
        require_complete: bool,
    ) -> SearchResult:
        """See `PartitionLog.search`."""
        checked = check_query(query)
        clock, deadline = self._env.clock, self._config.search_deadline_seconds
        options = SearchOptions(
            since_us=since_us,
            until_us=until_us,
            start=start,
            stop=stop,
            limit=limit,
            order=order,
            deadline_seconds=deadline if deadline_seconds is None else deadline_seconds,
            require_complete=require_complete,
        )
        seconds = options.deadline_seconds
        # In an outage each request would be tried for longer than most searches have.
        with patience(None if seconds is None else clock.monotonic() + seconds):
            return execute(self._plan(checked, options))

    def _plan(self, checked: CheckedQuery, options: SearchOptions) -> SearchPlan:
        committed, manifest = self._view.refresh(), self._view.manifest
        if manifest.start_offset > committed.offset:
            # Another thread has seen meanwhile that all of it was dropped, and what came after.
            committed, manifest = self._view.refresh(), self._view.manifest
        return SearchPlan(
            query=checked,
            options=options,
            bundles=self._bundle_refs(manifest),
            cache=self._bundles,
            tail=self._tail_index(manifest),
            read_batches=functools.partial(self._read_batches, committed),
            fetch=functools.partial(self._fetch, committed),
            clock=self._env.clock,
            start_offset=manifest.start_offset,
            end_offset=committed.offset,
            topic=manifest.topic,
            partition=manifest.partition,
        )

    def feed_tail(self, deadline_seconds: float) -> None:
        """Index what was committed since, if this log has been searched before (protocol 19).

        Called behind commits by the store's background, so that the next search finds little to
        do. Parts that a bundle has replaced are given up.
        """
        committed, manifest = self._view.committed, self._view.manifest
        tail = self._tails.get(manifest.log_id)
        covered = () if tail is None else tail.covered()
        if tail is None or not covered:
            return
        refs = self._bundle_refs(manifest)
        missing = unindexed(refs, self._bundles, manifest.start_offset, committed.offset)
        tail.retain(missing)
        reached = covered[-1][1]
        if missing and reached < missing[-1][1]:
            start = max(reached, missing[-1][0])
            deadline = self._env.clock.monotonic() + deadline_seconds
            tail.feed(self._read_batches(committed, start, committed.offset), deadline=deadline)

    def _bundle_refs(self, manifest: Manifest) -> list[BundleRef]:
        return [
            BundleRef(
                each.base_offset,
                each.end_offset,
                each.bundle,
                functools.partial(self._bucket.store.get_range, each.bundle.key),
            )
            for each in manifest.segments
            if each.bundle is not None
        ]

    def _read_batches(self, committed: Position, start: int, stop: int) -> Iterable[StoredBatch]:
        return self._chain.scan_batches(
            start, limit=lambda: committed, stop=stop, chunk_bytes=TAIL_CHUNK_BYTES
        )

    def _fetch(self, committed: Position, offset: int) -> StoredRecord:
        found = self._chain.read(offset, max_records=1, max_bytes=1, limit=committed)
        return found.records[0]

    def close(self) -> None:
        """Drop the tail indexes. Idempotent."""
        with self._lock:
            self._closed = True
            tails = list(self._tails.values())
        for tail in tails:
            tail.close()
