"""The leader: it orders entries, counts who holds them, and gives up when nobody answers.

Place: a role over raftos's. Promise: an index is committed when a majority of the voters of its
group holds it durably, this node included only once its own disk has it, and only by counting an
entry of this term (paper 5.4.2); its first entry is a NOOP. Invariant: nothing is ever sent in a
term that this object did not win: it checks that it is current, and it lives for one term.

While there is something to tell, a beat repeats it; an idle group keeps one timer, which asks
whether a quorum still answers (protocol 15).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from chronik_server.raft.consensus import Done, Payload, PeerStatus
from chronik_server.raft.errors import NotLeaderError
from chronik_server.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    PreVote,
    RequestVote,
    RequestVoteResponse,
)
from chronik_server.raft.progress import PeerProgress
from chronik_server.raft.proposals import Proposals
from chronik_server.raft.raftos_skeleton import Leader, RoleTimer
from chronik_server.raft.read_barriers import ReadBarriers
from chronik_server.raft.received import Received
from chronik_server.raft.replication import Replication
from chronik_server.raft.role_base import RoleBase
from chronik_server.raft.transfer import Transfer
from chronik_store.errors import BackpressureError, DiskFullError
from chronik_store.format.control import Members, Noop
from chronik_store.format.record_batch import RecordBatch

if TYPE_CHECKING:
    from chronik_server.raft.group import RaftGroup

logger = logging.getLogger("chronik_server.raft")

CONTROL_BYTES = 256
"""What a control entry counts for in the queue."""
STUCK_LOOKS_MAX = 8
"""So many looks in a row that find the own disk behind the quorum and no further than before."""


class LeaderRole(Leader, RoleBase):
    """See the module. One object per term led."""

    def __init__(self, state: RaftGroup) -> None:
        self.group = state
        super().__init__(state)
        settings = state.node.settings
        self.heartbeat_timer = RoleTimer(settings.heartbeat_seconds, self.heartbeat)
        self.step_down_timer = RoleTimer(settings.check_quorum_seconds, self.check_quorum)
        self.replication = Replication(self, state)
        self.proposals = Proposals()
        self.transfer = Transfer(self, state)
        self.reads = ReadBarriers(self, state)
        self.commit_index = state.replica.commit_index
        self.commit_round = 0
        """What is sent from this round on brings `commit_index`."""
        self.noop_index = 0
        self.amnesty = state.amnesty
        self._count = self.guarded(self.update_commit_index)
        self._pumping = False
        self._telling: asyncio.TimerHandle | None = None
        self._durable_seen = 0
        self._stuck_looks = 0

    # --- raftos's frame --------------------------------------------------------------------------

    def start(self) -> None:
        """Raftos prepares, beats and arms the timers; then the term's first entry."""
        super().start()
        if self.group.replica.suspect:
            # By the roll call of all voters this log is the group's (protocol 9).
            cost = self.group.replica.go_on_by_roll_call()
            logger.error("%s: no voter is sure of its copy; %s", self.group, cost)
        staged = self.group.replica.propose(self.group.term, [Noop()])
        self.noop_index = staged.index
        self.kick()

    def stop(self) -> None:
        """Deposed, or the group ends."""
        super().stop()
        if self._telling is not None:
            self._telling.cancel()
        self.proposals.abandon("leadership ended", None)
        self.reads.abandon()
        self.transfer.ended()

    def init_log(self) -> None:
        """Raftos's next_index and match_index are `replication.peers` here."""
        self.replication.sync_peers()

    def heartbeat(self) -> None:
        """A round of beats; none while the group is idle."""
        if self.noop_index and self.is_idle():
            self.heartbeat_timer.stop()
            return
        self.begin_round()

    def begin_round(self) -> None:
        """A beat to each peer, under a number that its answer repeats."""
        super().heartbeat()
        self.response_map.clear()  # raftos's lease; ours is what each peer answered last

    def append_entries(self, destination: str | None = None) -> asyncio.Future[None]:
        """Raftos's heartbeat ends here; it wants something to await."""
        if self.is_current:
            for peer in [destination] if destination else list(self.replication.peers):
                self.replication.send(peer, beat=True)
        done: asyncio.Future[None] = self.loop.create_future()
        done.set_result(None)
        return done

    def is_idle(self) -> bool:
        """Every peer that is alive has everything, has shown that it knows it, and nobody waits for
        a round. What was sent may have been lost, with its connection or alone.
        """
        last = self.group.replica.last_index
        if self.reads.waiting or self.commit_index < last or self.transfer.is_under_way:
            return False
        return all(
            (
                (each.match_index == last and each.commit_shown == self.commit_index)
                and not each.is_suspect
                and not each.is_full
            )
            or not self.group.node.liveness.is_up(peer)
            for peer, each in self.replication.peers.items()
        )

    # --- propose ---------------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """An entry of this term is committed, and nobody is about to take over."""
        return 0 < self.noop_index <= self.commit_index and not self.transfer.is_under_way

    def trusted_index(self, peer: PeerProgress) -> int:
        """A suspect peer that matches up to here is whole again (protocol 9); 0: nothing is proved.

        It has lost what it knew of terms, too, so it would believe a deposed leader: half of the
        voters, all of them whole, must have confirmed this one since the peer is known to be
        suspect. Half is enough: a later term has a majority, which meets them, and who meets has
        confirmed before it voted. So the round came before that term, and of what the peer had
        acknowledged when it was damaged nothing is committed that this leader lacks
        (docs/decisions/0013). A read asks for the majority: it must not be answered behind one.
        """
        if not peer.is_suspect:
            return 0
        if self.amnesty:
            return self.noop_index
        settled = 0 < self.noop_index <= self.commit_index
        half = (len(self.group.voters) + 1) // 2
        return self.commit_index if settled and self.confirmed_by(half) >= peer.trust_round else 0

    def propose(
        self, payloads: Sequence[Payload], done: Done, expected_offset: int | None = None
    ) -> None:
        """See `Consensus.propose`, `Consensus.propose_batch`."""
        group = self.group
        if self.transfer.is_under_way:
            raise NotLeaderError(
                "leadership is being handed over; ask again in a moment", leader=None
            )
        size = records = 0
        for payload in payloads:
            if isinstance(payload, RecordBatch):
                size += payload.nbytes
                records += 1
            else:
                size += CONTROL_BYTES
        if records and not self._has_room():
            self.kick()  # beats tell when there is room again
            raise DiskFullError(
                "the disks of too many of this partition's nodes are full for a quorum to take "
                "records: free space there, then retry",
                durability="not_durable",
            )
        limit = group.node.settings.queue_bytes
        if records and self.proposals.bytes and self.proposals.bytes + size > limit:
            raise BackpressureError(
                f"{self.proposals.bytes} bytes wait for a quorum (queue_bytes is {limit}); "
                "append again after some have been acknowledged"
            )
        # Written behind the sends: a follower's way to its disk is longer than ours.
        term, replica = group.term, group.replica
        staged = replica.propose(term, payloads, expected_offset=expected_offset, commit=False)
        self.proposals.wait(staged, term, size, done)
        if staged.index <= replica.commit_index:
            self.proposals.committed(replica.commit_index, replica.known_term)
        self.kick()

    def _has_room(self) -> bool:
        """A majority of the voters takes records; commands pass always (protocol 20)."""
        full = [peer for peer, each in self.replication.peers.items() if each.is_full]
        if not full:
            return True
        voters = self.group.voters
        return self.group.is_majority(len(voters) - sum(peer in voters for peer in full))

    def kick(self) -> None:
        """There is news for the peers; told once per turn of the loop."""
        if not self.heartbeat_timer.is_active:
            self.heartbeat_timer.start()
        if not self._pumping:
            self._pumping = True
            self.group.node.turn.soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if not self.is_current:
            self.group.replica.request_commit()
            return
        self.replication.sync_peers()
        self.replication.send_all()
        replica = self.group.replica
        replica.when_synced(replica.last_ticket, self._count)
        # On its way before our own disk is asked: whoever writes takes the interpreter's lock.
        self.group.node.turn.flush()
        replica.request_commit()

    # --- commit ----------------------------------------------------------------------------------

    def on_receive_append_entries_response(self, data: Received[AppendEntriesResponse]) -> None:
        """A peer has answered."""
        peer = data.sender
        if peer not in self.replication.peers:
            return
        if self.replication.answered(peer, data.message):
            self.update_commit_index()
            self.transfer.peer_moved(peer)
        if self.is_current and peer in self.replication.peers:
            if self.reads.waiting:
                self.reads.settle()
            self.replication.send_on(peer)

    def update_commit_index(self) -> None:
        """Count who holds what; raftos's way of doing so is defect 18. Of three voters the second
        one that has an entry commits it, and for the third there is nothing left to count.
        """
        group, replica = self.group, self.group.replica
        if self.commit_index < replica.last_index:
            held = sorted(map(self._held, group.voters))
            index = held[(len(held) - 1) // 2] if held else 0
            if index > self.commit_index and replica.term(index) == replica.current_term:
                self.commit_index = index
                self.commit_round = self.request_id + 1
                self._tell_soon()
        group.note_commit(self.commit_index)
        if self.is_current:
            self._follow_members()
            if self.reads.waiting:
                self.reads.settle()

    def _held(self, voter: str) -> int:
        if voter == self.group.id:
            return self.group.replica.durable_index
        progress = self.replication.peers.get(voter)
        return 0 if progress is None or progress.is_suspect else progress.match_index

    def _tell_soon(self) -> None:
        """Followers of a group without more entries learn of the commit, too. Where entries follow
        each other they bring it: then the timer finds it told, and looks at the next one.
        """
        if self._telling is None:
            self._telling = self.loop.call_later(
                self.group.node.settings.commit_notice_seconds, self._tell, self.commit_index
            )

    def _tell(self, index: int) -> None:
        self._telling = None
        if not self.is_current:
            return
        newer = False
        for peer, progress in self.replication.peers.items():
            if progress.commit_sent < index:
                self.request_id = max(self.request_id, self.commit_round)
                self.replication.send(peer, beat=True)
            elif progress.commit_sent < self.commit_index:
                newer = True
        if newer:
            self._tell_soon()

    def committed(self, index: int) -> None:
        """`committed` has moved here: answer whom it concerns."""
        self.proposals.committed(index, self.group.replica.known_term)

    # --- members ---------------------------------------------------------------------------------

    def _follow_members(self) -> None:
        """The log must name the members; a leader that it dropped leads until that commits."""
        group = self.group
        if not self.is_ready:
            return
        named = group.replica.members
        if named is None:
            group.replica.propose(group.term, [group.members])
            self.kick()
        elif named[0] <= self.commit_index and group.id not in named[1].voters:
            group.to_follower()

    def change_members(self, members: Members, done: Done) -> None:
        """See `Consensus.change_members`; what may change is checked by the group."""
        named = self.group.replica.members
        if not self.is_ready or named is None or named[0] > self.commit_index:
            raise BackpressureError(
                "a change of members is pending, or this leader has not committed anything yet; "
                "ask again when it has"
            )
        self.propose([members], done)
        self.replication.sync_peers()

    # --- reads, quorum ---------------------------------------------------------------------------

    def read_barrier(self) -> asyncio.Future[int]:
        """See `Consensus.read_barrier`."""
        return self.reads.ask()

    def confirmed_by(self, count: int) -> int:
        """The newest round of beats that so many voters, the suspect ones aside, answered."""
        rounds = sorted(self._round(voter) for voter in self.group.voters)
        return rounds[len(rounds) - count] if rounds else 0

    def _round(self, voter: str) -> int:
        if voter == self.group.id:
            return self.request_id
        progress = self.replication.peers.get(voter)
        return 0 if progress is None or progress.is_suspect else progress.request_id

    def has_quorum(self) -> bool:
        """A majority answered this leader, or this node's beats, within the time that it has."""
        group, node = self.group, self.group.node
        since = self.loop.time() - node.settings.check_quorum_seconds
        alive = 0
        for voter in group.voters:
            progress = self.replication.peers.get(voter)
            if voter == group.id:
                alive += 1
            elif progress is not None:
                alive += max(progress.heard_at, node.liveness.acked_at(voter)) >= since
        return group.is_majority(alive)

    def check_quorum(self) -> None:
        """Raftos's step-down timer fired."""
        if not self.has_quorum():
            self.group.to_follower()
        elif self._is_stuck():
            logger.error("%s: this node's disk hangs, and a quorum is ahead of it", self.group)
            self.group.to_follower()

    def _is_stuck(self) -> bool:
        """The own disk writes nothing any more, though a quorum of the others has committed what is
        not on it: nothing is answered here, and who leads beats, so nobody else would lead.
        """
        durable = self.group.replica.durable_index
        stands_still = durable < self.commit_index and durable == self._durable_seen
        self._durable_seen = durable
        self._stuck_looks = self._stuck_looks + 1 if stands_still else 0
        return self._stuck_looks >= STUCK_LOOKS_MAX

    # --- others who would lead -------------------------------------------------------------------

    def on_receive_pre_vote(self, data: Received[PreVote]) -> None:
        """Refused while a quorum answers; the asker is told that it has a leader, or tells us that
        its term is above ours.
        """
        self.answer_pre_vote(data, may_grant=not self.has_quorum())
        if data.sender in self.replication.peers:
            self.replication.send(data.sender, beat=True)

    def on_receive_request_vote(self, data: Received[RequestVote]) -> None:
        """Of our own term, which we won."""
        self.group.send(RequestVoteResponse(self.group.term, vote_granted=False), data.sender)

    def on_receive_append_entries(self, data: Received[AppendEntries]) -> None:
        """Two leaders in one term: somebody's hard state was lost."""
        raise AssertionError(f"{data.sender} leads term {self.group.term}, and so do we")

    on_receive_install_snapshot = on_receive_append_entries

    def peers_status(self) -> tuple[PeerStatus, ...]:
        """For `status`."""
        return tuple(
            PeerStatus(
                peer,
                each.match_index,
                each.next_index,
                str(each.mode),
                self.group.node.liveness.is_up(peer),
                each.is_suspect,
                each.is_full,
            )
            for peer, each in sorted(self.replication.peers.items())
        )
