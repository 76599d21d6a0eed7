"""A value of a wrong type is a TypeError (or the API's own error) that names it, and no more."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import math

import pytest

import chronik_store as chronik
from tests.bad_input.kept import CONFIG, stored, values

NO_INTEGERS = [None, "1", 1.0, True, b"1", [], math.nan]


class Thing:
    """Something that is nothing in particular, with the same name in every process."""

    def __repr__(self):
        return "a thing"


THING = Thing()
NO_NUMBERS = ["1", True, b"1", [], THING]
NO_TEXT = [None, 1, 1.5, True, b"text", [], THING]


class Named(str, enum.Enum):  # noqa: UP042 (its text is not its value)
    """Names that equal a str and are written as another."""

    TOPIC = "t"


class Spelled(enum.StrEnum):
    """Names that equal a str and are written as it."""

    TOPIC = "t"


NO_NAMES = [*NO_TEXT, Named.TOPIC, Spelled.TOPIC]
NAIVE = dt.datetime(2024, 1, 1)  # noqa: DTZ001
REFUSED = (TypeError, chronik.ChronikError)


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    return tmp_path_factory.mktemp("types") / "d"


@pytest.fixture(scope="module")
def store(where):
    with chronik.LogStore.open(where, config=CONFIG) as store:
        store.create_topic("t")
        store.partition("t").append([b"needle 1", b"needle 2"])
        store.partition("t").seal()
        assert not store.run_pipeline_once().errors
        yield store


@pytest.fixture(scope="module")
def log(store):
    return store.partition("t")


@pytest.fixture(autouse=True)
def _nothing_changed(log):
    yield
    assert [b"needle 1", b"needle 2"] == values(log)
    assert ["t"] == [topic.name for topic in log_store_topics(log)]


def log_store_topics(log):
    """The topics that this test's store knows, asked of a reader beside it."""
    path = log._core.paths.wal.removesuffix("/wal/t/0")
    with chronik.LogStore.open(path, config=CONFIG, read_only=True) as beside:
        return beside.topics()


WANT_INTEGERS = {
    "read": lambda log, v: log.read(v),
    "read max_records": lambda log, v: log.read(0, max_records=v),
    "read max_bytes": lambda log, v: log.read(0, max_bytes=v),
    "read_batches": lambda log, v: log.read_batches(v),
    "read_batches max_bytes": lambda log, v: log.read_batches(0, max_bytes=v),
    "read_entries": lambda log, v: log.read_entries(v),
    "read_entries max_bytes": lambda log, v: log.read_entries(0, max_bytes=v),
    "drop_before": lambda log, v: log.drop_before(v),
    "commit": lambda log, v: log.cursor("c").commit(v),
    "search limit": lambda log, v: log.search("needle", limit=v),
    "offset_for_timestamp": lambda log, v: log.offset_for_timestamp(v),
}
MAY_BE_NONE = {
    "scan start": lambda log, v: log.scan(v),
    "scan stop": lambda log, v: log.scan(0, v),
    "search start": lambda log, v: log.search("needle", start=v),
    "search stop": lambda log, v: log.search("needle", stop=v),
    "search since": lambda log, v: log.search("needle", since=v),
    "search until": lambda log, v: log.search("needle", until=v),
    "append expected": lambda log, v: log.append(b"x", expected_offset=v),
    "nowait expected": lambda log, v: log.append_nowait(b"x", expected_offset=v),
}


@pytest.mark.parametrize("value", NO_INTEGERS, ids=repr)
@pytest.mark.parametrize("name", [*WANT_INTEGERS, *MAY_BE_NONE])
def test_where_an_integer_is_wanted_nothing_else_is_taken(log, name, value):
    if value is None and name in MAY_BE_NONE:
        return
    with pytest.raises(TypeError) as caught:
        (WANT_INTEGERS | MAY_BE_NONE)[name](log, value)
    assert str(caught.value)


@pytest.mark.parametrize("value", [*NO_NUMBERS, math.nan, -1, 10**400], ids=lambda v: repr(v)[:20])
@pytest.mark.parametrize(
    "call",
    [
        lambda log, v: log.read(2, wait_seconds=v),
        lambda log, v: log.search("needle", deadline_seconds=v),
    ],
    ids=["wait", "deadline"],
)
def test_seconds_are_a_number_from_zero(log, call, value):
    if isinstance(value, list) and not value:
        value = [1]
    with pytest.raises((TypeError, ValueError), match="seconds"):
        call(log, value)


