"""Power cuts at every call to the disk: what comes back is what was acknowledged, perhaps more.

Frames have one order, so the state of a log after a crash is the state after some frame: not
before the last one that was led, not behind the last one that was staged. `History` keeps the
state after each frame; each scenario is crashed at every call, with unsynced bytes lost, kept or
torn, and recovered twice (the second time after a crash in the middle of the first recovery).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from chronik_store.errors import LogPoisonedError
from chronik_store.format.manifest_file import LogBase
from chronik_store.testing.disk_faults import crash_at
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk

MODES = ("lost", "kept", "torn", "any")


@dataclass(frozen=True)
class State:
    """A log: live entries from `first` on, hard state, suspicion."""

    entries: dict[int, bytes]
    first: int = 1
    vote: tuple[int, str] = (0, "")

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
                self.add(replace(self.states[-1], entries={}, first=index + 1))
        self.lead(seq)
        with owner.wal.lock:
            owner.wal.commit_mark = index

    def prune(self) -> None:
        wal = self.owner.wal
        active = wal.files()[-1].seq
        wal.remove_files(active - 1)
        self.add(replace(self.states[-1], first=wal.first_index))
        self.acknowledged = len(self.states) - 1

    def check(self, found: State) -> None:
        allowed = self.states[self.acknowledged :]
        assert any(state.matches(found) for state in allowed), (found, allowed)


Program = Callable[[History], None]
Opens = Callable[..., Any]


def data(number: int, size: int = 0) -> bytes:
    return (b"%06d" % number) * (1 + size // 6)


def plain_appends(history: History) -> None:
    for number in range(4):
        history.append(data(number, 300 * number))


def groups_of_several_frames(history: History) -> None:
    history.append(data(0))
    for number in range(6):
        history.append(data(number, 700), lead=False)
    history.lead(history.owner.wal.last_seq)
    for number in range(3):
        history.append(data(number, 200), lead=False)
    history.lead(history.owner.wal.last_seq)


def records_full_of_zeros(history: History) -> None:
    history.append(bytes(3000))
    history.append(bytes(1200) + b"x" + bytes(1200))
    history.append(bytes(5))


def rotations(history: History) -> None:
    for number in range(7):
        history.append(data(number, 1500))


def truncations(history: History) -> None:
    for number in range(5):
        history.append(data(number, 400))
    history.truncate(4)
    history.append(data(40, 300))
    history.vote(2, "b")
    history.truncate(2, lead=False)
    history.append(data(20, 900), lead=False)
    history.lead(history.owner.wal.last_seq)
    history.append(data(21))


def truncations_over_files(history: History) -> None:
    for number in range(6):
        history.append(data(number, 1500))
    history.truncate(2, lead=False)
    history.append(data(20, 1500))
    history.append(data(21, 1500))


def votes(history: History) -> None:
    for term in range(1, 5):
        history.vote(term, f"n{term % 3}")


def pruning(history: History) -> None:
    for number in range(8):
        history.append(data(number, 1500))
    history.owner.wal.commit_mark = 8
    history.prune()
    history.append(data(9, 1500))
    history.append(data(10, 1500))


def snapshots(history: History) -> None:
    for number in range(4):
        history.append(data(number, 700))
    history.snapshot(10, 0)
    history.append(data(11))
    history.prune()
    history.append(data(12))


PROGRAMS = (
    plain_appends,
    groups_of_several_frames,
    records_full_of_zeros,
    rotations,
    truncations,
    truncations_over_files,
    votes,
    pruning,
    snapshots,
)
SETTINGS = {"file_bytes": 4096}


def run(program: Program, disk: SimulatedDisk, open_wal: Opens, *, fill: bool) -> History:
    history = History()
    settings = SETTINGS | ({"fill_bytes_min": 4096, "fill_bytes_max": 8192} if fill else {})
    with suppress(CrashError, LogPoisonedError):
        history.owner = open_wal(disk, start=False, commits=False, settings=settings)
        history.owner.start()
        program(history)
        history.owner.close()
    return history


def state_of(owner: Any) -> State:
    entries = {index: payload for index, (_, _, payload) in owner.copy.entries.items()}
    return State(entries, owner.wal.first_index, owner.copy.hard_state)


def recovered(disk: SimulatedDisk, open_wal: Opens) -> tuple[Any, State]:
    owner = open_wal(disk, start=False, commits=False, settings=SETTINGS)
    assert owner.wal.recovery.verdict in {"clean", "torn"}, owner.wal.recovery.findings
    manifests = [checkpoint.manifest for checkpoint in owner.copy.checkpoints]
    if manifests:
        owner.folded = replace(owner.folded, manifest=manifests[-1])
    found = state_of(owner)
    term, vote = owner.wal.hard_state
    assert (term, vote) == found.vote
    return owner, found


def settle(disk: SimulatedDisk, open_wal: Opens) -> State:
    """Recover, start, append, close: and see that a reopen finds just that."""
    owner, found = recovered(disk, open_wal)
    owner.start()
    assert owner.wal.durable.index == owner.wal.last_index + 1
    assert owner.live() == found.entries
    index = owner.append(b"afterwards")
    owner.close()
    again, then = recovered(disk, open_wal)
    again.services.close()
    assert then.matches(replace(found, entries=found.entries | {index: b"afterwards"}))
    return found


@pytest.mark.parametrize("fill", [False, True], ids=["bare", "filled"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_nothing_acknowledged_is_lost_whenever_power_fails(
    program: Program, open_wal: Opens, fill: bool
) -> None:
    calls = 0
    call = 1
    while call <= calls or call == 1:
        disk = SimulatedDisk(seed=call)
        if call > 1:
            disk.hook = crash_at(call)
        history = run(program, disk, open_wal, fill=fill)
        calls = calls or disk.calls
        for mode in MODES:
            image = disk.crash(mode)
            history.check(settle(image, open_wal))
        call += 1
    assert calls > 10


@pytest.mark.parametrize("program", [truncations, rotations, snapshots], ids=lambda p: p.__name__)
def test_a_crash_during_recovery_loses_nothing_either(program: Program, open_wal: Opens) -> None:
    reference = SimulatedDisk(seed=0)
    run(program, reference, open_wal, fill=False)
    for call in range(8, reference.calls, 3):
        disk = SimulatedDisk(seed=call)
        disk.hook = crash_at(call)
        history = run(program, disk, open_wal, fill=False)
        for mode in ("kept", "any"):
            for second in range(1, 400):
                image = disk.crash(mode)
                image.hook = crash_at(second)
                with suppress(CrashError, LogPoisonedError):
                    owner, _ = recovered(image, open_wal)
                    owner.start()
                    break
                history.check(settle(image.crash("any"), open_wal))
            else:
                raise AssertionError("recovery never finished")
