"""The real store, WAL and local bucket on a disk that loses power at any call of a scenario."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from chronik_store import LogConfig, LogStore
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError
from chronik_store.objectstore.layout import parse_segment_key
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.disk_faults import crash_at
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk
from tests.depth import places

CONFIG = LogConfig(
    pipeline_enabled=False,
    indexing_enabled=False,
    segment_bytes=1500,
    wal_file_bytes=4096,
    cache_disk_bytes=0,
    disk_reserve_bytes=0,
    disk_throttle_bytes=0,
    garbage_seconds=0.0,
    retention_bytes=6000,
)
MODES = ("lost", "kept", "torn", "any")
BACKGROUND_CALLS = 12
"""So many calls may one run have less than another: marks are written when a log is quiet."""


class Scenario:
    """Appends and pipeline runs; knows what was acknowledged."""

    def __init__(self) -> None:
        self.acked: list[bytes] = []
        self.tried = 0

    def run(self, disk: SimulatedDisk, *, rounds: int = 3) -> None:
        store = self.open(disk)
        store.create_topic("t", exist_ok=True)
        log = store.partition("t")
        for _ in range(rounds):
            for _ in range(6):
                self.append(log)
            log.run_pipeline_once()
        store.close()

    def run_until_dead(self, disk: SimulatedDisk, call: int) -> None:
        """To the crash. Where a background thread met it first, a typed error ends the run; where
        this run has fewer calls than that, it ends by itself, and the power goes then.
        """
        disk.hook = crash_at(call)
        with suppress(CrashError, ChronikError):
            self.run(disk)
        assert disk.calls >= call - BACKGROUND_CALLS

    def append(self, log: Any) -> None:
        value = b"%06d" % self.tried + b"v" * 300
        self.tried += 1
        log.append([value])
        self.acked.append(value)

    @staticmethod
    def open(disk: SimulatedDisk) -> LogStore:
        return LogStore.open(
            "/data", config=CONFIG, env=Environment(fs=disk, threads=MortalThreads())
        )


def calls_of_a_healthy_run() -> int:
    disk = SimulatedDisk(seed=0)
    Scenario().run(disk)
    return disk.calls


def check(disk: SimulatedDisk, scenario: Scenario, where: str) -> None:
    with Scenario.open(disk) as store:
        store.create_topic("t", exist_ok=True)
        log = store.partition("t")
        start = log.watermarks.start
        values = [record.value for record in log.scan()]
        # What was in flight may be there too; what was acknowledged must be, in its place.
        assert values[: len(scenario.acked) - start] == scenario.acked[start:], where
        for number in range(6):
            log.append([b"after %d" % number + b"v" * 300])
        for _ in range(20):
            report = log.run_pipeline_once()
            assert report.errors == (), where
            if report.idle:
                break
        else:
            raise AssertionError(f"never idle: {where}")
        assert log.verify(bucket=True, deep=True).findings == (), where
        keys = [path.partition("/object_store/")[2] for path in disk.paths("/data/object_store")]
        runs = sorted(run[2:4] for key in keys if (run := parse_segment_key(key)) is not None)
        assert len(runs) == len(set(runs)), where
        for (_, left), (right, _) in pairwise(runs):
            assert left == right, where
        assert runs[0][0] == log.watermarks.start, where


@pytest.mark.parametrize("shard", range(4))
def test_power_loss_at_any_call_loses_nothing_and_doubles_nothing(shard: int) -> None:
    total = calls_of_a_healthy_run()
    assert total > 200
    for call in range(1 + shard, total, 4 * 7):
        disk = SimulatedDisk(seed=call)
        scenario = Scenario()
        scenario.run_until_dead(disk, call)
        mode = MODES[call % 4]
        check(disk.crash(mode), scenario, f"call {call}, {mode}")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "mode"), [*enumerate(MODES)])
def test_power_loss_at_every_call(number: int, mode: Any) -> None:
    for call in places(number, calls_of_a_healthy_run(), some=4, every=1):
        disk = SimulatedDisk(seed=call)
        scenario = Scenario()
        scenario.run_until_dead(disk, call)
        check(disk.crash(mode), scenario, f"call {call}, {mode}")
