"""The API of one partition: append, read, search, cursor, replica, status, close.

Place: over `log_core` (write side) and `read_chain` (read side); made by `log_store`, or by
`bucket_log` from the bucket alone. Promise: `append` returns when the records are on disk and
committed; `read` shows only what is committed; nothing acknowledged is ever lost, and what cannot
be read is unavailable, never absent. Invariant: the plot line of `model.Watermarks`.
"""

from __future__ import annotations

import concurrent.futures
import datetime as dt
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

from chronik_store import fork_guard
from chronik_store.admin_commands import out_of_range, prefix_drop, seal_now
from chronik_store.append_outcome import FUTURES
from chronik_store.arguments import check_count, check_offset, check_partition, check_seconds
from chronik_store.batching import Appendable
from chronik_store.config import LogConfig
from chronik_store.cursor import Cursor
from chronik_store.errors import NotReplicatedError, ReadOnlyError
from chronik_store.format.manifest_file import Manifest
from chronik_store.format.record_batch import StoredBatch
from chronik_store.log_core import LogCore
from chronik_store.log_search import LogSearch
from chronik_store.log_view import LogView, watermarks_of
from chronik_store.model import (
    AppendResult,
    FetchResult,
    LogStatus,
    PipelineReport,
    Position,
    Progress,
    RecoveryReport,
    SearchResult,
    StoredRecord,
    VerifyReport,
    Watermarks,
    to_us,
)
from chronik_store.objectstore.layout import check_topic_name
from chronik_store.read_chain import EntryRun, ReadChain

if TYPE_CHECKING:
    from chronik_store.replica import Replica

Order = Literal["newest", "oldest", "score"]
FOLLOW_SECONDS = 1.0


