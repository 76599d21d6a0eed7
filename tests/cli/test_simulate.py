"""`chronik simulate`: worlds by seed, the sum of them, and what it says when one is violated."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from chronik_store.testing.worlds import playing

ROOT = Path(__file__).parents[2]
BUG = "put-before-intent"
"""Found by every world that uploads something."""


def test_a_run_counts_what_befell_its_worlds(chronik):
    ran = chronik("--json", "simulate", "--seed", "6", "--seeds", "3")

    (total,) = ran.objects
    assert (0, 3, 6, 0, []) == (
        ran.code,
        total["worlds"],
        total["first_seed"],
        total["violations"],
        total["violated_seeds"],
    )
    assert total["virtual_seconds"] > 3600
    assert total["records_acknowledged"] > 100
    assert total["records_compared"] > total["records_acknowledged"]
    assert sum(total["events"].values()) > 5
    assert sum(total["opens"].values()) > 5
    assert ran.err == ""


def test_equal_seeds_play_equal_worlds_in_other_processes_too(chronik):
    (first,) = chronik("simulate", "--seed", "6", "--json").objects
    ran = subprocess.run(
        [sys.executable, "-m", "chronik_server", "simulate", "--seed", "6"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONHASHSEED": "77"},
    )

    assert first["trace_hash"][:16] in ran.stdout
    assert ran.stdout.startswith("1 world, seed 6, in ")
    assert "violations             0" in ran.stdout


@cache
def found_by() -> int:
    """The first seed whose world finds the bug: what a world plays changes with the product."""
    return next(seed for seed in range(1, 50) if playing.play(seed, bug=BUG).violation)


def test_a_violation_names_the_seed_the_fact_and_how_to_play_it_again(chronik):
    seed = found_by()
    ran = chronik("simulate", "--planted", BUG, "--seed", str(seed), "--seeds", "9")

    assert 1 == ran.code
    assert f"1 world, seed {seed}," in ran.out  # it stops at the first that finds the bug
    assert "violations             1" in ran.out
    assert f"chronik: seed {seed} is violated: AssertionError: segments/t/0/" in ran.err
    assert "is put, and the log does not name it" in ran.err
    assert f"again: chronik simulate --seed {seed} --planted {BUG}" in ran.err
    assert "the last 25 events:" in ran.err
    assert "node." in ran.err

    again = chronik("--json", "simulate", "--planted", BUG, "--seed", str(seed))
    found, total = again.objects
    assert (1, seed, BUG) == (again.code, found["seed"], total["planted"])
    assert found["replay"] == f"chronik simulate --seed {seed} --planted {BUG}"
    assert [seed] == total["violated_seeds"]

    healed = chronik("simulate", "--seed", str(seed))  # the bug is gone with its run
    assert 0 == healed.code


def test_violations_do_not_end_a_run_and_are_all_named(chronik, monkeypatch):
    play = playing.play

    def find_fault_with_two(seed, *, bug=None):
        played = play(seed, bug=bug)
        if seed == 3:
            return played
        return dataclasses.replace(played, violation=f"AssertionError: {seed}", details="in full")

    monkeypatch.setattr(playing, "play", find_fault_with_two)
    ran = chronik("simulate", "--seed", "1", "--seeds", "3")

    assert 1 == ran.code
    assert "3 worlds, seeds 1 to 3" in ran.out
    assert "violations             2" in ran.out
    assert "again: chronik simulate --seed 1\n" in ran.err
    assert "again: chronik simulate --seed 2\n" in ran.err
    assert 1 == ran.err.count("in full")  # the first


def test_a_bug_that_is_not_found_is_said(chronik):
    ran = chronik("simulate", "--planted", "coverage-that-lies", "--seed", "1")

    assert 0 == ran.code
    assert "coverage-that-lies was not found in these worlds" in ran.out


def test_the_bugs_are_listed_with_what_they_are(chronik):
    ran = chronik("simulate", "--planted", "list")
    assert 0 == ran.code
    assert len(ran.lines) > 20
    assert all(len(line.split(maxsplit=1)) == 2 for line in ran.lines)
    assert {"bug", "what"} == set(chronik("simulate", "--planted", "list", "--json").objects[0])

    wrong = chronik("simulate", "--planted", "no-such-bug")
    assert 2 == wrong.code
    assert "`chronik simulate --planted list`" in wrong.err


def test_time_bounds_a_run(chronik):
    ran = chronik("--json", "simulate", "--minutes", "0.001", "--seed", "4")

    assert 0 == ran.code
    assert ran.objects[0]["worlds"] >= 1


@pytest.mark.parametrize("minutes", ["1e-9", "1e-320"])
def test_a_time_that_is_over_at_once_is_one_world(chronik, minutes):
    """None was played, and there was nothing to sum up."""
    ran = chronik("simulate", "--minutes", minutes, "--seed", "4")

    assert (ran.code, ran.out.startswith("1 world, seed 4, in ")) == (0, True), ran.err


def test_it_says_what_to_install_and_why_it_will_not_run_without_assertions(started):
    script = (
        "import importlib.util as u; f = u.find_spec; "
        "u.find_spec = lambda n, *a: None if n == 'greenlet' else f(n, *a); "
        "from chronik_server.cli import main; main()"
    )
    for worlds in ([], ["--cluster"]):
        ran = subprocess.run(
            [sys.executable, "-c", script, "simulate", *worlds],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert 2 == ran.returncode
        assert 'simulate needs greenlet: pip install "chronik[testing]"' in ran.stderr

    ran = subprocess.run(
        [sys.executable, "-O", "-m", "chronik_server", "simulate"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert 2 == ran.returncode
    assert "python -O leaves out" in ran.stderr


def test_ctrl_c_ends_it_behind_the_world_that_is_played(started):
    process = started("-v", "simulate", "--minutes", "5", stdin=subprocess.DEVNULL)
    assert b"chronik_store" in process.stderr.readline()  # a fault was met: a world is played

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert 130 == process.returncode
    assert b"violations             0" in out
    assert b"chronik: interrupted; worlds played: " in err


def test_minutes_that_are_no_number_are_refused(chronik):
    ran = chronik("simulate", "--minutes", "nan")
    assert (ran.code, "not a number" in ran.err) == (2, True), ran.err
