"""Protocol 10: a crash at every point where a thread gives way, inside every wait of the store.

One busy life: appends that wait and appends that do not, seals, uploads, manifests, retention,
pruning, collection, while syncs and puts take their time. At each step of the simulation the
power might have gone; what the disk would then hold, in each way in which it may lose what was not
synced, is opened and compared with what was acknowledged by then. The life itself goes on.

Some lives do end at a step, and the next one must bring everything that was begun to its end.
"""

from __future__ import annotations

import contextlib
import random

import pytest

from chronik_store.testing.crash import CrashError
from chronik_store.testing.worlds.store_world import CONFIG, StoreWorld
from tests.depth import places, share
from tests.simulation.seeds import seeds

MODES = ("lost", "kept", "torn", "any")
BUSY = CONFIG.replace(retention_bytes=6000, garbage_seconds=0.1, pipeline_interval_seconds=0.1)


class BusyLife(StoreWorld):
    """All kinds of work in one short life, no faults."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, config=BUSY, lives=1)
        self.images = 0

    def story(self) -> None:
        with contextlib.suppress(CrashError):
            self.work()
        while True:
            with contextlib.suppress(CrashError):  # the step may fall into the next life
                self.heal()
                return

    def work(self) -> None:
        self.node.call(self.open)
        self.ledger.wish_start(1 << 40)  # retention may go as far as it likes
        clients = self.clients
        work = [clients.appends, clients.sends, clients.produces, clients.reads]
        work.append(clients.administers)
        threads = [self.node.spawn(each, name=each.__name__) for each in work]
        for thread in threads:
            thread.join()
        assert self.store is not None
        self.node.call(self.store.close)

    def look_at_every(self, steps: int) -> None:
        """At each such step, see what a power loss would leave."""
        rng = random.Random(self.seed)

        def look(step: int) -> None:
            self.simulation.at_step(step + steps, lambda: look(step + steps))
            if self.node.is_up:
                self.images += 1
                self.look_at_image(MODES[self.images % 4])

        first = rng.randint(1, steps)
        self.simulation.at_step(first, lambda: look(first))


def steps_of(seed: int) -> int:
    life = BusyLife(seed)
    life.run()
    return life.simulation.steps


@pytest.mark.parametrize("seed", seeds(3))
def test_power_loss_at_any_switch_point_leaves_what_is_known(seed: int) -> None:
    life = BusyLife(seed)
    life.look_at_every(11)
    life.run()
    assert life.images > 10


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", seeds(share(1, every=8)))
def test_power_loss_at_every_switch_point_leaves_what_is_known(seed: int) -> None:
    life = BusyLife(seed)
    life.look_at_every(1)
    life.run()


def end_at(seed: int, step: int, how: str) -> None:
    life = BusyLife(seed)
    end = life.node.kill if how == "kill" else lambda: life.node.crash(how)
    life.simulation.at_step(step, end)
    life.run()


@pytest.mark.parametrize("seed", seeds(2))
def test_what_was_begun_is_finished_by_the_next_life(seed: int) -> None:
    total = steps_of(seed)
    rng = random.Random(seed)
    for number in range(12):
        end_at(seed, rng.randint(1, total), (*MODES, "kill")[number % 5])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("number", "how"), [*enumerate([*MODES, "kill"])])
def test_what_was_begun_at_any_step_is_finished_by_the_next_life(number: int, how: str) -> None:
    seed = seeds(1)[0]
    for step in places(4 * number, steps_of(seed), some=30, every=5):
        end_at(seed, step, how)
