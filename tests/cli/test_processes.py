"""What only a process of its own can show: pipes, signals, a command line without its extra."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def ended(process, seconds=30):
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out.decode(), err.decode()


def test_lines_that_arrive_slowly_are_stored_as_they_come(chronik, started):
    writer = started("produce", "events")
    writer.stdin.write(b"first\nsecond\n")
    writer.stdin.flush()

    seen = wait_for(lambda: chronik("consume", "events").lines, ["first", "second"])

    assert ["first", "second"] == seen
    assert (0, "") == ended(writer)[:2]


def test_an_interrupted_producer_counts_what_was_acknowledged(chronik, started):
    writer = started("produce", "events")
    writer.stdin.write(b"first\nsecond\nnot whole")
    writer.stdin.flush()
    wait_for(lambda: chronik("consume", "events").lines, ["first", "second"])

    writer.send_signal(signal.SIGINT)
    code, _, err = ended(writer)

    assert 130 == code
    assert "interrupted; 2 records acknowledged, offsets 0 to 1" in err
    assert ["first", "second"] == chronik("consume", "events").lines


def test_a_follower_prints_what_comes_and_ends_quietly(started, events):
    follower = started("consume", "events", "--from", "100", "--follow")
    writer = started("produce", "events")
    writer.stdin.write(b"news\n")
    writer.stdin.close()
    writer.stdin = None

    assert b"news\n" == follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    assert (130, "") == ended(follower)[:2]


def test_a_reader_that_has_enough_is_no_error(started, events):
    Path("many").write_text("x" * 99 + "\n")
    reader = started("consume", "events", "--format", "%v " * 20_000 + r"\n")

    assert reader.stdout.read(10).startswith(b"line 0")
    reader.stdout.close()
    reader.stdout = None

    _, err = reader.communicate(timeout=30)
    assert (0, b"") == (reader.returncode, err)


def test_a_follower_ends_with_its_reader_though_nothing_comes(started, events):
    follower = started("consume", "events", "--from", "-1", "--follow")

    assert b"line 99 all well\n" == follower.stdout.readline()
    follower.stdout.close()
    follower.stdout = None

    _, err = follower.communicate(timeout=30)
    assert (0, b"") == (follower.returncode, err)


def test_without_its_extra_the_command_line_names_it():
    blocked = "import sys; sys.modules['click'] = None; sys.path.insert(0, sys.argv[1]); "
    code = blocked + "import importlib.util as u; f = u.find_spec; " \
        "u.find_spec = lambda n: None if n == 'click' else f(n); " \
        "from chronik_server.cli import main; main()"  # fmt: skip

    ran = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, check=False
    )

    assert 2 == ran.returncode
    assert 'chronik: the command line needs click: pip install "chronik[cli]"\n' == ran.stderr


def wait_for(get, expected, seconds=20):
    deadline = time.monotonic() + seconds
    while (seen := get()) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    return seen
