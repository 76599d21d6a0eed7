"""Directed schedules of protocol sections 1, 2, 3 and 5, through the public API of one node."""

from __future__ import annotations

import contextlib
import threading

import pytest

from chronik_store.environment import Environment
from chronik_store.errors import (
    ChronikError,
    FencedError,
    LogPoisonedError,
    ProducerSequenceError,
    UnavailableError,
)
from chronik_store.format.manifest_file import decode_manifest_object
from chronik_store.format.record_batch import RecordBatch
from chronik_store.objectstore.layout import parse_manifest_key
from chronik_store.replica import Replica
from chronik_store.replicated import core_of, snapshot_of
from chronik_store.restore import restore
from chronik_store.testing.crash import CrashError, MortalThreads
from chronik_store.testing.disk_faults import Gate, all_of, crash_at, fail_next
from chronik_store.testing.faulty_object_store import Fault
from tests.crash.harness import CONFIG, MODES, URL, Life


def batch(sequence: int, value: bytes, *, producer: int = 7) -> RecordBatch:
    return RecordBatch.build([value], producer_id=producer, base_sequence=sequence)


def tiered(life: Life, segments: int = 1) -> None:
    for _ in range(segments):
        for _ in range(3):
            life.append(2)
        life.log.seal()
        life.drain()


# --- 1: what must survive the pruning of the file that held it ----------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_1_manifest_producers_and_terms_outlive_the_files_that_held_them(
    life: Life, mode: str
) -> None:
    life.log.append(batch(0, b"one"))
    for number in range(1, 8):
        life.log.append(batch(number, b"p" * 600))
    tiered(life, 2)
    first_file = life.log._core.wal.files()[0]
    first_segment = life.log._core.manifest.segments[0]
    # Neither the producer's entries nor the ADD_SEGMENT of their segment is in a WAL file any more.
    assert first_file.first_index > first_segment.added_index > 8
    before = life.log._core.manifest, life.log._core.term
    after = life.fails(mode)
    after.open()
    with after.store:
        found = after.log._core.manifest
        assert before[0].segments == found.segments
        assert before[0].published_number == found.published_number
        assert after.log.append(batch(7, b"p" * 600)) == (7, 8, True)
        assert after.log.append(batch(8, b"next")) == (20, 21, False)
        assert b"one" == after.log.read(0).records[0].value
        assert after.log._core.term > before[1]


@pytest.mark.parametrize("mode", MODES)
def test_1_s2_the_commit_index_of_a_pruned_log_is_known_after_a_crash(
    life: Life, mode: str
) -> None:
    """ADD_SEGMENT is committed, the file that it covers goes, the power goes: no hole, no end."""
    for _ in range(4):
        life.append(2)
    life.log.seal()
    removed: list[str] = []

    def watch(_number: int, operation: str, path: str) -> None:
        if removed and operation != "sync_directory":
            raise CrashError("right behind the first removal")
        if operation == "remove" and path.endswith(".log"):
            removed.append(path)

    life.disk.hook = watch
    with contextlib.suppress(CrashError, ChronikError):
        life.drain()
    assert removed
    life.plug.dead = True
    after = life.fails(mode)
    after.is_sound()


# --- 2: a snapshot, and a restore, stand for the data that is there -----------------------------


def test_2_a_restored_log_takes_a_producers_batch_that_is_not_in_the_bucket(life: Life) -> None:
    """Its sequence was in the old directory only: swallowing the retry would lose it silently."""
    life.log.append(batch(0, b"tiered"))
    life.log.seal()
    life.drain()
    life.log.append(batch(1, b"only local"))
    life.log.cursor("c").commit(2)
    life.log.drop_before(1)  # a newer manifest goes out, the data behind it does not
    life.drain()
    env = Environment(fs=life.disk, threads=MortalThreads())
    restore(URL, "/new", config=CONFIG, env=env)
    life.path = "/new"
    life.open()
    assert life.log.append(batch(1, b"only local")) == (1, 2, False)
    assert life.log.append(batch(1, b"only local")) == (1, 2, True)
    life.store.close()


def test_2_the_published_manifest_carries_producers_as_of_its_data(life: Life) -> None:
    life.log.append(batch(0, b"a"))
    life.log.seal()
    life.log.append(batch(1, b"b"))
    life.drain()
    newest = max(key.key for key in life.bucket.list("manifests/"))
    found = decode_manifest_object(life.bucket.get(newest))
    assert [0] == [entry.last_sequence for entry in found.producers]
    assert 1 == found.manifest.next.offset


def snapshot_sequences(life: Life) -> tuple[int, list[int]]:
    """Where a snapshot of this log, as a node that leads makes it, ends; its producers' last."""
    core = core_of(life.log)
    core.replica = Replica(core, lambda call: call())
    made = snapshot_of(life.store, life.log)
    return made.base.offset, [each.last_sequence for each in made.producers]


