"""Directed schedules of protocol sections 6, 7 and 8, through the public API of one node."""

from __future__ import annotations

import contextlib

import pytest

from chronik_store import open_bucket
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError, CorruptionError, OffsetOutOfRangeError
from chronik_store.format.control import Seal
from chronik_store.objectstore.layout import parse_segment_key
from chronik_store.restore import restore
from chronik_store.testing.crash import CrashError, MortalThreads
from chronik_store.testing.faulty_object_store import Fault
from chronik_store.testing.worlds.oracle import check_bucket
from chronik_store.testing.worlds.store_world import StoreWorld
from tests.crash.harness import CONFIG, MODES, URL, Life


def env_of(life: Life) -> Environment:
    return Environment(fs=life.disk, threads=MortalThreads())


def tiered(life: Life, segments: int = 1) -> None:
    for _ in range(segments):
        for _ in range(3):
            life.append(2)
        life.log.seal()
        life.drain()


# --- 6: topics have ids -------------------------------------------------------------------------


def test_6_the_bucket_never_answers_for_a_deleted_topic(life: Life) -> None:
    tiered(life, 3)
    life.store.delete_topic("t")
    with pytest.raises(ChronikError):
        open_bucket(URL, topic="t", env=env_of(life))
    life.store.create_topic("t")
    log = life.store.partition("t")
    log.append([b"second life"])
    log.seal()
    log.run_pipeline_once()
    with open_bucket(URL, topic="t", env=env_of(life)) as reader:
        assert [b"second life"] == [record.value for record in reader.scan()]


def test_6_a_deletion_that_could_not_finish_is_one_for_a_restore_too(life: Life) -> None:
    """Its tombstone is there, its objects are there still: what it names must not come back."""
    tiered(life, 2)
    life.door.add(Fault("unavailable", "delete", times=None))
    with contextlib.suppress(ChronikError):
        life.store.delete_topic("t")
    assert 2 == len(life.bucket.list("segments/"))
    life.store.close()
    life.door.clear()
    restore(URL, "/new", config=CONFIG, env=env_of(life))
    life.path = "/new"
    life.open_store()
    assert () == life.store.topics()


def test_6_a_directory_of_a_deleted_topic_is_not_the_new_ones(life: Life) -> None:
    """The file of another topic id under the right name is refused, not read."""
    tiered(life)
    old = life.disk.peek(life.disk.paths("/data/wal")[-1])
    life.store.delete_topic("t")
    life.store.create_topic("t")
    life.store.close()
    path = life.disk.paths("/data/wal/t/0")[-1]
    life.disk.overwrite(path, 0, old)
    life.open_store()
    with pytest.raises(ChronikError) as caught:
        life.store.partition("t")
    assert type(caught.value).__name__ in {"IdentityMismatchError", "CorruptionError"}


# --- 7: one line for entries and records --------------------------------------------------------


def test_7_s1_files_with_nothing_but_control_entries_go_too(life: Life) -> None:
    tiered(life, 2)
    for number in range(40):
        life.log.cursor("c").commit(number % 12, reset=True)
    tiered(life)
    life.drain()
    status = life.log.status()
    assert status.wal_files <= 3
    assert status.wal_bytes <= 3 * 8192


def test_7_s2_an_idle_log_is_sealed_once_and_never_again() -> None:
    """48 hours, every half an hour "old enough": one segment, not ninety-six."""
    world = StoreWorld(7)

    def story() -> None:
        world.config = CONFIG.replace(
            pipeline_enabled=True, pipeline_interval_seconds=600, segment_age_seconds=1800
        )
        world.node.call(world.open)
        assert world.log is not None
        log = world.log
        world.node.call(lambda: log.append(b"once"))
        world.simulation.sleep(48 * 3600)
        manifest = log._core.manifest
        assert 1 == len(manifest.segments)
        last = log._core.wal.last_index
        world.simulation.sleep(48 * 3600)
        assert last == log._core.wal.last_index
        assert world.store is not None
        world.node.call(world.store.close)

    world.story = story  # type: ignore[method-assign]
    world.run()


