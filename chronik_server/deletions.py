"""Deleted topics leave this node, in the background of everything else.

Place: under `hosting`. Promise: what waits for the bucket keeps a reconciliation waiting for a
second at most; who makes a topic of the same name waits for no tick when the bucket answers.
Invariant: one job at a time, for all of them: a bucket that is away takes one thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

from chronik_store import replicated
from chronik_store.errors import UnavailableError
from chronik_store.log_store import LogStore

WAIT_SECONDS = 1.0


class Deletions:
    """See the module. Belongs to the event loop; one task calls `carry_out`.

    run: a call in a worker, which is seen through when the node ends.
    """

    def __init__(self, store: LogStore, run: Callable[..., Awaitable[None]]) -> None:
        self._store = store
        self._run = run
        self._job: asyncio.Future[None] | None = None

    async def carry_out(self, topic_ids: Collection[str]) -> None:
        """Remove what this node has of these topics. Raises what stops it: UnavailableError while
        the bucket is waited for. Repeatable.
        """
        while left := [each for each in topic_ids if replicated.is_listed(self._store, each)]:
            if self._job is None:
                self._job = asyncio.ensure_future(
                    self._run(replicated.delete_topics_here, self._store, left)
                )
                self._job.add_done_callback(_is_seen)
            done, _ = await asyncio.wait((self._job,), timeout=WAIT_SECONDS)
            if not done:
                raise UnavailableError("what deleted topics have here waits for the bucket")
            job, self._job = self._job, None
            await job


def _is_seen(job: asyncio.Future[None]) -> None:
    """Its error is raised by the next `carry_out`; there is none when the node ends before."""
    if not job.cancelled():
        job.exception()
