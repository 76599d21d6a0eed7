"""Directed schedules of protocol sections 11, 14 and 16 to 20, on one node."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest

from chronik_store import LogConfig, LogStore
from chronik_store.environment import Environment
from chronik_store.errors import (
    ChronikError,
    ConfigError,
    IdentityMismatchError,
    NotReplicatedError,
    OffsetOutOfRangeError,
    ReadOnlyError,
)
from chronik_store.format.store_file import decode_store_identity
from chronik_store.model import Record
from chronik_store.objectstore.layout import parse_segment_key
from chronik_store.testing.crash import CrashError, MortalThreads
from chronik_store.testing.faulty_object_store import Call, Fault
from chronik_store.testing.virtual_time import Machine, Simulation, Timing
from chronik_store.testing.worlds.oracle import check_bucket
from chronik_store.testing.worlds.store_world import StoreWorld
from tests.crash.harness import CONFIG, MODES, URL, Life
from tests.schedules.test_protocol_04_durable import on_a_machine
from tests.simulation.replica_log import Author, ReplicaLog

HOUR_US = 3_600_000_000


def env_of(life: Life) -> Environment:
    return Environment(fs=life.disk, threads=MortalThreads())


# --- 11: ownership of a data directory ----------------------------------------------------------


def test_11_a_directory_that_a_cluster_owns_is_read_only_for_others(life: Life) -> None:
    for _ in range(3):
        life.append(2)
    life.store.close()
    identity = decode_store_identity(life.disk.peek("/data/STORE"))
    theirs = dataclasses.replace(identity, owner="cluster c, node 2").encode()
    life.disk.vanish("/data/STORE")
    life.disk.create("/data/STORE").write_at(0, [theirs])
    files = {path: life.disk.peek(path) for path in life.disk.paths("/data/wal")}
    with LogStore.open("/data", object_store=URL, config=CONFIG, env=env_of(life)) as store:
        log = store.partition("t")
        assert len(list(log.scan())) <= 6  # what marks prove committed, no more
        for refused in (
            lambda: log.append(b"x"),
            lambda: store.create_topic("u"),
            lambda: log.drop_before(1),
            log.run_pipeline_once,
            store.run_pipeline_once,
            lambda: log.cursor("c").commit(1),
        ):
            with pytest.raises((ReadOnlyError, NotReplicatedError)):
                refused()
    assert files == {path: life.disk.peek(path) for path in life.disk.paths("/data/wal")}


def test_11_two_laptops_with_one_bucket_prefix(life: Life) -> None:
    for _ in range(3):
        life.append(2)
    life.log.seal()
    life.drain()
    other = Life(2)
    other.bucket = other.door.inner = life.bucket
    objects = {info.key for info in life.bucket.list("")}
    with pytest.raises(IdentityMismatchError):
        other.open()
    assert objects == {info.key for info in life.bucket.list("")}
    life.ledger.check(life.log)


def test_11_a_claim_that_was_made_while_we_could_not_look_stops_the_first_put(life: Life) -> None:
    """The bucket was away at open; another store has claimed the prefix meanwhile."""
    other = Life(3)
    other.bucket = other.door.inner = life.bucket
    life.store.close()
    life.door.outage = True
    life.open()
    life.append(4)
    life.log.seal()
    other.open()
    other.append()
    other.log.seal()
    other.drain()
    life.door.outage = False
    report = life.log.run_pipeline_once()
    assert any("belongs to store" in error for error in report.errors)
    assert 1 == len(life.bucket.list("segments/"))
    life.ledger.check(life.log)
    other.store.close()


def test_11_of_two_stores_that_claim_a_prefix_at_once_one_puts_nothing_more(life: Life) -> None:
    """Both have found it unclaimed, and proved that it creates only once."""
    other = Life(4)
    other.open()
    other.append()
    other.log.seal()
    other.drain()
    theirs = other.bucket.get("STORE")
    other.store.close()

    def faster(call: Call, phase: str) -> None:
        if (call.operation, call.key, phase) == ("put", "STORE", "before"):
            life.bucket.put_if_absent("STORE", theirs)

    life.door.hook = faster
    life.append(2)
    life.log.seal()
    report = life.log.run_pipeline_once()
    assert any("belongs to store" in error for error in report.errors)
    assert ["STORE"] == [info.key for info in life.bucket.list("")]
    life.ledger.check(life.log)


# --- 14: many partitions ------------------------------------------------------------------------


def test_14_idle_partitions_cost_next_to_nothing(life: Life) -> None:
    life.store.create_topic("many", partitions=60)
    life.store.close()
    before = sum(len(life.disk.peek(path)) for path in life.disk.paths("/data/wal/many"))
    assert before <= 60 * 4096
    life.open()
    written = life.disk.calls_by_operation["write_at"]
    for partition in range(60):
        assert 0 == life.store.partition("many", partition).watermarks.end
    assert written == life.disk.calls_by_operation["write_at"]
    assert len(life.disk.open_files) <= 8
    for partition in range(0, 60, 7):
        assert (0, 1) == life.store.partition("many", partition).append(b"v")[:2]
    life.store.close()
    life.open()
    for partition in range(60):
        expected = 1 if partition % 7 == 0 else 0
        assert expected == life.store.partition("many", partition).watermarks.end


# --- 16: the Raft side never blocks -------------------------------------------------------------


def test_16_no_call_of_a_replica_waits_for_the_disk() -> None:
    def story(simulation: Simulation, node: Machine) -> None:
        log = node.call(lambda: ReplicaLog(node.environment))
        node.timing = Timing(sync_seconds=10.0, write_seconds=10.0)
        replica = log.replica
        author = Author(log.end, 1)
        began = simulation.now
        called: list[int] = []

        def write() -> None:
            for number in range(20):
                entries = [author.records([b"v" * 400]) for _ in range(3)]
                prev = entries[0].header.index - 1
                term = replica.term(prev)
                tickets = [
                    replica.append_entries(prev, term, entries).ticket,
                    replica.save_hard_state(number + 1, "a"),
                    replica.truncate_suffix(author.index),
                ]
                author.index, author.offset = author.index - 1, author.offset - 1
                for ticket in tickets:
                    replica.when_synced(ticket, lambda ticket=ticket: called.append(ticket))
                replica.advance_commit(author.index)
                assert replica.entries(max(1, author.index), 100)

        node.call(write)
        assert simulation.now - began < 1.0  # of virtual time; a sync alone takes ten
        assert 0 == replica.commit_index
        simulation.sleep(10_000)
        assert called == sorted(called)
        assert 60 == len(called)
        assert author.index == replica.commit_index == replica.durable_index

    on_a_machine(story)


# --- 17: index timestamps -----------------------------------------------------------------------


def test_17_a_clock_that_leaps_by_hours_keeps_the_time_index_monotonic() -> None:
    world = StoreWorld(17, config=CONFIG)

    def story() -> None:
        world.node.call(world.open)
        assert world.log is not None
        log, clock = world.log, world.node.environment.clock
        times: list[int] = []

        def write() -> None:
            for skew in (0, 7200, -7200, 14_400, 0, -86_400, 0):
                world.node.clock_skew_seconds = skew
                far = clock.time_us() + 10 * HOUR_US
                log.append([Record(b"v", timestamp_us=far), Record(b"w")])
                times.append(far)
                clock.sleep(60)

        world.node.call(write)

        def look() -> None:
            assert times == [record.timestamp_us for record in log.scan()][::2]
            found = [
                log.offset_for_timestamp(at)
                for at in range(min(times) - 30 * HOUR_US, max(times), HOUR_US)
            ]
            known = [each for each in found if each is not None]
            assert known == sorted(known)
            assert 0 == log.offset_for_timestamp(0)
            assert log.offset_for_timestamp(max(times)) is None  # bounded by the clock + 1 h
            world.node.clock_skew_seconds = 0
            log.append(b"now")
            at = clock.time_us() + 20 * HOUR_US
            assert log.offset_for_timestamp(at) is None

        world.node.call(look)
        assert world.store is not None
        world.node.call(world.store.close)

    world.story = story  # type: ignore[method-assign]
    world.run()


# --- 18: retention and collection ---------------------------------------------------------------


def test_18_s1_retention_never_passes_an_upload_that_stalls(life: Life) -> None:
    life.store.close()
    life.config = life.config.replace(retention_bytes=1)
    life.open()
    life.door.add(Fault("unavailable", "put", "segments/", times=None))
    for _ in range(8):
        life.append(3)
    life.log.seal()
    for _ in range(4):
        assert life.log.run_pipeline_once().errors
    assert 0 == life.log.watermarks.start
    life.ledger.check(life.log)
    life.door.clear()
    life.ledger.wish_start(24)
    life.drain()
    assert 24 == life.log.watermarks.start
    life.append()
    life.ledger.check(life.log)


@pytest.mark.parametrize("mode", MODES)
def test_18_s2_what_was_dropped_is_deleted_by_whoever_comes_next(life: Life, mode: str) -> None:
    for _ in range(2):
        for _ in range(3):
            life.append(2)
        life.log.seal()
        life.drain()
    life.ledger.wish_start(6)
    life.log.drop_before(6)
    life.plug.dead = True
    after = life.fails(mode)
    after.open()
    with after.store:
        after.drain()
        left = [parse_segment_key(info.key) for info in after.bucket.list("segments/")]
        assert [6] == [run.base_offset for run in left if run is not None]
        check_bucket(after.bucket, after.log)


def test_18_s3_an_object_whose_range_was_dropped_before_it_was_listed(life: Life) -> None:
    """Uploaded, power gone, dropped by the next open: nobody lists it, but the log names it."""
    for _ in range(4):
        life.append(2)
    life.log.seal()

    def die(call: object, phase: str) -> None:
        if phase == "after" and "segments/" in str(call) and "put" in str(call):
            life.plug.dead = True
            raise CrashError("behind the put")

    life.door.hook = die
    with contextlib.suppress(CrashError, ChronikError):
        life.log.run_pipeline_once()
    assert 1 == len(life.bucket.list("segments/"))
    after = life.fails("kept")
    after.open()
    after.ledger.wish_start(8)
    after.log.drop_before(8)
    after.append()
    after.drain()
    after.store.close()
    after.open()
    after.append()
    after.log.seal()
    after.drain()
    runs = [parse_segment_key(info.key) for info in after.bucket.list("segments/")]
    assert [8] == [run.base_offset for run in runs if run is not None]
    check_bucket(after.bucket, after.log)
    after.store.close()


def test_18_readers_of_an_older_manifest_learn_the_new_start(life: Life) -> None:
    for _ in range(3):
        for _ in range(3):
            life.append(2)
        life.log.seal()
        life.drain()
    scan = life.log.scan()
    assert 0 == next(scan).offset
    life.log.drop_before(12)
    life.drain()
    with pytest.raises(OffsetOutOfRangeError) as caught:
        list(scan)
    assert 12 == caught.value.first_offset


# --- 20: one put per segment, and the last local copy -------------------------------------------


def test_20_a_segment_is_one_put_and_no_larger_than_that(life: Life) -> None:
    with pytest.raises(ConfigError):
        LogConfig(segment_bytes=(512 << 20) + 1)
    for _ in range(10):
        life.append(3)
    life.log.seal()
    life.drain()
    puts = [call for call in life.door.calls if call.operation == "put" and "segments/" in call.key]
    assert len(puts) == len({call.key for call in puts}) == len(life.bucket.list("segments/"))


def test_20_the_last_local_copy_waits_for_an_answer_of_the_bucket(life: Life) -> None:
    """Published and gone: the HEAD before the pruning notices, and nothing local goes."""
    for _ in range(4):
        life.append(2)
    life.log.seal()
    life.door.add(Fault("unavailable", "head", "segments/", times=None, skip=1))
    life.log.run_pipeline_once()
    files = set(life.disk.paths("/data/wal"))
    life.door.clear()
    key = life.bucket.list("segments/")[0].key
    body = life.bucket.get(key)
    life.bucket.delete([key])
    report = life.log.run_pipeline_once()
    assert any("absent" in error for error in report.errors)
    assert files <= set(life.disk.paths("/data/wal"))
    life.ledger.check(life.log)
    life.bucket.put_if_absent(key, body)
    life.drain()
    life.ledger.check(life.log)
