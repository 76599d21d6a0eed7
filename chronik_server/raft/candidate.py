"""The candidate: raftos's, with voters counted once and a way out.

Place: a role over raftos's. Promise: a vote counts once per voter and only in its term; a group of
one elects itself; a message of this term's leader is obeyed, not only noticed. Invariant: it is
entered only after a pre-quorum, or on the leader's own wish, and when its time is up it goes back
to asking: the term is never raised twice without a quorum in between (protocol 13).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chronik_server.raft.messages import (
    AppendEntries,
    InstallSnapshot,
    PreVote,
    RequestVote,
    RequestVoteResponse,
)
from chronik_server.raft.raftos_skeleton import Candidate, RoleTimer
from chronik_server.raft.received import Received
from chronik_server.raft.role_base import RoleBase

if TYPE_CHECKING:
    from chronik_server.raft.group import RaftGroup


class CandidateRole(Candidate, RoleBase):
    """See the module. One object per candidacy, hence per term."""

    def __init__(self, state: RaftGroup) -> None:
        self.group = state
        super().__init__(state)
        self.voters: set[str] = set()
        self.election_timer = RoleTimer(state.draw_patience, self.time_is_up)

    def start(self) -> None:
        """Raftos raises the term, votes for itself, asks for votes and arms the timer."""
        super().start()
        if self.group.id not in self.group.voters:
            self.vote_count = 0  # it goes, and is needed once more: its own vote counts no more
        if self.group.is_majority(self.vote_count):
            self.group.replica.when_synced(
                self.group.storage.ticket, self.guarded(self.group.to_leader)
            )

    def time_is_up(self) -> None:
        """Split or lost: ask around again, before the term is raised again."""
        group = self.group
        group.to_follower()
        group.ask()

    def on_receive_request_vote_response(self, data: Received[RequestVoteResponse]) -> None:
        """Count a voter once (defect 5); raftos counts votes."""
        group = self.group
        if data.sender in self.voters or data.sender not in group.voters:
            return
        if data.message.vote_granted:
            self.voters.add(data.sender)
            super().on_receive_request_vote_response(data)

    def on_receive_request_vote(self, data: Received[RequestVote]) -> None:
        """Our vote in this term is our own."""
        self.group.send(RequestVoteResponse(self.group.term, vote_granted=False), data.sender)

    def on_receive_pre_vote(self, data: Received[PreVote]) -> None:
        """Somebody else may be the better candidate."""
        self.answer_pre_vote(data, may_grant=not self.group.replica.suspect)

    def on_receive_append_entries(self, data: Received[AppendEntries]) -> None:
        """Somebody else was elected: raftos steps down, the follower takes the entries."""
        super().on_receive_append_entries(data)
        self.group.receive(data.sender, data.message)

    def on_receive_install_snapshot(self, data: Received[InstallSnapshot]) -> None:
        """The same."""
        self.group.to_follower()
        self.group.receive(data.sender, data.message)