def test_2_a_log_whose_segments_have_all_expired_still_has_a_snapshot(life: Life) -> None:
    """Or a new node would wait for the next segment, which an idle log never gets."""
    life.store.close()
    life.config = CONFIG.replace(retention_bytes=0)
    life.open()
    life.log.append(batch(0, b"a"))
    life.log.seal()
    life.drain()
    life.store.close()
    life.open()
    assert not life.log._core.manifest.segments
    assert (1, [0]) == snapshot_sequences(life)
    life.store.close()


def test_2_nor_does_a_range_that_was_dropped_before_its_upload_hide_the_producers(
    life: Life,
) -> None:
    """A node that begins there and leads would store the retry of the dropped batch again."""
    for number in range(2):
        life.log.append(batch(number, b"x"))
        life.log.seal()
        if not number:
            life.drain()
    life.log.drop_before(2)
    assert (2, [0, 1]) == snapshot_sequences(life)
    life.log.append(batch(2, b"x"))
    life.drain()
    life.store.close()
    life.open()
    assert not life.log._core.manifest.segments
    life.log._core.state.tiered_producers = None  # as in a log that begins behind that SEAL
    assert (2, [0, 1]) == snapshot_sequences(life)
    life.store.close()


def test_2_what_is_not_published_yet_is_no_snapshot(life: Life) -> None:
    life.log.append(batch(0, b"x"))
    life.log.seal()
    life.drain()
    life.log.append(batch(1, b"x"))
    life.log.seal()
    life.log.drop_before(2)
    life.log._core.state.tiered_producers = None
    with pytest.raises(UnavailableError):
        snapshot_sequences(life)
    life.store.close()


# --- 3: duplicates ------------------------------------------------------------------------------


def test_3_a_retry_of_what_is_in_flight_waits_for_its_original(life: Life) -> None:
    life.append()
    gate = Gate("sync_data")
    life.disk.hook = gate
    first = life.log.append_nowait(batch(0, b"x"))
    assert gate.arrived.wait(10)
    second = life.log.append_nowait(batch(0, b"x"))
    assert not first.done()
    assert not second.done()
    gate.open()
    assert (1, 2, False) == first.result(10)
    assert (1, 2, True) == second.result(10)


def test_3_a_caller_that_waits_with_a_retry_waits_for_its_original(life: Life) -> None:
    life.append()
    gate = Gate("sync_data")
    life.disk.hook = gate
    first = life.log.append_nowait(batch(0, b"x"))
    assert gate.arrived.wait(10)
    found: list[tuple[int, int, bool]] = []
    retry = threading.Thread(target=lambda: found.append(life.log.append(batch(0, b"x"))))
    retry.start()
    retry.join(0.1)
    assert retry.is_alive()
    assert not first.done()
    gate.open()
    retry.join(10)
    assert [(1, 2, True)] == found


def test_3_when_the_original_fails_its_retry_fails_as_unknown(life: Life) -> None:
    life.append()
    gate = Gate("sync_data")
    life.disk.hook = all_of(gate, fail_next("sync_data", 5))
    first = life.log.append_nowait(batch(0, b"x"))
    assert gate.arrived.wait(10)
    second = life.log.append_nowait(batch(0, b"x"))
    gate.open()
    for future in (first, second):
        error = future.exception(10)
        assert isinstance(error, LogPoisonedError)
        assert "unknown" == error.durability


@pytest.mark.parametrize("mode", MODES)
def test_3_a_retry_after_any_crash_is_stored_exactly_once(life: Life, mode: str) -> None:
    life.log.append(batch(0, b"sent"))
    life.disk.hook = crash_at(life.disk.calls + 2)
    with contextlib.suppress(CrashError, ChronikError):
        life.log.append(batch(1, b"unknown"))
    life.plug.dead = True
    after = life.fails(mode)
    after.open()
    with after.store:
        assert (1, 2) == after.log.append(batch(1, b"unknown"))[:2]
        assert [b"sent", b"unknown"] == [record.value for record in after.log.scan()]


def test_3_producers_are_forgotten_by_the_log_alone_and_say_so(life: Life) -> None:
    life.store.close()
    life.config = life.config.replace(producers_max=2)
    life.open()
    for producer in (1, 2, 3):
        life.log.append(batch(0, b"v", producer=producer))
    with pytest.raises(ProducerSequenceError) as caught:
        life.log.append(batch(1, b"v", producer=1))
    assert "not_durable" == caught.value.durability
    assert (3, 4, False) == life.log.append(batch(1, b"v", producer=3))


# --- 5: published manifests are the fence -------------------------------------------------------


def copy_of(life: Life) -> Life:
    """An image of its disk, opened beside it, over the same bucket."""
    copy = Life(2)
    copy.disk = life.disk.crashed("kept")
    copy.bucket = life.bucket
    copy.door = life.door
    copy.open()
    return copy


