"""The public face of one partition: each promise of its docstrings, through real files."""

from __future__ import annotations

import copy
import datetime as dt
import pickle
import threading

import pytest

import chronik_store as chronik

CONFIG = chronik.LogConfig(pipeline_enabled=False)


@pytest.fixture
def log(tmp_path):
    with chronik.PartitionLog.open(tmp_path / "data", topic="events", config=CONFIG) as opened:
        yield opened


def test_an_append_returns_its_range_and_is_readable_at_once(log):
    assert (0, 2, False) == log.append([b"a", b"b"])
    assert [b"a", b"b"] == [record.value for record in log.read(0)]


@pytest.mark.parametrize(
    "records",
    [b"x", chronik.Record(b"x"), [b"x"], iter([b"x"]), chronik.RecordBatch.build([b"x"])],
    ids=["bytes", "record", "list", "iterator", "batch"],
)
def test_everything_that_can_be_appended(log, records):
    assert (0, 1) == log.append(records)[:2]
    assert b"x" == log.read(0).records[0].value


def test_an_empty_iterable_writes_nothing(log):
    log.append(b"a")
    before = log._core.wal.last_seq  # not the bytes on disk: zeros are written in the background
    assert (1, 1, False) == log.append([])
    assert (1, 1, False) == log.append_nowait([]).result(1)
    assert (before, 1) == (log._core.wal.last_seq, log.watermarks.end)


@pytest.mark.parametrize("wrong", ["text", "", ["text"], 7, [7], [None], None, [b"x", "y"]])
def test_what_is_not_bytes_is_a_type_error_and_nothing_is_written(log, wrong):
    with pytest.raises(TypeError):
        log.append(wrong)
    assert 0 == log.watermarks.end


def test_keys_times_and_headers_come_back(log):
    record = chronik.Record(b"v", b"k", 1_700_000_000_000_000, (("h", b"1"), ("h", b"2")))
    log.append([record, chronik.Record(b"w", b"")])
    first, second = log.read(0)
    assert (b"k", 1_700_000_000_000_000) == (first.key, first.timestamp_us)
    assert (("h", b"1"), ("h", b"2")) == first.headers
    assert b"" == second.key
    assert dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC) == first.time


def test_a_record_without_a_key_is_not_one_with_an_empty_key(log):
    log.append([chronik.Record(b"a"), chronik.Record(b"b", b"")])
    assert [None, b""] == [record.key for record in log.read(0)]


def test_expected_offset_is_compare_and_append(log):
    log.append(b"a", expected_offset=0)
    with pytest.raises(chronik.OffsetConflictError) as caught:
        log.append(b"b", expected_offset=0)
    assert ("not_durable", 1) == (caught.value.durability, caught.value.end_offset)
    assert 1 == log.watermarks.end


def test_a_repeated_batch_is_where_it_was_expected_to_be(log):
    """Whoever repeats an append of unknown outcome must not hear that somebody else was faster."""
    batch = chronik.RecordBatch.build([b"a", b"b"], producer_id=7)
    assert (0, 2, False) == log.append(batch, expected_offset=0)
    assert (0, 2, True) == log.append(batch, expected_offset=0)
    assert (0, 2, True) == log.append_nowait(batch, expected_offset=0).result(20)
    with pytest.raises(chronik.OffsetConflictError):
        log.append(batch.with_producer(7, 0, 2), expected_offset=0)
    assert (2, 4, False) == log.append(batch.with_producer(7, 0, 2), expected_offset=2)


@pytest.mark.parametrize("wrong", [True, 1.0])
def test_what_equals_an_expected_offset_is_not_one(log, wrong):
    log.append(b"a")
    with pytest.raises(TypeError, match="expected_offset"):
        log.append(b"b", expected_offset=wrong)
    assert 1 == log.watermarks.end


def test_too_large_is_refused_before_anything_is_queued(tmp_path):
    config = CONFIG.replace(record_bytes_max=1000, batch_bytes_max=2000)
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=config) as log:
        for records in (b"x" * 1001, [b"x" * 900] * 3):
            with pytest.raises(chronik.RecordTooLargeError) as caught:
                log.append(records)
            assert "not_durable" == caught.value.durability
        assert 0 == log.watermarks.end
        log.append(b"x" * 900)


