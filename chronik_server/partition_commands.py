"""Cursors, seals and deletions of one partition of a cluster, as commands of its log.

Place: under `raft_partition`, over a log and its consensus. Promise: a command is answered when it
is committed and folded here; what it would break is refused before it is proposed. Invariant:
nothing here takes a thread: a group that cannot commit keeps its own callers waiting, for a bounded
time, and nobody else.
"""

from __future__ import annotations

import asyncio

from chronik_server.raft.consensus import Consensus
from chronik_server.raft.errors import OutcomeUnknownError
from chronik_store.aio import AsyncPartitionLog
from chronik_store.errors import ConfigError, OffsetConflictError, OffsetOutOfRangeError
from chronik_store.format.control import Command, CursorSet, DropPrefix, Seal
from chronik_store.log_core import LogCore

COMMAND_SECONDS = 10.0


class PartitionCommands:
    """See the module. Belongs to the event loop; the errors are those of `chronik_store`."""

    def __init__(self, log: AsyncPartitionLog, core: LogCore, consensus: Consensus) -> None:
        self._log = log
        self._core = core
        self._consensus = consensus

    async def commit_cursor(self, name: str, next_offset: int, *, reset: bool) -> None:
        """As `Cursor.commit`."""
        current = self._log.cursor(name).committed_offset
        if current is not None and next_offset < current and not reset:
            raise OffsetConflictError(
                f"cursor {name!r} stands at {current}; pass reset=True to move it back to "
                f"{next_offset}",
                expected_offset=current,
                end_offset=next_offset,
            )
        if current == next_offset:
            return
        self._check_committed(next_offset)
        known, most = len(self._core.manifest.cursors), self._core.config.cursors_max
        if current is None and known >= most:
            raise ConfigError(f"this log has {known} cursors (cursors_max); delete some first")
        await self._commit(CursorSet(name, next_offset, reset))

    async def delete_cursor(self, name: str) -> bool:
        """As `Cursor.delete`; whether there was one."""
        if self._log.cursor(name).committed_offset is None:
            return False
        await self._commit(CursorSet(name, None, True))
        return True

    async def seal(self) -> int:
        """As `PartitionLog.seal`."""
        open_segment = self._core.open_segment()
        if open_segment.record_count:
            await self._commit(Seal(open_segment.first_index, "admin", self._now_us()))
        return self._log.watermarks.sealed

    async def drop_before(self, offset: int) -> None:
        """As `PartitionLog.drop_before`."""
        self._check_committed(offset)
        if offset > self._core.manifest.start_offset:
            await self._commit(DropPrefix(offset, "admin", self._now_us()))

    def _now_us(self) -> int:
        return self._core.env.clock.time_us()

    def _check_committed(self, offset: int) -> None:
        start, end = self._core.manifest.start_offset, self._core.committed.offset
        if offset > end:
            raise OffsetOutOfRangeError(
                f"offset {offset} is outside [{start}, {end}): read from {start}, or from {end} to "
                "wait for new records",
                offset=offset,
                first_offset=start,
                end_offset=end,
            )

    async def _commit(self, command: Command) -> None:
        self._core.check_open()
        proposed = self._consensus.propose([command])
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                await proposed
        except TimeoutError as error:
            raise OutcomeUnknownError(
                f"no quorum has it after {COMMAND_SECONDS:g} s; it may be committed yet"
            ) from error
