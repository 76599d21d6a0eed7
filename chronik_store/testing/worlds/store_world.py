"""A machine that lives and dies, a bucket that does not, and clients who remember everything.

Place: the world of `chronik simulate` and of tests/simulation. The store is the product's own, on
virtual time: pipeline, committer, filler and marks run in their own threads, each disk and bucket
call takes time, may fail, and is where a crash may fall. Promise: what is wrong raises
AssertionError; equal seeds play equal stories. Invariant: one seed decides everything.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from chronik_store.config import LogConfig
from chronik_store.environment import Environment
from chronik_store.errors import LogPoisonedError, UnavailableError
from chronik_store.log_store import LogStore
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.objectstore.retry import RetryingObjectStore, RetryPolicy
from chronik_store.partition_log import PartitionLog
from chronik_store.testing.crash import CrashError, CrashMode, MortalThreads
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.virtual_time import Machine, Simulation, Timing
from chronik_store.testing.worlds.clients import Clients
from chronik_store.testing.worlds.ledger import Ledger
from chronik_store.testing.worlds.oracle import Oracle, check_bucket

CONFIG = LogConfig(
    wal_file_bytes=6000,
    segment_bytes=2500,
    segment_age_seconds=2.0,
    pipeline_interval_seconds=0.4,
    indexing_enabled=False,
    garbage_seconds=0.5,
    cache_memory_bytes=1 << 16,
    cache_disk_bytes=0,
    tail_bytes_max=1 << 14,
    disk_reserve_bytes=0,
    disk_throttle_bytes=0,
)
URL = "memory://world"


@contextlib.contextmanager
def buckets_of(machines: Callable[[Any], ObjectStore]) -> Iterator[None]:
    """Within this, every store opens the bucket that `machines` finds for its environment."""

    def open_store(_url: Any, *, env: Environment, **_: Any) -> ObjectStore:
        return machines(env)

    made = itertools.count()

    def make(**_: object) -> str:
        path = Path(scratch, str(next(made)))
        path.mkdir()
        return str(path)

    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
        mock.patch("chronik_store.log_store.open_object_store", open_store),
        mock.patch("chronik_store.bucket_log.open_object_store", open_store),
        mock.patch("chronik_store.restore.open_object_store", open_store),
        mock.patch("chronik_store.repair.open_object_store", open_store),
        # Who is killed tidies nothing up, and who ends removes its own; and no two tests may build
        # indexes in one place.
        mock.patch("chronik_store.search_scratch.tempfile.mkdtemp", make),
    ):
        yield


class StoreWorld:
    """One node over its lives. `run` plays a whole story; what is wrong raises AssertionError."""

    def __init__(
        self,
        seed: int,
        *,
        config: LogConfig = CONFIG,
        lives: int | None = None,
        name: str = "node",
        beside: StoreWorld | None = None,
    ) -> None:
        """`beside`: another one, whose time and bucket this one shares, on a machine of its own."""
        self.seed = seed
        self.rng = random.Random(f"{seed}/world")
        self.config = config
        if self.rng.random() < 0.3:
            self.config = config.replace(retention_bytes=self.rng.choice((3000, 9000)))
        self.lives = self.rng.randint(1, 3) if lives is None else lives
        preemption = self.rng.choice((0.0, 0.1, 0.5))
        self.simulation: Simulation = (
            Simulation(seed, preemption=preemption) if beside is None else beside.simulation
        )
        timing = Timing(
            sync_seconds=self.rng.choice((0.0003, 0.002, 0.01)),
            bucket_seconds=self.rng.choice((0.01, 0.05, 0.3)),
        )
        self.node: Machine = self.simulation.machine(name, timing=timing)
        self.bucket: MemoryObjectStore = (
            MemoryObjectStore(clock=self.simulation.clock) if beside is None else beside.bucket
        )
        self.ledger = Ledger(seed)
        self.served: ObjectStore = self.bucket
        """What machines are shown of it."""
        self.oracle = Oracle(self.bucket)
        self.clients = Clients(self.rng, self.node, self.ledger)
        self.events: Counter[str] = Counter()
        """What has befallen it, by kind."""
        self.insists = self.rng.random() < 0.5
        self.partitions = 1
        self.store: LogStore | None = None
        self.log: PartitionLog | None = None
        self.write_failed = False
        """A write was cut off inside a sector: recovery cannot tell that from damage, and the next
        open needs `accept_suspect`; it must find everything acknowledged all the same."""
        self.opening = False

    @property
    def ledgers(self) -> tuple[Ledger, ...]:
        """What is known of each of its logs."""
        return (self.ledger,)

    # --- the story -------------------------------------------------------------------------------

    def run(self) -> None:
        with self.simulation, self.surroundings():
            try:
                self.simulation.run(self.story, limit_seconds=500_000.0)
            finally:
                self.log = self.store = None
                self.clients.opened(None)
        found = self.oracle.violations + self.clients.contradictions
        assert not found, "; ".join(found)

    def surroundings(self) -> contextlib.AbstractContextManager[None]:
        """What is put in the place of real things while it runs."""
        return buckets_of(self.bucket_for)

    def story(self) -> None:
        self.boot()
        for _ in range(self.lives):
            self.live()
            self.boot()
            self.check()
        self.heal()

    def bucket_for(self, env: Environment) -> ObjectStore:
        if env.fs is not self.node.disk:
            return self.bucket  # an image of the disk is looked at: see `look_at_image`
        store: ObjectStore = self.node.bucket(self.served)
        if self.insists:
            policy = RetryPolicy(deadline_seconds=1.0, first_wait_seconds=0.02)
            store = RetryingObjectStore(store, clock=env.clock, entropy=env.entropy, policy=policy)
        return store

    # --- lives -----------------------------------------------------------------------------------

    def boot(self) -> None:
        """Open the store, until it does not die of it."""
        while True:
            if not self.node.is_up:
                self.node.restart()
            self.opening = True
            if self.rng.random() < 0.2:
                self.simulation.later(self.rng.expovariate(20.0), self.interrupt)
            with contextlib.suppress(CrashError):
                self.node.call(self.open)
                self.opening = self.write_failed = False
                return

    def interrupt(self) -> None:
        """The end comes while the store opens."""
        if self.opening:
            self.end_life()

    def open(self) -> None:
        self.oracle.disk = self.node.disk
        self.node.disk.hook = self.before_disk_call
        faults = self.node.bucket_faults
        faults.hook = self.before_bucket_call
        faults.reply_hook = self.after_bucket_call
        faults.is_down = False
        config = self.config.replace(accept_suspect=self.write_failed)
        env = self.node.environment
        # Known before its logs are open: who is refused one must be able to close it.
        self.store = store = LogStore.open("/data", object_store=URL, config=config, env=env)
        self.make_topics(store)
        self.opened(store)

    def make_topics(self, store: LogStore) -> None:
        store.create_topic("t", partitions=self.partitions, exist_ok=True)

    def opened(self, store: LogStore) -> None:
        """The store is there: whoever uses it is told."""
        self.log = store.partition("t")
        self.oracle.log = self.log
        self.clients.opened(self.log)
        self.events["opens"] += 1
        self.events[f"opens: {self.log.recovery.verdict}"] += 1

    def live(self) -> None:
        """Clients at work, faults in between, until the end, however it comes."""
        with contextlib.suppress(CrashError):
            self.start_clients()
            self.befalls()
        self.end_life()

    def start_clients(self) -> None:
        for number in range(self.rng.randint(1, 3)):
            self.node.spawn(self.clients.appends, name=f"appends-{number}")
        clients = self.clients
        for client in (clients.sends, clients.reads, clients.administers, clients.produces):
            if self.rng.random() < 0.7:
                self.node.spawn(client, name=client.__name__)

    def befalls(self) -> None:
        """What happens to a life besides its work."""
        faults = (self.bucket_goes_away, self.replies_get_lost, self.clock_jumps, self.disk_fails)
        for _ in range(self.rng.randint(0, 4)):
            self.simulation.sleep(self.rng.expovariate(2.0))
            if not self.node.is_up:
                return
            if self.rng.random() < 0.3:
                self.events["imagined power losses"] += 1
                self.look_at_image(self.rng.choice(("lost", "kept", "torn", "any")))
            self.rng.choice(faults)()
        self.simulation.sleep(self.rng.expovariate(1.0))

    def end_life(self) -> None:
        """Power loss mostly, a kill, or an orderly end."""
        if not self.node.is_up:
            return
        self.oracle.log = None
        end = self.rng.random()
        if end < 0.6:
            self.events["power losses"] += 1
            self.node.crash(self.rng.choice(("lost", "kept", "torn", "any")))
        elif end < 0.8 or self.simulation._scheduler.running is None or self.store is None:
            self.events["kills"] += 1
            self.node.kill()
        else:
            store = self.store
            self.events["orderly ends"] += 1
            with contextlib.suppress(LogPoisonedError, CrashError):
                self.node.call(store.close)
            self.node.kill()

    # --- faults ----------------------------------------------------------------------------------

    def before_disk_call(self, number: int, operation: str, path: str) -> None:
        self.oracle.before_disk_call(number, operation, path)

    def before_bucket_call(self, number: int, operation: str, key: str) -> None:
        self.oracle.before_bucket_call(number, operation, key)

    def after_bucket_call(self, number: int, operation: str, key: str) -> None:
        self.oracle.after_bucket_call(number, operation, key)
        if self.config.retention_bytes is not None:  # it may drop what is uploaded, no more
            self.ledger.wish_start(self.oracle.uploaded_end)

    def bucket_goes_away(self) -> None:
        self.clients.bucket_failed = True
        self.events["bucket outages"] += 1
        self.node.bucket_faults.is_down = True
        self.simulation.sleep(self.rng.expovariate(1.0))
        self.node.bucket_faults.is_down = False

    def replies_get_lost(self) -> None:
        self.clients.bucket_failed = True

        def lose(number: int, operation: str, key: str) -> None:
            self.after_bucket_call(number, operation, key)
            if self.rng.random() < 0.5:
                self.events["lost replies"] += 1
                raise UnavailableError(f"{operation} {key}: no reply", durability="unknown")

        self.node.bucket_faults.reply_hook = lose
        self.simulation.sleep(self.rng.expovariate(1.0))
        self.node.bucket_faults.reply_hook = self.after_bucket_call

    def clock_jumps(self) -> None:
        self.events["clock jumps"] += 1
        self.node.clock_skew_seconds = self.rng.choice((-7200.0, -30.0, 0.0, 90.0, 14_400.0))

    def disk_fails(self) -> None:
        """One failing write, sync or change of a name: the log is poisoned, or a stage stalls."""
        operation = self.rng.choice(("write_at", "sync_data", "sync_directory", "rename", "remove"))
        code = self.rng.choice((errno.EIO, errno.ENOSPC))
        fails = fail_next(operation, code)

        def hook(number: int, called: str, path: str) -> None:
            self.before_disk_call(number, called, path)
            try:
                fails(number, called, path)
            except OSError:
                self.events["disk errors"] += 1
                self.write_failed = self.write_failed or called == "write_at"
                raise

        self.node.disk.hook = hook

    # --- crashes that did not happen -------------------------------------------------------------

    def look_at_image(self, mode: CrashMode) -> None:
        """What a power loss now would leave is a log with everything that is known by now.

        It is opened outside of the simulation: nothing of the world moves meanwhile.
        """
        image = self.node.disk.crashed(mode, self.rng)
        env = Environment(fs=image, threads=MortalThreads())
        config = self.config.replace(pipeline_enabled=False, accept_suspect=self.write_failed)
        with LogStore.open("/data", object_store=URL, config=config, env=env) as store:
            self.check_image(store)

    def check_image(self, store: LogStore) -> None:
        if store.topics():
            self.compare(store.partition("t"), self.ledger, learn=False)
        else:
            assert not self.ledger.known

    # --- checks ----------------------------------------------------------------------------------

    def check(self) -> None:
        """Everything that is known is there. It may be only in the bucket: that must answer."""
        with contextlib.suppress(CrashError):
            self.node.call(lambda: self.compare(self.log, self.ledger))

    def compare(self, log: Any, ledger: Ledger, *, learn: bool = True) -> None:
        """The log agrees with every fact."""
        ledger.check(log, learn=learn)

    def heal(self) -> None:
        """No more faults: everything ends up where it belongs, once, and nothing else is left."""
        self.node.clock_skew_seconds = 0.0
        self.config = self.config.replace(pipeline_enabled=False)
        self.end_life()
        self.node.restart()
        self.node.call(self.open)
        self.node.call(self.settle)

    def settle(self) -> None:
        assert self.store is not None
        assert self.log is not None
        self.come_to_rest(self.log, self.clients)
        self.store.close()

    def come_to_rest(self, log: PartitionLog, clients: Clients) -> None:
        ledger = clients.ledger
        assert log._core is not None
        self.compare(log, ledger)
        for _ in range(3):
            batch = ledger.offer()
            ledger.acked(log.append(clients.encoded(batch)).base_offset, batch)
        log.seal()
        clock = self.node.environment.clock
        for _ in range(60):
            clock.sleep(1200.0)  # clocks that were wrong by hours have left stamps
            report = log.run_pipeline_once()
            assert report.errors == (), report.errors
            marks = log.watermarks
            if report.idle and marks.tiered == marks.committed and not log._core.manifest.garbage:
                break
        else:
            raise AssertionError(f"it does not come to rest: {log.status()}")
        self.compare(log, ledger)
        self.check_bucket(log)
        assert log._core.manifest.intents == (), log._core.manifest.intents

    def check_bucket(self, log: PartitionLog) -> None:
        """It holds what it should, and nothing else."""
        check_bucket(self.bucket, log)