def test_a_compressed_record_is_measured_as_it_is_read(tmp_path):
    config = CONFIG.replace(record_bytes_max=1000, batch_bytes_max=2000, compression="zstd")
    with (
        chronik.PartitionLog.open(tmp_path / "d", topic="t", config=config) as log,
        pytest.raises(chronik.RecordTooLargeError),
    ):
        log.append(b"x" * 1001)


def test_a_future_is_running_and_cannot_be_cancelled(log):
    future = log.append_nowait(b"a")
    assert not future.cancel()
    assert (0, 1, False) == future.result(5)


def test_many_threads_share_the_log_and_lose_nothing(log):
    results = []

    def appender(name):
        values = [f"{name}-{number}".encode() for number in range(50)]
        results.extend([(log.append(value), value) for value in values])

    threads = [threading.Thread(target=appender, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = {record.offset: record.value for record in log.scan()}
    assert {result.base_offset: value for result, value in results} == stored
    assert list(range(400)) == sorted(stored)


OUT = chronik.OffsetOutOfRangeError


@pytest.mark.parametrize(
    ("offset", "error"),
    [(-1, OUT), (5, OUT), ("0", TypeError), (None, TypeError), (1.0, TypeError), (True, TypeError)],
)
def test_a_wrong_offset_has_its_own_error(log, offset, error):
    log.append(b"a")
    with pytest.raises(error):
        log.read(offset)


def test_reading_at_the_end_is_empty_and_stays_there(log):
    log.append(b"a")
    found = log.read(1)
    assert ((), 1, "none") == (found.records, found.next_offset, found.tier)


def test_a_waiting_read_is_woken_by_an_append(log):
    timer = threading.Timer(0.05, log.append, [b"late"])
    timer.start()
    assert b"late" == log.read(0, wait_seconds=10).records[0].value
    timer.join()


def test_at_least_one_record_is_read_whatever_its_size(log):
    log.append([b"x" * 5000, b"y"])
    assert 1 == len(log.read(0, max_bytes=10))
    with pytest.raises(ValueError, match="at least 1"):
        log.read(0, max_bytes=0)


def test_scan_holds_a_range_and_follow_waits(log):
    log.append([b"%d" % number for number in range(10)])
    assert [b"3", b"4"] == [record.value for record in log.scan(3, 5)]
    follower = log.scan(9, follow=True)
    assert b"9" == next(follower).value
    timer = threading.Timer(0.05, log.append, [b"10"])
    timer.start()
    assert b"10" == next(follower).value
    timer.join()


def test_an_iterator_overtaken_by_retention_gets_the_error(log):
    log.append([b"a"] * 10)
    records = log.scan(0)
    next(records)
    log.seal()
    log.drop_before(10)
    with pytest.raises(chronik.OffsetOutOfRangeError):
        list(log.scan(0))


def test_dropping_moves_start_and_is_idempotent(log):
    log.append([b"a"] * 10)
    log.drop_before(4)
    log.drop_before(2)
    assert 4 == log.watermarks.start
    with pytest.raises(chronik.OffsetOutOfRangeError) as caught:
        log.read(3)
    assert 4 == caught.value.first_offset
    with pytest.raises(chronik.OffsetOutOfRangeError):
        log.drop_before(11)


def test_the_tiers_answer_in_turn(tmp_path):
    config = CONFIG.replace(tail_bytes_max=0)
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=config) as log:
        log.append([b"a"] * 10)
        assert "wal" == log.read(0).tier
        assert 10 == log.seal()
        report = log.run_pipeline_once()
        assert ((), 1, 1, 2) == (report.errors, report.uploaded, report.indexed, report.published)
        assert "object_store" == log.read(0).tier
        line = log.watermarks
        assert (10, 10, 10, 10) == (line.indexed, line.tiered, line.sealed, line.committed)


def test_the_hot_tail_answers_from_memory(log):
    log.append(b"a")
    assert "wal_tail" == log.read(0).tier


def test_times_find_offsets(log):
    log.append(chronik.Record(b"a", timestamp_us=1_000))
    log.append(chronik.Record(b"b", timestamp_us=3_000))
    assert [0, 0, 1, 1, None] == [
        log.offset_for_timestamp(t) for t in (0, 1_000, 1_001, 3_000, 3_001)
    ]
    with pytest.raises(ValueError, match="naive"):
        log.offset_for_timestamp(dt.datetime(2024, 1, 1))  # noqa: DTZ001
    with pytest.raises(TypeError):
        log.offset_for_timestamp("now")


def test_protocol_17_a_clock_in_the_far_future_does_not_poison_the_time_index(log):
    far = chronik.Record(b"a", timestamp_us=10**17)
    log.append(far)
    log.append(b"b")
    assert 10**17 == log.read(0).records[0].timestamp_us
    in_two_hours = dt.datetime.now(dt.UTC) + dt.timedelta(hours=2)
    assert log.offset_for_timestamp(in_two_hours) is None


def test_a_cursor_is_durable_and_never_goes_back_by_accident(tmp_path):
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        log.append([b"a"] * 10)
        cursor = log.cursor("me")
        assert (0, None) == (cursor.offset, cursor.committed_offset)
        cursor.commit(7)
        with pytest.raises(chronik.OffsetConflictError):
            cursor.commit(3)
        cursor.commit(5, reset=True)
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        cursor = log.cursor("me")
        assert 5 == cursor.offset
        assert 5 == len(list(cursor.records()))
        cursor.delete()
        assert cursor.committed_offset is None


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 256])
def test_a_cursor_has_a_printable_name(log, name):
    with pytest.raises(chronik.ConfigError):
        log.cursor(name)


