"""Power that fails at any call of an act: at the disk, at the bucket, before an effect or after it.

An act is one thing that a user does through the public API. It is prepared without faults, then
done again and again, each time with the power gone at the next call, until it gets through. What
the disk and the bucket hold then is opened: everything acknowledged must be there, and everything
that was begun must come to its end, once.
"""

from __future__ import annotations

import contextlib
import random
import weakref
from collections.abc import Callable, Iterator
from unittest import mock

from chronik_store import LogConfig, LogStore, PartitionLog
from chronik_store.clock import SystemClock
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError, UnavailableError
from chronik_store.fs.base import FileSystem
from chronik_store.objectstore import probe
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.testing.crash import CrashError, MortalThreads
from chronik_store.testing.faulty_object_store import Call, FaultyObjectStore
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.tree import failure
from chronik_store.testing.worlds.ledger import Ledger
from chronik_store.testing.worlds.oracle import check_bucket
from chronik_store.testing.worlds.store_world import buckets_of

URL = "memory://crash"
POWER = ("lost", "kept", "torn", "any")
MODES = (*POWER, "kill")
CONFIG = LogConfig(
    wal_file_bytes=4096,
    segment_bytes=2000,
    pipeline_enabled=False,
    indexing_enabled=False,
    garbage_seconds=0,
    cache_memory_bytes=1 << 16,
    cache_disk_bytes=0,
    disk_reserve_bytes=0,
    disk_throttle_bytes=0,
)


class Plug:
    """Counts the calls at all doors, and cuts the power at one of them, or lets that one fail."""

    def __init__(self) -> None:
        self.calls = 0
        self.at = 0
        self.dead = False
        self.code = 0
        """With this error number, instead of cutting the power."""
        self.failed = ""
        """The call that failed."""

    def at_the_disk(self, _number: int, operation: str, path: str) -> None:
        if self.passes(operation, path):
            raise failure(self.code, path)

    def at_the_bucket(self, call: Call, phase: str) -> None:
        if self.passes(f"bucket.{call.operation} {phase}", call.key):
            changes = call.operation in {"put", "delete"}
            raise UnavailableError(
                f"{call}: failed {phase}", durability="unknown" if changes else None
            )

    def passes(self, operation: str, target: str) -> bool:
        """True: this is the one to fail."""
        self.calls += 1
        if self.dead or (self.calls == self.at and not self.code):
            self.dead = True
            raise CrashError(f"power gone at call {self.calls}: {operation} {target}")
        if self.calls == self.at:
            self.failed = f"{operation} {target}"
        return self.calls == self.at


class Life:
    """One store on one disk and one bucket, until the power fails."""

    def __init__(self, seed: int, *, config: LogConfig = CONFIG) -> None:
        self.config = config
        self.path = "/data"
        self.rng = random.Random(seed)
        self.disk = SimulatedDisk(seed=seed)
        self.bucket = MemoryObjectStore()
        self.plug = Plug()
        self.door = FaultyObjectStore(self.bucket, clock=SystemClock())
        """The way to the bucket, for faults."""
        self.door.hook = self.plug.at_the_bucket
        self.ledger = Ledger(seed)
        self.threads = MortalThreads()
        self._store: LogStore | None = None
        self._log: PartitionLog | None = None

    @property
    def store(self) -> LogStore:
        assert self._store is not None
        return self._store

    @property
    def log(self) -> PartitionLog:
        assert self._log is not None
        return self._log

    def knows(self, disk: FileSystem) -> None:
        """A store on this disk has this life's way to the bucket."""
        _DOORS[disk] = self.door

    def open_store(self) -> None:
        self.knows(self.disk)
        env = Environment(fs=self.disk, threads=self.threads)
        self._store = LogStore.open(self.path, object_store=URL, config=self.config, env=env)

    def open(self) -> None:
        self.open_store()
        self.store.create_topic("t", exist_ok=True)
        self._log = self.store.partition("t")

    def append(self, count: int = 1, *, size_max: int = 300) -> None:
        batch = self.ledger.offer(count, size_max=size_max)
        self.ledger.acked(self.log.append(batch).base_offset, batch)

    def drain(self) -> None:
        """Run the pipeline until there is nothing left to do."""
        for _ in range(30):
            report = self.log.run_pipeline_once()
            assert report.errors == (), report.errors
            if report.idle:
                return
        raise AssertionError(f"it does not come to rest: {self.log.status()}")

    def fails(self, mode: str) -> Life:
        """The life after this one. May be asked for again, for another outcome."""
        after = Life(0, config=self.config)
        after.rng = self.rng
        after.disk = self.disk.kill() if mode == "kill" else self.disk.crash(mode, self.rng)
        after.bucket._objects.update(self.bucket._objects)
        after.ledger = self.ledger.copy()
        return after

    def is_sound(self) -> None:
        """What was acknowledged is there; what was begun is finished; work goes on."""
        self.open()
        with self.store:
            self.ledger.check(self.log)
            for _ in range(3):
                self.append(2)
            self.log.seal()
            self.drain()
            self.ledger.check(self.log)
            check_bucket(self.bucket, self.log)
        assert self.disk.open_files == []


