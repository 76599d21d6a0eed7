"""The history of a log, frame by frame, and what a crash may leave of it.

Frames have one order, so the state of a log after a crash is the state after some frame: not
before the last one that was led, not behind the last one that was staged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from chronik_store.format.manifest_file import LogBase
from chronik_store.testing.simulated_disk import SimulatedDisk

Opens = Callable[..., Any]
SETTINGS = {"file_bytes": 4096}
MODES = ("lost", "kept", "torn", "any")


@dataclass(frozen=True)
class State:
    """A log: live entries from `first` on, hard state, suspicion."""

    entries: dict[int, bytes]
    first: int = 1
    vote: tuple[int, str] = (0, "")

    def __repr__(self) -> str:
        short = {index: (len(data), data[-6:]) for index, data in self.entries.items()}
        return f"<from {self.first} {self.vote} {short}>"

    def matches(self, other: State) -> bool:
        """Equal where both hold entries; what was pruned need not be gone yet, nor still there."""
        first = max(self.first, other.first)
        mine, theirs = (
            {index: data for index, data in state.entries.items() if index >= first}
            for state in (self, other)
        )
        last = (
            max(self.entries, default=self.first - 1),
            max(other.entries, default=other.first - 1),
        )
        return mine == theirs and last[0] == last[1] and self.vote == other.vote


@dataclass
class History:
    """What a program did to a log, frame by frame. states[i]: after the i-th frame."""

    states: list[State] = field(default_factory=lambda: [State({})])
    acknowledged: int = 0
    owner: Any = None
    pruned: int = 1
    """The log may begin here: what is below was pruned, or stands in a snapshot."""

    def add(self, state: State) -> None:
        self.states.append(state)

    def lead(self, seq: int) -> None:
        staged = len(self.states) - 1
        self.owner.wal.lead(seq)
        self.acknowledged = staged

    def append(self, data: bytes, *, lead: bool = True) -> None:
        now = self.states[-1]
        index = self.owner.wal.last_index + 1
        seq = self.owner.stage(data)
        self.add(replace(now, entries=now.entries | {index: data}))
        if lead:
            self.lead(seq)

    def truncate(self, index: int, *, lead: bool = True) -> None:
        now = self.states[-1]
        seq = self.owner.truncate(index)
        self.add(replace(now, entries={i: data for i, data in now.entries.items() if i < index}))
        if lead:
            self.lead(seq)

    def vote(self, term: int, name: str) -> None:
        with self.owner.wal.lock:
            seq = self.owner.wal.stage_hard_state(term, name)
        self.owner.term = term
        self.add(replace(self.states[-1], vote=(term, name)))
        self.lead(seq)

    def snapshot(self, index: int, offset: int) -> None:
        owner = self.owner
        base = LogBase(index, owner.term, offset, 0)
        manifest = replace(owner.folded.manifest, next=base)
        folded = replace(owner.folded, base=base, manifest=manifest, committed_index=index)
        owner.folded = folded
        with owner.wal.lock:
            seq, replaced = owner.wal.stage_snapshot(folded)
            if replaced:
                self.pruned = max(self.pruned, index + 1)
                self.add(replace(self.states[-1], entries={}, first=index + 1))
        self.lead(seq)
        with owner.wal.lock:
            owner.wal.commit_mark = index

    def prune(self) -> None:
        """As the pipeline does it: a later, durable checkpoint stands for what goes (protocol 1).
        Without one, a file that comes back, its removal lost, looks like the start of a hole.
        """
        wal, index = self.owner.wal, self.owner.wal.commit_mark
        folded = {"manifest_folded_to": index, "producers_folded_to": index}
        self.owner.folded = replace(self.owner.folded, **folded)
        wal.rotate()
        covered = [file.seq for file in wal.files()[:-1] if file.last_index <= index]
        try:
            wal.remove_files(max(covered))
        finally:
            self.pruned = max(self.pruned, wal.first_index)

    def check(self, found: State) -> None:
        allowed = self.states[self.acknowledged :]
        first = max(self.pruned, *(state.first for state in allowed))
        assert found.first <= first, f"{found} begins behind {first}"
        assert any(state.matches(found) for state in allowed), f"{found} is none of {allowed}"


def state_of(owner: Any) -> State:
    entries = {index: payload for index, (_, _, payload) in owner.copy.entries.items()}
    return State(entries, owner.wal.first_index, owner.copy.hard_state)


def recovered(disk: SimulatedDisk, open_wal: Opens) -> tuple[Any, State]:
    owner = open_wal(disk, start=False, commits=False, settings=SETTINGS)
    assert owner.wal.recovery.verdict in {"clean", "torn"}, owner.wal.recovery.findings
    if owner.copy.checkpoints:
        last = owner.copy.checkpoints[-1]
        owner.folded = replace(
            owner.folded,
            manifest=last.manifest,
            manifest_folded_to=last.manifest_folded_to,
            producers_folded_to=last.producers_folded_to,
        )
    found = state_of(owner)
    term, vote = owner.wal.hard_state
    assert (term, vote) == found.vote
    return owner, found
