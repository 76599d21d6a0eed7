"""What all three roles share: their group, and an answer to every message there is.

Place: mixed into each role, behind raftos's class, whose handlers do nothing unless a role
overrides them. Promise: a message that means nothing to a role is passed over, never an error.
Invariant: a callback acts only while its role object is the current one: roles are made anew at
each change, so that says role and term at once (protocol 13).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chronik_server.raft.messages import PreVote, PreVoteResponse
from chronik_server.raft.received import Received

if TYPE_CHECKING:
    from chronik_server.raft.group import RaftGroup


class RoleBase:
    """Follower, candidate or leader of one group."""

    group: RaftGroup
    """What raftos calls `state`; set by each role before anything else."""
    state: Any
    loop: asyncio.AbstractEventLoop

    @property
    def is_current(self) -> bool:
        """Whether this role is still the group's, and the group takes part."""
        return self.group.state is self and self.group.is_running

    def guarded(self, action: Callable[[], None]) -> Callable[[], None]:
        """`action`, or nothing once this role has ended."""

        def act() -> None:
            if not self.is_current:
                return
            try:
                action()
            except AssertionError as error:
                self.group.node.fail(self.group.group_id, error)

        return act

    def answer_pre_vote(self, data: Received[PreVote], *, may_grant: bool) -> None:
        """By the log alone: terms in pre-votes bind nobody (protocol 13)."""
        group, asked = self.group, data.message
        own = group.log.position()
        granted = may_grant and (asked.last_log_term, asked.last_log_index) >= own
        response = PreVoteResponse(
            term=group.term,
            granted=granted,
            is_suspect=group.replica.suspect,
            last_log_index=own[1],
            last_log_term=own[0],
        )
        group.send(response, data.sender)

    def on_receive_pre_vote_response(self, _data: Any) -> None:
        """Not asked any more."""

    def on_receive_timeout_now(self, _data: Any) -> None:
        """Too late: an election is under way, or over."""
