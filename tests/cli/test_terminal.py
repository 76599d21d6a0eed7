"""The two streams."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from chronik_store.cli import logs
from chronik_store.cli.terminal import Output, colour_wanted, progress


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
