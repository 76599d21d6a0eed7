"""The follower: it takes entries, votes, and asks around before it disturbs anybody.

Place: a role over raftos's. Promise: entries are acknowledged when they are durable, never more of
them than were compared with the leader's log; a vote is repeated to the same candidate and given to
no other. Invariant: pre-vote is a state of this role (protocol 13): the term is raised only when a
quorum would vote for us, so an isolated node does not inflate it.

Its one timer is not reset by messages: it looks, when it fires, at when the leader was last heard,
by its entries or by its node's beats (protocol 15), and waits on. A connection to the leader's node
that is lost and does not come back is silence, too, and sooner (decision 0019).
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

from chronik_server.raft.liveness import NEVER
from chronik_server.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshot,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from chronik_server.raft.raftos_skeleton import Follower, RoleTimer
from chronik_server.raft.received import Received
from chronik_server.raft.role_base import RoleBase

if TYPE_CHECKING:
    from chronik_server.raft.group import RaftGroup
    from chronik_store.format.entry import Entry

logger = logging.getLogger("chronik_server.raft")


class FollowerRole(Follower, RoleBase):
    """See the module. One object per spell of following."""

    def __init__(self, state: RaftGroup) -> None:
        self.group = state
        super().__init__(state)
        self.base_at = self.loop.time()
        self.patience = state.draw_patience()
        self.lost_patience = state.draw_lost_patience()
        self.leader_heard_at = NEVER
        self.asking = False
        self.is_full: bool | None = None
        """Whether its disk takes no records; None: it was not asked yet."""
        self.grants: set[str] = set()
        self.roll: dict[str, PreVoteResponse] = {}
        self._left: float | None = None
        self.election_timer = RoleTimer(self.election_interval, self.start_election)

    def init_storage(self) -> None:
        """Term and vote are what they are: raftos forgets the vote here (defects 1, 2)."""

    # --- the timer -------------------------------------------------------------------------------

    def election_interval(self) -> float:
        """Seconds until there is something to look at."""
        left, self._left = self._left, None
        return max(0.001, self._deadline() - self.loop.time() if left is None else left)

    def _deadline(self) -> float:
        silent = max(self.base_at, self._leader_heard()) + self.patience
        lost_at = self.group.node.liveness.lost_at(self.group.leader)
        return min(silent, max(self.base_at, lost_at) + self.lost_patience)

    def _leader_heard(self) -> float:
        group = self.group
        beaten = group.node.liveness.confirmed_at(group.leader, group.group_id, group.term)
        return max(self.leader_heard_at, beaten)

    def start_election(self) -> None:
        """Raftos's timer fired: ask around, if nobody was heard and we may."""
        group = self.group
        left = self._deadline() - self.loop.time()
        if left > 0:
            self._left = left  # the timer asks next
            return
        self._wait_on()
        if group.may_ask() and group.node.pacer.admit():
            group.set_leader(None)
            self.ask()

    def _wait_on(self) -> None:
        self.base_at = self.loop.time()
        self.patience = self.group.draw_patience()
        self.lost_patience = self.group.draw_lost_patience()

    def heard_leader(self, leader: str) -> None:
        """A message of the leader of this term."""
        self.group.set_leader(leader)
        self.leader_heard_at = self.loop.time()
        self.asking = False

    def is_sticky(self) -> bool:
        """The leader was heard within the least election timeout, and its connection is there."""
        settings, now = self.group.node.settings, self.loop.time()
        if now - self.group.node.liveness.lost_at(self.group.leader) >= settings.lost_seconds:
            return False
        return now - self._leader_heard() < settings.election_seconds_min

    # --- pre-vote --------------------------------------------------------------------------------

    def ask(self) -> None:
        """Would a quorum vote for us? Nothing is recorded anywhere."""
        group = self.group
        self.asking = True
        self.grants = {group.id}
        self.roll = {}
        term, index = group.log.position()
        for voter in self._asked():
            if voter != group.id:
                group.send(PreVote(group.term, index, term), voter)
        self._count()

    def _asked(self) -> Collection[str]:
        """The voters; of a log that may have been cut, whoever may be one."""
        group = self.group
        return (group.roll or ()) if group.replica.suspect else group.voters

    def on_receive_pre_vote_response(self, data: Received[PreVoteResponse]) -> None:
        """An answer to `ask`."""
        if self.asking and data.sender in self._asked():
            self.roll[data.sender] = data.message
            if data.message.granted:
                self.grants.add(data.sender)
            self._count()

    def _count(self) -> None:
        group = self.group
        suspect = group.replica.suspect
        if suspect and not self._leads_roll_call():
            return
        if not suspect and not group.is_majority(len(self.grants & set(group.voters))):
            return
        highest = max((each.term for each in self.roll.values()), default=0)
        if highest > group.term:
            # A lone candidate of the past is ahead of us; its log was not (it granted, or lost).
            group.storage.update({"term": highest, "voted_for": None})
        group.campaign(amnesty=suspect)

    def _leads_roll_call(self) -> bool:
        """All that may be voters answered, all are suspect, and none has more than we (protocol
        9).
        """
        group = self.group
        others = group.roll
        if others is None:
            return False
        answers = [(name, self.roll[name]) for name in others if name in self.roll]
        if len(answers) < len(others) or not all(each.is_suspect for _, each in answers):
            return False
        best = max(((a.last_log_term, a.last_log_index, n) for n, a in answers), default=None)
        return best is None or (*group.log.position(), group.id) > best

    def on_receive_pre_vote(self, data: Received[PreVote]) -> None:
        """Somebody asks."""
        granted = not self.is_sticky() and not self.group.replica.suspect
        self.answer_pre_vote(data, may_grant=granted)

    # --- votes -----------------------------------------------------------------------------------

    def on_receive_request_vote(self, data: Received[RequestVote]) -> None:
        """Vote by raftos's rule, once per term; say it again to the one who has the vote."""
        group, message = self.group, data.message
        refused = group.replica.suspect != message.amnesty
        before = group.storage.voted_for
        if before == data.sender:
            group.send(RequestVoteResponse(group.term, vote_granted=True), data.sender)
        elif before is not None or refused or message.candidate_id != data.sender:
            group.send(RequestVoteResponse(group.term, vote_granted=False), data.sender)
        else:
            super().on_receive_request_vote(data)
        if group.storage.voted_for == data.sender:
            self._wait_on()
            self.asking = False

    def on_receive_timeout_now(self, data: Received[TimeoutNow]) -> None:
        """The leader hands over to us: no asking around. Not while our disk takes no records."""
        group = self.group
        if data.sender == group.leader and group.may_ask() and group.replica.has_space():
            group.campaign(transfer=True)

    # --- entries ---------------------------------------------------------------------------------

    def on_receive_append_entries(self, data: Received[AppendEntries]) -> None:
        """Paper figure 2; the answer leaves when what it speaks of is durable."""
        self.heard_leader(data.sender)
        entries = self._taken(data.message.entries)
        try:
            self._append(data, entries)
        finally:
            # Last: from here on the thread that writes wants the interpreter, too.
            if entries:
                self.group.replica.request_commit()

    def _append(self, data: Received[AppendEntries], entries: tuple[Entry, ...]) -> None:
        group, message = self.group, data.message
        appended = group.replica.append_entries(
            message.prev_log_index, message.prev_log_term, entries, commit=False
        )
        ticket, matched, conflict = appended
        if conflict is not None:
            self._acknowledge(data, 0, hint=conflict)
            return
        group.note_commit(min(message.commit_index, matched))
        if not entries:
            # Says only what is durable already: a beat never waits for a slow disk (protocol 13).
            # What a full disk refuses is answered alike: a leader that did not hear of it would go
            # on to accept what cannot be committed, and no read would be answered.
            ticket = 0
            matched = min(matched, group.replica.durable_index)
        trusted = 0 < message.trusted_index <= matched
        if trusted and group.replica.suspect and message.trusted_boot == group.node.boot_id:
            ticket = max(ticket, appended.ticket, group.replica.set_suspect(False))
        self._acknowledge(data, matched, ticket=ticket)

    def _taken(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """The entries of a message, or none of them while the disk is full.

        The leader is told in the answer and proposes no more records unless others take them. Of
        what was on its way by then half of the reserve is used up first: were it refused by two of
        three at once, the commands behind it, which free the disks, would never be committed.
        """
        group, replica, was_full = self.group, self.group.replica, self.is_full
        if not entries and was_full is False:
            return entries
        # Commands pass always, which says nothing of room.
        has_room = replica.has_room(entries) and (was_full is False or replica.has_space())
        self.is_full = not has_room
        if self.is_full is not bool(was_full):
            said = "there is room again" if has_room else "the disk is full: records are refused"
            logger.warning("%s: %s", group, said)
        return entries if has_room or replica.has_room(entries, last=True) else ()

    def on_receive_install_snapshot(self, data: Received[InstallSnapshot]) -> None:
        """Begin behind the leader's manifest."""
        group, message = self.group, data.message
        self.heard_leader(data.sender)
        ticket = group.replica.install_snapshot(message.snapshot)
        self._acknowledge(data, message.snapshot.base.index, ticket=ticket)

    def _acknowledge(
        self,
        data: Received[AppendEntries] | Received[InstallSnapshot],
        matched: int,
        *,
        ticket: int = 0,
        hint: tuple[int, int | None] | None = None,
    ) -> None:
        message = data.message
        prev = message.prev_log_index if isinstance(message, AppendEntries) else 0
        index, term = (0, 0) if hint is None else (hint[0], hint[1] or 0)
        replica = self.group.replica
        response = AppendEntriesResponse(  # by place: it is made for every group of entries
            replica.current_term,
            hint is None,
            matched,
            message.request_id,
            prev,
            index,
            term,
            replica.suspect,
            self.is_full is True,
        )
        self.group.send(response, data.sender, ticket)