def test_5_s1_of_two_copies_of_a_log_one_publishes_a_number(life: Life) -> None:
    """A disk image is opened a second time: both would be "number 2"."""
    tiered(life)
    copy = copy_of(life)
    tiered(life)
    copy.log.append(b"another history")
    copy.log.seal()
    report = copy.log.run_pipeline_once()
    assert report.errors
    assert copy.log.status().fenced
    assert b"another history" == list(copy.log.scan())[-1].value  # kept, and only there
    numbers = [parse_manifest_key(info.key) for info in life.bucket.list("manifests/")]
    seen = [each.number for each in numbers if each is not None]
    assert len(seen) == len(set(seen))
    life.ledger.check(life.log)
    copy.store.close()


def test_5_s1_two_copies_that_have_both_looked_collide_on_the_number(life: Life) -> None:
    """Looking is not a fence: only a put that is refused is."""
    tiered(life)
    copy = copy_of(life)
    copy.log.append(b"another history")
    copy.log.seal()
    life.door.add(Fault("unavailable", "put", "manifests/"))
    assert copy.log.run_pipeline_once().errors  # it found the folder to be its own, and waits
    tiered(life)
    newest = max(info.key for info in life.bucket.list("manifests/"))
    published = life.bucket.get(newest)
    assert copy.log.run_pipeline_once().errors
    assert copy.log.status().fenced
    assert published == life.bucket.get(newest)
    assert newest == max(info.key for info in life.bucket.list("manifests/"))
    life.drain()
    assert not life.log.status().fenced
    life.ledger.check(life.log)
    copy.store.close()


def test_5_s2_nothing_local_goes_before_the_manifest_that_lists_it_is_out(life: Life) -> None:
    for _ in range(5):
        life.append(2)
    life.log.seal()
    files = set(life.disk.paths("/data/wal"))
    life.door.add(Fault("unavailable", "put", "manifests/", times=None))
    for _ in range(3):
        report = life.log.run_pipeline_once()
        assert any("publish" in error for error in report.errors)
    assert life.log.watermarks.tiered == 10
    assert files <= set(life.disk.paths("/data/wal"))
    life.door.clear()
    life.drain()
    assert not files <= set(life.disk.paths("/data/wal"))
    life.ledger.check(life.log)


def test_5_s3_a_restore_claims_first_and_the_old_owner_stops(life: Life) -> None:
    tiered(life)
    env = Environment(fs=life.disk, threads=MortalThreads())
    restore(URL, "/new", config=CONFIG, env=env)
    for _ in range(3):
        life.append(2)
    files = set(life.disk.paths("/data/wal"))
    life.log.seal()
    assert life.log.run_pipeline_once().errors  # what it had sealed by then may have been put
    assert life.log.status().fenced
    objects = {info.key for info in life.bucket.list("segments/")}
    life.append()
    life.log.seal()
    for _ in range(3):
        life.log.run_pipeline_once()
    assert objects == {info.key for info in life.bucket.list("segments/")}
    assert files <= set(life.disk.paths("/data/wal"))
    life.append()  # on_fenced is "append"
    life.ledger.check(life.log)


def test_5_s3_an_owner_that_shall_stop_takes_no_records_for_itself_alone(life: Life) -> None:
    life.store.close()
    life.config = CONFIG.replace(on_fenced="stop")
    life.open()
    tiered(life)
    restore(URL, "/new", config=CONFIG, env=Environment(fs=life.disk, threads=MortalThreads()))
    life.append()  # nobody has told it yet
    life.log.seal()
    assert life.log.run_pipeline_once().errors
    with pytest.raises(FencedError) as caught:
        life.log.append(b"whose is it?")
    assert "not_durable" == caught.value.durability
    life.ledger.check(life.log)


def test_5_s4_old_numbers_go_and_the_newest_is_on_the_first_page(life: Life) -> None:
    for number in range(1, 71):
        life.append()
        life.log.drop_before(number)
        life.drain()
    numbers = sorted(
        found.number
        for info in life.bucket.list("manifests/", limit=100)
        if (found := parse_manifest_key(info.key)) is not None
    )
    assert 64 == len(numbers)
    assert life.log.status().published_number == numbers[-1]


def test_5_a_lost_reply_of_a_put_is_ours_not_a_rivals(life: Life) -> None:
    """412 on the own retried put (known bug 34), of segment and manifest alike."""
    for part in ("segments/", "manifests/"):
        life.door.add(Fault("timeout_after", "put", part))
        for _ in range(3):
            life.append(2)
        life.log.seal()
        assert life.log.run_pipeline_once().errors
        life.drain()
    assert not life.log.status().fenced
    assert 2 == len(life.bucket.list("segments/"))
    life.ledger.check(life.log)
    assert () == life.log.verify(bucket=True, deep=True).findings


def test_5_a_bucket_that_lost_our_newest_manifest_stops_tiering_loudly(life: Life) -> None:
    tiered(life, 2)
    newest = max(info.key for info in life.bucket.list("manifests/"))
    life.bucket.delete([newest])
    life.store.close()
    life.open()
    life.append()
    life.log.seal()
    files = set(life.disk.paths("/data/wal"))
    report = life.log.run_pipeline_once()
    assert any("deleted" in error for error in report.errors)
    assert files <= set(life.disk.paths("/data/wal"))
    life.ledger.check(life.log)
