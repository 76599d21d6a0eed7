"""Times and places as people type them."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from chronik_store.cli.moments import first_offset, moment_us
from chronik_store.errors import ConfigError, OffsetOutOfRangeError
from chronik_store.model import Watermarks

NOW_US = 1_800_000_000_000_000


class LogOfTen:
    """Offsets 5 to 14; offset N has the index timestamp N * 10."""

    topic, partition = "events", 3
    watermarks = Watermarks(5, 5, 5, 5, 15, 15, 15)

    @staticmethod
    def offset_for_timestamp(time_us):
        return next((offset for offset in range(5, 15) if offset * 10 >= time_us), None)

    @staticmethod
    def scan(start):
        return (SimpleNamespace(offset=each, timestamp_us=each * 10) for each in range(start, 15))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15m", NOW_US - 900_000_000),
        ("1.5h", NOW_US - 5_400_000_000),
        ("250ms", NOW_US - 250_000),
        ("2d", NOW_US - 2 * 86_400_000_000),
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("1970-01-01T01:00:01+01:00", 1_000_000),
    ],
)
def test_a_time_is_read(text, expected):
    assert expected == moment_us(text, NOW_US)


@pytest.mark.parametrize("text", ["", "soon", "15", "15 fortnights", "2026-13-01T00:00Z"])
def test_what_is_no_time_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="15m"):
        moment_us(text, NOW_US)


def test_a_time_without_a_zone_is_refused_with_both_ways_to_write_it():
    with pytest.raises(ConfigError, match=r"2026-01-31T12:00:00Z, or 2026-01-31T12:00:00[+-]"):
        moment_us("2026-01-31T12:00:00", NOW_US)


@pytest.mark.parametrize(
    ("text", "said"),
    [("9" * 400 + "d", "too long ago"), ("0001-01-01T00:00:00", r"write 0001-01-01T00:00:00Z$")],
)
def test_a_time_at_the_edge_of_all_clocks_is_refused_in_words(text, said, monkeypatch):
    monkeypatch.setenv("TZ", "X-14")
    time.tzset()
    try:
        with pytest.raises(ConfigError, match=said):
            moment_us(text, NOW_US)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("place", "since_us", "expected"),
    [
        (None, None, 5),
        ("earliest", None, 5),
        ("latest", None, 15),
        ("7", None, 7),
        ("15", None, 15),
        ("-3", None, 12),
        ("-100", None, 5),
        (None, 95, 10),
        ("12", 95, 12),
        ("6", 95, 10),
        (None, 1000, 15),
    ],
)
def test_a_place_is_an_offset(place, since_us, expected):
    assert expected == first_offset(LogOfTen(), place, since_us)


@pytest.mark.parametrize("place", ["4", "16"])
def test_an_offset_that_is_not_there_says_where_the_log_is(place):
    with pytest.raises(OffsetOutOfRangeError) as caught:
        first_offset(LogOfTen(), place, None)

    assert (5, 15) == (caught.value.first_offset, caught.value.end_offset)


@pytest.mark.parametrize("place", ["first", "--3", "1.5"])
def test_what_is_no_place_is_refused(place):
    with pytest.raises(ConfigError, match="earliest, latest"):
        first_offset(LogOfTen(), place, None)


def test_the_help_says_which_of_two_places_counts(chronik):
    said = " ".join(chronik("consume", "--help").out.split())

    assert "Beside --since: the later of the two, in each partition." in said


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--since", "1970-01-01T00:00:05Z"], [5, 2, 6, 7, 8, 9]),
        (["--until", "1970-01-01T00:00:05Z"], [0, 1, 2, 3, 4]),
        (["--since", "1970-01-01T00:00:02Z", "--until", "1970-01-01T00:00:04Z"], [2, 3]),
        (["--since", "1970-01-01T00:00:08Z"], [8, 9]),
        (["--since", "1970-01-01T00:01:00Z"], []),
        (["--until", "1970-01-01T00:01:00Z"], [0, 1, 2, 3, 4, 5, 2, 6, 7, 8, 9]),
    ],
)
def test_a_time_within_a_batch_is_one_of_its_records(chronik, options, shown):
    """The log knows when a batch came, and one of an import may hold all there is: it was all or
    nothing. What came late stands where it came.
    """
    seconds = [0, 1, 2, 3, 4, 5, 2, 6, 7, 8, 9]
    lines = "".join(f'{{"n": {each}, "at": {each}}}\n' for each in seconds)
    Path("in").write_text(lines)
    assert 0 == chronik("produce", "t", "--jsonl", "--time-field", "at", "in").code

    assert 0 == chronik("export", "t", "--to", "out.jsonl", *options).code
    exported = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert shown == [json.loads(each["value"])["n"] for each in exported]
    if "--until" not in options:
        assert shown == [each["n"] for each in chronik("consume", "t", *options).objects]
