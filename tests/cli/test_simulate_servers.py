"""`chronik simulate --servers`: stories of whole servers by seed, judged, and played again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chronik_server import cli
from chronik_server.testing.servers.planted import BUGS
from chronik_store.cli import main

ROOT = Path(__file__).parents[2]
SEED = "50"  # one node, so it is soon played


@pytest.fixture(autouse=True)
def _with_the_server(monkeypatch):
    """What `chronik` brings along when the server's code is there."""
    monkeypatch.setattr(main, "more_worlds", cli.WORLDS)


def test_equal_seeds_play_equal_stories_in_other_processes_too(chronik):
    (total,) = chronik("--json", "simulate", "--servers", "--seed", SEED).objects
    assert ("servers", 1, []) == (total["of"], total["worlds"], total["violated_seeds"])
    assert total["virtual_seconds"] > 20
    assert total["records_acknowledged"] > 10
    assert total["records_compared"] > total["records_acknowledged"]
    assert total["events"]["topics made"] > 0

    ran = subprocess.run(
        [sys.executable, "-m", "chronik_server", "simulate", "--servers", "--seed", SEED],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONHASHSEED": "77"},
    )
    assert total["trace_hash"][:16] in ran.stdout
    assert ran.stdout.startswith(f"1 world, seed {SEED}, in ")
    assert "violations             0" in ran.stdout
    assert ran.stderr == ""


def test_the_bugs_of_what_surrounds_the_roles_are_listed_and_known_by_name(chronik):
    ran = chronik("simulate", "--servers", "--planted", "list")
    assert 0 == ran.code
    assert list(BUGS) == [line.split()[0] for line in ran.lines]

    wrong = chronik("simulate", "--servers", "--planted", "forget-the-vote")
    assert 2 == wrong.code
    assert "`chronik simulate --servers --planted list`" in wrong.err


def test_a_violation_names_how_to_play_it_again(chronik):
    bug = "tell-of-closed-logs"
    ran = chronik("simulate", "--servers", "--planted", bug, "--seed", "6", "--seeds", "20")
    assert 1 == ran.code
    assert "LogClosedError" in ran.err
    assert "again: chronik simulate --servers --seed " in ran.err
    assert f" --planted {bug}\n" in ran.err
    assert "the last 25 events:" in ran.err


def test_two_kinds_at_once_are_refused(chronik):
    ran = chronik("simulate", "--servers", "--cluster")
    assert 2 == ran.code
    assert "choose one" in ran.err


def test_it_says_what_is_missing(chronik, monkeypatch):
    monkeypatch.setattr(main, "more_worlds", {})
    ran = chronik("simulate", "--servers")
    assert 2 == ran.code
    assert "--servers plays the server's code, which is not here" in ran.err
