"""`Cursor` for asyncio.

Place: made by `AsyncPartitionLog.cursor`. Promise: as `Cursor`; a commit is awaited off the loop.
Invariant: it reads through the face, never past it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from chronik_store.aio.offloop import Pool
from chronik_store.cursor import Cursor
from chronik_store.format.record_batch import StoredBatch
from chronik_store.model import StoredRecord


class Reading(Protocol):
    """The face that a cursor reads through."""

    def scan(
        self, start: int | None = None, stop: int | None = None, *, follow: bool = False
    ) -> AsyncIterator[StoredRecord]: ...
    def read_batches(
        self, offset: int, *, max_bytes: int = 1 << 20
    ) -> AsyncIterator[StoredBatch]: ...


class AsyncCursor:
    """`Cursor` for asyncio."""

    def __init__(self, log: Reading, cursor: Cursor, pool: Pool) -> None:
        self._log = log
        self._cursor = cursor
        self._pool = pool
        self.name = cursor.name

    @property
    def committed_offset(self) -> int | None:
        """As `Cursor.committed_offset`: of what another process writes a look at its disk, or a
        request to the bucket, for which the event loop waits.
        """
        return self._cursor.committed_offset

    @property
    def offset(self) -> int:
        """As `Cursor.offset`; it is looked up as `committed_offset` is."""
        return self._cursor.offset

    async def records(self, *, follow: bool = False) -> AsyncIterator[StoredRecord]:
        """As `Cursor.records`."""
        async for record in self._log.scan(await self._begin(), follow=follow):
            yield record

    async def batches(self, *, max_bytes: int = 1 << 20) -> AsyncIterator[StoredBatch]:
        """As `Cursor.batches`."""
        async for batch in self._log.read_batches(await self._begin(), max_bytes=max_bytes):
            yield batch

    async def _begin(self) -> int:
        """`offset`, off the loop: of what another process writes it is looked up, on its disk or in
        the bucket.
        """
        return await self._pool.run(lambda: self._cursor.offset)

    async def commit(self, next_offset: int, *, reset: bool = False) -> None:
        """As `Cursor.commit`."""
        await self._pool.run(self._cursor.commit, next_offset, reset=reset)

    async def delete(self) -> None:
        """As `Cursor.delete`."""
        await self._pool.run(self._cursor.delete)
