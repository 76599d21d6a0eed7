"""What must hold in a group whatever happens: Raft's invariants, and what clients were told.

Place: beside `world`, which tells it of every message, sync, commit, role, end and start. Promise:
what is wrong is noted with its time, where it is first to be seen. Invariant: looking changes
nothing: its reads are no calls of the product, and it draws no chance.

    election safety          one leader for a term, by its role and by what it sends
    one vote                 for a term, over all lives of a node; never taken back by a crash
    log matching             entries of equal index and term are equal, and so are those before them
    leader completeness      who leads has everything that is committed
    state machine safety     one entry for an index, for ever
    durable on a quorum      what is committed is on the disks of a quorum of the voters
    persist before send      what an answer speaks of is on the own disk
    nothing undone           no commit goes back; what was durable is there after every crash
    reads                    a linearizable read sees all that was acknowledged before it began
    acknowledged             all of it is on every member, in the end

A disk that was damaged or exchanged may have lost what it held: of that node's earlier lives only
its votes are remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chronik_server.raft.consensus import Role
from chronik_server.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshot,
    Message,
    RequestVote,
    RequestVoteResponse,
)

if TYPE_CHECKING:
    from chronik_server.testing.node import Node

Content = tuple[int, bytes]
"""Term and bytes of an entry."""


@dataclass
class Remembered:
    """What a node is bound to: the newest term that it has shown, its vote in it, its disk."""

    term: int = 0
    vote: str = ""
    durable_index: int = 0
    durable_term: int = 0
    """0: not known, for a snapshot that was not synced yet hides it."""
    commit_index: int = 0


class Judge:
    """See the module. `violations` is what it found.

    nodes: by name, each in its newest life. now: seconds.
    """

    def __init__(self, nodes: Mapping[str, Node], now: Callable[[], float]) -> None:
        self.violations: list[str] = []
        self.compared = 0
        """How often an entry that was shown has been compared with what is known of its place."""
        self.elections = 0
        self.leaders: dict[int, str] = {}
        self.committed: dict[int, Content] = {}
        self.acked: list[tuple[int, bytes]] = []
        """(index, payload) of what clients were told is stored."""
        self.seen_commit: dict[str, int] = {}
        self._nodes = nodes
        self._now = now
        self._votes: dict[tuple[str, int], str] = {}
        self._placed: dict[tuple[int, int], tuple[bytes, int | None]] = {}
        self._looked: dict[Node, dict[int, int]] = {}
        self._bound: dict[str, Remembered] = {}
        self._excused: set[str] = set()

    def violate(self, what: str) -> None:
        """This must not be."""
        self.violations.append(f"{self._now():.3f} s: {what}")

    # --- lives -----------------------------------------------------------------------------------

    def damaged(self, name: str) -> None:
        """The disk of a node that is down was damaged, or exchanged for an empty one."""
        self._excused.add(name)
        self._bound.pop(name, None)

    def ended(self, node: Node) -> None:
        """A life is over; its replica still tells what it knew."""
        replica, bound = node.replica, self._bound.setdefault(node.name, Remembered())
        bound.durable_index = replica.durable_index
        bound.durable_term = replica.known_term(replica.durable_index)
        bound.commit_index = replica.commit_index
        self._looked.pop(node, None)

    def started(self, node: Node) -> None:
        """A life begins: the disk has what the last one was sure of."""
        replica = node.replica
        self.seen_commit[node.name] = replica.commit_index
        bound = self._bound.setdefault(node.name, Remembered())
        term, vote = replica.hard_state
        if term < bound.term or (term == bound.term and bound.vote not in {"", vote}):
            self.violate(
                f"{node.name} has shown term {bound.term} with vote {bound.vote or 'none'}, and "
                f"came back with {term}, {vote or 'none'}"
            )
        if replica.last_index < bound.durable_index:
            self.violate(
                f"{node.name} came back up to {replica.last_index}; {bound.durable_index} was "
                f"durable, {bound.commit_index} committed"
            )
        elif bound.durable_term and bound.durable_index >= replica.first_index:
            found = replica.known_term(bound.durable_index)
            if found != bound.durable_term:
                self.violate(
                    f"{node.name} came back with term {found} at {bound.durable_index}, where "
                    f"term {bound.durable_term} was durable"
                )
        self.look(node)

    # --- logs ------------------------------------------------------------------------------------

    def look(self, node: Node) -> None:
        """Log matching, for what is new in this log; and that nothing committed has gone."""
        replica = node.replica
        looked = self._looked.setdefault(node, {})
        first, last = replica.first_index, replica.last_index
        if last < self.seen_commit.get(node.name, 0):
            self.violate(f"commit undone: {node.name} ends at {last}")
        at = last
        while at >= first and looked.get(at) != replica.known_term(at):
            at -= 1
        if at == last:
            return
        start = max(at + 1, first)
        before: int | None = replica.known_term(start - 1) or None
        for term, data in self._entries(node, start, last):
            self._place(node, start, term, data, before)
            looked[start] = before = term
            start += 1

    def _place(self, node: Node, index: int, term: int, data: bytes, before: int | None) -> None:
        self.compared += 1
        known, known_before = self._placed.setdefault((index, term), (data, before))
        if known_before is None:
            self._placed[index, term] = known, before  # it stood behind a base of unknown term
        if known != data or (before is not None and known_before not in {None, before}):
            self.violate(f"log matching: {node.name} differs at {index} of term {term}")

    def _entries(self, node: Node, first: int, last: int) -> Iterable[Content]:
        hook, node.disk.hook = node.disk.hook, None  # looking is no call of the product
        try:
            while first <= last:
                found = node.replica.entries(first, 1 << 20)
                for entry in found[: last - first + 1]:
                    yield entry.header.term, entry.encode()
                first += len(found)
        finally:
            node.disk.hook = hook

    def _entry(self, node: Node, index: int) -> Content | None:
        if index > node.replica.last_index:
            return None
        return next(iter(self._entries(node, index, index)))

    # --- roles and commits -----------------------------------------------------------------------

    def role_taken(self, node: Node, role: Role, term: int) -> None:
        """Leader completeness; election safety."""
        if role is not Role.LEADER or not node.is_up:
            return
        self.elections += 1
        self._leads(node, term)
        for index, content in self.committed.items():
            if index >= node.replica.first_index:
                self.compared += 1
                if self._entry(node, index) != content:
                    self.violate(f"leader completeness: {node.name} lacks committed entry {index}")

    def _leads(self, node: Node, term: int) -> None:
        if self.leaders.setdefault(term, node.name) != node.name:
            self.violate(f"election safety: {self.leaders[term]} and {node.name} lead {term}")

    def commit_shown(self, node: Node, index: int) -> None:
        """State machine safety: one entry per index, for ever; and no commit without the disks."""
        if not node.is_up:
            return
        replica = node.replica
        if index > replica.durable_index and index >= replica.first_index:
            self.violate(f"{node.name} shows {index}, durable is {replica.durable_index}")
        if index < self.seen_commit[node.name]:
            self.violate(f"commit undone: {node.name} goes back to {index}")
        first = max(self.seen_commit[node.name] + 1, replica.first_index)
        for at in range(first, index + 1):
            content = self._entry(node, at)
            self.compared += 1
            if content is not None and at not in self.committed:
                self._check_quorum(at, content[0])
            if content is None or self.committed.setdefault(at, content) != content:
                self.violate(f"state machine safety: {node.name} differs at {at}")
        self.seen_commit[node.name] = index

    def _check_quorum(self, index: int, term: int) -> None:
        """By the voters that somebody goes by: a change counts from where it stands in a log."""
        views = {each.group.voters for each in self._nodes.values() if each.is_up}
        for voters in views:
            if 2 * sum(self._holds(name, index, term) for name in voters) > len(voters):
                return
        self.violate(f"durability: {index} is committed, and no quorum has it on disk")

    def _holds(self, name: str, index: int, term: int) -> bool:
        if name in self._excused:
            return True
        node = self._nodes.get(name)
        if node is None or node.replica.durable_index < index:
            return False
        return index < node.replica.first_index or node.replica.known_term(index) == term

    # --- messages --------------------------------------------------------------------------------

    def sent(self, node: Node, peer: str, message: Message) -> None:
        """A message leaves a node: what it says must be so, and binds it."""
        bound = self._bound.setdefault(node.name, Remembered())
        term: int = getattr(message, "term", 0)
        if term > bound.term:
            bound.term, bound.vote = term, ""
        if isinstance(message, RequestVote):
            self._votes_for(node, term, message.candidate_id)
        elif isinstance(message, RequestVoteResponse) and message.vote_granted:
            self._votes_for(node, term, peer)
        elif isinstance(message, AppendEntries | InstallSnapshot):
            self._leads(node, term)
        elif isinstance(message, AppendEntriesResponse) and message.success:
            self._answers(node, message)

    def _answers(self, node: Node, message: AppendEntriesResponse) -> None:
        replica, index = node.replica, message.match_index
        # Of an earlier term it has waited for the disk too, and may be cut off since. Below the
        # first entry it was in the log that a snapshot has replaced, and is in the snapshot.
        is_of_now = message.term == node.group.term and index >= replica.first_index
        if is_of_now and index > replica.durable_index:
            self.violate(f"{node.name} answers {index}, durable is {replica.durable_index}")

    def _votes_for(self, node: Node, term: int, candidate: str) -> None:
        given = self._votes.setdefault((node.name, term), candidate)
        if given != candidate:
            self.violate(f"{node.name} votes twice in {term}: for {given}, and for {candidate}")
        bound = self._bound[node.name]
        if term == bound.term:
            bound.vote = candidate

    # --- clients ---------------------------------------------------------------------------------

    def acknowledged(self, index: int, payload: bytes) -> None:
        """A client was told that this is stored."""
        self.acked.append((index, payload))
        known = self.committed.get(index)
        self.compared += 1
        if known is None or not known[1].endswith(payload):
            self.violate(f"acknowledged at {index}, and not what is committed there")

    @property
    def highest_acked(self) -> int:
        """What a linearizable read that begins now must see."""
        return max((index for index, _ in self.acked), default=0)

    def read(self, node: Node, seen: int, highest: int) -> None:
        """A read barrier returned `seen`; `highest` was acknowledged when it began."""
        if seen < highest:
            self.violate(f"a read at {node.name} saw {seen}, {highest} was acknowledged")

    def check_logs(self, members: Iterable[Node]) -> None:
        """Everything anew: logs that match, and every acknowledged entry on every member."""
        for node in members:
            self._looked.pop(node, None)
            self.look(node)
            first, shown = node.replica.first_index, node.replica.commit_index
            held = dict(enumerate(self._entries(node, first, node.replica.last_index), first))
            for index, content in self.committed.items():
                if first <= index <= shown:
                    self.compared += 1
                    if held.get(index) != content:
                        self.violate(f"log matching: {node.name} differs at {index}")
            for index, payload in self.acked:
                if index >= first:
                    self.compared += 1
                    if index not in held or not held[index][1].endswith(payload):
                        self.violate(f"acknowledged durability: {node.name} lacks {index}")