def test_protocol_3_a_retried_batch_of_a_producer_is_stored_once(tmp_path):
    batch = chronik.RecordBatch.build([b"a", b"b"], producer_id=7, base_sequence=0)
    following = chronik.RecordBatch.build([b"c"], producer_id=7, base_sequence=2)
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        assert (0, 2, False) == log.append(batch)
        assert (0, 2, True) == log.append(batch)
        assert (0, 2, True) == log.append_nowait(batch).result(5)
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        assert (0, 2, True) == log.append(batch)
        assert (2, 3, False) == log.append(following)
        gap = chronik.RecordBatch.build([b"x"], producer_id=7, base_sequence=9)
        with pytest.raises(chronik.ProducerSequenceError) as caught:
            log.append(gap)
        assert ("not_durable", 3) == (caught.value.durability, caught.value.expected_sequence)


def test_a_log_is_neither_pickled_nor_copied(log):
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(log)


def test_values_pickle_and_copy(log):
    log.append([b"a"])
    for value in (log.read(0), log.watermarks, log.status(), log.recovery, log.verify(), CONFIG,
                  chronik.RecordBatch.build([b"a"]), log.append(b"b")):  # fmt: skip
        assert value == pickle.loads(pickle.dumps(value))
        assert value == copy.deepcopy(value)


def test_the_replica_face_belongs_to_clusters(log):
    with pytest.raises(chronik.NotReplicatedError):
        log.replica  # noqa: B018


def test_records_that_are_older_than_those_before_them_take_no_time_back(log):
    """Protocol 17: the index of times only rises, whatever the records say."""
    now_us = log._core.env.clock.time_us()
    for age_seconds in (10, 5, 3600, 1):
        log.append(chronik.Record(b"x", timestamp_us=now_us - age_seconds * 1_000_000))
    wal = log._core.wal
    entries = wal.read(1, wal.last_index, 1 << 20)
    times = [entry.header.timestamp_us for entry in entries]
    assert times == sorted(times)
    found = [log.offset_for_timestamp(now_us - age * 1_000_000) for age in (3600, 10, 7, 5, 2, 1)]
    assert [0, 0, 1, 1, 3, 3] == found


def test_a_follower_that_stands_where_the_log_begins_now_is_not_refused(tmp_path):
    """What follows its last record are control entries, and these went with what was dropped."""
    config = CONFIG.replace(indexing_enabled=False, wal_file_bytes=4096, garbage_seconds=0)
    with chronik.PartitionLog.open(tmp_path / "data", topic="events", config=config) as log:
        log.append([b"%d" % number * 500 for number in range(10)])
        follower = log.scan(follow=True)
        assert [next(follower).offset for _ in range(10)] == list(range(10))
        for number in range(5):
            log.cursor("c").commit(number)
        log.seal()
        for _ in range(2):
            log.append([bytes(6000)])
        log.seal()
        drain(log)
        log.drop_before(10)
        drain(log)
        assert log.watermarks.start == 10

        assert next(follower).offset == 10


def drain(log):
    for _ in range(10):
        report = log.run_pipeline_once()
        assert report.errors == ()
        if report.idle:
            return
