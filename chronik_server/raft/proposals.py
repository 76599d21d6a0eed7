"""Proposals that wait for their commit.

Place: under the leader role. Promise: each `done` is called exactly once: with what was proposed
when `committed` has moved over its entry here, or with OutcomeUnknownError. Invariant: in index
order, so that a commit resolves a prefix; a duplicate stands behind its original and shares its
outcome (protocol 3).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from chronik_server.raft.consensus import Done, Proposed
from chronik_server.raft.errors import OutcomeUnknownError
from chronik_store.replica import Staged

logger = logging.getLogger("chronik_server.raft")


class _Waiting(NamedTuple):
    staged: Staged
    term: int
    size_bytes: int
    done: Done


class Proposals:
    """Of one leader in one term. Not thread-safe: the event loop's."""

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, staged: Staged, term: int, size_bytes: int, done: Done) -> None:
        """What was just staged in `term`, or the original of a duplicate, waits for its commit."""
        position = len(self._waiting)
        while position and self._waiting[position - 1].staged.index > staged.index:
            position -= 1
        self._waiting.insert(position, _Waiting(staged, term, size_bytes, done))
        self.bytes += size_bytes

    def committed(self, index: int, term_of: Callable[[int], int]) -> None:
        """Answer everything at or below `index`. term_of: of the original of a duplicate."""
        waiting = self._waiting
        while waiting and waiting[0].staged.index <= index:
            (_, at, base_offset, end_offset, duplicate), term, size_bytes, done = waiting.popleft()
            self.bytes -= size_bytes
            if duplicate:
                term = term_of(at)
            _tell(done, Proposed(at, term, base_offset, end_offset, duplicate))

    def abandon(self, reason: str, leader: str | None) -> None:
        """Nobody here will learn how they end."""
        waiting, self._waiting = self._waiting, deque()
        self.bytes = 0
        for each in waiting:
            _tell(
                each.done,
                OutcomeUnknownError(
                    f"{reason} before a quorum answered: the entries may be committed yet; "
                    "retry with the same producer sequence, or look at the log",
                    leader=leader,
                ),
            )


def _tell(done: Done, outcome: Proposed | OutcomeUnknownError) -> None:
    """Whoever waits may fail at it; the others are told all the same."""
    try:
        done(outcome)
    except Exception:
        logger.exception("an outcome could not be told")
