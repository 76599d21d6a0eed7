"""The asyncio face: the same names, arguments, results and errors, awaited.

Place: over `partition_log` and `log_store`; the only module of the library that imports asyncio.
Promise: an append never blocks the event loop, and the loop is woken once per group that reached
the disk, not once per record. Reads of the hot tail answer inline; whatever may touch a disk or a
bucket runs in a bounded pool of this face's own. Invariant: cancelling an `await` cancels the
wait, never the write: its outcome is then unknown to the caller, and the log goes on.

One face belongs to one event loop. It adds no semantics: everything is decided by the
synchronous core.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime as dt
import functools
import os
from collections.abc import AsyncIterator, Callable, Generator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from chronik_store.append_outcome import PendingAppend
from chronik_store.batching import Appendable
from chronik_store.config import LogConfig
from chronik_store.cursor import Cursor
from chronik_store.errors import BackpressureError
from chronik_store.format.record_batch import StoredBatch
from chronik_store.log_store import LogStore
from chronik_store.model import (
    AppendResult,
    FetchResult,
    LogStatus,
    PipelineReport,
    RecoveryReport,
    SearchResult,
    StoredRecord,
    StoreStatus,
    TopicInfo,
    VerifyReport,
    Watermarks,
)
from chronik_store.partition_log import PartitionLog
from chronik_store.read_chain import EntryRun

__all__ = ["AsyncCursor", "AsyncLogStore", "AsyncPartitionLog"]

T = TypeVar("T")
POOL_THREADS = 8
SCAN_RECORDS = 1000


class Opening(Generic[T]):
    """What `open` returns: await it, or use it in `async with`."""

    def __init__(self, opener: Callable[[], T], close: Callable[[T], Any]) -> None:
        self._opener = opener
        self._close = close
        self._opened: T | None = None

    async def _run(self) -> T:
        self._opened = await asyncio.get_running_loop().run_in_executor(None, self._opener)
        return self._opened

    def __await__(self) -> Generator[Any, None, T]:
        return self._run().__await__()

    async def __aenter__(self) -> T:
        return await self._run()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._opened is not None:
            await self._close(self._opened)


class _LoopSink:
    """Carries outcomes from the committing thread into the loop, one wake-up per group."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._outcomes: list[list[PendingAppend]] = []
        self._armed = False
        self.room = asyncio.Event()

    def deliver(self, outcomes: list[PendingAppend]) -> None:
        """Called by the committing thread."""
        self._outcomes.append(outcomes)
        if not self._armed:
            self._armed = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                self._outcomes.clear()  # the loop is closed: nobody waits any more

    def _drain(self) -> None:
        # Disarm first: an outcome that arrives from here on arms the next wake-up.
        self._armed = False
        batches, self._outcomes = self._outcomes, []
        for batch in batches:
            for pending in batch:
                future: asyncio.Future[AppendResult] = pending.token  # type: ignore[assignment]
                if future.done():
                    continue  # its waiter was cancelled; the write was not
                if pending.error is not None:
                    future.set_exception(pending.error)
                else:
                    future.set_result(pending.result)  # type: ignore[arg-type]
        self.room.set()


