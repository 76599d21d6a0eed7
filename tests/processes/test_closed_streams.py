"""A caller that closes our standard streams: one line that says so, and no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def chronik(directory, redirect, *words):
    """`sh -c 'exec chronik WORDS REDIRECT'`; (code, stderr)."""
    script = f'exec "$0" -m chronik_server "$@" {redirect}'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, "-d", str(directory), *words], cwd=ROOT,
        env={**os.environ, "CHRONIK_WAL_INDEXING_INTERVAL": "3600"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.fixture
def directory(tmp_path):
    lines = tmp_path / "lines"
    lines.write_text("one\ntwo\nthree\n")
    assert chronik(tmp_path / "d", ">&-", "produce", "t", str(lines))[0] == 0
    return tmp_path / "d"


def test_produce_without_stdin_asks_for_a_file(directory):
    code, err = chronik(directory, "<&-", "produce", "t")
    assert (code, "standard input" in err, "Traceback" in err) == (2, True, False), err


def test_consume_without_stdout_says_so(directory):
    code, err = chronik(directory, ">&-", "consume", "t", "-n", "3")
    assert (code, "standard output is closed" in err, "Traceback" in err) == (3, True, False), err


def test_without_stderr_the_exit_code_says_it(directory):
    assert chronik(directory, "2>&-", "consume", "nobody") == (2, "")
