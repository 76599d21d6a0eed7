"""Errors as one line and one code."""

import pytest

from chronik_store import errors
from chronik_store.cli.exits import CORRUPTION, UNAVAILABLE, USAGE, as_json, code_of, line_of


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.QueryError("x"), USAGE),
        (errors.ConfigError("x"), USAGE),
        (errors.TopicNotFoundError("x", topic="t"), USAGE),
        (errors.UnavailableError("x"), UNAVAILABLE),
        (errors.AccessDeniedError("x"), UNAVAILABLE),
        (errors.DirectoryLockedError("x", pid=1), UNAVAILABLE),
        (errors.DiskFullError("x"), UNAVAILABLE),
        (errors.CorruptionError("x"), CORRUPTION),
    ],
)
def test_each_error_has_its_code(error, code):
    assert code == code_of(error)


def test_an_error_is_one_line_that_says_what_to_do():
    line = line_of(errors.TopicNotFoundError("no topic\n 'x'", topic="x"))

    assert "no topic 'x'; `chronik topic list` shows what is there" == line


def test_an_append_of_unknown_outcome_says_so():
    assert "not known" in line_of(errors.LogPoisonedError("sync failed"))


def test_json_of_an_error_says_whether_to_retry():
    assert {
        "error": "BackpressureError",
        "message": "full",
        "retriable": True,
        "durability": "not_durable",
    } == as_json(errors.BackpressureError("full"))
