"""Errors as one line and one code."""

import json
import re
from pathlib import Path

import pytest

from chronik_store import errors
from chronik_store.cli.exits import (
    _AT_A_PROMPT,
    ADVICE,
    CORRUPTION,
    UNAVAILABLE,
    USAGE,
    as_json,
    code_of,
    line_of,
)

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(errors.TopicNotFoundError, {"topic": "x"}), (errors.DiskFullError, {})],
)
def test_advice_does_not_depend_on_the_words_of_a_path_or_name(kind, arguments):
    [advice] = [said for each, said in ADVICE if each is kind]

    line = line_of(kind("no room in /mnt/chronik restored", **arguments))

    assert f"no room in /mnt/chronik restored; {advice}" == line


def test_damage_in_a_directory_called_chronik_something_says_what_to_do():
    error = errors.CorruptionError("a flipped bit", path="/mnt/chronik repaired/wal")

    assert (
        "/mnt/chronik repaired/wal: a flipped bit; "
        "`chronik verify` and `chronik repair` tell what can be done"
    ) == line_of(error)


def test_an_error_that_brings_its_own_advice_gets_no_other():
    error = errors.CorruptionError("a flipped bit", advice="put the file back from a copy")

    assert "a flipped bit; put the file back from a copy" == line_of(error)
    assert "a flipped bit" == error.finding


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("cursor 'c' stands at 5; pass reset=True to move it back to 2", "--reset moves it back"),
        ("d is open for writing: close that one, or open this one with read_only=True", "writing"),
        ("no topic 'x' here (topics: none); create it first", "(topics: none)"),
        ("set A and B and pass config=LogConfig.from_env(), or C", "set A and B, or C"),
        ("topic 'x' exists with 1 partitions; pass exist_ok=True to use it", "--exist-ok takes it"),
    ],
)
def test_at_a_prompt_nobody_is_told_to_write_python(said, shown):
    line = line_of(errors.ChronikError(said))

    assert shown in line
    for python in ("=True", "=False", "create it first", "from_env"):
        assert python not in line


@pytest.mark.parametrize("phrase", [in_python for in_python, _ in _AT_A_PROMPT])
def test_the_library_still_says_it_so(phrase):
    sources = (
        path
        for room in ("chronik_store", "chronik_server")
        for path in ROOT.glob(f"{room}/**/*.py")
    )
    texts = (
        re.sub(r'"\s*f?"', "", path.read_text()) for path in sources if path.name != "exits.py"
    )

    assert any(phrase in text for text in texts)


def test_an_append_of_unknown_outcome_says_so():
    assert "not known" in line_of(errors.LogPoisonedError("sync failed"))


def test_json_of_an_error_says_whether_to_retry():
    assert {
        "error": "BackpressureError",
        "message": "full",
        "retriable": True,
        "durability": "not_durable",
    } == as_json(errors.BackpressureError("full"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "consume"),
        ("consume", "t", "--json", "--no-such"),
        ("consume", "t", "--no-such", "--json"),
        ("consume", "t", "-n", "many", "--json"),
        ("--json", "--no-such", "consume", "t"),
        ("--json", "no-such-verb"),
        ("--json", "produce", "t", "no-such-file"),
        ("--json", "topic", "no-such-verb"),
    ],
)
def test_in_json_a_wrong_command_line_is_told_as_any_error_is(chronik, arguments):
    ran = chronik(*arguments)

    assert (ran.code, ran.out) == (USAGE, "")
    [line] = ran.err.splitlines()
    told = json.loads(line)
    assert ["error", "message", "retriable", "durability"] == list(told)
    assert ("UsageError", False, None) == (told["error"], told["retriable"], told["durability"])
    assert told["message"] in chronik(*(each for each in arguments if each != "--json")).err


def test_json_that_is_no_option_changes_nothing_about_a_wrong_command_line(chronik):
    assert chronik("produce", "--no-such", "t", "--", "--json").err.startswith("Usage: ")


def test_an_option_that_is_empty_means_nothing(chronik):
    """A shell's variable that is not set: records went in without keys, and all came out."""
    Path("lines").write_bytes(b"k:v\n")
    ran = chronik("produce", "t", "--key-sep", "", "lines")
    assert (ran.code, "--key-sep is empty" in ran.err) == (2, True), ran.err
    assert not Path("data").exists()
    assert chronik("produce", "t", "lines").code == 0

    ran = chronik("consume", "t", "--from", "")

    assert (ran.code, ran.out) == (2, "")
    assert "'' is no place in a log: write earliest" in ran.err
