"""How a server process runs: its loop, its signals, its end.

Place: under the verbs that serve; owner of uvloop. Promise: SIGTERM and SIGINT stop it gracefully,
a second one at once, without a word; the exit code says whether it ended as asked.
"""

from __future__ import annotations

import asyncio
import importlib.util
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from chronik_store.cli import exits

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, int]]) -> int:
    """Run `main(stop)` on uvloop where it is installed; `stop` is set by a signal."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if importlib.util.find_spec("uvloop"):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_with_signals(main))


async def _with_signals(main: Callable[[asyncio.Event], Coroutine[Any, Any, int]]) -> int:
    loop = asyncio.get_running_loop()
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
