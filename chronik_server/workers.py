"""Threads for what must not block the event loop, all of them there before there is work.

Place: under whatever runs a node. Promise: what is given to a pool is carried out, also when the
system has no thread left by then. Invariant: no call starts a thread: `ThreadPoolExecutor` does,
and where it can start none it raises and keeps the call all the same, for some later one to run
behind its caller's back.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from chronik_store.errors import UnavailableError


def workers(count: int, name: str) -> ThreadPoolExecutor:
    """So many threads. UnavailableError when the system has fewer for this process."""
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    all_are_there = threading.Event()
    try:
        for _ in range(count):
            pool.submit(all_are_there.wait)  # nobody is idle until then, so each starts one
    except RuntimeError as error:
        pool.shutdown(wait=False, cancel_futures=True)
        raise no_thread(error) from error
    finally:
        all_are_there.set()
    return pool


def no_thread(error: RuntimeError) -> UnavailableError:
    """What is said where one cannot be started."""
    return UnavailableError(
        f"this process gets no thread: {error}; let it have more of them (`ulimit -u`, the pids "
        "limit of its container)"
    )