@pytest.mark.parametrize("value", NO_TEXT, ids=repr)
@pytest.mark.parametrize(
    "call",
    [
        lambda store, v: store.search("t", v),
        lambda store, v: store.partition("t").search(v),
        lambda store, v: store.partition("t").cursor(v),
        lambda store, v: store.partition("t").search("needle", order=v),
        lambda _, v: chronik.open_bucket(v, topic="t"),
        lambda _, v: chronik.open_bucket("memory://types", topic=v),
    ],
    ids=["store.search", "search", "cursor", "order", "bucket url", "bucket topic"],
)  # fmt: skip
def test_where_text_is_wanted_nothing_else_is_taken(store, call, value):
    with pytest.raises((*REFUSED, ValueError)) as caught:
        call(store, value)
    assert str(caught.value)


@pytest.mark.parametrize("value", NO_NAMES, ids=repr)
@pytest.mark.parametrize(
    "call",
    [
        lambda store, v: store.create_topic(v),
        lambda store, v: store.create_topic(v, exist_ok=True),
        lambda store, v: store.delete_topic(v),
        lambda store, v: store.partition(v),
        lambda store, v: store.search(v, "needle"),
        lambda _, v: chronik.open_bucket("memory://types", topic=v),
    ],
    ids=["create", "create or not", "delete", "partition", "search", "bucket"],
)
def test_a_topic_that_is_no_text_is_called_so(store, call, value):
    with pytest.raises(TypeError, match=r"^a topic's name is a str, not "):
        call(store, value)


@pytest.mark.parametrize("value", NO_NAMES, ids=repr)
def test_a_cursor_whose_name_is_no_text_is_not_made(store, value):
    with pytest.raises(TypeError, match=r"^a cursor's name is a str, not "):
        store.partition("t").cursor(value)


@pytest.mark.parametrize("value", [None, "0", 0.0, True, -1, 1 << 70], ids=repr)
def test_a_partition_is_a_number_that_is_there(store, where, value):
    for call in (
        lambda: store.partition("t", value),
        lambda: chronik.open_bucket(f"file://{where}/object_store", topic="t", partition=value),
        lambda: chronik.PartitionLog.open(
            where, topic="t", partition=value, config=CONFIG, read_only=True
        ),
    ):
        with pytest.raises((chronik.TopicNotFoundError, chronik.ConfigError)):
            call()


def test_a_wrong_partition_makes_nothing(tmp_path):
    for value in (None, "0", 0.0, True, -1):
        with pytest.raises(chronik.ConfigError, match="partition"):
            chronik.PartitionLog.open(tmp_path / "d", topic="t", partition=value)
    assert not (tmp_path / "d").exists()


RECORDS = {
    "value": chronik.Record,
    "key": lambda v: chronik.Record(b"", key=v),
    "time": lambda v: chronik.Record(b"", timestamp_us=v),
    "header": lambda v: chronik.Record(b"", headers=[v]),
    "header name": lambda v: chronik.Record(b"", headers=[(v, b"")]),
    "header value": lambda v: chronik.Record(b"", headers=[("h", v)]),
}


@pytest.mark.parametrize("value", ["text", 1.5, THING, [1], ("a",), {}], ids=repr)
@pytest.mark.parametrize("part", RECORDS)
def test_a_record_of_wrong_parts_is_stored_by_no_door(log, part, value):
    if (part, value) == ("header name", "text"):
        return
    for call in (log.append, log.append_nowait, lambda r: log.append([b"good", r])):
        with pytest.raises(TypeError):
            call(RECORDS[part](value))


@pytest.mark.parametrize(
    "wrong",
    ["text", 7, None, [None], [b"x", "y"], {1: 2}, {b"key": b"value"}, [[b"x"]]],
    ids=repr,
)
def test_append_nowait_takes_what_append_takes(log, wrong):
    with pytest.raises(TypeError):
        log.append_nowait(wrong)


