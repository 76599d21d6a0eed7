"""`python -m benchmarks`: every program is known, one that fails is named, the table is theirs."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import benchmarks
from benchmarks import __main__ as program
from benchmarks import harness

MACHINE = {
    "date": "2026-11-30", "cores": 2, "cpu": "a CPU", "system": "Linux", "python": "3.11.7",
    "disk": "ext4", "sync_p50_us": 90.0,
}  # fmt: skip
READ = {
    "title": "Read",
    "machine": MACHINE,
    "other_processes_cpu_percent": 3.2,
    "targets": [
        {"text": "values", "unit": "/s", "measured": 15e6, "bound": 3e6, "better": "higher",
         "met": True},
        {"text": "  p50", "unit": "us", "measured": 21.0, "bound": 20, "better": "lower",
         "met": False},
    ],
}  # fmt: skip


def test_every_program_of_the_directory_is_known() -> None:
    (room,) = benchmarks.__path__
    assert {f"bench_{name}" for name in program.PROGRAMS} == {
        path.stem for path in Path(room).glob("bench_*.py")
    }


def test_the_table_is_what_the_programs_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def run(line: list[str]) -> subprocess.CompletedProcess[str]:
        asked.append(line[2:])
        failed = "benchmarks.bench_append" in line
        return subprocess.CompletedProcess(line, int(failed), json.dumps(READ), "no room")

    monkeypatch.setattr(program, "run", run)
    options = ["--quick", "--s3", "http://h:1", "--markdown"]
    assert 1 == program.main(["append", "read", "cold", *options])
    assert [
        ["benchmarks.bench_append", "--json", "--quick"],
        ["benchmarks.bench_read", "--json", "--quick"],
        ["benchmarks.bench_cold", "--json", "--quick", "--s3", "http://h:1"],
    ] == asked
    shown = capsys.readouterr()
    assert "append failed (1):\nno room" in shown.err
    assert "| Read: values | 15,000,000 /s | >= 3,000,000 | met |" in shown.out
    assert "| Read: p50 | 21 us | <= 20 | MISSED |" in shown.out
    assert "2 x a CPU" in shown.out

    assert 0 == program.main(["read", "--json"])
    assert [READ] == json.loads(capsys.readouterr().out)


def test_the_one_that_needs_a_server_is_left_out_without_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "cold" not in program.arguments([]).names
    assert set(program.PROGRAMS) == set(program.arguments(["--s3", "http://h:1"]).names)
    with pytest.raises(SystemExit):
        program.arguments(["raed"])
    assert "no benchmark raed; there are append" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        (("--repetitions", "0"), "0 is less than 1"),
        (("--repetitions", "-1"), "-1 is less than 1"),
        (("--dir", "nowhere"), "'nowhere' is no directory"),
        (("--dir", __file__), "is no directory"),
    ],
)
@pytest.mark.parametrize("parse", [program.arguments, functools.partial(harness.parse, "a title")])
def test_what_no_benchmark_can_do_is_refused(
    parse: Callable[[tuple[str, ...]], object],
    argument: tuple[str, ...],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(argument)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "is_one_of_all"), [(signal.SIGTERM, False), (signal.SIGINT, True)]
)
def test_one_that_is_ended_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, is_one_of_all: bool
) -> None:
    """Its nodes ran on for ever."""
    line = ["benchmarks", "cluster"] if is_one_of_all else ["benchmarks.bench_cluster"]
    process = subprocess.Popen(
        [sys.executable, "-m", *line, "--quick", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob("*/nodes/3/STORE")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    assert len(nodes_below(tmp_path)) == 3

    process.send_signal(number)

    assert process.wait(60) != 0
    assert not nodes_below(tmp_path)
    assert not any(tmp_path.iterdir())


def nodes_below(directory: Path) -> list[str]:
    """The processes whose command line names this directory as that of their data."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = each.read_bytes().decode("utf-8", "replace").split("\0")
            if "chronik_server" in words and any(word.startswith(str(directory)) for word in words):
                found.append(each.parent.name)
    return found
