"""Handing leadership over (protocol 13).

Place: under the leader role. Promise: while it is under way nothing is proposed and the pipeline
does not act; after one election timeout without a successor the leader goes on. Invariant: the
successor has the whole log before it is told to start.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from chronik_server.raft.messages import TimeoutNow

if TYPE_CHECKING:
    from chronik_server.raft.group import RaftGroup
    from chronik_server.raft.leader import LeaderRole


class Transfer:
    """At most one at a time. Not thread-safe: the event loop's."""

    def __init__(self, leader: LeaderRole, group: RaftGroup) -> None:
        self._leader = leader
        self._group = group
        self._target: str | None = None
        self._future: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether proposals are refused for it."""
        return self._target is not None

    def begin(self, target: str) -> asyncio.Future[None]:
        """Towards this voter; the future ends with our leadership, or with TimeoutError."""
        if self._future is not None:
            self._give_up()
        loop = self._leader.loop
        self._target = target
        future: asyncio.Future[None] = loop.create_future()
        self._future = future
        self._timer = loop.call_later(self._group.node.settings.election_seconds_max, self._give_up)
        self._leader.kick()
        self.peer_moved(target)
        return future

    def peer_moved(self, peer: str) -> None:
        """The peer holds more than before: perhaps all."""
        if peer != self._target:
            return
        progress = self._leader.replication.peers[peer]
        if progress.match_index == self._group.replica.last_index:
            self._group.send(TimeoutNow(self._group.term), peer)

    def ended(self) -> None:
        """This node leads no more: somebody else does, or will."""
        future = self._clear()
        if future is not None and not future.done():
            future.set_result(None)

    def _give_up(self) -> None:
        target = self._target
        future = self._clear()
        if future is not None and not future.done():
            future.set_exception(TimeoutError(f"{target} did not take over in time; we still lead"))

    def _clear(self) -> asyncio.Future[None] | None:
        if self._timer is not None:
            self._timer.cancel()
        future, self._future, self._timer, self._target = self._future, None, None, None
        return future
