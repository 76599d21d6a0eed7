"""The Raft face of a log against a plain list, through crashes and reopens (protocol 16)."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import pytest

from chronik_store.format.entry import Entry
from chronik_store.replica import Replica
from chronik_store.testing.cluster_log import (
    run_of,
    stepped,
)
from chronik_store.testing.disk_faults import crash_at
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk


@pytest.fixture
def disk():
    return SimulatedDisk(seed=1)


def terms(replica: Replica) -> list[int]:
    return [replica.term(i) for i in range(replica.first_index, replica.last_index + 1)]


# --- against a list, with crashes -----------------------------------------------------------------


def everything(replica: Replica) -> list[Entry]:
    found: list[Entry] = []
    while len(found) < replica.last_index:
        found += replica.entries(len(found) + 1, 1 << 20)
    return found


class Model:
    """What the log must be: a list of terms; `synced` is a lower bound after a crash."""

    def __init__(self) -> None:
        self.log: list[Entry] = []
        self.hard = (0, "")
        self.history: list[tuple[int, list[Entry], tuple[int, str]]] = [(0, [], (0, ""))]

    def change(self, log: list[Entry], apply: Callable[[], int]) -> None:
        """One frame for the truncation, one for each entry: a crash may fall between any two."""
        same = 0
        while same < min(len(log), len(self.log)) and log[same] is self.log[same]:
            same += 1
        between = [log[:length] for length in range(same, len(log))]
        self.log = log
        ticket = apply()
        self.history += [(ticket, each, self.hard) for each in (*between, log)]

    def after_crash(self, synced: int) -> list[tuple[list[Entry], tuple[int, str]]]:
        """States that recovery may come to: the last one synced, or any later one."""
        first = max(n for n, (ticket, _, _) in enumerate(self.history) if ticket <= synced)
        return [(log, hard) for _, log, hard in self.history[first:]]


def step(rng: random.Random, model: Model, replica: Replica) -> None:
    dice = rng.random()
    floor = replica.commit_index
    if dice < 0.5:
        prev = rng.randint(floor, len(model.log))
        last_term = model.log[prev - 1].header.term if prev else 0
        term = max(model.hard[0], last_term, 1)
        offset = prev
        entries = run_of([term] * rng.randint(1, 3), first=prev + 1, offset=offset)
        # What has the same term is the same entry; a longer suffix of it stays.
        same = 0
        while prev + same < len(model.log) and same < len(entries):
            if model.log[prev + same].header.term != term:
                break
            same += 1
        log = model.log
        if same < len(entries):
            log = model.log[: prev + same] + entries[same:]
        model.change(log, lambda: replica.append_entries(prev, last_term, entries).ticket)
    elif dice < 0.7:
        term = model.hard[0] + rng.randint(1, 2)
        model.hard = (term, rng.choice(["", "n1", "n2"]))
        model.change(model.log, lambda: replica.save_hard_state(*model.hard))
    elif dice < 0.85 and len(model.log) > floor:
        index = rng.randint(floor + 1, len(model.log))
        model.change(model.log[: index - 1], lambda: replica.truncate_suffix(index))
    else:
        replica.advance_commit(min(replica.durable_index, floor + 1))


@pytest.mark.parametrize("seed", range(25))
def test_the_replica_is_a_list_through_crashes_and_reopens(seed):
    rng = random.Random(seed)
    disk, model = SimulatedDisk(seed=seed), Model()
    committed: list[Entry] = []
    for _ in range(5):
        _, replica, committer = stepped(disk, file_bytes=4096, tail_bytes=600)
        model.history = [(0, list(model.log), model.hard)]
        disk.hook = crash_at(disk.calls + rng.randint(5, 80))
        with suppress(CrashError):
            for _ in range(60):
                step(rng, model, replica)
                if rng.random() < 0.4:
                    committer.step()
                assert [e.header.term for e in model.log] == terms(replica)
                committed = model.log[: replica.commit_index]
        synced = replica.synced_ticket
        disk = disk.crash("any")
        _, replica, _ = stepped(disk)
        found = everything(replica)
        got = ([bytes(e.encode()) for e in found], replica.hard_state)
        allowed = [([bytes(e.encode()) for e in log], h) for log, h in model.after_crash(synced)]
        assert got in allowed
        assert [bytes(e.encode()) for e in committed] == got[0][: len(committed)]
        model.log, model.hard = [Entry(e.header, bytes(e.payload)) for e in found], got[1]
        disk = disk.crash("kept")
