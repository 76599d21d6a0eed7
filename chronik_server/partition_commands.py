"""Cursors, seals and deletions of one partition of a cluster, as commands of its log.

Place: under `raft_partition`, over a log and its consensus. Promise: a command is answered when it
is committed and folded here; what it would break is refused before it is proposed. Invariant:
nothing here takes a thread: a group that cannot commit keeps its own callers waiting, for a bounded
time, and nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from chronik_server.raft.consensus import Consensus
from chronik_server.raft.errors import OutcomeUnknownError
from chronik_store import admin_commands
from chronik_store.aio import AsyncPartitionLog
from chronik_store.format.control import Command
from chronik_store.log_core import LogCore

COMMAND_SECONDS = 10.0
T = TypeVar("T")


class PartitionCommands:
    """See the module. Belongs to the event loop; the errors are those of `chronik_store`."""

    def __init__(self, log: AsyncPartitionLog, core: LogCore, consensus: Consensus) -> None:
        self._log = log
        self._core = core
        self._consensus = consensus

    async def commit_cursor(self, name: str, next_offset: int, *, reset: bool) -> None:
        """As `Cursor.commit`."""
        self._log.cursor(name)  # whether that can be the name of one
        core = self._core
        most = core.config.cursors_max
        await self._settle(
            lambda: admin_commands.cursor_commit(
                core.manifest, core.committed.offset, name, next_offset, reset=reset, most=most
            )
        )

    async def delete_cursor(self, name: str) -> bool:
        """As `Cursor.delete`; whether there was one."""
        self._log.cursor(name)
        return await self._settle(lambda: admin_commands.cursor_deletion(self._core.manifest, name))

    async def seal(self) -> int:
        """As `PartitionLog.seal`."""
        await self._commit_if(admin_commands.seal_now(self._core.open_segment(), self._now_us()))
        return self._log.watermarks.sealed

    async def drop_before(self, offset: int) -> None:
        """As `PartitionLog.drop_before`."""
        core = self._core
        await self._commit_if(
            admin_commands.prefix_drop(core.manifest, core.committed.offset, offset, self._now_us())
        )

    def _now_us(self) -> int:
        return self._core.env.clock.time_us()

    async def _settle(self, plan: Callable[[], Command | None]) -> bool:
        """As `ControlPath.settle`. What needs no command is so by what this node knows, which is
        all there is to know if it leads still.
        """
        while True:
            if (command := plan()) is None:
                await self._in_time(self._consensus.read_barrier())
                if (command := plan()) is None:
                    return False
            if self._core.control.refusal_of(await self._propose(command)) is None:
                return True

    async def _commit_if(self, command: Command | None) -> None:
        if command is not None:
            await self._propose(command)

    async def _propose(self, command: Command) -> int:
        self._core.check_open()
        return (await self._in_time(self._consensus.propose([command]))).index

    async def _in_time(self, asked: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                return await asked
        except TimeoutError as error:
            raise OutcomeUnknownError(
                f"no quorum has it after {COMMAND_SECONDS:g} s; it may be committed yet"
            ) from error
