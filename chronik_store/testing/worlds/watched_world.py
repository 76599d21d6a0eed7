"""A store that is watched while it lives and dies: by readers elsewhere, followers, searches.

Place: another world of `chronik simulate` (`playing.world_of`). Beside the writer of `store_world`,
which has one to three partitions here, there are a reader process on the same disk and one on
another machine that has the bucket alone; in some worlds records are indexed. Promise: as of
`StoreWorld`; and what any of them was shown is a fact for ever, also when the power fails right
behind it. Invariant: readers draw from generators of their own.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from functools import partial

from chronik_store.environment import Environment
from chronik_store.errors import (
    LogClosedError,
    LogPoisonedError,
    OffsetOutOfRangeError,
    UnavailableError,
)
from chronik_store.log_store import LogStore
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.layout import bundles_prefix
from chronik_store.partition_log import PartitionLog
from chronik_store.testing.crash import CrashError, CrashMode
from chronik_store.testing.virtual_time import Machine, Timing
from chronik_store.testing.worlds.clients import Clients
from chronik_store.testing.worlds.judging import Facts, check_search
from chronik_store.testing.worlds.ledger import Ledger
from chronik_store.testing.worlds.oracle import Oracle
from chronik_store.testing.worlds.store_world import StoreWorld
from chronik_store.testing.worlds.tame_bundles import scratch_in_memory, tame_bundles
from chronik_store.testing.worlds.watchers import Afar, Beside, Place, Watcher
from chronik_store.testing.worlds.wording import WordyClients, WordyLedger, draw_question


class WatchedWorld(StoreWorld):
    """See the module. `everyone` is one `Clients` for each partition."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        draw = random.Random(f"{seed}/watched")
        self.partitions = draw.choice((1, 1, 2, 3))
        self.config = self.config.replace(
            indexing_enabled=draw.random() < 0.5,
            search_cache_bytes=draw.choice((1 << 15, 1 << 30)),
            cache_memory_bytes=draw.choice((1 << 13, 1 << 16)),
            tail_bytes_max=draw.choice((0, 1 << 14)),
            garbage_seconds=draw.choice((0.0, 0.5)),
        )
        self.everyone: list[Clients] = [
            WordyClients(self.rng, self.node, WordyLedger(f"{seed}/{number}"))
            for number in range(self.partitions)
        ]
        self.clients = self.everyone[0]
        self.ledger = self.clients.ledger
        self.oracles = [Oracle(self.bucket, number) for number in range(self.partitions)]
        self.oracle = self.oracles[0]
        self.facts = [Facts(number, each.ledger) for number, each in enumerate(self.everyone)]
        self.places = [Place("the writer's follower", each) for each in self.facts]
        self.draw = draw
        timing = Timing(bucket_seconds=draw.choice((0.005, 0.05)))
        beside = self.simulation.machine(
            "beside", disk=self.node.disk.another_process(), timing=timing
        )
        afar = self.simulation.machine("afar", timing=timing)
        self.beside = self.watcher(Beside, beside)
        self.afar = self.watcher(Afar, afar)
        self.watchers = (self.beside, self.afar)
        self.danger = draw.choice((0.0, 0.004, 0.02))
        """How likely the power fails right behind what a reader was shown."""
        self.is_healing = False
        self.mended_at = -1.0
        """When the log was last opened in spite of a write that was cut off inside a sector: who
        reads it since before then may have met that as damage."""

    def watcher(self, kind: type[Watcher], machine: Machine) -> Watcher:
        draw = random.Random(f"{self.seed}/{machine.name}")
        machine.clock_skew_seconds = draw.choice((0.0, 0.0, -7200.0, 3600.0))
        watcher = kind(self.simulation, machine, draw, self.facts, self.events)
        watcher.config = self.config
        watcher.looked = self.was_shown
        watcher.may_be_damaged = lambda: self.write_failed or watcher.began_at <= self.mended_at
        return watcher

    @property
    def ledgers(self) -> tuple[Ledger, ...]:
        return tuple(clients.ledger for clients in self.everyone)

    # --- the story -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def surroundings(self) -> Iterator[None]:
        with scratch_in_memory() as root, super().surroundings(), tame_bundles(root):
            yield

    def story(self) -> None:
        threads = [
            self.simulation.spawn(each.lives, name=f"{each.kind}'s lives") for each in self.watchers
        ]
        self.boot()
        for _ in range(self.lives):
            self.live()
            self.boot()
            self.check()
        for each in self.watchers:
            each.is_over = True
            each.machine.kill()
        for thread in threads:
            thread.join()
        self.is_healing = True
        self.heal()

    def bucket_for(self, env: Environment) -> ObjectStore:
        for each in self.watchers:
            if env.fs is each.machine.disk:
                return each.machine.bucket(self.bucket)
        return super().bucket_for(env)

    def opened(self, store: LogStore) -> None:
        super().opened(store)
        for number, clients in enumerate(self.everyone):
            log = store.partition("t", number)
            clients.opened(log)
            self.oracles[number].log = log
            self.oracles[number].disk = self.node.disk
        self.beside.writer_opened = True

    def start_clients(self) -> None:
        super().start_clients()
        for clients in self.everyone[1:]:
            self.node.spawn(clients.appends, name="appends")
            for client in (clients.sends, clients.reads, clients.administers, clients.produces):
                if self.draw.random() < 0.5:
                    self.node.spawn(client, name=client.__name__)
        for clients, place in zip(self.everyone, self.places, strict=True):
            if self.draw.random() < 0.5:
                self.node.spawn(partial(self.follows, clients, place), name="follows")
        if self.config.indexing_enabled and self.draw.random() < 0.5:
            self.node.spawn(self.searches, name="searches")

    # --- other clients of the writer's own logs -------------------------------------------------

    def follows(self, clients: Clients, place: Place) -> None:
        """Everything, from where it was in the life before."""
        log, clock = clients.log, self.node.environment.clock
        assert log is not None
        while True:
            try:
                for record in log.scan(place.offset, follow=True):
                    place.sees(record)
            except OffsetOutOfRangeError as error:
                place.is_refused(error)
            except UnavailableError:
                if not clients.bucket_failed:
                    raise
            except (LogClosedError, LogPoisonedError):
                return
            clock.sleep(0.05)

    def searches(self) -> None:
        """One partition or all at once, while others append to them."""
        store, clock = self.store, self.node.environment.clock
        assert store is not None
        for _ in range(8):
            clock.sleep(self.draw.expovariate(5.0))
            facts = self.facts
            try:
                logs = [store.partition("t", each.partition) for each in facts]
                question = draw_question(self.draw, 0, logs[0].watermarks.committed)
                question.options.pop("require_complete", None)
                if self.draw.random() < 0.5:
                    ask = partial(store.search, "t")
                    check_search(ask, logs, facts, question)
                else:
                    check_search(logs[0].search, logs[:1], facts[:1], question)
            except UnavailableError:
                if not self.clients.bucket_failed:
                    raise
            except LogClosedError:
                return
            self.events["searches"] += 1

    # --- what befalls it -------------------------------------------------------------------------

    def open(self) -> None:
        super().open()
        if self.write_failed:
            self.mended_at = self.simulation.now

    def was_shown(self) -> None:
        """Some reader has just been shown something: would it outlive a power loss?"""
        chance = self.draw.random()
        mode: CrashMode = self.draw.choice(("lost", "kept", "torn", "any"))
        if self.is_healing or not self.node.is_up:
            return
        if chance > 0.95:
            self.events["imagined power losses"] += 1
            self.look_at_image(mode)
        elif chance < self.danger:
            self.events["power losses"] += 1
            self.forget_log()
            self.node.crash(mode)
            self.power_went()

    def end_life(self) -> None:
        self.forget_log()
        super().end_life()
        self.power_went()

    def forget_log(self) -> None:
        for oracle in self.oracles:
            oracle.log = None

    def power_went(self) -> None:
        """If it did, the reader on the same disk is gone, too. Does not return to its threads."""
        machine = self.beside.machine
        if not machine.disk._medium.powered_off:
            return
        for place in self.beside.places:
            place.may_lie_ahead = True
        was_up = machine.is_up
        if was_up:
            machine.disk.kill()
        machine.disk = self.node.disk.another_process()
        if was_up:
            machine.kill()

    def bucket_goes_away(self) -> None:
        self.bucket_fails()
        super().bucket_goes_away()

    def replies_get_lost(self) -> None:
        self.bucket_fails()
        super().replies_get_lost()

    def bucket_fails(self) -> None:
        for clients in self.everyone:
            clients.bucket_failed = True

    def before_disk_call(self, number: int, operation: str, path: str) -> None:
        for oracle in self.oracles:
            oracle.before_disk_call(number, operation, path)

    def before_bucket_call(self, number: int, operation: str, key: str) -> None:
        for oracle in self.oracles:
            oracle.before_bucket_call(number, operation, key)

    def after_bucket_call(self, number: int, operation: str, key: str) -> None:
        for oracle, clients in zip(self.oracles, self.everyone, strict=True):
            oracle.after_bucket_call(number, operation, key)
            if self.config.retention_bytes is not None:
                clients.ledger.wish_start(oracle.uploaded_end)

    # --- checks ----------------------------------------------------------------------------------

    def run(self) -> None:
        super().run()
        found = [wrong for each in self.oracles[1:] for wrong in each.violations]
        found += [wrong for each in self.everyone[1:] for wrong in each.contradictions]
        assert not found, "; ".join(found)

    def check_image(self, store: LogStore) -> None:
        is_there = bool(store.topics())
        for number, clients in enumerate(self.everyone):
            if is_there:
                clients.ledger.check(store.partition("t", number), learn=False)
            else:
                assert not clients.ledger.known

    def check(self) -> None:
        for clients in self.everyone:
            with contextlib.suppress(CrashError):
                self.node.call(partial(clients.ledger.check, clients.log))

    def settle(self) -> None:
        assert self.store is not None
        for clients, facts, place in zip(self.everyone, self.facts, self.places, strict=True):
            log = clients.log
            assert log is not None
            self.come_to_rest(log, clients)
            self.check_bundles(log)
            Watcher.follows_to_the_end(log, facts, place)
        for each in self.watchers:
            each.boot()
            each.machine.call(each.catches_up)
        self.store.close()

    def check_bundles(self, log: PartitionLog) -> None:
        """Each segment has one, if they are made, and there are no others."""
        listed = [each.bundle for each in log._manifest().segments]
        keys = [each.key for each in self.bucket.list(bundles_prefix("t", log.partition))]
        assert sorted(each.key for each in listed if each is not None) == sorted(keys)
        assert all((each is not None) == self.config.indexing_enabled for each in listed)
