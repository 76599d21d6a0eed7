"""A topic that its writer deletes is gone for those who read beside it, too."""

from __future__ import annotations

import pytest

import chronik_store as chronik

CONFIG = chronik.LogConfig(pipeline_enabled=False, indexing_enabled=False)
GONE = chronik.TopicNotFoundError


@pytest.fixture
def both(tmp_path):
    """A writer with one topic, and a reader beside it that has it open."""
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG) as writer:
        writer.create_topic("t")
        writer.partition("t").append([b"old %d" % number for number in range(3)])
        with chronik.LogStore.open(tmp_path / "d", read_only=True, config=CONFIG) as reader:
            assert 3 == len(reader.partition("t").read(0, wait_seconds=10))
            yield writer, reader


def values(log, count):
    return [record.value for record in log.read(0, max_records=count, wait_seconds=10)]


def test_every_look_says_so(both):
    writer, reader = both
    log = reader.partition("t")
    follower = log.scan(3, follow=True)
    writer.delete_topic("t")
    for call in (
        lambda: log.watermarks,
        lambda: log.read(3, wait_seconds=60),
        lambda: next(follower),
        lambda: log.search("old"),
        lambda: list(log.scan()),
        lambda: reader.search("t", "old"),
        log.status,
    ):
        with pytest.raises(GONE, match="'t'"):
            call()
    assert () == reader.status().partitions
    with pytest.raises(GONE, match="no topic 't'"):
        reader.partition("t")


def test_a_namesake_is_another_log(both):
    """Before, the reader kept the log that was gone, and waited in vain for what came."""
    writer, reader = both
    log = reader.partition("t")
    writer.delete_topic("t")
    writer.create_topic("t")
    writer.partition("t").append([b"new %d" % number for number in range(5)])
    with pytest.raises(GONE, match="deleted"):
        log.read(3, wait_seconds=60)
    fresh = reader.partition("t")
    assert fresh is not log
    assert [b"new %d" % number for number in range(5)] == values(fresh, 5)
    assert fresh is reader.partition("t")
    assert 5 == reader.search("t", "new").total
    with pytest.raises(chronik.LogClosedError):
        log.read(0)


def test_what_is_made_beside_a_reader_is_in_its_status(both):
    writer, reader = both
    log = reader.partition("t")
    writer.create_topic("u")
    assert ["t", "u"] == [each.topic for each in reader.status().partitions]
    assert log is reader.partition("t")


def test_partitions_that_are_added_are_there_for_a_reader_too(both):
    writer, reader = both
    assert 3 == reader.search("t", "old").total
    writer.create_topic("t", partitions=2, exist_ok=True)
    writer.partition("t", 1).append([b"old and new"] * 2)
    assert 2 == len(values(reader.partition("t", 1), 2))
    assert 5 == reader.search("t", "old").total
