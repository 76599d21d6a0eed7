"""How a server process runs: its loop, its signals, its end.

Place: under the verbs that serve; owner of uvloop. Promise: SIGTERM and SIGINT stop it gracefully,
a second one at once, without a word; the exit code says whether it ended as asked, also where the
system has no thread left; it may open as many files as whoever started it allows it to ask for.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from chronik_server.workers import workers
from chronik_store.cli import exits

logger = logging.getLogger("chronik_server.running")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOOP_THREADS = min(32, (os.cpu_count() or 1) + 4)
"""As many as asyncio has."""
SOME_FILES = 10_240
"""What is asked for where the system gives less than the limit says."""


def files_allowed() -> int:
    """How many files this process may open at a time, from now on as many as it may ask for: each
    connection is one, and a log that gets none for its next write has failed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, max(soft, SOME_FILES)):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            break
    found, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if found == resource.RLIM_INFINITY else found


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, int]]) -> int:
    """Run `main(stop)` on uvloop where it is installed; `stop` is set by a signal."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if importlib.util.find_spec("uvloop"):
        import uvloop

        factory = uvloop.new_event_loop
    code: int | None = None
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            code = runner.run(_with_signals(main))
    except RuntimeError as error:
        if code is None:
            raise
        # asyncio starts a thread to wait for the loop's; the end of the process does so as well.
        logger.warning("the loop's threads are not waited for: %s", error)
    return code


async def _with_signals(main: Callable[[asyncio.Event], Coroutine[Any, Any, int]]) -> int:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(workers(LOOP_THREADS, "chronik-loop"))
    stop = asyncio.Event()
    task = asyncio.ensure_future(main(stop))

    was_asked_twice = False

    def asked() -> None:
        nonlocal was_asked_twice
        if stop.is_set():
            was_asked_twice = True
            task.cancel()
        stop.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, asked)
    try:
        return await task
    except asyncio.CancelledError:
        if not was_asked_twice:
            raise
        return exits.INTERRUPTED
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
