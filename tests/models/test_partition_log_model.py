"""A partition log is a list: appended at the end, cut at the front, never anything else.

A hypothesis state machine drives the real store over a simulated disk and an in-memory bucket,
with crashes (power loss in every mode, kill -9), failing disk calls, bucket outages and reopening
as rules, and compares every read with a plain list. After a crash the log holds every acknowledged
record, in order, and at most the appends whose outcome was unknown behind them.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from chronik_store.config import LogConfig
from chronik_store.environment import Environment
from chronik_store.errors import (
    ChronikError,
    LogPoisonedError,
    OffsetOutOfRangeError,
    UnavailableError,
)
from chronik_store.log_store import LogStore
from chronik_store.objectstore.memory import forget_memory_bucket
from chronik_store.partition_log import PartitionLog
from chronik_store.testing.crash import CrashError, MortalThreads
from chronik_store.testing.disk_faults import fail_next
from chronik_store.testing.simulated_disk import SimulatedDisk

NAMES = itertools.count()
CONFIG = LogConfig(
    wal_file_bytes=4096,
    segment_bytes=2000,
    pipeline_enabled=False,
    indexing_enabled=False,
    disk_reserve_bytes=0,
    disk_throttle_bytes=0,
    garbage_seconds=0,
    cache_disk_bytes=0,
)

values = st.lists(st.binary(max_size=300), min_size=1, max_size=8)


class PartitionLogModel(RuleBasedStateMachine):
    """`self.model` is the log: acknowledged values; `self.start` its first offset."""

    def __init__(self) -> None:
        super().__init__()
        self.bucket = f"memory://model-{next(NAMES)}"
        self.model: list[bytes] = []
        self.start = 0
        self.cursors: dict[str, int] = {}
        self.unknown: list[list[bytes]] = []
        self.unknown_drop: int | None = None
        self.write_failed = False
        """A write was cut off inside a sector, which recovery cannot tell from damage: the open
        after it needs `accept_suspect`, and must still hold everything acknowledged."""
        self.disk = SimulatedDisk(seed=0)
        self.store: LogStore | None = None
        self.log: PartitionLog | None = None

    @initialize(seed=st.integers(0, 2**32 - 1))
    def create(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.disk = SimulatedDisk(seed=seed)
        self.open()

    def open(self) -> None:
        env = Environment(fs=self.disk, threads=MortalThreads())
        config = CONFIG.replace(accept_suspect=self.write_failed)
        self.store = LogStore.open("/data", object_store=self.bucket, config=config, env=env)
        self.store.create_topic("logs", exist_ok=True)
        self.log = self.store.partition("logs")
        self.write_failed = False
        self.settle()

    def settle(self) -> None:
        """After reopening: what was unknown is there whole, in order, or not at all."""
        assert self.log is not None
        marks = self.log.watermarks
        if self.unknown_drop is not None and marks.start == self.unknown_drop:
            self.start = self.unknown_drop
        self.unknown_drop = None
        assert marks.start == self.start
        for batch in self.unknown:
            if marks.end >= len(self.model) + len(batch):
                self.model.extend(batch)
        self.unknown = []
        assert len(self.model) == marks.end == marks.committed

    def fault(self, error: ChronikError, batch: list[bytes]) -> None:
        if error.durability != "not_durable":
            self.unknown.append(batch)

    # --- the API ---------------------------------------------------------------------------------

    @rule(batch=values)
    def append(self, batch: list[bytes]) -> None:
        assert self.log is not None
        result = self.log.append(batch)
        assert (len(self.model), len(self.model) + len(batch)) == result[:2]
        self.model.extend(batch)

    @rule(batches=st.lists(values, min_size=1, max_size=5))
    def append_nowait(self, batches: list[list[bytes]]) -> None:
        assert self.log is not None
        futures = [self.log.append_nowait(batch) for batch in batches]
        for batch, future in zip(batches, futures, strict=True):
            assert len(self.model) == future.result(timeout=10).base_offset
            self.model.extend(batch)

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        assert self.log is not None
        offset = data.draw(st.integers(self.start, len(self.model)))
        count = data.draw(st.integers(1, 20))
        found = self.log.read(offset, max_records=count)
        expected = self.model[offset : offset + count]
        got = [record.value for record in found]
        assert got == expected[: len(got)]
        assert bool(got) == bool(expected)
        assert offset + len(got) == found.next_offset

    @rule()
    def read_everything(self) -> None:
        assert self.log is not None
        assert self.model[self.start :] == [record.value for record in self.log.scan()]

    @rule(past=st.integers(1, 100))
    def read_past_the_end(self, past: int) -> None:
        assert self.log is not None
        with pytest.raises(OffsetOutOfRangeError):
            self.log.read(len(self.model) + past)

    @precondition(lambda self: self.start > 0)
    @rule()
    def read_below_the_start(self) -> None:
        assert self.log is not None
        with pytest.raises(OffsetOutOfRangeError) as caught:
            self.log.read(self.start - 1)
        assert self.start == caught.value.first_offset

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        assert self.log is not None
        offset = data.draw(st.integers(self.start, len(self.model)))
        self.log.drop_before(offset)
        self.start = max(self.start, offset)

    @rule(name=st.sampled_from("ab"), data=st.data())
    def commit_cursor(self, name: str, data: st.DataObject) -> None:
        assert self.log is not None
        offset = data.draw(st.integers(0, len(self.model)))
        self.log.cursor(name).commit(offset, reset=True)
        self.cursors[name] = offset

    @rule()
    def seal(self) -> None:
        assert self.log is not None
        assert len(self.model) == self.log.seal()

    @rule()
    def run_pipeline(self) -> None:
        assert self.log is not None
        assert self.log.run_pipeline_once().errors == ()

    # --- bad luck --------------------------------------------------------------------------------

    @rule()
    def close_and_reopen(self) -> None:
        assert self.store is not None
        self.store.close()
        self.open()

    @rule(mode=st.sampled_from(["lost", "kept", "torn", "any"]))
    def lose_power(self, mode: str) -> None:
        self.abandon(self.disk.crash(mode, self.rng))

    @rule()
    def kill(self) -> None:
        self.abandon(self.disk.kill())

    def abandon(self, disk: SimulatedDisk) -> None:
        """The process is gone; closing what is left of it only ends its threads."""
        assert self.store is not None
        with contextlib.suppress(CrashError, ChronikError):
            self.store.close()
        self.disk = disk
        self.open()

    @rule(batch=values, operation=st.sampled_from(["write_at", "sync_data"]))
    def disk_fails(self, batch: list[bytes], operation: str) -> None:
        """The log is poisoned, says so, and after a power loss holds all that it acknowledged."""
        assert self.log is not None
        self.disk.hook = fail_next(operation, errno.EIO)
        try:
            result = self.log.append(batch)
        except LogPoisonedError as error:
            self.fault(error, batch)
            self.write_failed = operation == "write_at"
        else:
            # The failing call belonged to somebody else (the filler).
            assert len(self.model) == result.base_offset
            self.model.extend(batch)
        self.disk.hook = None
        self.abandon(self.disk.crash("any", self.rng))

    # --- always ----------------------------------------------------------------------------------

    @invariant()
    def the_plot_line_holds(self) -> None:
        if self.log is not None:
            marks = self.log.watermarks  # its constructor asserts the order
            assert (self.start, len(self.model)) == (marks.start, marks.end)
            for name, offset in self.cursors.items():
                assert offset == self.log.cursor(name).committed_offset

    def teardown(self) -> None:
        if self.store is not None:
            with contextlib.suppress(UnavailableError, LogPoisonedError):
                self.store.close()
        forget_memory_bucket(self.bucket.removeprefix("memory://"))


PartitionLogModel.TestCase.settings = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestPartitionLogModel = PartitionLogModel.TestCase
