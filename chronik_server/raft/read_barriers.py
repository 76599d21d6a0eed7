"""Reads that wait until the leader is proved to lead still (the paper's read index).

Place: under the leader role. Promise: a read is granted when a majority of the voters, the suspect
ones aside, has answered a round of beats that began after the read was asked for, and this replica
has committed what the leader had committed then. Invariant: no clock is trusted: without a round
there is no read. Reads that come in one turn of the loop share a round.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from chronik_server.raft.errors import OutcomeUnknownError

if TYPE_CHECKING:
    from chronik_server.raft.group import RaftGroup
    from chronik_server.raft.leader import LeaderRole


class _Read(NamedTuple):
    """Granted once the round `request_id` is answered and `index` is committed here."""

    request_id: int
    index: int  # type: ignore[assignment]
    future: asyncio.Future[int]


class ReadBarriers:
    """One leader's reads, in the order in which they came. Not thread-safe: the event loop's."""

    def __init__(self, leader: LeaderRole, group: RaftGroup) -> None:
        self._leader = leader
        self._group = group
        self.waiting: deque[_Read] = deque()
        self._round_is_due = False

    def ask(self) -> asyncio.Future[int]:
        """The future gets the index up to which whoever asks may read."""
        leader = self._leader
        future: asyncio.Future[int] = leader.loop.create_future()
        index = max(leader.commit_index, leader.noop_index)
        self.waiting.append(_Read(leader.request_id + 1, index, future))
        if not self._round_is_due:
            self._round_is_due = True
            leader.loop.call_soon(self._begin_round)
        return future

    def _begin_round(self) -> None:
        self._round_is_due = False
        leader = self._leader
        if leader.is_current:
            if not leader.heartbeat_timer.is_active:
                leader.heartbeat_timer.start()
            leader.begin_round()
            self.settle()

    def settle(self) -> None:
        """Grant what has been confirmed, in order."""
        if not self.waiting:
            return
        leader, group = self._leader, self._group
        confirmed = leader.confirmed_by(len(group.voters) // 2 + 1)
        committed = min(group.replica.commit_index, leader.commit_index)
        while self.waiting and self.waiting[0].request_id <= confirmed:
            if self.waiting[0].index > committed:
                return
            read = self.waiting.popleft()
            if not read.future.done():
                read.future.set_result(read.index)

    def abandon(self) -> None:
        """This node leads no more: nobody will confirm what waits."""
        reads, self.waiting = self.waiting, deque()
        for read in reads:
            if not read.future.done():
                read.future.set_exception(
                    OutcomeUnknownError("leadership ended before a quorum confirmed the read")
                )
