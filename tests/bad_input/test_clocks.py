"""A clock that jumps by hours, back and forth: what is promised of times holds (protocol 7, 17)."""

from __future__ import annotations

import random
import threading
import time

import pytest

import chronik_store as chronik
from chronik_store.environment import Environment
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.simulated_disk import SimulatedDisk
from tests.bad_input.kept import CONFIG

HOUR_US = 3_600_000_000
START_US = 1_700_000_000_000_000
HOUR = 3600.0


class Clock:
    """Time that passes when told to, and a wall clock that is put anywhere."""

    def __init__(self):
        self.now = 1000.0
        self.wall_us = START_US
        self._lock = threading.Lock()

    def monotonic(self):
        return self.now

    def time_us(self):
        return self.wall_us

    def sleep(self, seconds):
        self.pass_by(seconds)
        time.sleep(0)

    def pass_by(self, seconds):
        """Real time: both go on."""
        with self._lock:
            self.now += seconds
            self.wall_us += int(seconds * 1e6)

    def jump(self, hours):
        """Somebody sets the wall clock."""
        self.wall_us += int(hours * HOUR_US)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def disk():
    return SimulatedDisk()


def open_store(disk, clock, **changes):
    settings = {"disk_reserve_bytes": 0, "disk_throttle_bytes": 0, "cache_disk_bytes": 0,
                "indexing_enabled": False, "garbage_seconds": 0.0, **changes}  # fmt: skip
    env = Environment(fs=disk, threads=MortalThreads(), clock=clock)
    store = chronik.LogStore.open(
        "/d", object_store="file:///bucket", config=CONFIG.replace(**settings), env=env
    )
    store.create_topic("t", exist_ok=True)
    return store


def index_times(log):
    """The index timestamp of each record, as the log keeps it."""
    return [batch.timestamp_us for batch in log.read_batches(0) for _ in range(batch.record_count)]


def drain(log):
    for _ in range(10):
        report = log.run_pipeline_once()
        assert () == report.errors
        if report.idle:
            return


def check_times(log, appended):
    """Protocol 17: never back, at most an hour ahead of the clock at its append, and lookups agree.

    appended: (user timestamp or None, wall clock at the append) of each record.
    """
    times = index_times(log)
    assert times == sorted(times)
    high = 0
    for index_time, (user_us, wall_us) in zip(times, appended, strict=True):
        high = max(high, min(wall_us if user_us is None else user_us, wall_us + HOUR_US))
        assert high == index_time
    for probe in {*times, *(each + 1 for each in times), 0, START_US + 1000 * HOUR_US}:
        expected = next((offset for offset, at in enumerate(times) if at >= probe), None)
        assert expected == log.offset_for_timestamp(probe)


def test_index_times_never_go_back_and_no_bad_clock_pins_them(disk, clock):
    rng = random.Random(17)
    appended = []
    with open_store(disk, clock) as store:
        log = store.partition("t")
        for number in range(60):
            user_us = None
            if number % 3 == 0:
                user_us = clock.wall_us + rng.randint(-50, 50) * HOUR_US
            appended.append((user_us, clock.wall_us))
            log.append(chronik.Record(b"%d" % number, timestamp_us=user_us))
            if number % 7 == 6:
                clock.jump(rng.choice([-5, -1, 1, 5]))
            clock.pass_by(rng.random() * 600)
            if number % 20 == 10:
                log.seal()
                drain(log)
        check_times(log, appended)
        kept = [record.timestamp_us for record in log.scan()]
        given = [user for user, _ in appended]
        assert all(user is None or user == seen for user, seen in zip(given, kept, strict=True))
    clock.jump(-100)
    with open_store(disk, clock) as store:
        log = store.partition("t")
        appended.append((None, clock.wall_us))
        log.append(b"a hundred hours ago")
        check_times(log, appended)
        log.seal()
        drain(log)
        check_times(log, appended)
    env = Environment(fs=disk, threads=MortalThreads(), clock=clock)
    with chronik.open_bucket("file:///bucket", topic="t", env=env) as log:
        check_times(log, appended)


def test_a_time_in_the_year_9999_is_kept_and_moves_look_ups_by_an_hour_at_most(disk, clock):
    far = 253_402_300_799_000_000
    with open_store(disk, clock) as store:
        log = store.partition("t")
        log.append([chronik.Record(b"far", timestamp_us=far), b"now"])
        clock.pass_by(2 * HOUR)
        log.append(b"later")
        assert far == log.read(0).records[0].timestamp_us
        assert [START_US + HOUR_US] * 2 + [START_US + 2 * HOUR_US] == index_times(log)
        assert 2 == log.offset_for_timestamp(START_US + HOUR_US + 1)
        assert log.offset_for_timestamp(START_US + 3 * HOUR_US) is None