class PartitionLog:
    """One partition of a topic. A context manager; thread-safe; not picklable; dead after fork.

    Each call raises LogClosedError after `close`, ForkedError in a forked child; those that write,
    ReadOnlyError and LogPoisonedError. Sizes are bytes, waits seconds, times microseconds (UTC).
    """

    def __init__(
        self,
        *,
        view: LogView,
        core: LogCore | None,
        chain: ReadChain,
        search: LogSearch,
        config: LogConfig,
        run_pipeline: Callable[[], PipelineReport] | None,
        verify: Callable[[bool, bool, Progress | None], VerifyReport],
        on_close: Callable[[], None],
    ) -> None:
        self._view = view
        self._core = core
        self._chain = chain
        self._search = search
        self._config = config
        self._run_pipeline = run_pipeline
        self._verify = verify
        self._on_close = on_close
        self._closed = False
        self._fork_generation = fork_guard.generation()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        topic: str,
        partition: int = 0,
        object_store: str | None = None,
        config: LogConfig = LogConfig(),  # noqa: B008 (frozen)
        read_only: bool = False,
    ) -> PartitionLog:
        """Open a data directory, create the topic if it is missing, return one partition.

        path: the directory, created if absent. object_store: None for `{path}/object_store` (or
        what the directory was created with), else a URL. The log owns the directory until
        `close`; a second writing open raises DirectoryLockedError. Errors: ConfigError,
        IdentityMismatchError, CorruptionError (suspect WAL), FutureVersionError, ReadOnlyError.
        """
        from chronik_store.log_store import LogStore

        check_partition(partition)
        if not read_only:
            check_topic_name(topic)  # before there is a directory, and a bucket that it belongs to
        store = LogStore.open(path, object_store=object_store, config=config, read_only=read_only)
        try:
            if not read_only:
                store.create_topic(topic, partitions=partition + 1, exist_ok=True)
            log = store.partition(topic, partition)
        except BaseException:
            store.close()
            raise
        log._on_close = store.close
        return log

    # --- writing ---------------------------------------------------------------------------------

    def append(self, records: Appendable, *, expected_offset: int | None = None) -> AppendResult:
        """Append records as one batch, all or nothing; returns when they are durable and committed.

        records: one Record or bytes, an iterable of them, or a RecordBatch, stored as it is; an
        empty iterable writes and checks nothing and returns an empty range. expected_offset: where
        the log must end; else OffsetConflictError, once what stands there can be read. Blocks while
        the queue is full. Errors (each with `.durability`): that, RecordTooLargeError,
        ProducerSequenceError, DiskFullError, ReadOnlyError, LogPoisonedError, LogClosedError.
        """
        core = self._writable()
        batch = core.batching.batch(records)
        if batch is None:
            return self._empty_append()
        return core.appends.append(batch, expected_offset)

    def append_nowait(
        self, records: Appendable, *, expected_offset: int | None = None
    ) -> concurrent.futures.Future[AppendResult]:
        """As `append`, but returns at once with a future. BackpressureError when the queue is full.

        The future cannot be cancelled: it is running when it is returned, and giving up the wait
        does not take back the write.
        """
        core = self._writable()
        future: concurrent.futures.Future[AppendResult] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        batch = core.batching.batch(records)
        if batch is None:
            future.set_result(self._empty_append())
        else:
            core.appends.append_nowait(batch, expected_offset, FUTURES, future)
        return future

    def _empty_append(self) -> AppendResult:
        end = self._view.committed.offset
        return AppendResult(end, end)

    def drop_before(self, offset: int) -> None:
        """Delete all records below `offset`, durably. Below the start already: nothing happens.

        OffsetOutOfRangeError past the committed end.
        """
        core = self._writable()
        now_us, end_offset = core.env.clock.time_us(), self._view.committed.offset
        if (drop := prefix_drop(self._manifest(), end_offset, offset, now_us)) is not None:
            core.propose(drop)

    def seal(self) -> int:
        """Close the open segment now; returns the offset up to which the log is sealed.

        Without unsealed records nothing is written. Upload and the rest follow in the pipeline.
        """
        core = self._writable()
        if (seal := seal_now(core.open_segment(), core.env.clock.time_us())) is not None:
            core.propose(seal)
        return self.watermarks.sealed

    def run_pipeline_once(self) -> PipelineReport:
        """Seal what is due, upload, publish, prune, retain, collect, index: one bounded step.

        Errors of the bucket are in the report, not raised; nothing is skipped over.
        """
        self._writable()
        assert self._run_pipeline is not None
        return self._run_pipeline()

    # --- reading ---------------------------------------------------------------------------------

    def read(
        self,
        offset: int,
        *,
        max_records: int = 1000,
        max_bytes: int = 1 << 20,
        wait_seconds: float = 0.0,
    ) -> FetchResult:
        """Committed records from `offset` on: at least one if any is there, whatever its size.

        At the end: empty, `next_offset == offset`, after waiting up to `wait_seconds` for a
        record. OffsetOutOfRangeError below the start (dropped) or past the committed end;
        CorruptionError or UnavailableError when no tier can give the bytes.
        """
        view = self._view
        view.check_open()
        if type(offset) is not int or offset < 0:
            check_offset(offset, "offset")
        check_count(max_records, "max_records")
        check_count(max_bytes, "max_bytes")
        if wait_seconds:
            check_seconds(wait_seconds, "wait_seconds")
        limit = view.committed
        if offset >= limit.offset:
            limit = self._wait_for(offset, wait_seconds)
            if offset >= limit.offset:
                return FetchResult((), offset, "none", 0.0)
        return self._chain.read(offset, max_records=max_records, max_bytes=max_bytes, limit=limit)

    def _wait_for(self, offset: int, wait_seconds: float) -> Any:
        view = self._view
        limit = view.refresh()
        if offset > limit.offset:
            self._out_of_range(offset)
        if offset == limit.offset and wait_seconds > 0:
            view.wait_offset(offset, wait_seconds)
            limit = self._limit()  # which a close may have ended
        return limit

    def read_batches(self, offset: int, *, max_bytes: int = 1 << 20) -> Iterator[StoredBatch]:
        """Stored batches from the one that holds `offset` up to the committed end.

        The first may begin before `offset`. max_bytes: how far to read ahead. Errors: of `read`.
        """
        view = self._view
        view.check_open()
        check_offset(offset, "offset")
        check_count(max_bytes, "max_bytes")
        if offset > view.refresh().offset:
            self._out_of_range(offset)
        return self._chain.scan_batches(offset, limit=self._limit, chunk_bytes=max_bytes)

    def read_entries(self, offset: int, *, max_bytes: int = 1 << 20) -> EntryRun:
        """As `read`, but entries as they are stored, unopened: what a server passes on."""
        self._view.check_open()
        check_offset(offset, "offset")
        check_count(max_bytes, "max_bytes")
        limit = self._wait_for(offset, 0.0)
        return self._chain.read_entries(offset, max_bytes=max_bytes, limit=limit)

    def scan(
        self, start: int | None = None, stop: int | None = None, *, follow: bool = False
    ) -> Iterator[StoredRecord]:
        """Records of [start, stop), oldest first; `follow` waits for more instead of ending.

        start None: the log's start; stop None: the committed end, as it moves. Holds a position,
        not a pin: an abandoned iterator costs nothing, one that retention overtook gets
        OffsetOutOfRangeError; one that follows, LogPoisonedError when nothing can come any more.
        Errors else as of `read`, raised by the iterator.
        """
        view = self._view
        view.check_open()
        end = view.refresh().offset  # first: where the log starts may have moved, too
        if start is None:
            start = self._manifest().start_offset
        check_offset(start, "start")
        if stop is not None:
            check_offset(stop, "stop")
        if start > end:
            self._out_of_range(start)
        wait = self._follow if follow else None
        return self._chain.scan(start, limit=self._limit, stop=stop, wait=wait)

    def _limit(self) -> Position:
        """How far a reader may go now: nowhere, once the log is closed."""
        self._view.check_open()
        return self._view.committed

    def _follow(self, offset: int) -> bool:
        while not self._view.wait_offset(offset, FOLLOW_SECONDS):
            self._check_goes_on()
        return True

    def _check_goes_on(self) -> None:
        """LogClosedError or LogPoisonedError when no record will ever come here."""
        self._view.check_open()
        core = self._core
        if core is not None and core.wal.poisoned is not None:
            raise core.poisoned_error(None)

    def offset_for_timestamp(self, time: dt.datetime | int) -> int | None:
        """The first offset whose index timestamp is at or after `time`; None if there is none.

        time: an aware datetime (ValueError: naive) or integer microseconds since 1970 UTC. Index
        timestamps never go back and are at most `max_future_seconds` ahead. Errors as of `read`.
        """
        view = self._view
        view.check_open()
        return self._chain.offset_for_timestamp(to_us(time), limit=view.refresh)

    def cursor(self, name: str) -> Cursor:
        """A named, durable position of a reader. ConfigError for a name that cannot be one."""
        self._view.check_open()
        return Cursor(self, name)

    def search(
        self,
        query: str,
        *,
        since: dt.datetime | int | None = None,
        until: dt.datetime | int | None = None,
        start: int | None = None,
        stop: int | None = None,
        limit: int = 10,
        order: Order = "newest",
        deadline_seconds: float | None = None,
        require_complete: bool = False,
    ) -> SearchResult:
        """Full-text search over all tiers; the language is in docs/search-language.md.

        since <= record time < until; start <= offset < stop; at most `limit` hits. Order "score"
        is comparable within one bundle only. The result's coverage lists what was searched and
        what was not; `require_complete` raises UnavailableError instead of leaving a range out.
        QueryError when the query cannot be answered as written.
        """
        self._view.check_open()
        for name, bound in (("start", start), ("stop", stop)):
            if bound is not None:
                check_offset(bound, name)
        return self._search.search(
            query,
            since_us=None if since is None else to_us(since),
            until_us=None if until is None else to_us(until),
            start=start,
            stop=stop,
            limit=limit,
            order=order,
            deadline_seconds=deadline_seconds,
            require_complete=require_complete,
        )

    # --- state -----------------------------------------------------------------------------------

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._manifest().topic

    @property
    def topic_id(self) -> str:
        """The topic's id, 32 hex digits: topics of one name, made one after the other, differ."""
        return self._manifest().topic_id

    @property
    def partition(self) -> int:
        """The partition's number, from 0."""
        return self._manifest().partition

    @property
    def watermarks(self) -> Watermarks:
        """The plot line now, as offsets."""
        self._view.check_open()
        self._view.refresh()
        return watermarks_of(self._view)

    @property
    def recovery(self) -> RecoveryReport:
        """What opening this log found and did."""
        return self._view.recovery

    @property
    def replica(self) -> Replica:
        """The Raft side (protocol 16); NotReplicatedError on a log that no cluster owns."""
        core = self._core
        if core is None or core.replica is None:
            raise NotReplicatedError(
                "this log is embedded: its entries come from append; the replica face belongs to "
                "logs that a cluster owns"
            )
        return core.replica

    def status(self) -> LogStatus:
        """Everything `chronik status` prints."""
        self._view.check_open()
        self._view.refresh()
        return self._view.status()

    def verify(
        self, *, bucket: bool = False, deep: bool = False, progress: Progress | None = None
    ) -> VerifyReport:
        """Check every invariant that can be checked here; changes nothing. The report has findings.

        bucket: also that every listed object is there with its size; deep: read and hash every
        byte; progress: called with the bytes that have been looked at, and of how many.
        """
        self._view.check_open()
        return self._verify(bucket, deep, progress)

    def close(self) -> None:
        """Acknowledge what is in flight, then release everything. Idempotent; what a call that was
        interrupted has left is for the next.

        Does nothing in a forked child, nor behind `atexit`, where the threads have ended.
        """
        if self._closed or fork_guard.is_lost(self._fork_generation):
            return
        self._closed = True
        try:
            self._on_close()
        except BaseException:
            self._closed = False
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a PartitionLog cannot be pickled: open it where it is used")

    def __repr__(self) -> str:
        ended = self._closed or (self._core is not None and self._core.closed)
        state = "closed" if ended else f"end={self._view.committed.offset}"
        return f"<PartitionLog {self.topic}/{self.partition} {state}>"

    # --- inside ----------------------------------------------------------------------------------

    def _manifest(self) -> Manifest:
        return self._view.manifest

    def _is_hot(self, offset: object) -> bool:
        """A read at `offset` touches neither disk nor bucket."""
        core = self._core
        if core is None or core.read_only or type(offset) is not int:
            return False
        if offset >= core.committed.offset:
            return True
        with core.wal.lock:
            return offset >= self._manifest().start_offset and core.wal.is_in_memory(offset)

    def _writable(self) -> LogCore:
        core = self._core
        if core is None:
            raise ReadOnlyError("opened from the bucket: `chronik restore` makes a log of it")
        core.check_open("not_durable")
        if core.read_only:
            raise ReadOnlyError("opened read-only: open it with read_only=False to change it")
        return core

    def _out_of_range(self, offset: int) -> NoReturn:
        raise out_of_range(offset, self._manifest().start_offset, self._view.committed.offset)
