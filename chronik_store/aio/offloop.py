"""What a face does away from its event loop: opening, and calls that may touch a disk.

Place: the bottom of `aio`. Promise: at most `POOL_THREADS` calls of a face run at a time, and as
many that may have to wait for the bucket; the loop never does. Invariant: cancelling gives up the
wait only; a bucket that is away keeps nobody waiting who needs the disk alone.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import threading
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from chronik_store import fork_guard
from chronik_store.errors import LogClosedError

logger = logging.getLogger("chronik_store.aio")

T = TypeVar("T")
C = TypeVar("C", bound="Closeable")
POOL_THREADS = 8


async def seen_through(work: asyncio.Future[T]) -> T:
    """The outcome of work that goes on when the wait for it is cancelled, and that others may wait
    for, too. Its error is theirs; when nobody is left to hear it, asyncio is not to complain.
    """
    work.add_done_callback(_heard)
    return await asyncio.shield(work)


def _heard(work: asyncio.Future[Any]) -> None:
    if not work.cancelled():
        work.exception()


class Closeable(Protocol):
    """What is behind a face."""

    def close(self) -> None: ...


class Opening(Generic[T]):
    """What `open` returns: await it, or use it in `async with`.

    opener: opens what the face is for, in a thread. Whoever is cancelled before it is open never
    gets it: then that thread closes it again. (Who else would? A directory would stay locked.)
    """

    def __init__(
        self,
        opener: Callable[[], C],
        face: Callable[[C], T],
        close: Callable[[T], Coroutine[Any, Any, None]],
    ) -> None:
        self._open = functools.partial(_open_face, opener, face)
        self._close = close
        self._opened: T | None = None

    async def _run(self) -> T:
        self._opened = await self._open()
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


async def _open_face(opener: Callable[[], C], face: Callable[[C], T]) -> T:
    handover = _Handover(opener)
    loop = asyncio.get_running_loop()
    try:
        # Cancelling must not lose what the thread hands over.
        opened = await seen_through(loop.run_in_executor(None, handover.open))
    except asyncio.CancelledError:
        left = handover.give_up()
        if left is not None:
            loop.run_in_executor(None, left.close)
        raise
    assert opened is not None, "nobody gave up"
    return face(opened)


class _Handover(Generic[C]):
    """One thread opens, another waits for it or gives up: who is left with what was opened?"""

    def __init__(self, opener: Callable[[], C]) -> None:
        self._opener = opener
        self._lock = threading.Lock()
        self._opened: C | None = None
        self._given_up = threading.Event()

    def open(self) -> C | None:
        """Open it; closed again, and None, if nobody waits for it any more."""
        if self._given_up.is_set():
            return None
        try:
            opened = self._opener()
        except Exception as error:
            if not self._given_up.is_set():
                raise
            logger.info("what nobody waits for any more could not be opened: %s", error)
            return None
        with self._lock:
            if not self._given_up.is_set():
                self._opened = opened
                return opened
        opened.close()
        return None

    def give_up(self) -> C | None:
        """Nobody waits any more. What is open already is the caller's to close."""
        with self._lock:
            self._given_up.set()
            return self._opened


class Pool:
    """The bounded pool of one face. Threads are started when they are first needed."""

    def __init__(self) -> None:
        executor = concurrent.futures.ThreadPoolExecutor
        self._near = executor(POOL_THREADS, thread_name_prefix="chronik-aio")
        self._far = executor(POOL_THREADS, thread_name_prefix="chronik-aio-bucket")
        self._ending: asyncio.Future[None] | None = None
        self._closed = False
        self._fork_generation = fork_guard.generation()

    @property
    def alive(self) -> bool:
        """False once closed, and in a forked child, where there is nothing to close."""
        return not self._closed and self._fork_generation == fork_guard.generation()

    async def run(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call in a pool thread. Cancelling gives up the wait only. Raises LogClosedError."""
        return await self._run(self._near, functools.partial(function, *args, **options))

    async def run_far(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """The same of what may have to wait for the bucket, which may be away."""
        return await self._run(self._far, functools.partial(function, *args, **options))

    async def _run(
        self, executor: concurrent.futures.ThreadPoolExecutor, call: Callable[[], T]
    ) -> T:
        fork_guard.check(self._fork_generation)  # a forked child has the pool without its threads
        if self._closed:
            raise LogClosedError("this log is closed; open it again")
        return await asyncio.get_running_loop().run_in_executor(executor, call)

    async def end(self, close: Callable[[], None]) -> None:
        """Call this, the last of all, and close. Whoever asks again while a thread is at it, since
        the wait was given up, waits for that one: what is behind the face may be opened anew then.
        """
        if self._ending is None or self._ending.done():
            self._ending = asyncio.ensure_future(self._end(close))
        await seen_through(self._ending)

    async def _end(self, close: Callable[[], None]) -> None:
        await self.run(close)
        self.close()

    def close(self) -> None:
        """Let running calls end by themselves."""
        self._closed = True
        self._near.shutdown(wait=False)
        self._far.shutdown(wait=False)
