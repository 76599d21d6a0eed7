"""What one node has said and shown in all its lives, held against what its disk was given.

Place: under `cell`, which tells it. Promise: what is wrong in a node taken by itself is noted where
it is first to be seen: a vote given twice, a message that shows what is not on the disk, a commit
that changes, an acknowledgement of what is not shown, a suspect that votes, members that are not
the log's. Invariant: of the disk it knows what was handed to it, not what the product says of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from chronik_server.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshot,
    Message,
    RequestVote,
    RequestVoteResponse,
)
from chronik_server.testing.scope.views import Content, Shown
from chronik_store.format.control import Members
from chronik_store.replica import Replica


class Testimony:
    """See the module. `wrong` is what it found."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.led: set[int] = set()
        self.shown: list[Shown] = []
        self.acked: list[tuple[int, bytes]] = []
        self._votes: dict[int, str] = {}
        self._amnesties: set[int] = set()
        self._hard: tuple[int, str] = (0, "")
        self._log: dict[int, int] = {}
        self._before: object = None
        """What the last group of frames was written behind."""

    def mark(self) -> object:
        """All that it remembers and what a damaged end of the log would leave."""
        return self._votes, sorted(self._amnesties), self._hard, self._log, self._before

    # --- the disk --------------------------------------------------------------------------------

    def on_disk(self, replica: Replica, hard: tuple[int, str]) -> None:
        """All that the log has now, and this hard state, is on the disk."""
        self._before = self._hard, self._log, replica.commit_index
        self._hard = hard
        span = range(replica.first_index, replica.last_index + 1)
        self._log = {index: replica.known_term(index) for index in span}

    def forget_disk(self, *, damaged: bool) -> None:
        """A write may be there or not; damaged: so may be anything."""
        self._log = {}
        if damaged:
            self._hard = (0, "")

    def came_back(self, replica: Replica) -> None:
        """A new life: what the disk was given is there."""
        (term, vote), (old_term, old_vote) = replica.hard_state, self._hard
        if term < old_term or (term == old_term and old_vote not in ("", vote)):
            self.wrong.append(f"came back with {term} {vote!r}, of {old_term} {old_vote!r}")
        for index, known in self._log.items():
            if index >= replica.first_index and _term(replica, index) != known:
                self.wrong.append(f"came back without entry {index} of term {known}")
        self.on_disk(replica, replica.hard_state)

    # --- messages --------------------------------------------------------------------------------

    def hears(self, message: Message) -> None:
        """By a roll call a suspect node votes, too."""
        if isinstance(message, RequestVote) and message.amnesty:
            self._amnesties.add(message.term)

    def says(self, name: str, peer: str, message: Message, replica: Replica) -> None:
        """A message leaves: what it speaks of is on the disk."""
        term: int = getattr(message, "term", 0)
        if term > self._hard[0]:
            self.wrong.append(f"{message.KIND} shows term {term}, on its disk is {self._hard}")
        if isinstance(message, RequestVote):
            if message.amnesty:
                self._amnesties.add(term)
            self._votes_for(name, term, replica)
        elif isinstance(message, RequestVoteResponse) and message.vote_granted:
            self._votes_for(peer, term, replica)
        elif isinstance(message, AppendEntries | InstallSnapshot):
            self.led.add(term)
        elif isinstance(message, AppendEntriesResponse) and message.success:
            index = message.match_index
            # Below the first entry it was in the log that a snapshot replaces, and is in that.
            is_of_now = term == replica.current_term and index >= replica.first_index
            if is_of_now and self._log.get(index, 0) != _term(replica, index):
                self.wrong.append(f"answers {index}, which is not on its disk")

    def _votes_for(self, candidate: str, term: int, replica: Replica) -> None:
        if self._votes.setdefault(term, candidate) != candidate:
            self.wrong.append(f"votes in {term} for {self._votes[term]} and for {candidate}")
        if self._hard[0] == term and self._hard[1] != candidate:
            self.wrong.append(f"votes for {candidate} in {term}, on its disk is {self._hard}")
        if replica.suspect and term not in self._amnesties:
            self.wrong.append(f"is suspect, and votes for {candidate} in {term}")

    # --- commits ---------------------------------------------------------------------------------

    def shows(self, index: int, first: int, log: Sequence[Content], term: int) -> None:
        """Entries up to `index` are shown; `log` begins at `first`."""
        while len(self.shown) < min(first - 1, index):
            self.shown.append(None)
        for at, content in enumerate(log[: max(0, index - first + 1)], first):
            if at > len(self.shown):
                self.shown.append((term, content))
                continue
            before = self.shown[at - 1]
            if before is not None and before[1] != content:
                self.wrong.append(f"shows another entry at {at} than before")
        if index > len(self.shown):
            self.wrong.append(f"shows {index} and has {len(self.shown)}")
        if index >= first and index > max(self._log, default=0):
            self.wrong.append(f"shows {index}, which is not on its disk")

    def acknowledges(self, index: int, value: bytes) -> None:
        """A client was told that its record stands there."""
        self.acked.append((index, value))
        shown = self.shown[index - 1] if index <= len(self.shown) else None
        if shown is None or value not in shown[1][1]:
            self.wrong.append(f"acknowledges {value!r} at {index}, and does not show it there")

    def goes_by(self, members: Members, named: Sequence[tuple[int, Members]]) -> None:
        """The members in force are those of the last MEMBERS entry in the log."""
        if named and named[-1][1] != members:
            self.wrong.append(f"goes by {members}, and its log names {named[-1]}")


def _term(replica: Replica, index: int) -> int:
    return replica.known_term(index) if index <= replica.last_index else 0
