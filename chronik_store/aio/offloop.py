"""What a face does away from its event loop: opening, and calls that may touch a disk.

Place: the bottom of `aio`. Promise: at most `POOL_THREADS` calls of a face run at a time; the loop
never does. Invariant: cancelling gives up the wait only.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

from chronik_store import fork_guard
from chronik_store.errors import LogClosedError

T = TypeVar("T")
POOL_THREADS = 8


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


class Pool:
    """The bounded pool of one face."""

    def __init__(self) -> None:
        self._executor = concurrent.futures.ThreadPoolExecutor(
            POOL_THREADS, thread_name_prefix="chronik-aio"
        )
        self._closed = False
        self._fork_generation = fork_guard.generation()

    @property
    def alive(self) -> bool:
        """False once closed, and in a forked child, where there is nothing to close."""
        return not self._closed and self._fork_generation == fork_guard.generation()

    async def run(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call in a pool thread. Cancelling gives up the wait only. Raises LogClosedError."""
        fork_guard.check(self._fork_generation)  # a forked child has the pool without its threads
        if self._closed:
            raise LogClosedError("this log is closed; open it again")
        loop = asyncio.get_running_loop()
        call = functools.partial(function, *args, **options)
        return await loop.run_in_executor(self._executor, call)

    def close(self) -> None:
        """Let running calls end by themselves."""
        self._closed = True
        self._executor.shutdown(wait=False)
