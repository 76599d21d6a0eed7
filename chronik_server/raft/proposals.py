"""Proposals that wait for their commit.

Place: under the leader role. Promise: each future is resolved exactly once: answered when
`committed` has moved over its entry here, or unknown. Invariant: in index order, so that a commit
resolves a prefix; a duplicate stands behind its original and shares its outcome (protocol 3).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from chronik_server.raft.consensus import Proposed
from chronik_server.raft.errors import OutcomeUnknownError
from chronik_store.replica import Staged


class _Waiting(NamedTuple):
    staged: Staged
    future: asyncio.Future[Proposed]
    size_bytes: int


class Proposals:
    """Of one leader in one term. Not thread-safe: the event loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[_Waiting] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, staged: Staged, size_bytes: int) -> asyncio.Future[Proposed]:
        """The future of what was just staged, or of the original of a duplicate."""
        future: asyncio.Future[Proposed] = self._loop.create_future()
        position = len(self._waiting)
        while position and self._waiting[position - 1].staged.index > staged.index:
            position -= 1
        self._waiting.insert(position, _Waiting(staged, future, size_bytes))
        self.bytes += size_bytes
        return future

    def committed(self, index: int, term_of: Callable[[int], int]) -> None:
        """Answer everything at or below `index`."""
        waiting = self._waiting
        while waiting and waiting[0].staged.index <= index:
            staged, future, size_bytes = waiting.popleft()
            self.bytes -= size_bytes
            if not future.done():
                term = term_of(staged.index)
                future.set_result(
                    Proposed(
                        staged.index,
                        term,
                        staged.base_offset,
                        staged.end_offset,
                        staged.duplicate,
                    )
                )

    def abandon(self, reason: str, leader: str | None) -> None:
        """Nobody here will learn how they end."""
        waiting, self._waiting = self._waiting, deque()
        self.bytes = 0
        for _, future, _ in waiting:
            if not future.done():
                future.set_exception(
                    OutcomeUnknownError(
                        f"{reason} before a quorum answered: the entries may be committed yet; "
                        "retry with the same producer sequence, or look at the log",
                        leader=leader,
                    )
                )
