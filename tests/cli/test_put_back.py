"""What `consume --json` and `export` write, and `produce --records` puts back: all of it, or an
error that names the line.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

from chronik_store import LogConfig, PartitionLog, Record
from chronik_store.cli import produce
from chronik_store.cli.session import Session

LIMIT = 200_000
RECORDS = {
    "no text": Record(random.Random(7).randbytes(LIMIT - 10), b"k"),
    "control characters": Record(bytes(LIMIT - 10), b"k"),
    "headers of nothing": Record(b"", b"k", headers=[("", b"")] * (LIMIT // 2 - 10)),
    "the first time": Record(b"", None, -(2**63)),
    "the last time": Record(b"", None, 2**63 - 1),
}


def limit_records(monkeypatch, size_bytes):
    """To this many bytes; a long line does not come in one piece."""
    config = Session.config
    limited = lambda self, **changes: config(self, record_bytes_max=size_bytes, **changes)  # noqa: E731
    monkeypatch.setattr(Session, "config", limited)
    monkeypatch.setattr(produce, "READ_BYTES", 1000)


@pytest.mark.parametrize("record", [pytest.param(RECORDS[name], id=name) for name in RECORDS])
def test_whatever_the_log_takes_comes_back(chronik, monkeypatch, record):
    """The length of the line was held against the limit of a record, which is up to 12 times."""
    limit_records(monkeypatch, LIMIT)
    with PartitionLog.open("data", topic="a", config=LogConfig(record_bytes_max=LIMIT)) as log:
        log.append([record])
    assert chronik("export", "a", "--to", "a.jsonl").code == 0

    ran = chronik("produce", "b", "--records", "a.jsonl")

    assert ran.code == 0, ran.err
    with PartitionLog.open("data", topic="b", read_only=True) as log:
        (back,) = log.scan()
    assert (back.value, back.key, back.headers) == (record.value, record.key, record.headers)
    if record.timestamp_us is not None:
        assert back.timestamp_us == record.timestamp_us


def test_a_record_over_the_limit_is_refused_for_its_own_bytes(chronik, monkeypatch):
    limit_records(monkeypatch, 1000)
    Path("in").write_text(json.dumps({"value": "x" * 1001}) + "\n")

    ran = chronik("produce", "a", "--records", "in")

    assert (ran.code, "a record has 1001 bytes" in ran.err) == (2, True), ran.err


@pytest.mark.parametrize(("options", "longest"), [([], 1000), (["--records"], 13_024)])
def test_a_line_without_an_end_does_not_fill_the_memory(chronik, monkeypatch, options, longest):
    """stdin was called `-` here, and `stdin` by every other error."""
    limit_records(monkeypatch, 1000)
    Path("in").write_text('{"value":"first"}\n' + "x" * 20_000)

    with open("in") as file:
        monkeypatch.setattr(sys, "stdin", file)
        ran = chronik("produce", "a", *options)

    assert (ran.code, f"stdin:2 is longer than {longest} bytes" in ran.err) == (2, True), ran.err
    assert "1 records acknowledged" in ran.err


REFUSED = {
    '{"value":"a","key":5}': "key is not a text: 5",
    '{"value":"a","key_base64":7}': "key_base64 is not a text: 7",
    '{"value":"a","key_base64":"é"}': "key_base64 is not base64",
    '{"value":"a","key":"k","key_base64":"aw=="}': "key and key_base64 exclude each other",
    '{"value":3}': "value is not a text: 3",
    '{"value":false,"value_base64":"YQ=="}': "value is not a text: False",
    '{"value_base64":["YQ=="]}': "value_base64 is not a text",
    '{"value":"a","time":"garbage"}': "'garbage' is not a time",
    '{"value":"a","time":"2020-01-01T00:00:00"}': "the time '2020-",
    '{"value":"a","time":1577836800}': "time is not a text such as",
    '{"value":"a","timestamp_us":9223372036854775808}': "timestamp_us is beyond 64 bits",
    '{"value":"a","timestamp_us":-9223372036854775809}': "timestamp_us is beyond 64 bits",
    '{"value":"a","headers":[{"name":"n","value":5}]}': "value is not a text: 5",
    '{"value":"a","headers":[{"name":"\\ud800","value":"x"}]}': "the name of a header has half",
    '{"value":"\\ud800"}': "value has half of a surrogate pair",
    '{"value":"a","key":"\\ud800"}': "key has half of a surrogate pair",
}


@pytest.mark.parametrize(("line", "said"), REFUSED.items())
def test_what_a_line_says_is_stored_or_the_line_is_named(chronik, monkeypatch, line, said):
    """A key or a time that was none of the expected was left out, and the record acknowledged."""
    Path("in").write_text(line + "\n")

    with open("in") as file:
        monkeypatch.setattr(sys, "stdin", file)
        ran = chronik("produce", "a", "--records")

    assert (ran.code, f"stdin:1: {said}" in ran.err) == (2, True), ran.err
    assert chronik("consume", "a").lines == []


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ('"time":"2020-01-01T00:00:00Z"', 1_577_836_800_000_000),
        ('"time":"2020-01-01T01:00:00.000005+01:00"', 1_577_836_800_000_005),
        ('"time":"2020-01-01T00:00:00Z","timestamp_us":5', 5),
        ('"time":"2020-01-01T00:00:00Z","timestamp_us":null', 1_577_836_800_000_000),
        ('"time":"9223372036854775807us","timestamp_us":9223372036854775807', 2**63 - 1),
    ],
)
def test_the_time_as_a_text_is_taken_where_there_are_no_microseconds(chronik, time, expected):
    Path("in").write_text(f'{{"value":"a",{time}}}\n')

    assert chronik("produce", "a", "--records", "in").code == 0

    assert chronik("consume", "a", "--json").objects[0]["timestamp_us"] == expected


def test_what_is_null_is_not_there(chronik):
    line = '{"value":"a","key":null,"key_base64":null,"value_base64":null,"time":null}\n'
    Path("in").write_text(line)

    assert chronik("produce", "a", "--records", "in").code == 0

    assert "key" not in chronik("consume", "a", "--json").objects[0]
