"""Records, times and sizes as text and JSON."""

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronik_store.cli.rendering import (
    duration_text,
    format_of,
    json_of,
    record_of,
    size_text,
    time_text,
    time_us_of,
)
from chronik_store.cli.search import OFFSET_MAX, _missing
from chronik_store.errors import ConfigError
from chronik_store.model import Coverage, Record, StoredRecord, to_us

records = st.builds(
    StoredRecord,
    st.binary(max_size=50),
    st.none() | st.binary(max_size=20),
    st.integers(min_value=-(2**63), max_value=2**63 - 1),
    st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=8)), max_size=3).map(tuple),
    st.integers(min_value=0, max_value=2**62),
)


@given(records)
def test_json_of_a_record_loses_nothing(record):
    line = json.dumps(json_of(record, "t", 3))

    expected = Record(record.value, record.key, record.timestamp_us, record.headers)
    assert expected == record_of(json.loads(line))


def test_bytes_that_are_not_text_are_base64():
    record = StoredRecord(b"\xff\x00", b"\xfe", 0, [("h", b"\xfd")], 7)

    value = json_of(record, "t", 0)

    assert ("/wA=", "/g==") == (value["value_base64"], value["key_base64"])
    assert [{"name": "h", "value_base64": "/Q=="}] == value["headers"]
    assert "value" not in value


@pytest.mark.parametrize(
    "value",
    [[], "x", {}, {"value": 3}, {"value": "x", "timestamp_us": "now"}, {"value_base64": "%%"},
     {"value": "x", "headers": [3]}, {"value": "x", "headers": [{"name": 1, "value": "x"}]}],
)  # fmt: skip
def test_what_is_no_exported_record_is_refused(value):
    with pytest.raises(ConfigError):
        record_of(value)


def test_a_format_shows_each_letter():
    record = StoredRecord(b"value", b"key", 1_500_000, [("a", b"1"), ("b", b"2")], 42)
    show = format_of(r"%o %p %t %T %k %v %h %s %%\t\n\x", for_terminal=False)

    assert (
        "42 7 1970-01-01T00:00:01.500000Z 1500000 key value a=1,b=2 5 %\t\n\\x"
        == show(record, 7)
    )  # fmt: skip


def test_an_unknown_letter_of_a_format_is_named():
    with pytest.raises(ConfigError, match="%q"):
        format_of("%o %q", for_terminal=False)


def test_bytes_that_are_not_utf8_are_escaped_in_text():
    record = StoredRecord(b"caf\xc3\xa9 \xff", None, 0, (), 0)

    assert "é \\xff" == format_of("%v", for_terminal=False)(record, 0)[3:]


def test_a_terminal_gets_no_control_characters():
    record = StoredRecord(b"\x1b]0;title\x07\x9b\tok \xe2\x80\xae", None, 0, (), 0)

    assert r"\x1b]0;title\x07\x9b" + "\t" + r"ok \u202e" == format_of("%v", for_terminal=True)(
        record, 0
    )


def test_a_terminal_gets_none_of_a_header_s_name_either():
    record = StoredRecord(b"", None, 0, [("a\x1b]0;title\x07", b"\x9b")], 0)

    assert r"a\x1b]0;title\x07=\x9b" == format_of("%h", for_terminal=True)(record, 0)
    assert "a\x1b]0;title\x07=\\x9b" == format_of("%h", for_terminal=False)(record, 0)


@given(st.datetimes(timezones=st.just(dt.UTC)))
def test_a_time_reads_back_from_its_text_in_every_year(time):
    """Before the year 1000 the text had no four digits for it, and was no ISO 8601."""
    assert to_us(time) == time_us_of(time_text(to_us(time)))
    assert len("2026-01-31T12:00:00.000000Z") == len(time_text(to_us(time)))


def test_times_outside_the_calendar_are_numbers():
    assert "9223372036854775807us" == time_text(2**63 - 1)
    assert "1969-12-31T23:59:59.999999Z" == time_text(-1)


def test_sizes_and_durations_read_well():
    assert ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "2.0 TiB"] == [
        size_text(size) for size in (0, 1023, 1024, 1.5 * 2**20, 2**41)
    ]
    assert ["850 us", "12.3 ms", "4.20 s"] == [
        duration_text(seconds) for seconds in (0.00085, 0.0123, 4.2)
    ]


def test_a_gap_whose_end_nobody_knows_is_not_given_one():
    known = Coverage((), ((3, 8),), 1, ("the bucket is away",))
    unknown = Coverage((), ((0, OFFSET_MAX),), 1, ("node 3 is away",))

    assert "partition 1: offsets 3 to 7 (the bucket is away)" == _missing(known, 2)
    assert "partition 1: everything from offset 0 (node 3 is away)" == _missing(unknown, 2)


def test_an_outage_over_many_segments_is_told_in_a_line():
    """It was a range and a reason for each of them, with the same words."""
    ranges = [(base, base + 10) for base in range(0, 1000, 10)] + [(2000, 2001)]
    reasons = [f"segment {base}: denied" for base, _ in ranges]
    known = Coverage(searched=(), missing=tuple(ranges), partition=0, reasons=tuple(reasons))
    assert _missing(known, 1) == (
        "offsets 0 to 999, offsets 2000 to 2000 "
        "(segment 0: denied; segment 10: denied; and 99 more)"
    )
    again = Coverage(searched=(), missing=((0, 1), (5, 6)), partition=0, reasons=("late", "late"))
    assert _missing(again, 1) == "offsets 0 to 0, offsets 5 to 5 (late)"
