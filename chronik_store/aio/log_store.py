"""`LogStore` for asyncio.

Place: the top of `aio`. Promise: one face per partition; all share one pool. Invariant: closing it
acknowledges what is queued in any of its faces first.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Self

from chronik_store.aio.offloop import Opening, Pool
from chronik_store.aio.partition_log import AsyncPartitionLog
from chronik_store.config import LogConfig
from chronik_store.log_store import LogStore
from chronik_store.model import PipelineReport, SearchResult, StoreStatus, TopicInfo
from chronik_store.partition_log import PartitionLog

FACES_MIN = 64
"""So many faces are kept before anybody looks whether their logs are still open."""


class AsyncLogStore:
    """`LogStore` for asyncio. Use it from the loop that opened it."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._pool = Pool()
        self._faces: dict[tuple[str, int], AsyncPartitionLog] = {}
        self._faces_max = FACES_MIN

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

        def opener() -> LogStore:
            return LogStore.open(
                path, object_store=object_store, config=config, read_only=read_only
            )

        return Opening(opener, cls, cls.close)

    async def create_topic(
        self, name: str, *, partitions: int = 1, exist_ok: bool = False
    ) -> TopicInfo:
        """As `LogStore.create_topic`."""
        return await self._pool.run(
            self._store.create_topic, name, partitions=partitions, exist_ok=exist_ok
        )

    async def delete_topic(self, name: str) -> None:
        """As `LogStore.delete_topic`."""
        await self._pool.run_far(self._store.delete_topic, name)
        self._drop_closed()

    async def topics(self) -> tuple[TopicInfo, ...]:
        """As `LogStore.topics`."""
        return await self._pool.run(self._store.topics)

    async def partition(self, topic: str, partition: int = 0) -> AsyncPartitionLog:
        """As `LogStore.partition`: the same face every time for the same log."""
        log = await self._pool.run(self._store.partition, topic, partition)
        return self.face_of(log, topic, partition)

    def face_of(self, log: PartitionLog, topic: str, partition: int) -> AsyncPartitionLog:
        """The same, of a log of this store that the caller has open: no thread is waited for."""
        face = self._faces.get((topic, partition))
        if face is None or face._log is not log:
            if len(self._faces) >= self._faces_max:
                self._drop_closed()
            face = self._faces[topic, partition] = AsyncPartitionLog(log, self._pool)
        return face

    def _drop_closed(self) -> None:
        """Logs that were closed under us, by a deletion: a face would keep them for ever.

        Looked for when there are twice as many faces as were left last time: who opens a thousand
        logs does not look at each of them a thousand times.
        """
        for key, face in list(self._faces.items()):
            if face._log._core is not None and face._log._core.closed:
                del self._faces[key]
        self._faces_max = max(FACES_MIN, 2 * len(self._faces))

    async def search(self, topic: str, query: str, **options: Any) -> SearchResult:
        """As `LogStore.search`."""
        return await self._pool.run_far(self._store.search, topic, query, **options)

    async def run_pipeline_once(self) -> PipelineReport:
        """As `LogStore.run_pipeline_once`."""
        return await self._pool.run_far(self._store.run_pipeline_once)

    async def status(self) -> StoreStatus:
        """As `LogStore.status`."""
        return await self._pool.run(self._store.status)

    async def close(self) -> None:
        """As `LogStore.close`."""
        for face in list(self._faces.values()):
            await face.drain()
        if self._pool.alive:
            await self._pool.end(self._store.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