@contextlib.contextmanager
def reachable_buckets() -> Iterator[None]:
    """Within this, each store finds the bucket of the life that its disk belongs to.

    Each life tries its bucket anew, with a body that is large for real ones; a dict has no such
    limits, and hashing two mebibytes is more work than all else of many a life.
    """
    small = mock.patch.object(probe, "LARGE_BODY_BYTES", 4096)
    with small, buckets_of(lambda env: _DOORS[env.fs]):
        yield


Act = Callable[[Life], None]


def crash_points(prepare: Act, act: Act, *, seed: int = 1) -> Iterator[tuple[int, Life]]:
    """(call, life that died at it) for each call of the act in order, and right after the last."""
    for at in range(1, 10_000):
        life = Life(seed)
        prepare(life)
        life.disk.hook = life.plug.at_the_disk
        life.plug.calls, life.plug.at = 0, at
        try:
            act(life)
        except CrashError:
            pass
        except ChronikError:
            if not life.plug.dead:  # else a thread in the background met the end first
                raise
        got_through, life.plug.dead = not life.plug.dead, True
        yield at, life
        if got_through:
            return


def close_quietly(life: Life) -> None:
    """End the threads of a life that is over."""
    if life._store is not None:
        with contextlib.suppress(CrashError, ChronikError):
            life._store.close()
    life.threads.end()


def check_crash_points(prepare: Act, act: Act, *, every_mode: bool = False, least: int = 3) -> None:
    """The act at each of its crash points; in one way to lose power each, or in every way."""
    points = 0
    with reachable_buckets():
        for at, life in crash_points(prepare, act):
            points += 1
            close_quietly(life)
            # A killed process leaves its medium in use: no other outcome can follow from it.
            for mode in POWER if every_mode else (MODES[at % len(MODES)],):
                after = life.fails(mode)
                try:
                    after.is_sound()
                except BaseException as error:
                    error.add_note(f"crash point {at}, {mode}")
                    raise
                finally:
                    close_quietly(after)
    assert points >= least, points


def check_failing_calls(prepare: Act, act: Act, code: int, *, first: int = 1, step: int = 1) -> int:
    """The act with each of its calls failing once: it succeeds, or raises one of our own errors;
    and nothing acknowledged is lost, not by a power failure right afterwards either.
    """
    with reachable_buckets():
        for at in range(first, 10_000, step):
            life = Life(at)
            prepare(life)
            life.disk.hook = life.plug.at_the_disk
            life.plug.calls, life.plug.at, life.plug.code = 0, at, code
            with contextlib.suppress(ChronikError):
                act(life)
            life.plug.dead = True
            close_quietly(life)
            if not life.plug.failed:
                return at
            after = life.fails(MODES[at % len(MODES)])
            if life.plug.failed.startswith("write_at"):
                # A write cut off inside a sector looks like damage: see the partition log's model.
                after.config = after.config.replace(accept_suspect=True)
            try:
                after.is_sound()
            except BaseException as error:
                error.add_note(f"call {at}, {life.plug.failed}, {MODES[at % len(MODES)]}")
                raise
            finally:
                close_quietly(after)
    raise AssertionError("the act does not end")


_DOORS: weakref.WeakKeyDictionary[FileSystem, FaultyObjectStore] = weakref.WeakKeyDictionary()