@pytest.mark.parametrize(
    "arguments",
    [
        {"values": "text"}, {"values": b"bytes"}, {"values": ["text"]}, {"values": 7},
        {"values": None}, {"values": [None]}, {"values": []},
        {"values": [b""], "keys": ["text"]}, {"values": [b""], "keys": [b"1", b"2"]},
        {"values": [b""], "keys": b"key"}, {"values": [b""], "keys": b""},
        {"values": [b""], "timestamps_us": ["1"]}, {"values": [b""], "timestamps_us": []},
        {"values": [b""], "timestamps_us": [1 << 63]},
        {"values": [b""], "headers": [[("h", "text")]]}, {"values": [b""], "headers": [5]},
        {"values": [b""], "compression": "gzip"}, {"values": [b""], "compression": 3},
        {"values": [b""], "producer_id": -1}, {"values": [b""], "producer_id": "7"},
        {"values": [b""], "producer_id": 7, "base_sequence": -1},
        {"values": [b""], "producer_id": 7, "producer_epoch": 1 << 40},
    ],
    ids=repr,
)  # fmt: skip
def test_a_batch_of_wrong_parts_is_not_built(arguments):
    with pytest.raises((TypeError, ValueError)):
        chronik.RecordBatch.build(**arguments)


@pytest.mark.parametrize("keys", [b"", b"k", b"key", "key", bytearray(b"k"), {0: b"k"}], ids=repr)
@pytest.mark.parametrize("count", [1, 3])
def test_one_key_is_no_column_of_keys(keys, count):
    """It was one record's key, unless it had one byte, or the batch as many records as it bytes."""
    with pytest.raises(TypeError, match=r"keys is a sequence of bytes and None"):
        chronik.RecordBatch.build([b"v"] * count, keys=keys)


@pytest.mark.parametrize("time", [NAIVE, dt.date(2024, 1, 1), "2024-01-01", 1.5], ids=repr)
def test_a_time_says_which_time_it_means(log, time):
    for call in (
        log.offset_for_timestamp,
        lambda v: log.search("needle", since=v),
        lambda v: log.search("needle", until=v),
    ):
        with pytest.raises((TypeError, ValueError), match=r"time|datetime"):
            call(time)


@pytest.mark.parametrize("path", [None, 1, 1.5, [], THING, "", "a\0b"], ids=repr)
def test_a_path_is_a_path(path):
    for call in (chronik.LogStore.open, lambda p: chronik.restore("file:///nowhere", p)):
        with pytest.raises((TypeError, chronik.ConfigError)):
            call(path)


def test_a_path_of_bytes_is_a_path(tmp_path):
    with chronik.LogStore.open(bytes(tmp_path / "d"), config=CONFIG) as store:
        store.create_topic("t")
        store.partition("t").append(b"a")
    assert [b"a"] == stored(tmp_path / "d")


@pytest.mark.parametrize("config", [None, {}, "x", chronik.LogConfig], ids=repr)
def test_a_config_is_a_config(tmp_path, config):
    for call in (
        lambda: chronik.LogStore.open(tmp_path / "d", config=config),
        lambda: chronik.PartitionLog.open(tmp_path / "d", topic="t", config=config),
        lambda: chronik.open_bucket("memory://types", topic="t", config=config),
    ):
        with pytest.raises(TypeError, match="LogConfig"):
            call()
    assert not (tmp_path / "d").exists()


def test_the_asyncio_face_refuses_the_same(where, log):
    face = chronik.aio.AsyncPartitionLog(log)

    async def main():
        for call in (
            lambda: face.append("text"),
            lambda: face.append(b"x", expected_offset="2"),
            lambda: face.read("0"),
            lambda: face.read(2, wait_seconds="1"),
            lambda: face.read(2, wait_seconds=[1]),
            lambda: face.search(7),
            lambda: face.drop_before(None),
            lambda: face.offset_for_timestamp("now"),
            lambda: face.cursor("c").commit(1.5),
            lambda: anext(face.scan("0")),
            lambda: anext(face.scan(0, 1.5)),
            lambda: anext(face.read_batches(None)),
        ):
            with pytest.raises(TypeError):
                await call()
        for offset in (-1, 3):
            for call in (face.read, lambda o: anext(face.scan(o)), face.drop_before):
                with pytest.raises(chronik.OffsetOutOfRangeError):
                    await call(offset)

    asyncio.run(main())
    face._pool.close()


@pytest.mark.parametrize("value", [bytearray(b"x"), memoryview(b"x")])
def test_a_value_that_is_almost_bytes_is_named_with_the_way_out(tmp_path, value):
    way_out = rf"not {type(value).__name__}: pass bytes\(value\)"
    with (
        chronik.PartitionLog.open(tmp_path / "d", topic="t") as log,
        pytest.raises(TypeError, match=way_out),
    ):
        log.append(value)


def test_headers_in_a_mapping_are_named_with_the_way_out():
    with pytest.raises(TypeError, match=r"pass headers\.items\(\)"):
        chronik.Record(b"x", headers={"trace": b"1"})