@pytest.mark.parametrize("hours", [-1000, -5, 5, 1000])
def test_sealing_by_age_follows_time_that_passes_not_the_wall_clock(disk, clock, hours):
    with open_store(disk, clock, segment_age_seconds=1800.0) as store:
        log = store.partition("t")
        log.append(b"a")
        assert log.run_pipeline_once().idle
        clock.jump(hours)
        assert log.run_pipeline_once().idle
        clock.pass_by(1700)
        assert log.run_pipeline_once().idle
        clock.pass_by(200)
        assert 1 == log.run_pipeline_once().sealed
        assert 1 == log.watermarks.sealed


@pytest.mark.parametrize("hours", [-5, 5])
def test_an_idle_log_is_sealed_once_however_the_clock_jumps(disk, clock, hours):
    """Protocol 7, S2: what the seal and the upload wrote is not old records again."""
    with open_store(disk, clock, segment_age_seconds=1800.0) as store:
        log = store.partition("t")
        log.append(b"a")
        sealed = 0
        for _ in range(20):
            sealed += log.run_pipeline_once().sealed
            clock.pass_by(1000)
            clock.jump(hours)
        assert 1 == sealed
        assert [b"a"] == [record.value for record in log.scan()]
        assert 1 == log.status().segments


def test_a_jump_forward_deletes_nothing_that_is_not_old(disk, clock):
    with open_store(disk, clock, retention_seconds=24 * HOUR) as store:
        log = store.partition("t")
        for number in range(3):
            log.append(b"%d" % number)
            log.seal()
            clock.pass_by(60)
        drain(log)
        clock.jump(1000)
        for _ in range(5):
            assert 0 == log.run_pipeline_once().dropped_segments
            clock.pass_by(300)
        clock.jump(-1000)
        for _ in range(5):
            clock.pass_by(HOUR)
            assert 0 == log.run_pipeline_once().dropped_segments
        assert 0 == log.watermarks.start
        clock.pass_by(24 * HOUR)
        log.run_pipeline_once()
        drain(log)
        assert 3 == log.watermarks.start


def test_a_clock_that_was_ahead_for_a_while_only_makes_retention_wait(disk, clock):
    with open_store(disk, clock, retention_seconds=24 * HOUR) as store:
        log = store.partition("t")
        clock.jump(100)
        clock.pass_by(2 * HOUR)
        log.append(b"sealed in the future")
        log.seal()
        drain(log)
        clock.jump(-100)
        log.append(b"now")
        log.seal()
        drain(log)
        for _ in range(30):
            clock.pass_by(HOUR)
            log.run_pipeline_once()
        # Both are older than a day by now; the first is dropped only when its stamp says so.
        assert log.watermarks.start in {0, 2}
        for _ in range(110):
            clock.pass_by(HOUR)
            log.run_pipeline_once()
        assert 2 == log.watermarks.start
        assert 2 == log.append(b"next").base_offset


def test_a_clock_that_was_behind_deletes_nothing_of_a_running_day(disk, clock):
    clock.jump(-10_000)
    with open_store(disk, clock, retention_seconds=24 * HOUR) as store:
        log = store.partition("t")
        log.append(b"sealed in the past")
        log.seal()
        drain(log)
        clock.jump(10_000)  # the time service is there at last
        log.append(b"now")
        log.seal()
        for _ in range(10):
            clock.pass_by(HOUR / 2)
            log.run_pipeline_once()
        assert b"now" in [record.value for record in log.scan()]
        assert log.watermarks.end == 2


def test_waits_are_measured_on_a_clock_that_nobody_sets(disk, clock):
    with open_store(disk, clock) as store:
        log = store.partition("t")
        log.append(b"a")
        clock.jump(1000)
        started = clock.now
        assert () == log.read(1, wait_seconds=0.0).records
        assert clock.now == started
        assert 1 == log.search("a").total
        clock.jump(-2000)
        assert 1 == log.search("a", deadline_seconds=5).total


@pytest.mark.parametrize("hours", [-1000, 1000])
def test_a_store_opens_and_recovers_whatever_the_clock_says(disk, clock, hours):
    with open_store(disk, clock) as store:
        log = store.partition("t")
        log.append([b"a", b"b"])
        log.cursor("c").commit(1)
        log.seal()
        drain(log)
        log.append(b"c")
    clock.jump(hours)
    with open_store(disk.kill(), clock) as store:
        log = store.partition("t")
        assert [b"a", b"b", b"c"] == [record.value for record in log.scan()]
        assert 1 == log.cursor("c").offset
        log.append(b"d")
        log.seal()
        drain(log)
        assert 4 == log.watermarks.tiered
        assert log.verify(bucket=True, deep=True).ok
