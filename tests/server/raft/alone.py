"""One node of a group whose peers are the test: it feeds messages and looks at what leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, TypeVar

from chronik_server.raft.candidate import CandidateRole
from chronik_server.raft.leader import LeaderRole
from chronik_server.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Message,
    RequestVote,
    RequestVoteResponse,
)
from chronik_server.testing.network import Network
from chronik_server.testing.node import GROUP, Node
from chronik_server.testing.world import World
from chronik_store.format.entry import Entry
from chronik_store.testing.cluster_log import run_of

M = TypeVar("M")


class Alone:
    """n1, with a log of these terms and this hard state; n2... exist in its members only."""

    def __init__(
        self,
        voters: int = 3,
        *,
        terms: Sequence[int] = (),
        hard: tuple[int, str] | None = None,
        **options: Any,
    ) -> None:
        self.world = World(voters, **options)
        self.world.keep_log = True
        node = Node(self.world, "n1")
        self.world.nodes["n1"] = node
        self.world.judge.seen_commit["n1"] = 0
        if terms:
            node.replica.append_entries(0, 0, run_of(terms))
        if hard is None and terms:
            hard = (max(terms), "")
        if hard is not None:
            node.replica.save_hard_state(*hard)
        node.committer.flush()
        node.raft.start()
        node.consensus.start()
        self.node = node

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.world.close()
        assert [] == self.world.loop.errors

    @property
    def group(self) -> Any:
        return self.node.group

    @property
    def replica(self) -> Any:
        return self.node.replica

    @property
    def leads(self) -> bool:
        return isinstance(self.group.state, LeaderRole)

    def run(self, seconds: float = 0.02) -> None:
        self.world.run(seconds)

    def feed(self, sender: str, message: Message, *, settle: bool = True) -> None:
        self.node.receive(sender, GROUP, message)
        if settle:
            self.run()

    def sent(self, kind: type[M], to: str | None = None) -> list[M]:
        return [m for _, peer, m in self.world.log if type(m) is kind and to in (None, peer)]

    def forget(self) -> None:
        self.world.log.clear()

    def restart(self, mode: str = "lost") -> None:
        self.world.crash("n1", mode)
        self.node = self.world.boot("n1")

    def campaign(self) -> None:
        """To candidate, as after a pre-quorum."""
        self.group.campaign()
        self.run()
        assert isinstance(self.group.state, CandidateRole)

    def lead(self) -> int:
        """Elected by everybody, nothing acknowledged yet; the term."""
        self.campaign()
        for voter in self.group.voters:
            if voter != "n1" and not self.leads:
                self.feed(voter, RequestVoteResponse(self.group.term, vote_granted=True))
        assert self.leads
        return int(self.group.term)

    def acknowledge(self, sender: str, match: int, *, term: int | None = None) -> None:
        """A success of this peer."""
        self.feed(sender, success(self.group.term if term is None else term, match))


def ask(term: int, candidate: str, index: int = 0, log_term: int = 0, **flags: bool) -> RequestVote:
    return RequestVote(term, candidate, index, log_term, **flags)


def entries_of(
    term: int,
    prev: int,
    prev_term: int,
    entries: Sequence[Entry] = (),
    *,
    commit: int = 0,
    leader: str = "n2",
    request_id: int = 1,
) -> AppendEntries:
    return AppendEntries(term, leader, prev, prev_term, commit, 0, "", request_id, tuple(entries))


def success(term: int, match: int, request_id: int = 1) -> AppendEntriesResponse:
    return AppendEntriesResponse(term, True, match, request_id, match, 0, 0, False)


def conflict(term: int, prev: int, index: int, hint_term: int = 0) -> AppendEntriesResponse:
    return AppendEntriesResponse(term, False, 0, 1, prev, index, hint_term, False)


STALLED = Network(disk_delays=(1e9,))
"""A disk that never answers."""
