"""Lines of input as records."""

import pytest

from chronik_store.cli.lines import Line, parser_of
from chronik_store.errors import ConfigError
from chronik_store.model import Record


def parse(data, **options):
    defaults = {"key_separator": None, "jsonl": False, "records": False}
    defaults |= {"key_field": None, "time_field": None}
    return parser_of(**{**defaults, **options})(Line(data, "events.txt", 17))


def test_a_line_is_a_value_byte_for_byte():
    assert b" a\r \xff" == parse(b" a\r \xff")
    assert b"" == parse(b"")


def test_the_key_stands_before_the_first_separator():
    assert Record(b"b:c", b"a") == parse(b"a:b:c", key_separator=":")
    assert Record(b"b", b"") == parse(b":b", key_separator=":")


def test_a_line_without_the_separator_has_no_key():
    assert b"plain" == parse(b"plain", key_separator=":")


def test_a_json_line_is_stored_as_it_is():
    assert Record(b'{"b": 1,  "a": 2}') == parse(b'{"b": 1,  "a": 2}', jsonl=True)


def test_fields_of_a_json_line_become_key_and_time():
    line = b'{"host": "web-1", "at": "1970-01-01T00:00:02Z"}'

    assert Record(line, b"web-1", 2_000_000) == parse(
        line, jsonl=True, key_field="host", time_field="at"
    )


@pytest.mark.parametrize(
    ("time", "expected"), [("1.5", 1_500_000), ("2", 2_000_000), ("null", None)]
)
def test_a_number_is_seconds_since_1970(time, expected):
    line = b'{"at": %s}' % time.encode()

    assert Record(line, None, expected) == parse(line, jsonl=True, time_field="at")


def test_a_key_that_is_no_text_is_its_json():
    assert b"[1, 2]" == parse(b'{"k": [1, 2]}', jsonl=True, key_field="k").key


@pytest.mark.parametrize(
    ("data", "options", "told"),
    [
        (
            b'{"k": "\\ud800"}', {"jsonl": True, "key_field": "k"},
            "the field k has half of a surrogate pair, which is no text; without --key-field the "
            "line is stored as it is",
        ),
        (b'{"k": "\xff"}', {"jsonl": True}, "not JSON: byte 8 is not UTF-8"),
        (
            b'{"k": %s}' % (b"7" * 5000), {"jsonl": True},
            "JSON with a number of too many digits, or too deep, to be read here; without --jsonl "
            "the line is stored as it is",
        ),
        (
            b'{"value": "x", "k": %s}' % (b"[" * 100_000), {"records": True},
            "JSON with a number of too many digits, or too deep, to be read here",
        ),
    ],
)  # fmt: skip
def test_what_is_told_of_a_line_is_not_pythons_own_text(data, options, told):
    with pytest.raises(ConfigError) as caught:
        parse(data, **options)

    assert f"events.txt:17: {told}" == str(caught.value)


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (b"[1]", {"jsonl": True}),
        (b"{", {"jsonl": True}),
        (b'{"at": "yesterday"}', {"jsonl": True, "time_field": "at"}),
        (b'{"at": "2026-01-01T00:00:00"}', {"jsonl": True, "time_field": "at"}),
        (b'{"at": true}', {"jsonl": True, "time_field": "at"}),
        (b'{"at": 1700000000000000}', {"jsonl": True, "time_field": "at"}),
        (b'{"at": 1e999}', {"jsonl": True, "time_field": "at"}),
        (b'{"at": NaN}', {"jsonl": True, "time_field": "at"}),
        (b'{"key": "only"}', {"records": True}),
        (b'{"value": "x", "timestamp_us": 99999999999999999999}', {"records": True}),
        (b"[" * 100_000, {"jsonl": True}),
        (b'{"value": "x", "headers": 5}', {"records": True}),
        (b'{"value": "x", "headers": null}', {"records": True}),
    ],
)
def test_a_line_that_cannot_be_read_is_named(data, options):
    with pytest.raises(ConfigError, match=r"^events\.txt:17: "):
        parse(data, **options)
