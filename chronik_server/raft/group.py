"""One group's replica: raftos's State behind three gates.

Place: between the node, which brings messages, and the roles. Promise: a role sees messages of its
own term only; a message leaves only after the hard state, and the entries it speaks of, are durable
here; who may vote, who leads and what a quorum is are facts of this group. Invariant: everything
runs on one event loop; a role change makes a new role object, and callbacks of the old one do
nothing.

    terms        higher: recorded, step down, then dispatched to the new role; lower: requests are
                 refused, answers dropped. Pre-votes pass untouched (protocol 13)
    durability   `send` is the one exit
    group        `voters`, `is_majority`, `leader` of the last MEMBERS entry in this log
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from chronik_server.raft.candidate import CandidateRole
from chronik_server.raft.consensus import Role
from chronik_server.raft.durable_state import HardState, LogEnd
from chronik_server.raft.follower import FollowerRole
from chronik_server.raft.leader import LeaderRole
from chronik_server.raft.liveness import NEVER
from chronik_server.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Beat,
    BeatAck,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
)
from chronik_server.raft.raftos_skeleton import Candidate, Follower, Leader, State
from chronik_server.raft.received import Received
from chronik_store.format.control import Members
from chronik_store.replica import Replica, Snapshot

if TYPE_CHECKING:
    from chronik_server.raft.node import RaftNode

logger = logging.getLogger("chronik_server.raft")

RaftRole = FollowerRole | CandidateRole | LeaderRole

_ROLES: Final[Mapping[type[Any], type[RaftRole]]] = {
    Follower: FollowerRole,
    Candidate: CandidateRole,
    Leader: LeaderRole,
}
_NAMES: Final[Mapping[type[RaftRole], Role]] = {
    FollowerRole: Role.FOLLOWER,
    CandidateRole: Role.CANDIDATE,
    LeaderRole: Role.LEADER,
}


class RaftGroup(State):
    """See the module. Not thread-safe: the event loop's.

    members: used only while the log names none; equal on all nodes. may_vote: who may be a voter
    although this log names others, for it was cut, or made anew; None when nobody can tell.
    """

    def __init__(
        self,
        node: RaftNode,
        group_id: str,
        replica: Replica,
        members: Members,
        snapshot_source: Callable[[], Snapshot],
        may_vote: Callable[[], Collection[str] | None],
    ) -> None:
        # Not super(): raftos builds its own storage, log and network there.
        self.node = node
        self.group_id = group_id
        self.replica = replica
        self.snapshot_source = snapshot_source
        self._may_vote = may_vote
        self.id = node.node_id
        self.loop = node.loop
        self.storage = HardState(replica)
        self.log = LogEnd(replica)
        self.state_machine = None
        self.is_running = False
        self.leader: str | None = None
        self._heard_at = NEVER
        self.amnesty = False
        self.transferring = False
        self.offered_for: set[int] = set()
        """Places of the log that this node could not read, for which it has let others lead."""
        self.on_commit: list[Callable[[int], None]] = []
        self.on_role: list[Callable[[Role, int], None]] = []
        self._first_members = members
        self._sent: asyncio.Future[None] = node.loop.create_future()
        self._sent.set_result(None)
        self._shown_commit = replica.commit_index
        self.state: RaftRole = FollowerRole(self)

    def __str__(self) -> str:
        return f"{self.group_id}@{self.id}"

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin as a follower, with the hard state that the log has."""
        self.is_running = True
        super().start()

    def stop(self) -> None:
        """Take part no more. Idempotent."""
        if self.is_running:
            super().stop()
            self.is_running = False
            self.node.liveness.claim(self.group_id, 0)
            self._tell_role()

    @property
    def role(self) -> Role:
        """What this replica is now."""
        return _NAMES[type(self.state)] if self.is_running else Role.STOPPED

    @property
    def term(self) -> int:
        """The current term."""
        return self.replica.current_term

    def draw_patience(self) -> float:
        """Seconds of silence after which this node asks for votes; drawn anew each time."""
        settings = self.node.settings
        return self.node.uniform(settings.election_seconds_min, settings.election_seconds_max)

    def draw_lost_patience(self) -> float:
        """Seconds that the lost connection of a leader may take to come back, likewise."""
        least = self.node.settings.lost_seconds
        return self.node.uniform(least, 2 * least)

    # --- gate three: the group -------------------------------------------------------------------

    @property
    def members(self) -> Members:
        """Of the last MEMBERS entry in the log, committed or not (protocol 12)."""
        named = self.replica.members
        return self._first_members if named is None else named[1]

    @property
    def voters(self) -> tuple[str, ...]:
        """Who elects and commits."""
        return self.members.voters

    @property
    def roll(self) -> frozenset[str] | None:
        """Whoever may be a voter beside this node: all of them answer a roll call (protocol 9).
        None: it is not known who.
        """
        others = self._may_vote()
        return None if others is None else frozenset((*self.voters, *others)) - {self.id}

    @property
    def peers(self) -> tuple[str, ...]:
        """All members but this node."""
        members = self.members
        return tuple(each for each in (*members.voters, *members.learners) if each != self.id)

    @property
    def cluster(self) -> list[str]:
        """Raftos's name for `peers`."""
        return list(self.peers)

    def is_majority(self, count: int) -> bool:
        """Of the voters; all of them while a roll call of suspect nodes elects (protocol 9)."""
        voters = len(self.voters)
        return count >= max(1, voters) if self.amnesty else count > voters // 2

    @staticmethod
    def get_sender_id(sender: str) -> str:
        """A sender is a node id here, not an address."""
        return sender

    def set_leader(self, leader: LeaderRole | str | None) -> None:
        """Of this group; raftos keeps one for the whole process (defect 35)."""
        name = self.id if isinstance(leader, LeaderRole) else leader
        if name != self.leader:
            self.leader_heard_at()  # remembered beyond its leadership
            self.leader = name

    def leader_heard_at(self) -> float:
        """When another node was last heard to lead, in this life, by entries or by beats: loop
        time, -inf if none was.
        """
        role, liveness = self.state, self.node.liveness
        own = role.leader_heard_at if isinstance(role, FollowerRole) else NEVER
        beaten = liveness.confirmed_at(self.leader, self.group_id, self.term)
        self._heard_at = max(self._heard_at, own, beaten)
        return self._heard_at

    def get_leader(self) -> str | None:
        """Node id."""
        return self.leader

    def may_ask(self) -> bool:
        """Learners never start elections, nor does a node whose disk still owes the last term:
        it would raise the term again and again without ever being heard.
        """
        may_lead = self.id in self.voters or self._is_going()
        return may_lead and self.storage.ticket <= self.replica.synced_ticket

    def _is_going(self) -> bool:
        """A voter until an entry is committed that it has and others may lack: they need not have
        the log to be elected without it. It leads until then, and does not count itself (thesis
        4.2.2).
        """
        named, committed = self.replica.members, self.replica.committed_members
        if named is None or named[0] <= self.replica.commit_index or self.replica.suspect:
            return False
        before = self._first_members if committed is None else committed[1]
        return self.id in before.voters

    # --- roles -----------------------------------------------------------------------------------

    def campaign(self, *, transfer: bool = False, amnesty: bool = False) -> None:
        """Become a candidate: after a pre-quorum, a roll call, or on the leader's wish."""
        if self.replica.suspect and not amnesty:
            return
        self.transferring, self.amnesty = transfer, amnesty
        self.to_candidate()

    def ask(self) -> None:
        """As a follower: ask around for votes now, without waiting for silence."""
        if isinstance(self.state, FollowerRole) and self.may_ask():
            self.state.ask()

    def leader_lost(self) -> None:
        """The connection to the node that leads is gone: look sooner whether it is heard."""
        if self.is_running and isinstance(self.state, FollowerRole):
            self.state.election_timer.reset()

    def _change_state(self, new_state: type[Any]) -> None:
        """Raftos stops the old role, makes the new one and starts it."""
        role = _ROLES[new_state]
        if role is FollowerRole:
            self.transferring = self.amnesty = False
        super()._change_state(role)
        self.amnesty = self.amnesty and role is CandidateRole
        leads = role is LeaderRole
        self.node.liveness.claim(self.group_id, self.term if leads else 0)
        logger.debug("%s: %s in term %d", self, self.role, self.term)
        self._tell_role()

    def _tell_role(self) -> None:
        for callback in self.on_role:
            callback(self.role, self.term)

    # --- gate one: terms -------------------------------------------------------------------------

    def receive(self, sender: str, message: Message) -> None:
        """A message of a peer. CorruptionError when its entries are not what was written."""
        if not self.is_running or isinstance(message, (Beat, BeatAck)):
            return
        received = Received(sender, message)
        if isinstance(message, (PreVote, PreVoteResponse)):
            super().request_handler(received)
            return
        term = self.replica.current_term
        if message.term > term:
            if isinstance(message, RequestVote) and self._is_disturbance(message):
                return
            self._enter_term(message.term)
        elif message.term < term:
            self._refuse(sender, message)
            return
        super().request_handler(received)

    def _enter_term(self, term: int) -> None:
        self.leader_heard_at()
        self.storage.update({"term": term, "voted_for": None})
        if isinstance(self.state, FollowerRole):
            self.state.asking = False
            self.set_leader(None)
        else:
            self.to_follower()

    def _is_disturbance(self, message: RequestVote) -> bool:
        """Stickiness: nobody is elected against a leader that a quorum still hears."""
        if message.transfer:
            return False
        if message.amnesty:
            return not self.replica.suspect  # the roll call was wrong: somebody is whole
        role = self.state
        if isinstance(role, FollowerRole):
            return role.is_sticky()
        return isinstance(role, LeaderRole) and role.has_quorum()

    def _refuse(self, sender: str, message: Message) -> None:
        """A request of a term that has passed: its sender learns the term by our answer."""
        if isinstance(message, RequestVote):
            self.send(RequestVoteResponse(self.term, vote_granted=False), sender)
        elif isinstance(message, AppendEntries | InstallSnapshot):
            refusal = AppendEntriesResponse(
                term=self.term,
                success=False,
                match_index=0,
                request_id=message.request_id,
                prev_log_index=0,
                hint_index=0,
                hint_term=0,
                is_suspect=self.replica.suspect,
            )
            self.send(refusal, sender)

    # --- gate two: durability --------------------------------------------------------------------

    def send(
        self, data: Message | dict[str, Any], destination: str, ticket: int = 0
    ) -> asyncio.Future[None]:
        """Hand a message over once everything that it speaks of is durable: the hard state always,
        more with `ticket`. raftos's roles come with dicts and want something to await.
        """
        message = self._message_of(data) if isinstance(data, dict) else data
        need = max(ticket, self.storage.ticket)
        if need <= self.replica.synced_ticket:
            self._post(destination, message)
        else:
            self.replica.when_synced(need, partial(self._post, destination, message))
        return self._sent

    def broadcast(self, data: dict[str, Any]) -> None:
        """Raftos's candidate asks for votes."""
        for voter in self.voters:
            if voter != self.id:
                self.send(data, voter)

    def _message_of(self, data: dict[str, Any]) -> Message:
        if data["type"] == RequestVote.KIND:
            return RequestVote(
                term=data["term"],
                candidate_id=data["candidate_id"],
                last_log_index=data["last_log_index"],
                last_log_term=data["last_log_term"],
                transfer=self.transferring,
                amnesty=self.amnesty,
            )
        assert data["type"] == RequestVoteResponse.KIND, f"raftos would send {data['type']}"
        return RequestVoteResponse(data["term"], data["vote_granted"])

    def _post(self, peer: str, message: Message) -> None:
        if self.is_running:
            self.node.post(peer, self.group_id, message)
            self.show_commit()

    # --- commit ----------------------------------------------------------------------------------

    def note_commit(self, index: int) -> None:
        """The leader, or our own count, says that entries up to `index` are committed."""
        if index > self._shown_commit:
            self.replica.advance_commit(index)
            self.show_commit()

    def show_commit(self) -> None:
        """`committed` may have moved here: tell those who wait for it."""
        index = self.replica.commit_index
        if index <= self._shown_commit:
            return
        self._shown_commit = index
        if isinstance(self.state, LeaderRole):
            self.state.committed(index)
        for callback in self.on_commit:
            callback(index)
