"""Logs that are about to run here are opened a few at a time.

Place: under `hosting`, which lets them run one after the other. Promise: to open one is mostly to
wait for the disk, and for turns of the interpreter, so a few are opened side by side. Invariant:
what is opened ahead is not made, and does not run: what is not here, or cannot be opened, is found
by whoever comes to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Sequence

from chronik_server.metadata import Metadata, Topic
from chronik_store import replicated
from chronik_store.errors import ChronikError
from chronik_store.log_store import LogStore

AT_ONCE = 4
"""Fewer than there are threads: others want some, too."""

Lane = tuple[str, int]


class OpenedAhead:
    """See the module. Belongs to the event loop; one task calls it.

    run: a call in a worker, which is seen through when the node ends.
    """

    def __init__(self, store: LogStore, run: Callable[..., Awaitable[None]]) -> None:
        self._store = store
        self._run = run
        self._jobs: dict[Lane, asyncio.Future[None]] = {}

    async def each(
        self, state: Metadata, lanes: Sequence[Lane], but: Container[Lane]
    ) -> AsyncIterator[Lane]:
        """Each of these in turn, when its log has been opened if that can be done.

        but: those that are open, and those that could not be opened.
        """
        for number, lane in enumerate(lanes):
            for other in lanes[number : number + AT_ONCE]:
                topic = state.topics.get(other[0])
                if topic is not None and other not in self._jobs and other not in but:
                    self._jobs[other] = asyncio.ensure_future(self._open(topic, other[1]))
            if lane in self._jobs:
                await self._jobs.pop(lane)
            yield lane

    async def _open(self, topic: Topic, partition: int) -> None:
        with contextlib.suppress(ChronikError):  # it is asked for once more
            await self._run(_open_if_here, self._store, topic, partition)


def _open_if_here(store: LogStore, topic: Topic, partition: int) -> None:
    name, topic_id = topic.name, topic.topic_id
    if (
        partition < topic.partitions
        and replicated.is_listed(store, topic_id)
        and replicated.has_partition(store, name, partition)
    ):
        replicated.open_partition(store, name, topic_id, topic.log_ids[partition], partition)
