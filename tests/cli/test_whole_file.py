"""What an export writes until it is whole, and what becomes of what a killed one left."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from chronik_store.cli import whole_file
from tests.cli.conftest import ROOT

HERE = os.uname().nodename
TO = ("export", "events", "--to", "events.jsonl")
# An export that stands still when all is written, until it is killed.
HANGING = """
import sys, time
from chronik_store.cli import whole_file
from chronik_store.cli.main import run

def hang(*names):
    print("written", flush=True)
    time.sleep(600)

whole_file.os.replace = hang
run(sys.argv[1:])
"""


def left() -> list[str]:
    return sorted(path.name for path in Path().glob("*unfinished"))


def unfinished(host: str, pid: int) -> Path:
    path = Path(f"events.jsonl.{host}.{pid}.unfinished")
    path.write_text("half a lin")
    return path


def test_what_a_killed_export_left_is_removed_by_the_next_and_a_running_one_is_let_be(
    chronik, events
):
    with subprocess.Popen(
        [sys.executable, "-c", HANGING, *TO],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout.readline() == "written\n"
            name = f"events.jsonl.{HERE}.{child.pid}.unfinished"
            assert left() == [name]

            ran = chronik(*TO)
            assert (ran.code, "unfinished" in ran.err) == (0, False), ran.err
            assert left() == [name]
        finally:
            child.send_signal(signal.SIGKILL)

    ran = chronik(*TO)
    assert (ran.code, f"removed {name}" in ran.err) == (0, True), ran.err
    assert left() == []
    assert len(Path("events.jsonl").read_text().splitlines()) == len(events)


def test_a_process_id_that_is_in_use_again_protects_nothing(chronik, events):
    unfinished(HERE, os.getpid())
    unfinished(HERE, os.getppid())

    ran = chronik(*TO)

    assert (ran.code, ran.err.count("removed ")) == (0, 2), ran.err
    assert left() == []


def test_of_a_file_that_may_be_anothers_it_is_said_and_it_stays(chronik, events):
    """Of another machine, of a name that says no host; and two that are none of an export."""
    elsewhere = unfinished("far.away", 7)
    nowhere = Path("events.jsonl.7.unfinished")
    others = [Path("events.jsonl.unfinished"), Path("events.jsonl.mine.unfinished")]
    for path in (nowhere, *others):
        path.write_text("half a lin")

    ran = chronik(*TO)

    assert ran.code == 0
    assert f"{elsewhere} is of a run on far.away that may still write it" in ran.err
    assert f"{nowhere} is of a run somewhere that may still write it" in ran.err
    assert ran.err.count("unfinished") == 2
    assert left() == sorted(map(str, [elsewhere, nowhere, *others]))


def test_without_locks_nothing_is_removed(chronik, events, monkeypatch):
    path = unfinished(HERE, 7)

    def no_locks(*_arguments):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    ran = chronik(*TO)

    assert (ran.code, f"{path} is of a run on {HERE}" in ran.err) == (0, True), ran.err
    assert left() == [path.name]


def test_a_file_that_was_taken_for_a_dead_ones_in_the_making_is_made_again(monkeypatch):
    """Another run opened it before this one had its lock, and removed it."""
    real, taken = fcntl.flock, []

    def lock(file, how):
        if not taken:
            taken.append(file.name)
            assert whole_file._take_away(file.name) is True
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", lock)
    with whole_file.whole_file("all.jsonl") as file:
        file.write(b"all of it")

    assert taken
    assert Path("all.jsonl").read_bytes() == b"all of it"


def test_nothing_is_left_of_one_that_failed():
    Path("all.jsonl").write_text("of before")
    with pytest.raises(ZeroDivisionError), whole_file.whole_file("all.jsonl"):
        raise ZeroDivisionError

    assert left() == []
    assert Path("all.jsonl").read_text() == "of before"


def test_the_name_is_on_disk_before_the_export_says_so(chronik, events, monkeypatch):
    """Whoever deletes what was exported relies on the file being there after a power cut."""
    synced, real = [], os.fsync

    def watch(descriptor):
        found = os.fstat(descriptor)
        kind = "folder" if stat.S_ISDIR(found.st_mode) else "file"
        synced.append((kind, Path(TO[-1]).exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    ran = chronik(*TO)

    assert ran.code == 0, ran.err
    assert synced == [("file", False), ("folder", True)]
