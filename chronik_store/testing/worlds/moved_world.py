"""A bucket that changes hands: restores while the old owner lives, or comes back later.

Place: one of the worlds of `chronik simulate`. Promise: what the claim of a restore covers is the
new owner's, and it alone changes the bucket from then on; the old one keeps all that it had and
goes on acknowledging; readers of the bucket see one history or the next, never both. Invariant:
each owner, and the readers, have a machine of their own; the bucket is what they share.

    A lives ---------- (held) ---------- comes back -------> is told, keeps its own
            B restores, is cut off, restores, opens, lives -> ...
                              C restores from B, or overtakes it
    readers of the bucket all along
"""

from __future__ import annotations

import contextlib
from functools import partial

from chronik_store.bucket_log import open_bucket
from chronik_store.environment import Environment
from chronik_store.errors import (
    ConfigError,
    OffsetOutOfRangeError,
    TopicNotFoundError,
)
from chronik_store.objectstore.base import ObjectStore
from chronik_store.partition_log import PartitionLog
from chronik_store.testing.worlds.heritage import Limits
from chronik_store.testing.worlds.lineage_witness import ClosedDoor
from chronik_store.testing.worlds.owner import Owner
from chronik_store.testing.worlds.store_world import URL, StoreWorld
from chronik_store.testing.worlds.successor import Successor


class MovedWorld(Owner):
    """The first owner, and the story of all."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, 0)
        self.readers = self.simulation.machine("readers")
        self.is_over = False
        self.pause_seconds = 0.5
        """Between two looks at the bucket."""

    def run(self) -> None:
        super().run()
        found = [
            *self.heritage.witness.violations,
            *(wrong for owner in self.owners for wrong in owner.oracle.violations),
            *(wrong for owner in self.owners for wrong in owner.clients.contradictions),
        ]
        assert not found, "; ".join(found)

    def bucket_for(self, env: Environment) -> ObjectStore:
        for owner in self.owners:
            if env.fs is owner.node.disk:
                return StoreWorld.bucket_for(owner, env)
        if env.fs is self.readers.disk:
            return self.readers.bucket(self.bucket)
        return ClosedDoor(self.bucket)  # an image of a disk is looked at

    # --- the story -------------------------------------------------------------------------------

    def story(self) -> None:
        simulation = self.simulation
        stories = [simulation.spawn(self.lives_on, name="lives-A")]
        self.readers.spawn(self.reads_bucket, name="reads-bucket")
        for number in range(1, self.rng.choice((2, 2, 3))):
            simulation.sleep(self.rng.expovariate(0.6))
            self.waits_for_a_log()
            if not self.heritage.witness.in_force("t"):
                break
            self.holds_back()
            new = Successor(self.seed, number, self)
            stories.append(simulation.spawn(partial(self.moves, new), name=new.name))
        for each in self.owners:
            simulation.later(self.rng.expovariate(0.2), each.let_go)
        for thread in stories:
            thread.join()
        self.pause_seconds = 400.0  # what comes takes hours
        for owner in self.shuffled():
            if owner.has_directory:
                owner.heal()
        self.is_over = True
        simulation.sleep(10.0)
        self.readers.call(self.compare_bucket)
        self.heritage.compare_all()
        left = self.heritage.witness.left_of_deleted()
        assert not left, f"of topics that were deleted the bucket has {left}"
        self.sums_up()

    def waits_for_a_log(self) -> None:
        """For a while, until somebody's log can be taken over."""
        for _ in range(30):
            if self.heritage.witness.in_force("t"):
                return
            self.simulation.sleep(0.2)

    def holds_back(self) -> None:
        """Sometimes whoever is to be replaced is down before that, and comes back later."""
        if self.rng.random() < 0.3:
            owner = self.rng.choice(self.owners)
            owner.held = True
            owner.node.crash(self.rng.choice(("lost", "kept", "torn", "any")))
            self.events["owners held back"] += 1

    def moves(self, owner: Successor) -> None:
        """The story of one that begins with a restore."""
        owner.is_taking_over = True
        is_done = owner.take_over(self.limits())
        owner.is_taking_over = False
        if is_done:
            owner.lives_on()

    def limits(self) -> Limits:
        """Mostly all, sometimes a part of what there is."""
        what = self.rng.random()
        if what < 0.7:
            return Limits()
        if what < 0.85:
            known = max((max(each.ledger.known, default=0) for each in self.owners), default=0)
            return Limits(until_offset=self.rng.randint(0, known + 1))
        now_us = self.simulation.clock.time_us()
        return Limits(until_us=now_us - int(self.rng.expovariate(0.7) * 1e6))

    def shuffled(self) -> list[Owner]:
        owners = list(self.owners)
        self.rng.shuffle(owners)
        return owners

    def sums_up(self) -> None:
        """What the others have acknowledged and compared counts as well."""
        ledgers = {id(each): each for each in self.heritage.facts.values()}
        ledgers.pop(id(self.ledger), None)
        self.ledger.acked_values += sum(each.acked_values for each in ledgers.values())
        self.ledger.compared += sum(each.compared for each in ledgers.values())

    # --- readers of the bucket -------------------------------------------------------------------

    def reads_bucket(self) -> None:
        """Opens it, looks again and again, and opens it anew."""
        clock = self.readers.environment.clock
        while not self.is_over:
            clock.sleep(self.rng.expovariate(1 / self.pause_seconds))
            try:
                log = self.open_bucket()
            except (ConfigError, TopicNotFoundError):
                continue  # nothing is published yet, or it is deleted
            with contextlib.suppress(TopicNotFoundError):
                for _ in range(self.rng.randint(1, 8)):
                    self.looks(log)
                    clock.sleep(self.rng.expovariate(1 / self.pause_seconds))
            log.close()

    def open_bucket(self) -> PartitionLog:
        return open_bucket(URL, topic="t", config=self.config, env=self.readers.environment)

    def looks(self, log: PartitionLog) -> None:
        """All that there is, in one go. What is dropped meanwhile is gone, and is said to be."""
        before = log.status().log_id
        try:
            records = list(log.scan())
        except OffsetOutOfRangeError:
            self.events["readers overtaken"] += 1
            return
        self.heritage.shown(before, log.status().log_id, records)
        self.events["looks at the bucket"] += 1

    def compare_bucket(self) -> None:
        """In the end the bucket alone shows all that its owner has."""
        force = self.heritage.witness.in_force("t")
        if not force:
            return
        (last,) = force
        log = self.open_bucket()
        assert log.status().log_id == last.log_id
        self.heritage.facts[last.log_id].check(log)
        log.close()
