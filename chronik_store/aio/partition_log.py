"""`PartitionLog` for asyncio.

Place: over `partition_log`, with `appends` for the way in. Promise and invariant: see the room.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from chronik_store.aio.appends import LoopAppends
from chronik_store.aio.cursor import AsyncCursor
from chronik_store.aio.offloop import Opening, Pool, seen_through
from chronik_store.arguments import check_offset, check_seconds
from chronik_store.batching import Appendable
from chronik_store.config import LogConfig
from chronik_store.errors import LogClosedError, OffsetConflictError
from chronik_store.format.record_batch import StoredBatch
from chronik_store.log_core import LogCore
from chronik_store.model import (
    AppendResult,
    FetchResult,
    LogStatus,
    PipelineReport,
    Progress,
    RecoveryReport,
    SearchResult,
    StoredRecord,
    VerifyReport,
    Watermarks,
)
from chronik_store.partition_log import PartitionLog
from chronik_store.read_chain import EntryRun

T = TypeVar("T")
SCAN_RECORDS = 1000
LOOK_SECONDS = 0.25
CONFLICT_SECONDS = 30.0
"""How long an append waits for what it lost against: until it can be read, or for this long."""


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    # Called by whoever commits: a loop that closes now keeps nobody else from being told.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(event.set)


class AsyncPartitionLog:
    """`PartitionLog` for asyncio. Use it from the loop that opened it."""

    def __init__(self, log: PartitionLog, pool: Pool | None = None) -> None:
        self._log = log
        self._owns_pool = pool is None
        self._pool = Pool() if pool is None else pool
        self._appends: LoopAppends | None = None
        self._beginning: asyncio.Future[None] | None = None
        self._moved: asyncio.Event | None = None
        self._looking: asyncio.Future[bool] | None = None

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
    ) -> Opening[AsyncPartitionLog]:
        """As `PartitionLog.open`; await it or use `async with`."""

        def opener() -> PartitionLog:
            return PartitionLog.open(
                path,
                topic=topic,
                partition=partition,
                object_store=object_store,
                config=config,
                read_only=read_only,
            )

        return Opening(opener, cls, cls.close)

    async def append(
        self, records: Appendable, *, expected_offset: int | None = None
    ) -> AppendResult:
        """As `PartitionLog.append`; waits while the queue is full.

        Small appends of one turn of the loop share a batch: each is still whole and contiguous,
        in the order of the calls.
        """
        self._log._writable()
        appends = self._appends
        if appends is not None and expected_offset is None and type(records) is bytes:
            future = appends.gather(records)
            if future is not None:
                return await future
        try:
            return await (await self.enqueue(records, expected_offset=expected_offset))
        except OffsetConflictError as error:  # as in a thread: what it lost against can be read
            await self.wait_offset(error.end_offset - 1, CONFLICT_SECONDS)
            raise

    async def enqueue(
        self, records: Appendable, *, expected_offset: int | None = None
    ) -> asyncio.Future[AppendResult]:
        """As `append`, but returns once the records have their place in the queue. Whoever calls
        it again only then has them appended in the order of the calls.
        """
        log = self._log
        core = log._writable()
        appends = self._appends
        if appends is None:
            appends = await self._begin(core)
        return await appends.enqueue(records, expected_offset)

    async def _begin(self, core: LogCore) -> LoopAppends:
        """The first append makes a file: away from the loop, and once. Those who come meanwhile
        wait for the same future, which lets them go on in the order of their calls.
        """
        beginning = self._beginning
        if beginning is None or beginning.done():  # all who waited for that one were cancelled
            beginning = self._beginning = asyncio.ensure_future(self._pool.run(core.appends.begin))
        try:
            await seen_through(beginning)
        finally:
            if beginning.done() and self._beginning is beginning:
                self._beginning = None
        if self._appends is None:
            self._appends = LoopAppends(core, asyncio.get_running_loop())
        return self._appends

    async def drain(self) -> None:
        """Return when nothing waits here for its place in the log's own queue."""
        if self._beginning is not None:  # who waits for the file gets a place when it is there
            await asyncio.wait([self._beginning])
        if self._appends is not None:
            await self._appends.drain()

    async def read(
        self,
        offset: int,
        *,
        max_records: int = 1000,
        max_bytes: int = 1 << 20,
        wait_seconds: float = 0.0,
    ) -> FetchResult:
        """As `PartitionLog.read`. Records in the memory tail are answered without a thread."""
        if wait_seconds:
            check_seconds(wait_seconds, "wait_seconds")
        found = await self._read(offset, max_records, max_bytes)
        if wait_seconds and not found.records:  # at the end: past it was refused just now
            await self.wait_offset(offset, wait_seconds)
            found = await self._read(offset, max_records, max_bytes)
        return found

    async def _read(self, offset: int, max_records: int, max_bytes: int) -> FetchResult:
        log = self._log
        if log._is_hot(offset):
            return log.read(offset, max_records=max_records, max_bytes=max_bytes)
        read = functools.partial(log.read, max_records=max_records, max_bytes=max_bytes)
        return await self._at(offset, read, offset)

    async def _at(self, offset: object, read: Callable[..., T], *args: Any) -> T:
        """Read there, in a thread. From where the WAL begins only damage asks the bucket."""
        core = self._log._core
        is_near = core is not None and type(offset) is int and offset >= core.wal.base.offset
        return await (self._pool.run if is_near else self._pool.run_far)(read, *args)

    async def read_entries(self, offset: int, *, max_bytes: int = 1 << 20) -> EntryRun:
        """As `PartitionLog.read_entries`. Entries in the memory tail need no thread."""
        log = self._log
        if log._is_hot(offset):
            return log.read_entries(offset, max_bytes=max_bytes)
        read = functools.partial(log.read_entries, max_bytes=max_bytes)
        return await self._at(offset, read, offset)

    async def wait_offset(self, offset: int, wait_seconds: float) -> None:
        """Return when a record at `offset` is committed, the time is up, or nothing comes any
        more: the log is closed, or has ended. Who asks again then waits in full, as in a thread.
        """
        log, loop = self._log, asyncio.get_running_loop()
        core = log._core
        if core is None or core.read_only:
            await self._look_for(offset, loop.time() + wait_seconds)
            return
        if self._moved is None:
            moved = self._moved = asyncio.Event()
            core.watch.add_listener(functools.partial(_wake, loop, moved))
        deadline, was = loop.time() + wait_seconds, core.wal.poisoned
        while (left := deadline - loop.time()) > 0:
            self._moved.clear()
            if core.committed.offset > offset or core.closed or core.wal.poisoned is not was:
                return
            try:
                async with asyncio.timeout(left):
                    await self._moved.wait()
            except TimeoutError:
                return

    async def _look_for(self, offset: int, deadline: float) -> None:
        """`wait_offset` beside a writer: one thread looks for all who wait, for moments, and only
        as long as somebody does. Each in a thread of their own would keep it from all other calls.
        """
        view, loop = self._log._view, asyncio.get_running_loop()
        while view.committed.offset <= offset and (left := deadline - loop.time()) > 0:
            looking = self._looking
            if looking is None or looking.done():
                look = self._pool.run_far(view.wait_offset, view.committed.offset, LOOK_SECONDS)
                looking = self._looking = asyncio.ensure_future(look)
            try:
                async with asyncio.timeout(left):
                    await seen_through(looking)
                view.check_open()
            except (TimeoutError, LogClosedError):
                return

    async def read_batches(
        self, offset: int, *, max_bytes: int = 1 << 20
    ) -> AsyncIterator[StoredBatch]:
        """As `PartitionLog.read_batches`."""
        begin = functools.partial(self._log.read_batches, max_bytes=max_bytes)
        batches = await self._at(offset, begin, offset)
        while (batch := await self._at(offset, next, batches, None)) is not None:
            yield batch

    async def scan(
        self, start: int | None = None, stop: int | None = None, *, follow: bool = False
    ) -> AsyncIterator[StoredRecord]:
        """As `PartitionLog.scan`."""
        log = self._log
        log._view.check_open()
        if start is None and (log._core is None or log._core.read_only):
            await self._pool.run_far(log._view.refresh)  # another process may have moved it
        offset = log._manifest().start_offset if start is None else start
        check_offset(offset, "start")
        if stop is not None:
            check_offset(stop, "stop")
        while stop is None or offset < stop:
            wait_seconds = 1.0 if follow else 0.0
            count = SCAN_RECORDS if stop is None else min(SCAN_RECORDS, stop - offset)
            found = await self.read(offset, max_records=count, wait_seconds=wait_seconds)
            for record in found.records:
                yield record
            if not found.records:
                if not follow:
                    return
                log._check_goes_on()
            offset = found.next_offset
            # What is in memory is answered at once: without this the loop, its timeouts and who
            # cancels would wait for all of it, and as long as a thread appends faster than that.
            await asyncio.sleep(0)

    async def search(self, query: str, **options: Any) -> SearchResult:
        """As `PartitionLog.search`."""
        return await self._pool.run_far(self._log.search, query, **options)

    async def offset_for_timestamp(self, time: dt.datetime | int) -> int | None:
        """As `PartitionLog.offset_for_timestamp`."""
        return await self._pool.run_far(self._log.offset_for_timestamp, time)

    def cursor(self, name: str) -> AsyncCursor:
        """As `PartitionLog.cursor`."""
        return AsyncCursor(self, self._log.cursor(name), self._pool)

    async def drop_before(self, offset: int) -> None:
        """As `PartitionLog.drop_before`."""
        await self._pool.run(self._log.drop_before, offset)

    async def seal(self) -> int:
        """As `PartitionLog.seal`."""
        return await self._pool.run(self._log.seal)

    async def run_pipeline_once(self) -> PipelineReport:
        """As `PartitionLog.run_pipeline_once`."""
        return await self._pool.run_far(self._log.run_pipeline_once)

    async def verify(
        self, *, bucket: bool = False, deep: bool = False, progress: Progress | None = None
    ) -> VerifyReport:
        """As `PartitionLog.verify`; `progress` is called in the thread that looks."""
        return await self._pool.run_far(
            self._log.verify, bucket=bucket, deep=deep, progress=progress
        )

    @property
    def topic_id(self) -> str:
        """As `PartitionLog.topic_id`."""
        return self._log.topic_id

    @property
    def watermarks(self) -> Watermarks:
        """As `PartitionLog.watermarks`: of what another process writes a look at its disk, or a
        request to the bucket, for which the event loop waits; `status` has them off the loop.
        """
        return self._log.watermarks

    @property
    def recovery(self) -> RecoveryReport:
        """As `PartitionLog.recovery`."""
        return self._log.recovery

    async def status(self) -> LogStatus:
        """As `PartitionLog.status`."""
        return await self._pool.run(self._log.status)

    async def close(self) -> None:
        """Acknowledge what is in flight, then release everything. Idempotent."""
        if not self._pool.alive:
            return
        await self.drain()
        if self._owns_pool:
            await self._pool.end(self._log.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
