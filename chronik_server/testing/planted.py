"""Known bugs of roles and pipeline, to put back a while: what finds none of them proves nothing.

Place: in the server's kit; `chronik simulate --cluster --planted` and tests/server/raft use it.
Promise: within `planted(name, BUGS)` the product has that one bug, after it it has not.
Invariant: no switch in the product itself: a bug is a function put in the place of a good one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from chronik_server.raft import raftos_skeleton as raftos
from chronik_server.raft.candidate import CandidateRole
from chronik_server.raft.durable_state import LogEnd
from chronik_server.raft.follower import FollowerRole
from chronik_server.raft.group import RaftGroup
from chronik_server.raft.leader import LeaderRole
from chronik_server.raft.received import Received
from chronik_server.raft.replication import Replication
from chronik_store.manifest.state import FoldedState
from chronik_store.replica import Replica
from chronik_store.testing.planted import Plant, bugs_of, tiering_bugs
from chronik_store.wal import recovery

_Put = Callable[[Any, str, Any], None]


def forget_the_vote(put: _Put) -> None:
    """A node that begins to follow forgets whom it has voted for in this term."""

    def init_storage(self: Any) -> None:
        self.group.replica.save_hard_state(self.group.term, "")

    put(FollowerRole, "init_storage", init_storage)


def send_before_the_disk(put: _Put) -> None:
    """Nothing that is sent waits until the hard state and the entries it speaks of are durable."""
    put(Replica, "synced_ticket", property(lambda _self: 1 << 62))


def acknowledge_before_the_disk(put: _Put) -> None:
    """An answer waits for the hard state, and not for the entries that it acknowledges."""
    send = RaftGroup.send
    put(RaftGroup, "send", lambda self, data, to, _ticket=0: send(self, data, to, 0))


def only_voters_ask(put: _Put) -> None:
    """A voter asks for no votes once it has the entry that drops it, committed or not."""
    put(RaftGroup, "_is_going", lambda _self: False)


def count_duplicate_votes(put: _Put) -> None:
    """A voter that answers twice counts twice."""
    raw = raftos.Candidate.on_receive_request_vote_response

    def count(self: Any, data: Any) -> None:
        if data.message.vote_granted:
            raw(self, data)

    put(CandidateRole, "on_receive_request_vote_response", count)


def quorum_without_self(put: _Put) -> None:
    """A majority is one of the other voters."""
    put(RaftGroup, "is_majority", lambda self, count: count > (len(self.voters) - 1) // 2)


def commit_older_terms_by_counting(put: _Put) -> None:
    """An entry of an older term is committed as soon as a quorum has it."""

    def update(self: Any) -> None:
        held = sorted(self._held(voter) for voter in self.group.voters)
        self.commit_index = max(self.commit_index, held[(len(held) - 1) // 2])
        self.group.note_commit(self.commit_index)

    put(LeaderRole, "update_commit_index", update)


def count_oneself_before_the_disk(put: _Put) -> None:
    """A leader counts itself for entries that its own disk does not have yet."""
    held = LeaderRole._held

    def count(self: Any, voter: str) -> int:
        own = voter == self.group.id
        return int(self.group.replica.last_index if own else held(self, voter))

    put(LeaderRole, "_held", count)


def acknowledge_the_whole_log(put: _Put) -> None:
    """A follower acknowledges all that it has, not only what was compared with the leader's log."""
    answer = FollowerRole._acknowledge

    def acknowledge(self: Any, data: Any, matched: int, **options: Any) -> None:
        if options.get("hint") is None:
            matched = self.group.replica.last_index
        answer(self, data, matched, **options)

    put(FollowerRole, "_acknowledge", acknowledge)


def answer_beats_with_what_is_not_durable(put: _Put) -> None:
    """A beat is answered with the end of the log, synced or not."""
    put(Replica, "durable_index", property(lambda self: self.last_index))


def take_answers_of_any_term(put: _Put) -> None:
    """Answers of a term that has passed are taken for this one's."""
    refuse = RaftGroup._refuse

    def dispatch(self: Any, sender: str, message: Any) -> None:
        if message.KIND.endswith("_response"):
            raftos.State.request_handler(self, Received(sender, message))
        else:
            refuse(self, sender, message)

    put(RaftGroup, "_refuse", dispatch)


def vote_for_any_log(put: _Put) -> None:
    """Votes go to candidates whose log is shorter or older, too."""
    put(LogEnd, "last_log_term", property(lambda _self: 0))
    put(LogEnd, "last_log_index", property(lambda _self: 0))
    put(LogEnd, "position", lambda _self: (0, 0))


def read_without_a_round(put: _Put) -> None:
    """A linearizable read asks nobody whether this node still leads."""

    def read(self: Any) -> Any:
        future = self.loop.create_future()
        future.set_result(self.commit_index)
        return future

    put(LeaderRole, "read_barrier", read)


def trust_a_restarted_peer(put: _Put) -> None:
    """What a peer had acknowledged counts although it has restarted since."""
    put(Replication, "reset", lambda _self, _peer: None)


def count_suspects(put: _Put) -> None:
    """A node that may have lost what it acknowledged counts in a quorum."""

    def held(self: Any, voter: str) -> int:
        if voter == self.group.id:
            return int(self.group.replica.durable_index)
        return int(self.replication.peers[voter].match_index)

    put(LeaderRole, "_held", held)


def commit_what_was_not_compared(put: _Put) -> None:
    """A follower commits up to the leader's index, whether or not its own entries are the same."""
    receive = FollowerRole.on_receive_append_entries

    def commit(self: Any, data: Any) -> None:
        receive(self, data)
        last = self.group.replica.last_index
        self.group.note_commit(min(data.message.commit_index, last))

    put(FollowerRole, "on_receive_append_entries", commit)


def no_noop(put: _Put) -> None:
    """A new leader begins without an entry of its own term."""

    def start(self: Any) -> None:
        raftos.Leader.start(self)
        self.noop_index = self.group.replica.last_index or 1

    put(LeaderRole, "start", start)


def pre_vote_raises_the_term(put: _Put) -> None:
    """Who is asked for a pre-vote takes over the asker's term."""
    receive = RaftGroup.receive

    def raise_term(self: Any, sender: str, message: Any) -> None:
        if message.KIND == "pre_vote" and message.term > self.term:
            self._enter_term(message.term)
        receive(self, sender, message)

    put(RaftGroup, "receive", raise_term)


def any_one_may_hand_over(put: _Put) -> None:
    """Votes are given while the leader is heard."""
    put(FollowerRole, "is_sticky", lambda _self: False)


def trust_at_once(put: _Put) -> None:
    """A suspect node is whole as soon as it has what the leader takes for committed."""
    put(LeaderRole, "trusted_index", lambda self, _peer: self.commit_index)


def begin_behind_any_damage(put: _Put) -> None:
    """A damaged log begins with the next whole file, whatever segments hold."""
    put(recovery, "possible_starts", lambda openings: [o for o in openings[1:] if not o.fault])
    put(FoldedState, "lacks", lambda _self, _base_index, _committed_index: "")


TIERING = (
    "prune-before-published",
    "prune-past-coverage",
    "overwrite-the-manifest",
    "upload-under-a-new-key",
    "put-before-intent",
    "list-before-the-put",
    "retain-past-tiered",
    "collect-before-published",
    "never-collect",
)
"""Bugs of the store's pipeline that a cluster's stories must find, too."""

BUGS: dict[str, Plant] = {
    **bugs_of(sys.modules[__name__]),
    **{name: bugs_of(tiering_bugs)[name] for name in TIERING},
}
"""Name -> bug; its docstring says what it is."""
