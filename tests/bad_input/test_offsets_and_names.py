"""Offsets that are not there, topics that are not there, names that want out of their directory."""

from __future__ import annotations

import datetime as dt
import os

import pytest

import chronik_store as chronik
from tests.bad_input.kept import CONFIG, opened, values

OUT = chronik.OffsetOutOfRangeError
NUMBERS = [b"%d" % number for number in range(10)]


@pytest.fixture(params=["writer", "reader", "bucket"])
def log(request, tmp_path):
    """Records 4 to 9; below 4 they were dropped. Seen by each kind of open."""
    with opened(tmp_path / "d") as writer:
        writer.append(NUMBERS)
        writer.seal()
        writer.drop_before(4)
        for _ in range(3):
            assert not writer.run_pipeline_once().errors
        if request.param == "writer":
            yield writer
            return
    if request.param == "reader":
        with opened(tmp_path / "d", read_only=True) as reader:
            yield reader
    else:
        with chronik.open_bucket(f"file://{tmp_path}/d/object_store", topic="t") as reader:
            yield reader


READS = {
    "read": lambda log, offset: log.read(offset),
    "waiting": lambda log, offset: log.read(offset, wait_seconds=60),
    "scan": lambda log, offset: list(log.scan(offset)),
    "follow": lambda log, offset: next(log.scan(offset, follow=True)),
    "batches": lambda log, offset: list(log.read_batches(offset)),
    "entries": lambda log, offset: log.read_entries(offset),
}


@pytest.mark.parametrize("offset", [0, 3, 11, 1 << 40, 1 << 70])
@pytest.mark.parametrize("name", READS)
def test_an_offset_that_is_not_there_says_which_are(log, name, offset):
    with pytest.raises(OUT) as caught:
        READS[name](log, offset)

    error = caught.value
    assert (offset, 4, 10) == (error.offset, error.first_offset, error.end_offset)
    assert str(error.first_offset) in str(error)
    assert NUMBERS[4:] == [record.value for record in log.read(error.first_offset)]
    assert () == log.read(error.end_offset).records


@pytest.mark.parametrize("name", READS)
def test_a_negative_offset_has_no_second_meaning(log, name):
    with pytest.raises(OUT, match="negative"):
        READS[name](log, -1)
    with pytest.raises(OUT, match="negative"):
        list(log.scan(4, -1))


def test_a_range_that_is_empty_or_past_the_end_is_no_error(log):
    assert [] == list(log.scan(6, 6))
    assert [] == list(log.scan(6, 5))
    assert NUMBERS[8:] == [record.value for record in log.scan(8, 1 << 40)]
    assert 0 == log.search("5", start=6, stop=5).total
    assert 1 == log.search("5", start=0, stop=1 << 40).total


def test_a_time_that_no_record_can_have_is_a_bound_like_any(log):
    """Tantivy counts in 64 bits; a search that asked for more said that nothing was searched."""
    for since, until, count in [
        (1 << 70, None, 0),
        (None, 1 << 70, 1),
        (None, -(1 << 70), 0),
        (-(1 << 70), None, 1),
        (-(1 << 63), (1 << 63), 1),
        ((1 << 63) - 1, None, 0),
        (None, -(1 << 63), 0),
    ]:
        found = log.search("5", since=since, until=until, require_complete=True)
        assert (count, True) == (found.total, found.total_is_exact), (since, until)


def test_a_time_zone_that_does_not_know_leaves_a_time_naive(log):
    class Nowhere(dt.tzinfo):
        def utcoffset(self, when):
            return None

    for call in (log.offset_for_timestamp, lambda when: log.search("5", since=when)):
        with pytest.raises(ValueError, match="naive"):
            call(dt.datetime(2026, 1, 1, tzinfo=Nowhere()))


def test_what_cannot_be_dropped_or_committed_moves_nothing(tmp_path):
    with opened(tmp_path / "d") as log:
        log.append(NUMBERS)
        log.cursor("c").commit(5)
        for call in (log.drop_before, log.cursor("c").commit, log.cursor("new").commit):
            for offset in (-1, 11, 1 << 70):
                with pytest.raises(OUT):
                    call(offset)
        log.drop_before(0)
    with opened(tmp_path / "d") as log:
        assert (5, None) == (log.cursor("c").offset, log.cursor("new").committed_offset)
        assert NUMBERS == values(log)


def test_compare_and_append_past_the_end_writes_nothing(tmp_path):
    with opened(tmp_path / "d") as log:
        log.append(NUMBERS)
        for expected in (0, 9, 11, 1 << 70):
            with pytest.raises(chronik.OffsetConflictError) as caught:
                log.append(b"x", expected_offset=expected)
            assert ("not_durable", 10) == (caught.value.durability, caught.value.end_offset)
        with pytest.raises(OUT, match="negative") as caught:
            log.append(b"x", expected_offset=-1)
        assert "not_durable" == caught.value.durability
        log.append(b"10", expected_offset=10)
    with opened(tmp_path / "d") as log:
        assert [*NUMBERS, b"10"] == values(log)


