"""A replica's log is its history up to some step: entries, truncations, votes, snapshots, crashes.

Group commit happens when hypothesis says so: between any two steps a group may be written, or be
in flight when the power goes. What the log says is synced must survive; what comes back must be a
state that the log once had.
"""

from __future__ import annotations

import contextlib
import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from chronik_store.environment import Environment
from chronik_store.errors import ChronikError
from chronik_store.testing.crash import CrashError, MortalThreads
from chronik_store.testing.disk_faults import crash_at
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.worlds.store_world import buckets_of
from tests.simulation.replica_log import ReplicaLog
from tests.simulation.replica_model import ReplicaModel

MODES = ["lost", "kept", "torn", "any", "kill"]
chances = st.randoms(use_true_random=False)


class NoCommitter:
    """Nothing is written but by the rules."""

    def notify(self, _target: object) -> None:
        """Not now."""


class ReplicaMachine(RuleBasedStateMachine):
    """`self.model` knows what may be there; `self.log` is what is."""

    def __init__(self) -> None:
        super().__init__()
        self.model = ReplicaModel(random.Random(0))
        self.disk = SimulatedDisk()
        self.log: ReplicaLog | None = None
        self.patches = buckets_of(lambda _env: None)
        self.patches.__enter__()

    @initialize(seed=st.integers(0, 2**32 - 1))
    def create(self, seed: int) -> None:
        self.disk = SimulatedDisk(seed=seed)
        self.open()

    def open(self) -> None:
        self.log = ReplicaLog(Environment(fs=self.disk, threads=MortalThreads()))
        self.log.core.committer = NoCommitter()
        self.model.opened(self.log)
        self.model.new_leader(self.log)
        self.model.catches_up(self.log)

    @rule(rng=chances, act=st.sampled_from(["appends"] * 3 + ["conflicts", "truncates", "repeats"]))
    def entries_arrive(self, rng: random.Random, act: str) -> None:
        self.model.rng = rng
        getattr(self.model, act)(self.log)

    @rule(rng=chances, act=st.sampled_from(["votes", "is_refused", "commits", "snapshots"]))
    def the_leader_speaks(self, rng: random.Random, act: str) -> None:
        self.model.rng = rng
        getattr(self.model, act)(self.log)

    @rule(groups=st.integers(1, 4))
    def groups_are_written(self, groups: int) -> None:
        assert self.log is not None
        for _ in range(groups):
            self.log.core.wal.commit_group()

    @rule(rng=chances, mode=st.sampled_from(MODES[:4]))
    def look_at_an_image(self, rng: random.Random, mode: str) -> None:
        self.model.rng = rng
        self.model.look_at_image(self.disk, mode)

    @rule(rng=chances, mode=st.sampled_from(MODES))
    def die(self, rng: random.Random, mode: str) -> None:
        dead = self.log
        self.disk = self.disk.kill() if mode == "kill" else self.disk.crash(mode, rng)
        with contextlib.suppress(CrashError, ChronikError):
            dead.close()
        self.open()

    @precondition(lambda self: self.log is not None and self.log.core.wal.pending_bytes)
    @rule(rng=chances, call=st.integers(1, 5), mode=st.sampled_from(MODES))
    def die_while_a_group_is_written(self, rng: random.Random, call: int, mode: str) -> None:
        self.disk.hook = crash_at(self.disk.calls + call)
        with contextlib.suppress(CrashError):
            while self.log.core.wal.commit_group():
                pass
        self.disk.hook = None
        self.die(rng=rng, mode=mode)

    @invariant()
    def it_knows_what_it_holds(self) -> None:
        if self.log is not None:
            self.model.look(self.log)

    def teardown(self) -> None:
        if self.log is not None:
            with contextlib.suppress(CrashError, ChronikError):
                self.log.close()
        self.patches.__exit__(None, None, None)


ReplicaMachine.TestCase.settings = settings(
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestReplicaMachine = ReplicaMachine.TestCase