class _Pool:
    """The bounded pool of one face."""

    def __init__(self) -> None:
        self._executor = concurrent.futures.ThreadPoolExecutor(
            POOL_THREADS, thread_name_prefix="chronik-aio"
        )

    async def run(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call in a pool thread. Cancelling gives up the wait only."""
        loop = asyncio.get_running_loop()
        call = functools.partial(function, *args, **options)
        return await loop.run_in_executor(self._executor, call)

    def close(self) -> None:
        """Let running calls end by themselves."""
        self._executor.shutdown(wait=False)


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(event.set)


class AsyncPartitionLog:
    """`PartitionLog` for asyncio. Use it from the loop that opened it."""

    def __init__(self, log: PartitionLog, pool: _Pool | None = None) -> None:
        self._log = log
        self._owns_pool = pool is None
        self._pool = _Pool() if pool is None else pool
        self._sink: _LoopSink | None = None
        self._moved: asyncio.Event | None = None

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

        def opener() -> AsyncPartitionLog:
            return cls(
                PartitionLog.open(
                    path,
                    topic=topic,
                    partition=partition,
                    object_store=object_store,
                    config=config,
                    read_only=read_only,
                )
            )

        return Opening(opener, lambda log: log.close())

    async def append(
        self, records: Appendable, *, expected_offset: int | None = None
    ) -> AppendResult:
        """As `PartitionLog.append`; waits while the queue is full."""
        return await (await self.enqueue(records, expected_offset=expected_offset))

    async def enqueue(
        self, records: Appendable, *, expected_offset: int | None = None
    ) -> asyncio.Future[AppendResult]:
        """As `append`, but returns once the records have their place in the queue. Whoever calls
        it again only then has them appended in the order of the calls.
        """
        log = self._log
        core = log._writable()
        batch = core.batching.batch(records)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[AppendResult] = loop.create_future()
        if batch is None:
            future.set_result(log._empty_append())
            return future
        if self._sink is None:
            await self._pool.run(core.begin)  # the first append makes a file: not on the loop
        sink = self._sink
        if sink is None:  # asked again: another task may have come first meanwhile
            sink = self._sink = _LoopSink(loop)
        while True:
            try:
                core.appends.append_nowait(batch, expected_offset, sink, future)
                return future
            except BackpressureError:
                sink.room.clear()
                await sink.room.wait()

    async def read(
        self,
        offset: int,
        *,
        max_records: int = 1000,
        max_bytes: int = 1 << 20,
        wait_seconds: float = 0.0,
    ) -> FetchResult:
        """As `PartitionLog.read`. Records in the memory tail are answered without a thread."""
        log = self._log
        if wait_seconds > 0 and type(offset) is int:
            await self.wait_offset(offset, wait_seconds)
        if log._is_hot(offset):
            return log.read(offset, max_records=max_records, max_bytes=max_bytes)
        return await self._pool.run(log.read, offset, max_records=max_records, max_bytes=max_bytes)

    async def read_entries(self, offset: int, *, max_bytes: int = 1 << 20) -> EntryRun:
        """As `PartitionLog.read_entries`. Entries in the memory tail need no thread."""
        log = self._log
        if log._is_hot(offset):
            return log.read_entries(offset, max_bytes=max_bytes)
        return await self._pool.run(log.read_entries, offset, max_bytes=max_bytes)

    async def wait_offset(self, offset: int, wait_seconds: float) -> None:
        """Return when a record at `offset` is committed, or the time is up."""
        log = self._log
        if log._core is None or log._core.read_only:
            await self._pool.run(log._view.wait_offset, offset, wait_seconds)
            return
        core, loop = log._core, asyncio.get_running_loop()
        if self._moved is None:
            moved = self._moved = asyncio.Event()
            core.watch.add_listener(functools.partial(_wake, loop, moved))
        deadline = loop.time() + wait_seconds
        while core.committed.offset <= offset and (left := deadline - loop.time()) > 0:
            self._moved.clear()
            if core.committed.offset > offset:
                return
            try:
                async with asyncio.timeout(left):
                    await self._moved.wait()
            except TimeoutError:
                return

    async def read_batches(
        self, offset: int, *, max_bytes: int = 1 << 20
    ) -> AsyncIterator[StoredBatch]:
        """As `PartitionLog.read_batches`."""
        batches = await self._pool.run(self._log.read_batches, offset, max_bytes=max_bytes)
        while (batch := await self._pool.run(next, batches, None)) is not None:
            yield batch

    async def scan(
        self, start: int | None = None, stop: int | None = None, *, follow: bool = False
    ) -> AsyncIterator[StoredRecord]:
        """As `PartitionLog.scan`."""
        log = self._log
        offset = log._manifest().start_offset if start is None else start
        while stop is None or offset < stop:
            wait_seconds = 1.0 if follow else 0.0
            count = SCAN_RECORDS if stop is None else min(SCAN_RECORDS, stop - offset)
            found = await self.read(offset, max_records=count, wait_seconds=wait_seconds)
            for record in found.records:
                yield record
            if not found.records and not follow:
                return
            offset = found.next_offset

    async def search(self, query: str, **options: Any) -> SearchResult:
        """As `PartitionLog.search`."""
        return await self._pool.run(self._log.search, query, **options)

    async def offset_for_timestamp(self, time: dt.datetime | int) -> int | None:
        """As `PartitionLog.offset_for_timestamp`."""
        return await self._pool.run(self._log.offset_for_timestamp, time)

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
        return await self._pool.run(self._log.run_pipeline_once)

    async def verify(self, *, bucket: bool = False, deep: bool = False) -> VerifyReport:
        """As `PartitionLog.verify`."""
        return await self._pool.run(self._log.verify, bucket=bucket, deep=deep)

    @property
    def watermarks(self) -> Watermarks:
        """As `PartitionLog.watermarks`."""
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
        if self._owns_pool:
            await self._pool.run(self._log.close)
            self._pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class AsyncCursor:
    """`Cursor` for asyncio."""

    def __init__(self, log: AsyncPartitionLog, cursor: Cursor, pool: _Pool) -> None:
        self._log = log
        self._cursor = cursor
        self._pool = pool
        self.name = cursor.name

    @property
    def committed_offset(self) -> int | None:
        """As `Cursor.committed_offset`."""
        return self._cursor.committed_offset

    @property
    def offset(self) -> int:
        """As `Cursor.offset`."""
        return self._cursor.offset

    def records(self, *, follow: bool = False) -> AsyncIterator[StoredRecord]:
        """As `Cursor.records`."""
        return self._log.scan(self.offset, follow=follow)

    def batches(self, *, max_bytes: int = 1 << 20) -> AsyncIterator[StoredBatch]:
        """As `Cursor.batches`."""
        return self._log.read_batches(self.offset, max_bytes=max_bytes)

    async def commit(self, next_offset: int, *, reset: bool = False) -> None:
        """As `Cursor.commit`."""
        await self._pool.run(self._cursor.commit, next_offset, reset=reset)

    async def delete(self) -> None:
        """As `Cursor.delete`."""
        await self._pool.run(self._cursor.delete)


class AsyncLogStore:
    """`LogStore` for asyncio. Use it from the loop that opened it."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._pool = _Pool()
        self._faces: dict[int, AsyncPartitionLog] = {}

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        object_store: str | None = None,
        config: LogConfig = LogConfig(),  # noqa: B008 (frozen)
        read_only: bool = False,
    ) -> Opening[AsyncLogStore]:
        """As `LogStore.open`; await it or use `async with`."""

        def opener() -> AsyncLogStore:
            return cls(
                LogStore.open(path, object_store=object_store, config=config, read_only=read_only)
            )

        return Opening(opener, lambda store: store.close())

    async def create_topic(
        self, name: str, *, partitions: int = 1, exist_ok: bool = False
    ) -> TopicInfo:
        """As `LogStore.create_topic`."""
        return await self._pool.run(
            self._store.create_topic, name, partitions=partitions, exist_ok=exist_ok
        )

    async def delete_topic(self, name: str) -> None:
        """As `LogStore.delete_topic`."""
        await self._pool.run(self._store.delete_topic, name)

    async def topics(self) -> tuple[TopicInfo, ...]:
        """As `LogStore.topics`."""
        return await self._pool.run(self._store.topics)

    async def partition(self, topic: str, partition: int = 0) -> AsyncPartitionLog:
        """As `LogStore.partition`: the same face every time for the same log."""
        log = await self._pool.run(self._store.partition, topic, partition)
        return self._faces.setdefault(id(log), AsyncPartitionLog(log, self._pool))

    async def search(self, topic: str, query: str, **options: Any) -> SearchResult:
        """As `LogStore.search`."""
        return await self._pool.run(self._store.search, topic, query, **options)

    async def run_pipeline_once(self) -> PipelineReport:
        """As `LogStore.run_pipeline_once`."""
        return await self._pool.run(self._store.run_pipeline_once)

    async def status(self) -> StoreStatus:
        """As `LogStore.status`."""
        return await self._pool.run(self._store.status)

    async def close(self) -> None:
        """As `LogStore.close`."""
        await self._pool.run(self._store.close)
        self._pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
