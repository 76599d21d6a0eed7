"""Whoever reads a command has enough: it ends quietly, without a traceback, with 0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import chronik_store as chronik

ROOT = Path(__file__).parents[2]
COUNT = 4000

VERBS = {
    "consume": ["consume", "events"],
    "consume json": ["--json", "consume", "events"],
    "consume format": ["consume", "events", "--format", "%o %t %k %v" + " " * 200 + r"\n"],
    "search": ["search", "events", "line", "-n", str(COUNT)],
    "search json": ["--json", "search", "events", "line", "-n", str(COUNT)],
    "search context": ["search", "events", "line", "-n", "2000", "-C", "1"],
    "cursor list": ["cursor", "list", "events"],
    "topic list": ["topic", "list"],
    "status": ["status"],
    "status json": ["--json", "status"],
    "verify": ["verify"],
    "verify bucket": ["verify", "--bucket", "--deep"],
    "inspect": ["inspect", "WAL"],
    "repair": ["repair"],
    "doctor": ["doctor"],
    "help": ["--help"],
}


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    """Much to say: records, topics and cursors by the hundred."""
    path = tmp_path_factory.mktemp("pipes")
    config = chronik.LogConfig(pipeline_enabled=False)
    with chronik.LogStore.open(path / "data", config=config) as store:
        store.create_topic("events")
        log = store.partition("events")
        log.append([b"line %d " % number + b"x" * 60 for number in range(COUNT // 2)])
        log.seal()
        assert not log.run_pipeline_once().errors
        log.append([b"line %d " % number + b"x" * 60 for number in range(COUNT // 2)])
        for number in range(50):
            log.cursor(f"cursor-{number}-" + "x" * 200).commit(number)
        for number in range(20):
            store.create_topic(f"topic-{number}-" + "x" * 150)
    return path


def command(where, arguments, stdout):
    wal = next((where / "data/wal/events/0").glob("*.log"))
    arguments = [str(wal) if each == "WAL" else each for each in arguments]
    return subprocess.Popen(
        [sys.executable, "-m", "chronik_server", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
    )


@pytest.mark.parametrize("name", VERBS)
def test_a_pipe_that_was_closed_before_the_first_byte(where, name):
    reading, writing = os.pipe()
    os.close(reading)
    process = command(where, VERBS[name], writing)
    os.close(writing)
    _, err = process.communicate(timeout=60)
    assert b"Traceback" not in err, err.decode()
    assert b"BrokenPipe" not in err, err.decode()
    assert process.returncode in {0, 1}, err.decode()


LONG = ["consume", "consume json", "consume format", "search", "search json"]


@pytest.mark.parametrize("name", LONG)
def test_a_pipe_that_is_closed_in_the_middle(where, name):
    process = command(where, VERBS[name], subprocess.PIPE)
    assert process.stdout.read(100)
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    assert (0, b"") == (process.returncode, err)


def test_reading_on_afterwards_finds_everything(where):
    process = command(where, VERBS["consume"], subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert (0, COUNT) == (process.returncode, out.count(b"\n")), err.decode()
