"""A log that is opened, read beside its writer or out of its bucket, and closed."""

from __future__ import annotations

import threading

import pytest

import chronik_store as chronik
from chronik_store.wal.wal import Wal

CONFIG = chronik.LogConfig(pipeline_enabled=False)


def test_a_closed_log_says_so(tmp_path):
    log = chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG)
    log.append(b"a")
    log.close()
    log.close()
    for call in (
        lambda: log.append(b"x"),
        lambda: log.append_nowait(b"x"),
        lambda: log.read(0),
        log.scan,
        lambda: log.search("x"),
        lambda: log.watermarks,
        log.status,
        lambda: log.cursor("c"),
        log.seal,
        lambda: log.drop_before(0),
        log.verify,
        log.run_pipeline_once,
        lambda: log.offset_for_timestamp(0),
    ):
        with pytest.raises(chronik.LogClosedError):
            call()


def test_appends_in_flight_when_closing_are_acknowledged_or_refused(tmp_path):
    log = chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG)
    acknowledged, refused = [], []

    def appender(name):
        for number in range(10_000):
            try:
                acknowledged.append(log.append(b"%d-%d" % (name, number)).base_offset)
            except chronik.LogClosedError as error:
                refused.append(error.durability)
                return

    threads = [threading.Thread(target=appender, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    while len(acknowledged) < 100:
        pass
    log.close()
    for thread in threads:
        thread.join(10)
    assert ["not_durable"] * 4 == refused
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        assert set(acknowledged) <= {record.offset for record in log.scan()}


def test_the_bucket_is_enough(tmp_path):
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        log.append([b"line %d" % number for number in range(100)])
        log.cursor("c").commit(9)
        log.seal()
        assert () == log.run_pipeline_once().errors
        log.append(b"not yet tiered")
    (tmp_path / "d" / "wal").rename(tmp_path / "gone")
    with chronik.open_bucket(f"file://{tmp_path}/d/object_store", topic="t") as log:
        assert [b"line %d" % number for number in range(100)] == [r.value for r in log.scan()]
        assert 1 == log.search('"line 42"').total
        assert 9 == log.cursor("c").offset
        with pytest.raises(chronik.ReadOnlyError):
            log.append(b"x")
        with pytest.raises(chronik.OffsetOutOfRangeError):
            log.read(101)


def test_a_missing_topic_in_the_bucket_is_named(tmp_path):
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG):
        pass
    (tmp_path / "d" / "object_store").mkdir(exist_ok=True)
    with pytest.raises(chronik.TopicNotFoundError, match="no manifest of t/0"):
        chronik.open_bucket(f"file://{tmp_path}/d/object_store", topic="t")


def test_a_reader_beside_the_writer_follows_it(tmp_path):
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as writer:
        writer.append(b"a")
        with chronik.PartitionLog.open(
            tmp_path / "d", topic="t", config=CONFIG, read_only=True
        ) as reader:
            assert b"a" == reader.read(0, wait_seconds=10).records[0].value
            writer.append([b"b"] * 3)
            assert 3 == len(reader.read(1, wait_seconds=10))
            writer.seal()
            writer.run_pipeline_once()
            writer.append(b"z")
            assert [b"a", b"b", b"b", b"b"] == [record.value for record in reader.scan(0, 4)]
            assert b"z" == reader.read(4, wait_seconds=10).records[0].value
            with pytest.raises(chronik.ReadOnlyError):
                reader.append(b"x")


def test_threads_that_append_first_share_one_beginning(tmp_path, monkeypatch):
    """The new file of an open is made by the first append, whoever comes meanwhile waits."""
    start, begun, go_on = Wal.start, threading.Event(), threading.Event()

    def slow(wal, checkpoint):
        begun.set()
        assert go_on.wait(20)
        start(wal, checkpoint)

    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        log.append(b"before")
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        assert not log._core.started
        monkeypatch.setattr(Wal, "start", slow)
        threads = [threading.Thread(target=log.append, args=(b"x",)) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert begun.wait(20)
        go_on.set()
        for thread in threads:
            thread.join(20)
        assert [b"before", b"x", b"x", b"x"] == [record.value for record in log.scan()]
