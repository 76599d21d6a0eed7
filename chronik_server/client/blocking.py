"""The client for programs without asyncio: the same calls, blocking.

Place: over the asyncio faces, which do everything. Promise: same names, arguments, results, errors;
thread-safe. Invariant: one background thread with one event loop per client; it ends with `close`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from chronik_server.addresses import Address
from chronik_server.client.async_client import AsyncClient
from chronik_server.client.consumer import AsyncConsumer
from chronik_server.client.options import ClientOptions
from chronik_server.client.outgoing import OutgoingLane
from chronik_server.client.partition_lane import Consumed, Run
from chronik_server.client.producer import AsyncProducer, Placed
from chronik_server.client.routing import Lane
from chronik_store.batching import Appendable
from chronik_store.errors import ChronikError, ConfigError, LogClosedError
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import AppendResult, Record

P = ParamSpec("P")
T = TypeVar("T")
END_SECONDS = 0.5
"""So long after the client has hung up its calls have to end by themselves, and so long after that
their threads are told.
"""


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._gate = threading.Lock()
        self._closed = False
        self._owed: set[concurrent.futures.Future[Any]] = set()
        """What threads may wait for, in `result`, until the loop has told them."""
        self._thread = threading.Thread(target=self._live, name="chronik-client", daemon=True)
        self._thread.start()

    def _live(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            for future in list(self._owed):  # nobody else tells them now
                with contextlib.suppress(concurrent.futures.InvalidStateError):
                    future.set_exception(_closed_before("its outcome was known"))
            self._loop.close()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run to its end; Ctrl-C gives up the wait and cancels the call. LogClosedError after, and
        from, `stop`. ConfigError in the loop's own thread, which cannot wait for itself.
        """
        if threading.current_thread() is self._thread:
            call.close()
            raise ConfigError(
                "a callback of this client's futures runs in the client's own thread, which would "
                "wait for itself: hand the call to another thread",
                durability="not_durable",
            )
        future = self.start(call)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            if not self._closed:
                raise
            raise _closed_before("the answer came") from None
        except BaseException:
            future.cancel()
            raise

    def end(self, call: Coroutine[Any, Any, None]) -> None:
        """Run what closes something, unless the client is closed, and that with it."""
        try:
            self.run(call)
        except LogClosedError:
            if not self._closed:
                raise

    def start(self, call: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start it; calls start in the order in which they were made. LogClosedError."""
        with self._gate:  # what is started before `stop` finds the loop alive
            # Where the interpreter ends its thread stands still, whatever `is_alive` says.
            if self._closed or not self._thread.is_alive() or sys.is_finalizing():
                call.close()
                raise LogClosedError(
                    "this client is closed; make another", durability="not_durable"
                )
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
            self.owe(future)
            return future

    def owe(self, future: concurrent.futures.Future[Any]) -> None:
        """The loop tells somebody this; it does not end before, or it tells them that."""
        self._owed.add(future)
        future.add_done_callback(self._owed.discard)

    def stop(self) -> None:
        """End every call, then the thread. Idempotent."""
        with self._gate:
            if not self._closed and self._thread.is_alive():
                asyncio.run_coroutine_threadsafe(self._end(), self._loop)
            self._closed = True
        self._thread.join()

    async def _end(self) -> None:
        """Nothing can be asked any more, so calls end by themselves, with an error of their own;
        who only sleeps is cancelled.
        """
        try:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                _, late = await asyncio.wait(others, timeout=END_SECONDS)
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)
            # Who ended in this very turn is told so in one of the next: a loop that stops before
            # leaves a thread that waits for ever.
            end = self._loop.time() + END_SECONDS
            while self._owed and self._loop.time() < end:  # noqa: ASYNC110 (each turn tells some)
                await asyncio.sleep(0)
        finally:
            self._loop.stop()


def _closed_before(event: str) -> LogClosedError:
    return LogClosedError(f"this client was closed before {event}", durability="unknown")


def _twin(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Client, P], T]:
    """The blocking twin of a method: same arguments, same result."""

    def call(self: Client, /, *arguments: P.args, **options: P.kwargs) -> T:
        return self._loop.run(method(self._client, *arguments, **options))

    functools.update_wrapper(call, method)  # its signature, for help() and for editors
    call.__module__ = __name__
    call.__qualname__ = f"Client.{method.__name__}"
    call.__doc__ = f"As `AsyncClient.{method.__name__}`."
    return call


class Client:
    """`AsyncClient`, blocking: the same calls, results and errors. Thread-safe. A context manager.

    One background thread, which `close` ends; not for use after fork. Callbacks of its futures run
    in that thread: calls from there are ConfigError.
    """

    def __init__(
        self,
        servers: str | Sequence[str | Address],
        *,
        options: ClientOptions = ClientOptions(),  # noqa: B008 (frozen)
    ) -> None:
        self._loop = _Loop()
        try:
            self._client = self._loop.run(self._make(servers, options))
        except BaseException:
            self._loop.stop()
            raise

    @staticmethod
    async def _make(servers: str | Sequence[str | Address], options: ClientOptions) -> AsyncClient:
        return AsyncClient(servers, options=options)

    create_topic = _twin(AsyncClient.create_topic)
    delete_topic = _twin(AsyncClient.delete_topic)
    topics = _twin(AsyncClient.topics)
    describe_topic = _twin(AsyncClient.describe_topic)
    append = _twin(AsyncClient.append)
    read = _twin(AsyncClient.read)
    watermarks = _twin(AsyncClient.watermarks)
    staleness_seconds = _twin(AsyncClient.staleness_seconds)
    offset_for_timestamp = _twin(AsyncClient.offset_for_timestamp)
    search = _twin(AsyncClient.search)
    cursor_offset = _twin(AsyncClient.cursor_offset)
    commit_cursor = _twin(AsyncClient.commit_cursor)
    delete_cursor = _twin(AsyncClient.delete_cursor)
    seal = _twin(AsyncClient.seal)
    drop_before = _twin(AsyncClient.drop_before)
    run_pipeline_once = _twin(AsyncClient.run_pipeline_once)
    find_bundles = _twin(AsyncClient.find_bundles)
    rebuild_bundles = _twin(AsyncClient.rebuild_bundles)
    status = _twin(AsyncClient.status)
    cluster = _twin(AsyncClient.cluster)
    add_node = _twin(AsyncClient.add_node)
    remove_node = _twin(AsyncClient.remove_node)
    transfer_leader = _twin(AsyncClient.transfer_leader)
    ping = _twin(AsyncClient.ping)
    _producer = _twin(AsyncClient.producer)
    _consumer = _twin(AsyncClient.consumer)

    def producer(self, topic: str, **options: Any) -> Producer:
        """As `AsyncClient.producer`."""
        return Producer(self._loop, self._producer(topic, **options))

    def appender(self, topic: str, *, partition: int = 0) -> Appender:
        """Batches for one partition, in order, several in flight."""
        return Appender(self._loop, self._client, (topic, partition))

    def consumer(self, topic: str, **options: Any) -> Consumer:
        """As `AsyncClient.consumer`."""
        return Consumer(self._loop, self._consumer(topic, **options))

    def on_wait(self, told: Callable[[ChronikError, float], None]) -> None:
        """Have somebody told whenever something is about to be asked again: why, and for how many
        seconds that has gone on. In the client's own thread.
        """
        self._client.router.on_wait = told

    def close(self) -> None:
        """See appends through, hang up, end the thread. Idempotent.

        Calls of other threads that are not appends end with LogClosedError.
        """
        try:
            self._loop.run(self._client.close())
        except LogClosedError:
            return
        self._loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Producer:
    """`AsyncProducer`, blocking. Thread-safe. A context manager that flushes."""

    def __init__(self, loop: _Loop, producer: AsyncProducer) -> None:
        self._loop = loop
        self._producer = producer

    def append(
        self, value: bytes | Record, key: bytes | None = None, *, partition: int | None = None
    ) -> concurrent.futures.Future[Placed]:
        """Queue one record; the future gets its place. Blocks while the buffer is full."""
        placed: concurrent.futures.Future[Placed] = concurrent.futures.Future()
        placed.set_running_or_notify_cancel()
        self._loop.run(self._queue(placed, value, key, partition))
        return placed

    async def _queue(
        self,
        placed: concurrent.futures.Future[Placed],
        value: bytes | Record,
        key: bytes | None,
        partition: int | None,
    ) -> None:
        future = await self._producer.enqueue(value, key, partition=partition)

        def done(future: asyncio.Future[Placed]) -> None:
            error = future.exception()
            if error is not None:
                placed.set_exception(error)
            else:
                placed.set_result(future.result())

        self._loop.owe(placed)
        future.add_done_callback(done)

    def flush(self) -> None:
        """Return when everything given so far has its outcome."""
        self._loop.run(self._producer.flush())

    def close(self) -> None:
        """Flush, then take nothing more. Idempotent, also after the client was closed."""
        self._loop.end(self._producer.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Appender:
    """Batches of one partition in the order of the calls, several in flight. Thread-safe."""

    def __init__(self, loop: _Loop, client: AsyncClient, lane: Lane) -> None:
        self._loop = loop
        self._client = client
        self._sender = loop.run(self._make(client, lane))

    @staticmethod
    async def _make(client: AsyncClient, lane: Lane) -> OutgoingLane:
        return client.outgoing_lane(lane)

    def append_nowait(self, records: Appendable) -> concurrent.futures.Future[AppendResult]:
        """Queue one batch; the future gets where it is. RecordTooLargeError, ValueError."""
        batch = self._client.batching.batch(records)
        if batch is None:
            raise ValueError("a batch holds at least one record")
        if batch.producer_id:
            raise ValueError(
                "this batch has a producer of its own, and an appender numbers its batches: give "
                "it to Client.append"
            )

        async def submit(batch: RecordBatch) -> AppendResult:
            # Who cancels the wait takes nothing back: the batch is seen through all the same.
            return await asyncio.shield(self._sender.submit(batch))

        return self._loop.start(submit(batch))


class Consumer:
    """`AsyncConsumer`, blocking: iterate it. For one thread at a time. A context manager."""

    def __init__(self, loop: _Loop, consumer: AsyncConsumer) -> None:
        self._loop = loop
        self._consumer = consumer

    def __iter__(self) -> Iterator[Consumed]:
        while (taken := self._loop.run(self._consumer.take())) is not None:
            for piece in taken.each():
                yield from piece

    def runs(self) -> Iterator[Run]:
        """As `AsyncConsumer.runs`."""
        while (taken := self._loop.run(self._consumer.take())) is not None:
            yield from taken.runs()

    def positions(self) -> dict[int, int]:
        """As `AsyncConsumer.positions`."""
        return self._consumer.positions()

    def seek(self, partition: int, offset: int) -> None:
        """As `AsyncConsumer.seek`."""
        self._loop.run(self._consumer.seek(partition, offset))

    def commit(self) -> None:
        """As `AsyncConsumer.commit`."""
        self._loop.run(self._consumer.commit())

    def close(self) -> None:
        """As `AsyncConsumer.close`."""
        self._loop.end(self._consumer.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
