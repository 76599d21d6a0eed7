"""The two streams."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from chronik_store.cli import exits, logs, terminal
from chronik_store.cli.terminal import Output, colour_wanted, progress
from chronik_store.errors import UnavailableError


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Screen(), {}, True),
        (Screen(), {"NO_COLOR": "1"}, False),
        (Screen(), {"NO_COLOR": ""}, True),
        (Screen(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(monkeypatch, stream, environment, expected):
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert expected == colour_wanted(stream)


def test_output_leaves_in_order_and_all_of_it(capfd):
    output = Output(as_json=False)
    for number in range(20_000):
        output.line(f"line {number}")
    output.json({"é": [1, 2]})
    output.flush()

    lines = capfd.readouterr().out.splitlines()
    assert [f"line {number}" for number in range(20_000)] + ['{"é":[1,2]}'] == lines


@pytest.mark.parametrize("is_screen", [False, True])
def test_json_on_a_terminal_has_no_control_characters_and_is_the_same_value(
    capfd, monkeypatch, is_screen
):
    """U+009B begins a command to the terminal as ESC [ does; JSON escapes only what is below 32."""
    value = {"value": "\x1b[2J\x9b2J\x7f\u2028\u202e", "n\x85": [1, "é\n"]}
    monkeypatch.setattr(terminal, "is_terminal", lambda _: is_screen)
    output = Output(as_json=True)
    output.json(value)
    output.flush()

    line = capfd.readouterr().out
    assert json.loads(line) == value
    assert ("\x9b" in line) != is_screen
    if is_screen:
        assert line.isprintable() or line == line.rstrip("\n") + "\n"
        assert [c for c in line[:-1] if not c.isprintable()] == []
        assert "\\u009b2J\\u007f\\u2028\\u202e" in line
        assert "é" in line


EVIL = "\x1b]0;owned\x07\x9b2J\u202e\r."
SHOWN = "\\x1b]0;owned\\x07\\x9b2J\\u202e\\x0d."


@pytest.mark.parametrize("is_screen", [False, True])
def test_a_terminal_is_given_no_control_characters_of_names_and_notes(
    capfd, monkeypatch, is_screen
):
    monkeypatch.setattr(terminal, "is_terminal", lambda _: is_screen)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    output = Output(as_json=False)
    output.line(EVIL)
    output.table(["NAME"], [[EVIL]])
    output.drawn(output.styled(EVIL, "1"))
    output.flush()

    found = capfd.readouterr().out
    assert [found.count(EVIL), found.count(SHOWN)] == ([0, 3] if is_screen else [3, 0])
    assert found.count("\x1b[1m") == is_screen


def test_what_is_said_and_logged_has_no_control_characters(capfd):
    """Whatever stderr is: what a server or a bucket says is read by somebody, later."""
    terminal.say(f"chronik: error: {EVIL}")
    terminal.say(exits.said(UnavailableError(EVIL), True))
    logs.configure(verbose=False)
    logging.getLogger("chronik_store").warning("the bucket says %s", EVIL)

    said, as_json, logged = capfd.readouterr().err.splitlines()
    assert f"chronik: error: {SHOWN}" == said
    assert as_json.isprintable()
    assert EVIL == json.loads(as_json)["message"]
    assert SHOWN in logged
    assert "\x1b]" not in logged


def test_a_table_aligns_numbers_to_the_right(capfd):
    output = Output(as_json=False)
    output.table(("NAME", "COUNT"), [("a", "7"), ("longer", "1234")])
    output.flush()

    assert "NAME    COUNT\na           7\nlonger   1234\n" == capfd.readouterr().out


def test_progress_draws_nothing_without_a_terminal(capfd):
    with progress("work", 10) as bar:
        bar.advance(5)
        bar.at(7, 20)

    assert ("", "") == capfd.readouterr()


def test_progress_is_drawn_on_a_terminal(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress("work", 10, unit="records") as bar:
        bar.advance(10)

    assert "work" in screen.getvalue()
    assert "10/10" in screen.getvalue()


def test_progress_towards_an_end_that_is_known_later(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress("work", None, unit="records") as bar:
        bar.at(3, 20)
        bar.at(7, 30)

    assert "7/30" in screen.getvalue()


def test_a_warning_of_the_library_goes_to_stderr_with_its_fields(capfd):
    logs.configure(verbose=False)
    logging.getLogger("chronik_store.wal").warning("slow sync", extra={"seconds": 3})
    logging.getLogger("chronik_store.wal").info("nobody asked")

    captured = capfd.readouterr()
    assert "" == captured.out
    assert "slow sync" in captured.err
    assert "seconds=3" in captured.err
    assert "nobody asked" not in captured.err