def test_7_s3_a_drop_ends_at_what_is_committed_and_may_cut_the_open_segment(life: Life) -> None:
    for _ in range(4):
        life.append(2)
    with pytest.raises(OffsetOutOfRangeError):
        life.log.drop_before(9)
    life.ledger.wish_start(5)
    life.log.drop_before(5)  # inside the open segment (RP#26052)
    marks = life.log.watermarks
    assert (5, 8) == (marks.start, marks.committed)
    life.log.seal()
    life.drain()
    assert 8 == life.log.watermarks.tiered
    life.ledger.check(life.log)
    check_bucket(life.bucket, life.log)


def test_7_s3_everything_dropped_and_the_log_goes_on(life: Life) -> None:
    """Retention empties the log, locally and remotely; the next upload has a place to begin."""
    tiered(life, 2)
    life.append(2)
    end = life.log.watermarks.end
    life.ledger.wish_start(end)
    life.log.drop_before(end)
    life.drain()
    assert [] == list(life.log.scan())
    assert (end, end) == (life.log.watermarks.start, life.log.watermarks.end)
    tiered(life, 2)
    life.ledger.check(life.log)
    check_bucket(life.bucket, life.log)
    with open_bucket(URL, topic="t", env=env_of(life)) as reader:
        assert end == reader.watermarks.start


def test_7_s4_a_stage_that_is_off_decides_no_deletion(life: Life) -> None:
    """No pipeline for a while, no indexing ever: nothing is taken for uploaded."""
    for _ in range(12):
        life.append(2)
    life.log.seal()
    life.append()
    marks = life.log.watermarks
    assert (0, 0, 24) == (marks.indexed, marks.tiered, marks.sealed)
    assert "indexing is off" in str(life.log.status().notes)
    life.store.close()
    life.open()
    assert 0 == life.log.watermarks.tiered
    life.ledger.check(life.log)
    life.drain()
    assert 24 == life.log.watermarks.tiered
    life.ledger.check(life.log)


# --- 8: idempotent commands ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_8_s1_who_comes_after_a_crash_behind_the_put_adopts_the_object(
    life: Life, mode: str
) -> None:
    """A new open is a new term: the key must not change with it (known bug 28)."""
    for _ in range(4):
        life.append(2)
    life.log.seal()

    def die_behind_the_put(call: object, phase: str) -> None:
        if phase == "after" and "segments/" in str(call) and "put" in str(call):
            life.plug.dead = True
        if life.plug.dead:
            raise CrashError("behind the put")

    life.door.hook = die_behind_the_put
    life.disk.hook = lambda *_: life.plug.dead and life.plug.passes("", "") and None
    with contextlib.suppress(CrashError, ChronikError):
        life.log.run_pipeline_once()
    after = life.fails(mode)
    after.open()
    with after.store:
        total = 0
        for _ in range(4):
            report = after.log.run_pipeline_once()
            assert report.errors == ()
            total += report.adopted
        # With the tail lost, the SEAL itself may be gone; else the object is the one.
        assert len(after.bucket.list("segments/")) == 1 or after.log.watermarks.sealed == 0
        assert total == 1 or after.log.watermarks.sealed == 0
        after.ledger.check(after.log)


def test_8_s2_two_seals_of_one_segment_make_one_segment(life: Life) -> None:
    for _ in range(4):
        life.append(2)
    core = life.log._core
    first = core.open_segment().first_index
    core.propose(Seal(first, "admin", 0))
    core.propose(Seal(first, "age", 0))
    life.log.seal()
    life.drain()
    assert 1 == len(life.bucket.list("segments/"))
    assert {"SEAL": 1} == core.refused_commands


