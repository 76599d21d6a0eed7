"""A replica that a leader writes, cuts back and restarts, on virtual time, against its model."""

from __future__ import annotations

import contextlib
import random

from chronik_store.testing.crash import CrashError
from chronik_store.testing.virtual_time import Simulation, Timing
from tests.simulation.replica_log import ReplicaLog
from tests.simulation.replica_model import ReplicaModel


class ReplicaWorld(ReplicaModel):
    """One replica over its lives, driven by a made-up leader. `run` raises what is wrong."""

    def __init__(self, seed: int, *, lives: int = 3, steps: int = 60) -> None:
        super().__init__(random.Random(f"{seed}/replica"))
        self.seed = seed
        self.lives = lives
        self.steps = steps
        timing = Timing(sync_seconds=self.rng.choice((0.0005, 0.005, 0.02)))
        self.simulation = Simulation(seed, preemption=self.rng.choice((0.0, 0.1, 0.5)))
        self.node = self.simulation.machine("node", timing=timing)
        self.life = 0
        self.opening = False

    def run(self) -> None:
        with self.simulation:
            self.simulation.run(self.story)

    def story(self) -> None:
        for life in range(self.lives + 1):
            if not self.node.is_up:
                self.node.restart()
            if life < self.lives and self.rng.random() < 0.2:
                self.simulation.later(self.rng.expovariate(50.0), self.interrupt)
            with contextlib.suppress(CrashError):
                self.opening = True
                self.node.call(self.open)
                self.opening = False
                if life < self.lives:
                    self.ends_soon(life)
                self.node.call(self.live)
            self.life += 1
            if life < self.lives:
                self.end_life()
        if self.node.is_up and self.node_log is not None:
            self.node.call(self.node_log.close)

    def ends_soon(self, life: int) -> None:
        def end() -> None:
            if self.life == life:
                self.end_life()

        self.simulation.later(self.rng.expovariate(2.0), end)

    def interrupt(self) -> None:
        if self.opening:
            self.end_life()

    def end_life(self) -> None:
        if self.node.is_up:
            if self.rng.random() < 0.7:
                self.node.crash(self.rng.choice(("lost", "kept", "torn", "any")))
            else:
                self.node.kill()

    def open(self) -> None:
        self.opened(ReplicaLog(self.node.environment))

    def live(self) -> None:
        log = self.node_log
        assert log is not None
        clock = self.node.environment.clock
        acts = (
            [self.appends] * 6
            + [self.conflicts, self.truncates, self.repeats, self.votes] * 2
            + [self.is_refused, self.snapshots]
        )
        self.new_leader(log)
        self.catches_up(log)
        for _ in range(self.steps):
            self.rng.choice(acts)(log)
            self.look(log)
            if self.rng.random() < 0.5:
                self.commits(log)
            if self.rng.random() < 0.05:
                self.look_at_image(self.node.disk, self.rng.choice(("lost", "kept", "torn", "any")))
            if self.rng.random() < 0.4:
                clock.sleep(self.rng.expovariate(300.0))
        log.core.wal.lead(log.core.wal.last_seq)
        self.look(log)