# --- topics ---------------------------------------------------------------------------------------

TRICKS = ["..", ".", "", "/", "/etc", "../d", "t/../../x", "t/", "t\0", "t\n", " t", "t ", "tö",
          "t*", "~", "t\\x", "%2e%2e", "CON:", "x" * 201, "\ud800"]  # fmt: skip


def tree(path):
    return sorted(
        os.path.join(where, name)
        for where, below, files in os.walk(path)
        for name in [*below, *files]
        if not name.startswith("wal_")
    )


@pytest.mark.parametrize("name", TRICKS, ids=ascii)
def test_a_topic_name_never_leaves_its_directory(tmp_path, name):
    bucket = f"file://{tmp_path}/d/object_store"
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG) as store:
        store.create_topic("t")
        store.partition("t").append(b"a")
        store.partition("t").seal()
        assert not store.run_pipeline_once().errors
        before = tree(tmp_path)
        for call in (store.create_topic, lambda name: chronik.open_bucket(bucket, topic=name)):
            with pytest.raises(chronik.ConfigError, match="name"):
                call(name)
        for call in (store.partition, store.delete_topic, lambda name: store.search(name, "a")):
            with pytest.raises(chronik.TopicNotFoundError):
                call(name)
        assert before == tree(tmp_path)
    with pytest.raises(chronik.ConfigError, match="name"):
        chronik.PartitionLog.open(tmp_path / "d", topic=name, config=CONFIG)
    with pytest.raises(chronik.TopicNotFoundError):
        chronik.PartitionLog.open(tmp_path / "d", topic=name, config=CONFIG, read_only=True)
    with pytest.raises(chronik.ConfigError, match="name"):  # no directory that has its bucket now
        chronik.PartitionLog.open(tmp_path / "new", topic=name, config=CONFIG)
    assert before == tree(tmp_path)
    with opened(tmp_path / "d") as log:
        assert [b"a"] == values(log)


@pytest.mark.parametrize("name", ["...", "-rf", "a.b", "-", "0", "x" * 200, "STORE", ".hidden"])
def test_an_odd_name_that_is_allowed_goes_all_the_way(tmp_path, name):
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG) as store:
        store.create_topic(name)
        store.partition(name).append(b"a")
        store.partition(name).seal()
        assert not store.run_pipeline_once().errors
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG) as store:
        assert [b"a"] == values(store.partition(name))
    with chronik.open_bucket(f"file://{tmp_path}/d/object_store", topic=name) as log:
        assert 1 == log.search("a").total


def test_what_is_not_there_is_named_and_what_is_there_too(tmp_path):
    with chronik.LogStore.open(tmp_path / "d", config=CONFIG) as store:
        store.create_topic("events", partitions=2)
        with pytest.raises(chronik.TopicNotFoundError, match="events") as caught:
            store.partition("event")
        assert "event" == caught.value.topic
        with pytest.raises(chronik.TopicNotFoundError, match="0 to 1"):
            store.partition("events", 2)
    with pytest.raises(chronik.TopicNotFoundError, match="0 to 1"):
        chronik.PartitionLog.open(
            tmp_path / "d", topic="events", partition=2, config=CONFIG, read_only=True
        )


# --- cursors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "a/b", "..", "ü", "' OR 1", "%s"])
def test_a_cursor_name_is_only_a_name(tmp_path, name):
    with opened(tmp_path / "d") as log:
        log.append(NUMBERS)
        before = tree(tmp_path)
        log.cursor(name).commit(7)
        assert before == tree(tmp_path)
    with opened(tmp_path / "d") as log:
        assert 7 == log.cursor(name).committed_offset
        assert {name: 7} == dict(log.status().cursors)


@pytest.mark.parametrize("name", ["", "\0", "a\tb", "a\n", "\x7f", "\ud800", "é" * 128, "\u202e"],
                         ids=ascii)  # fmt: skip
def test_a_cursor_name_that_cannot_be_shown_is_refused(tmp_path, name):
    with opened(tmp_path / "d") as log, pytest.raises(chronik.ConfigError, match="cursor name"):
        log.cursor(name)


def test_one_cursor_too_many_is_refused_and_the_others_stand(tmp_path):
    with opened(tmp_path / "d", cursors_max=2) as log:
        log.append(NUMBERS)
        for name in "ab":
            log.cursor(name).commit(3)
        with pytest.raises(chronik.ConfigError, match="cursors_max"):
            log.cursor("c").commit(3)
        log.cursor("a").commit(4)
        log.cursor("b").delete()
        log.cursor("c").commit(5)
    with opened(tmp_path / "d") as log:
        assert {"a": 4, "c": 5} == dict(log.status().cursors)
