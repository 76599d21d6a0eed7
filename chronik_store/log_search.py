"""Search of one partition: which bundles, which tail, where the records come from.

Place: between `partition_log` and the `search` room, which knows no tiers. Promise: every offset
that the manifest and `committed` say exists is searched or listed as missing, and an answer is of
one log, not of two. Invariant: the query is checked before anything is read; the tail index exists
only once somebody has searched.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal, NamedTuple

from chronik_store.config import LogConfig
from chronik_store.environment import Environment
from chronik_store.errors import LogClosedError, UnavailableError
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
PLANS = 4
"""How often a search begins that another log takes the place of its own under."""

_Epoch = tuple[str, int]
"""The id of a log, and how often it has taken back what it had shown. Within one, a record once
shown stays at its offset, or goes; no view goes back to one that it has left.
"""


class _Look(NamedTuple):
    """What there is to search. `epoch` was read first: as long as it is that of now, the rest, and
    whatever was read since, is of one log.
    """

    epoch: _Epoch
    committed: Position
    manifest: Manifest


def _never() -> int:
    return 0


class LogSearch:
    """The searching side of one log. Thread-safe.

    rewinds: how often the view has taken back what it had shown, as beside a log that `repair` lets
    go on from less.
    """

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
        rewinds: Callable[[], int] = _never,
    ) -> None:
        self._env = env
        self._config = config
        self._view = view
        self._chain = chain
        self._bucket = bucket
        self._bundles = bundles
        self._scratch = scratch
        self._rewinds = rewinds
        self._lock = env.threads.lock()
        self._tails: dict[_Epoch, TailIndex] = {}
        """A reader of the bucket moves on to the log that a restore made, which may have other
        records at the same offsets; those of the old one go with the first search of the new.
        """
        self._closed = False

    def _tail_index(self, look: _Look) -> TailIndex:
        """The tail index, made by the first search: most logs of a large store have none."""
        left: list[TailIndex] = []
        with self._lock:
            if self._closed:
                raise LogClosedError("this log is closed; open it again")
            if self._is_there(look):
                # Also that of a search that had looked before, and got here after the new one's.
                others = [epoch for epoch in self._tails if epoch != look.epoch]
                left = [self._tails.pop(epoch) for epoch in others]
            tail = self._tails.get(look.epoch)
            if tail is None:
                directory = self._scratch.tail(look.manifest.topic, look.manifest.partition)
                tail = self._tails[look.epoch] = TailIndex(
                    self._env.clock,
                    self._env.threads,
                    fs=self._scratch.fs,
                    directory=f"{directory}/{look.epoch[0]}-{look.epoch[1]}",
                    heap_bytes=self._config.tail_index_bytes,
                    reserve_bytes=self._config.disk_reserve_bytes,
                )
        for each in left:
            each.close()
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
            bytes_max=self._config.search_answer_bytes,
            require_complete=require_complete,
        )
        seconds = options.deadline_seconds
        # In an outage each request would be tried for longer than most searches have.
        with patience(None if seconds is None else clock.monotonic() + seconds):
            return self._answer(checked, options)

    def _answer(self, checked: CheckedQuery, options: SearchOptions) -> SearchResult:
        """Plan and search, anew if the view has moved on to another log meanwhile: offsets found in
        the bundles of one would be read from the other, or not be there.
        """
        clock, seconds = self._env.clock, options.deadline_seconds
        began = clock.monotonic()
        for _ in range(PLANS):
            look = self._look()
            try:
                result = execute(self._plan(look, checked, options))
            except Exception:
                if self._is_there(look):
                    raise
            else:
                if self._is_there(look):
                    return replace(result, elapsed_seconds=clock.monotonic() - began)
            if seconds is not None:
                left = max(0.0, began + seconds - clock.monotonic())
                options = replace(options, deadline_seconds=left)
        raise UnavailableError(
            f"each of {PLANS} times that this was searched, another log took its place meanwhile, "
            "as a restore or a repair makes one; search again"
        )

    def _look(self) -> _Look:
        self._view.refresh()
        look = self._seen()
        if look.manifest.start_offset > look.committed.offset:
            # Another thread has seen meanwhile that all of it was dropped, and what came after.
            self._view.refresh()
            look = self._seen()
        return look

    def _seen(self) -> _Look:
        # One after the other: what a log has committed is in a manifest that is not older.
        epoch = self._epoch()
        committed = self._view.committed
        return _Look(epoch, committed, self._view.manifest)

    def _epoch(self) -> _Epoch:
        return self._view.manifest.log_id, self._rewinds()

    def _is_there(self, look: _Look) -> bool:
        return self._epoch() == look.epoch

    def _plan(self, look: _Look, checked: CheckedQuery, options: SearchOptions) -> SearchPlan:
        committed, manifest = look.committed, look.manifest
        return SearchPlan(
            query=checked,
            options=options,
            bundles=self._bundle_refs(manifest),
            cache=self._bundles,
            tail=self._tail_index(look),
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
        epoch, committed, manifest = self._seen()
        tail = self._tails.get(epoch)
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