@pytest.mark.parametrize("offset", [2, 8, 12])
def test_8_s3_a_drop_while_a_segment_is_on_its_way(offset: int) -> None:
    """ADD_SEGMENT meets a manifest that has moved: it counts, or the range needs none any more."""
    world = StoreWorld(8, config=CONFIG)

    def story() -> None:
        world.node.call(world.open)
        assert world.log is not None
        log, simulation = world.log, world.simulation

        def fill() -> None:
            for _ in range(4):
                batch = world.ledger.offer(2)
                world.ledger.acked(log.append(batch).base_offset, batch)
            log.seal()
            for _ in range(2):
                batch = world.ledger.offer(2)
                world.ledger.acked(log.append(batch).base_offset, batch)

        world.node.call(fill)
        gate = simulation.gate("bucket.put_if_absent", target_end=".seg", after=True)
        running = world.node.spawn(log.run_pipeline_once, name="pipeline")
        assert gate.wait_for_call(10)
        world.ledger.wish_start(offset)
        world.node.call(lambda: log.drop_before(offset))
        world.ledger.dropped(offset)
        gate.open()
        running.join()
        # An object that nobody lists is named by its intent until the term has passed (18).
        assert world.store is not None
        world.node.call(world.store.close)
        world.node.call(world.open)
        world.node.call(world.settle)

    world.story = story  # type: ignore[method-assign]
    world.run()


def test_8_s4_an_uploader_that_sleeps_through_its_terms_changes_nothing() -> None:
    """Its process stands still in a put; another one takes the machine over and goes on."""
    world = StoreWorld(9, config=CONFIG)

    def story() -> None:
        world.node.call(world.open)
        assert world.log is not None
        assert world.store is not None
        log, store = world.log, world.store
        batch = world.ledger.offer(3)
        world.node.call(lambda: world.ledger.acked(log.append(batch).base_offset, batch))
        world.node.call(log.seal)
        gate = world.simulation.gate("bucket.put_if_absent", target_end=".seg")
        stale = world.node.spawn(log.run_pipeline_once, name="stale")
        assert gate.wait_for_call(10)
        closing = world.node.spawn(store.close, name="close")
        world.simulation.sleep(5)
        gate.open()
        stale.join()
        closing.join()
        world.node.call(world.open)
        world.node.call(world.settle)

    world.story = story  # type: ignore[method-assign]
    world.run()


def test_8_s5_two_bundles_of_one_segment_leave_one(life: Life) -> None:
    """Bundles are not reproducible: the first listed wins, the other is named garbage."""
    life.store.close()
    life.config = life.config.replace(indexing_enabled=True)
    life.open()
    for _ in range(3):
        life.append(2, size_max=20)
    life.log.seal()
    life.door.add(Fault("timeout_after", "put", "indexes/"))
    (error,) = life.log.run_pipeline_once().errors
    assert "the reply was lost" in error
    life.store.close()  # what was built is forgotten: the next bundle has other bytes
    life.open()
    life.drain()
    assert life.log.watermarks.indexed == 6
    life.log.cursor("x").commit(1)
    life.ledger.wish_start(1)
    life.log.drop_before(1)  # a change to publish, and with it the garbage
    life.drain()
    assert 1 == len(life.bucket.list("indexes/"))
    assert () == life.log.verify(bucket=True, deep=True).findings


def test_8_a_key_whose_object_has_other_bytes_is_never_adopted(life: Life) -> None:
    for _ in range(4):
        life.append(2)
    life.log.seal()
    puts: list[str] = []
    life.door.hook = lambda call, phase: puts.append(call.key) if phase == "before" else None
    life.door.add(Fault("unavailable", "put", "segments/"))
    life.log.run_pipeline_once()
    key = next(key for key in puts if parse_segment_key(key) is not None)
    life.bucket.put_if_absent(key, b"somebody else's")
    files = set(life.disk.paths("/data/wal"))
    for _ in range(2):
        assert life.log.run_pipeline_once().errors
    assert 0 == life.log.watermarks.tiered
    assert files <= set(life.disk.paths("/data/wal"))
    life.ledger.check(life.log)


def test_a_segment_that_rots_in_the_bucket_is_unavailable_never_absent(life: Life) -> None:
    tiered(life, 2)
    key = life.bucket.list("segments/")[0].key
    data = bytearray(life.bucket.get(key))
    data[len(data) // 3] ^= 4
    life.bucket.delete([key])
    life.bucket.put_if_absent(key, bytes(data))
    life.store.close()
    life.open()
    with pytest.raises(CorruptionError) as caught:
        list(life.log.scan())
    assert caught.value.offset_range is None or caught.value.offset_range[0] < 6
    assert [6, 7] == [record.offset for record in life.log.read(6, max_records=2)]
