"""Known bugs of others (docs/known-bugs.md), by their number, on one node.

Those that other suites play all the time (crash points, virtual time, failing calls, planted bugs)
are not repeated here.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import threading

import pytest

from chronik_store import LogStore
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError, DiskFullError, OffsetOutOfRangeError
from chronik_store.model import Record
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.disk_faults import crash_at
from chronik_store.testing.faulty_object_store import Fault
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk
from chronik_store.testing.worlds.oracle import check_bucket
from chronik_store.testing.worlds.store_world import buckets_of
from tests.crash.harness import CONFIG, URL, Life
from tests.simulation.replica_log import Author, ReplicaLog


def tiered(life: Life, segments: int = 1) -> None:
    for _ in range(segments):
        for _ in range(3):
            life.append(2)
        life.log.seal()
        life.drain()


def test_10_11_times_are_found_at_every_seam_of_the_tiers(life: Life) -> None:
    """Across bucket, WAL files and memory, with control entries between, after a drop, past the
    end: always the first offset at or after the time, never one of a control entry.
    """
    times: list[int] = []
    base = 1_600_000_000_000_000
    for number in range(24):
        at = base + (number // 2) * 1000
        life.log.append([Record(b"v", timestamp_us=at), Record(b"w", timestamp_us=at - 400)])
        times += [at, at]
        life.log.cursor("c").commit(number % 5, reset=True)
        if number in {5, 11, 17}:
            life.log.seal()
            life.drain()
    probes = sorted({*times, *(at + 1 for at in times), *(at - 1 for at in times), 0, 1 << 61})

    def expected(at: int, start: int) -> int | None:
        return next((o for o, t in enumerate(times) if t >= at and o >= start), None)

    for start in (0, 7, 12, 40):
        life.log.drop_before(start)
        for reopened in (False, True):
            if reopened:
                life.store.close()
                life.open()
            found = [life.log.offset_for_timestamp(at) for at in probes]
            assert [expected(at, start) for at in probes] == found


def test_14_a_reader_beside_the_writer_writes_nothing(life: Life) -> None:
    tiered(life, 2)
    life.append()
    beside = life.disk.another_process()
    life.knows(beside)
    env = Environment(fs=beside, threads=MortalThreads())
    for _ in range(2):
        with LogStore.open("/data", object_store=URL, env=env, read_only=True) as store:
            log = store.partition("t")
            assert len(list(log.scan())) >= 12
            store.status()
            log.verify(bucket=True)
            with pytest.raises(ChronikError):
                log.append(b"x")
    changing = {"create", "write_at", "rename", "link", "remove", "make_directory", "lock"}
    assert not changing & set(beside.calls_by_operation)


def test_18_eight_readers_over_a_cache_of_nothing_all_get_through(life: Life) -> None:
    tiered(life, 4)
    life.store.close()
    life.config = life.config.replace(cache_memory_bytes=0, read_ahead_bytes=0, tail_bytes_max=0)
    life.open()
    read: list[list[bytes]] = [[] for _ in range(8)]

    def scan(number: int) -> None:
        read[number] = [record.value for record in life.log.scan()]

    threads = [threading.Thread(target=scan, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    expected = [life.ledger.known[offset] for offset in range(24)]
    assert [expected] * 8 == read


def test_20_a_partial_delete_leaves_no_manifest_that_lists_what_is_gone(life: Life) -> None:
    tiered(life, 4)
    life.ledger.wish_start(18)
    life.log.drop_before(18)
    life.door.add(Fault("partial", "delete"))
    reports = [life.log.run_pipeline_once() for _ in range(3)]
    assert any(report.errors for report in reports)
    life.drain()
    check_bucket(life.bucket, life.log)
    assert 1 == len(life.bucket.list("segments/"))
    life.ledger.check(life.log)


def test_23_29_an_idle_log_that_lives_in_the_bucket_alone_is_there_right_after_boot(
    life: Life,
) -> None:
    tiered(life, 3)
    life.ledger.wish_start(7)
    life.log.drop_before(7)
    life.drain()
    life.store.close()
    life.open()
    assert (7, 18) == (life.log.watermarks.start, life.log.watermarks.end)
    assert life.ledger.known[7] == life.log.read(7).records[0].value
    with pytest.raises(OffsetOutOfRangeError):
        life.log.read(6)
    life.store.close()
    life.door.outage = True  # unknown is not empty
    life.open()
    with pytest.raises(ChronikError) as caught:
        life.log.read(7)
    assert caught.value.retriable
    assert (18, 19) == life.log.append(b"goes on")[:2]


def test_25_26_one_segment_that_cannot_be_put_stalls_and_is_never_stepped_over(life: Life) -> None:
    tiered(life)
    life.door.add(Fault("unavailable", "put", "segments/", times=None))
    for _ in range(3):
        for _ in range(3):
            life.append(2)
        life.log.seal()
        assert life.log.run_pipeline_once().errors
    assert 6 == life.log.watermarks.tiered
    assert 24 == life.log.watermarks.sealed
    assert "upload" in str(life.log.status().last_error)
    life.ledger.check(life.log)
    life.door.clear()
    life.drain()
    assert 24 == life.log.watermarks.tiered
    assert life.log.status().last_error is None
    check_bucket(life.bucket, life.log)


def test_31_a_reader_whose_segment_is_collected_under_it_is_told(life: Life) -> None:
    tiered(life, 3)
    life.store.close()
    life.config = life.config.replace(cache_memory_bytes=0, read_ahead_bytes=0)
    life.open()
    batches = life.log.read_batches(0, max_bytes=1)
    assert 0 == next(batches).base_offset
    life.log.drop_before(12)
    life.drain()
    with pytest.raises(OffsetOutOfRangeError):
        list(batches)
    assert [12, 13] == [record.offset for record in life.log.read(12, max_records=2)]


@pytest.mark.parametrize("cut", range(1, 8))
def test_41_cut_reopen_append_reopen(cut: int) -> None:
    """Every place to cut, at and beside file borders, with a seal at the end or not."""
    with buckets_of(lambda _env: None):
        disk = SimulatedDisk(seed=cut)
        log = ReplicaLog(Environment(fs=disk, threads=MortalThreads()))
        author = Author(log.end, 1)
        entries = [author.records([b"v" * 1500]) for _ in range(7)]
        log.core.wal.lead(log.replica.append_entries(0, 0, entries).ticket)
        log.core.wal.lead(log.replica.truncate_suffix(cut))
        log.core.wal.lead(log.replica.save_hard_state(2, "b"))
        for mode in ("lost", "kept", "torn"):
            again = ReplicaLog(Environment(fs=disk.crash(mode), threads=MortalThreads()))
            assert cut - 1 == again.replica.last_index
            writer = Author(again.end, 2)
            more = [writer.records([b"w" * 1500]) for _ in range(4)]
            term = again.replica.term(cut - 1)
            again.core.wal.lead(again.replica.append_entries(cut - 1, term, more).ticket)
            final = ReplicaLog(
                Environment(fs=again.core.env.fs.crash("lost"), threads=MortalThreads())
            )
            terms = [final.replica.term(index) for index in range(1, cut + 4)]
            assert [1] * (cut - 1) + [2] * 4 == terms
            final.close()


def fill(life: Life) -> None:
    """Append until the disk says no."""
    for _ in itertools.count():
        life.append(4, size_max=900)


def test_42_a_full_disk_refuses_appends_reads_on_and_is_emptied_by_its_own_pipeline(
    life: Life,
) -> None:
    life.store.close()
    life.config = CONFIG.replace(disk_reserve_bytes=60_000, wal_file_bytes=16_384)
    life.disk.capacity_bytes = 250_000
    life.open()
    with pytest.raises(DiskFullError) as caught:
        fill(life)
    assert caught.value.retriable
    assert "not_durable" == caught.value.durability
    life.ledger.check(life.log)
    life.log.cursor("c").commit(3)  # control entries have the reserve
    life.log.seal()
    life.drain()
    life.append(4, size_max=900)
    life.ledger.check(life.log)


@pytest.mark.parametrize("call", range(1, 40, 3))
def test_42_a_disk_that_runs_full_at_any_call_opens_again(call: int, life: Life) -> None:
    for _ in range(3):
        life.append(2)
    used = sum(len(life.disk.peek(path)) for path in life.disk.paths())
    full_at = life.disk.calls + call

    def shrink(number: int, _operation: str, _path: str) -> None:
        if number == full_at:
            life.disk.capacity_bytes = used

    life.disk.hook = shrink
    with contextlib.suppress(ChronikError):
        for _ in range(10):
            life.append(2, size_max=2000)
    life.plug.dead = True
    after = life.fails("any")
    after.disk.capacity_bytes = None
    after.config = after.config.replace(accept_suspect=True)  # a write may be cut inside a sector
    after.is_sound()


def test_40_a_name_whose_removal_never_reached_the_disk_is_no_gap(life: Life) -> None:
    """EIO of a directory sync while pruning; later files go; power cut: the first one is back."""
    for _ in range(4):
        for _ in range(3):
            life.append(2)
        life.log.seal()
    removals = 0

    def hook(number: int, operation: str, path: str) -> None:
        nonlocal removals
        removals += operation == "remove" and path.endswith(".log")
        if operation == "sync_directory" and removals == 1:
            removals += 1
            raise OSError(errno.EIO, "injected", path)

    life.disk.hook = hook
    assert life.log.run_pipeline_once().errors
    assert removals == 2
    life.disk.hook = None
    life.drain()
    life.plug.dead = True
    after = life.fails("lost")
    after.is_sound()


def test_33_a_crash_in_the_recovery_of_a_crash_in_recovery(life: Life) -> None:
    """At any call of each; nothing is taken for durable because somebody has read it."""
    for _ in range(3):
        life.append(2)
    unsure = life.ledger.offer(2)
    life.disk.hook = crash_at(life.disk.calls + 2)
    with pytest.raises((CrashError, ChronikError)):
        life.log.append(unsure)
    life.plug.dead = True
    for first in range(1, 60, 7):
        for second in range(1, 60, 11):
            after = life.fails("kill")
            for call in (first, second):
                after.disk.hook = crash_at(call)
                try:
                    after.open()
                except (CrashError, ChronikError):
                    pass
                else:
                    after.disk.hook = None
                after.plug.dead = True
                after = after.fails(("lost", "torn", "any")[call % 3])
            after.is_sound()
