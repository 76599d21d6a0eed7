"""What holds for every verb, also for the next one: its examples, a closed pipe, Ctrl-C."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from chronik_server import cli as server_cli
from chronik_store.cli.main import VERBS, Verbs
from chronik_store.cli.main import chronik as root
from chronik_store.partition_log import PartitionLog

ROOT = Path(__file__).parents[2]
RUNS: dict[str, list[list[str]]] = {
    "produce": [["produce", "events", "lines"], ["produce", "new", "lines"]],
    "consume": [["consume", "events"], ["consume", "events", "--follow"]],
    "search": [["search", "events", "full", "-n", "1000"]],
    "status": [["status"], ["status", "--watch"]],
    "topic": [
        ["topic", "list"],
        ["topic", "create", "another"],
        ["topic", "describe", "events"],
        ["topic", "delete", "old", "--yes"],
    ],
    "cursor": [
        ["cursor", "list"],
        ["cursor", "set", "events", "c", "3", "--reset"],
        ["cursor", "delete", "events", "kept"],
    ],
    "export": [["export", "events", "--to", "out.jsonl"]],
    "verify": [["verify", "--bucket", "--deep"]],
    "repair": [["repair"]],
    "restore": [["restore", "BUCKET", "copy", "--yes"]],
    "rebuild-index": [["rebuild-index", "--all"]],
    "inspect": [["inspect", "data/STORE"]],
    "doctor": [["doctor", "BUCKET"]],
    "demo": [["demo", "--fast", "lines"]],
    "bench": [["bench", "--records", "1000"]],
    "simulate": [["simulate", "--seed", "1"]],
}
"""Command lines of each verb, in the directory that `where` makes."""
CASES = [pytest.param(run, id=" ".join(run[:3])) for runs in RUNS.values() for run in runs]


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every verb, and every verb of a group."""
    everything = VERBS | server_cli.VERBS
    with pytest.MonkeyPatch.context() as patch:
        for name, module in everything.items():
            patch.setitem(VERBS, name, module)
        context = click.Context(root)
        assert isinstance(root, Verbs)
        for name in everything:
            command = root.get_command(context, name)
            assert command is not None
            if isinstance(command, click.Group):
                for sub in command.commands.values():
                    yield f"{name} {sub.name}", sub
            else:
                yield name, command


def examples() -> Iterator[tuple[str, click.Command, list[str]]]:
    """(line, command, its arguments) of each example in a --help."""
    found = dict(commands())
    for name, command in found.items():
        lines = (command.epilog or "").splitlines()
        assert lines[:2] == ["\b", "Examples:"], f"{name} has no examples"
        for line in lines[2:]:
            for part in line.split("|"):
                words = shlex.split(part.partition("<")[0])
                if "chronik" in words:
                    yield line, *_called(words[words.index("chronik") + 1 :], found)


def _called(words: list[str], found: dict[str, click.Command]) -> tuple[click.Command, list[str]]:
    context = root.make_context("chronik", list(words), resilient_parsing=True)
    rest = [*context._protected_args, *context.args]
    for length in (2, 1):
        name = " ".join(rest[:length])
        if name in found:
            return found[name], rest[length:]
    raise AssertionError(f"{words}: no such verb")


def test_each_example_is_understood() -> None:
    """Each line that --help offers for pasting: a verb that exists, options that it has."""
    count = 0
    for line, command, arguments in examples():
        try:
            command.make_context(command.name, list(arguments))
        except click.UsageError as error:
            # A file or directory that the reader has, and this machine has not.
            absent = isinstance(error, click.BadParameter) and "does not exist" in str(error)
            if not absent:
                raise AssertionError(f"{line}: {error}") from error
        count += 1
    assert count > 50


def test_each_verb_is_run_here() -> None:
    assert set(RUNS) == {verb for verb in VERBS if verb not in server_cli.VERBS}


@pytest.fixture
def where(tmp_path) -> Path:
    return made(tmp_path)


def made(path: Path) -> Path:
    """A data directory, its bucket, a file of lines."""
    bucket = f"file://{path}/bucket"
    with PartitionLog.open(path / "data", topic="events", object_store=bucket) as log:
        log.append([b"line %d, disk full" % number for number in range(2000)])
        log.seal()
        assert not log.run_pipeline_once().errors
        log.append([b"line %d, disk full" % number for number in range(2000)])
        log.cursor("kept").commit(7)
    with PartitionLog.open(path / "data", topic="old", object_store=bucket) as log:
        log.append(b"x")
    (path / "lines").write_text("".join(f"line {number}\n" for number in range(5000)))
    return path


def start(where: Path, run: list[str], stdout: int) -> subprocess.Popen[bytes]:
    words = [f"file://{where}/bucket" if word == "BUCKET" else word for word in run]
    return subprocess.Popen(
        [sys.executable, "-m", "chronik_server", *words],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("run", CASES)
def test_a_closed_pipe_is_no_error(where, run) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start(where, run, writing)
    os.close(writing)
    _, err = process.communicate(timeout=100)

    assert b"Traceback" not in err, err.decode()
    assert b"BrokenPipe" not in err, err.decode()
    assert process.returncode in {0, 1}, err.decode()


@pytest.mark.parametrize(
    "run", [*(RUNS[verb][0] for verb in ("consume", "search", "status")), ["--help"]]
)
def test_an_output_that_is_full_is_an_error_in_one_line(where, run) -> None:
    with open("/dev/full", "wb") as full:
        process = start(where, run, full.fileno())
        _, err = process.communicate(timeout=100)

    assert 3 == process.returncode
    assert err.startswith(b"chronik: error: the output cannot be written: No space left"), err
    assert 1 == err.count(b"\n"), err.decode()


def test_a_cursor_stays_where_it_is_when_the_output_is_full(where) -> None:
    with open("/dev/full", "wb") as full:
        run = ["consume", "events", "--cursor", "kept"]
        start(where, run, full.fileno()).communicate(timeout=100)
    with PartitionLog.open(where / "data", topic="events", read_only=True) as log:
        assert 7 == log.cursor("kept").offset


def interrupted(where: Path, run: list[str], seconds: float) -> tuple[int, str]:
    process = start(where, run, subprocess.PIPE)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    text = err.decode()
    if "site.py" in text or "<frozen " in text.partition("chronik")[0]:
        return process.returncode, ""  # Python itself was starting
    return process.returncode, text


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("run", CASES)
def test_ctrl_c_at_any_moment_ends_it_in_one_line(tmp_path, run) -> None:
    """While modules load, in the middle of the work, and behind it: no traceback, ever."""
    for number, seconds in enumerate((0.3, 0.8, 1.6)):
        where = tmp_path / str(number)
        where.mkdir()
        code, err = interrupted(made(where), run, seconds)
        assert "Traceback" not in err, err
        assert "Exception ignored" not in err, err
        assert code in {-signal.SIGINT, 130, 0, 1}, (seconds, code, err)


@pytest.mark.parametrize("run", [RUNS["consume"][1], RUNS["status"][1], RUNS["demo"][0]])
def test_ctrl_c_in_the_middle_of_it(where, run) -> None:
    process = start(where, run, subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert err.startswith(b"chronik: interrupted"), err.decode()
    assert 1 == err.count(b"\n"), err.decode()
    assert 130 == process.returncode
