"""A machine whose clock is hours off, and a real S3 server, which refuses what such a clock signs.

The emulator refuses nothing, so only a real server shows it. Promise of the product: appends go on,
local bytes stay, whatever needs the bucket fails by a typed error that names the clock, and once
the clock is right all goes on by itself, in the same process.
"""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.s3.machine_clock import HOUR, MachineClock
from tests.s3.servers import ACCESS_KEY, SECRET_KEY

pytestmark = [pytest.mark.s3, pytest.mark.timeout(180)]
ROOT = Path(__file__).parents[2]
HERE = os.uname().nodename
OURS = ("CHRONIK_", "S3_", "OBJECT_STORE_", "LOCAL_STORAGE_")
WRONG = [
    pytest.param(3 * HOUR, "3 hours ahead of", id="ahead"),
    pytest.param(-2 * HOUR, "2 hours behind", id="behind"),
]


@pytest.fixture
def clock(tmp_path):
    return MachineClock(tmp_path)


@pytest.fixture
def environ(ceph_rgw, clock):
    """Of a process on that machine, with a right to the server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return kept | clock.environ | {
        "S3_ENDPOINT": ceph_rgw.endpoint,
        "S3_REGION": "us-east-1",
        "S3_ACCESS_KEY": ACCESS_KEY,
        "S3_SECRET_KEY": SECRET_KEY,
    }  # fmt: skip


@pytest.fixture
def url(ceph_rgw):
    return f"s3://{ceph_rgw.create_bucket(f'clock-{secrets.token_hex(6)}')}/log"


class Program:
    """A running `one_log`."""

    def __init__(self, process):
        self._process = process
        assert self._answer() == "open"

    def __call__(self, *line):
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()  # bounded by the test's own time
        assert line, "the program has ended"
        return json.loads(line)

    def wait_until_ahead(self, seconds):
        """Return when its clock is so far from the true one."""
        end = time.monotonic() + 20
        while abs(self("clock") - time.time() - seconds) > 5:
            assert time.monotonic() < end, "the clock of the program did not follow"
            time.sleep(0.1)


@pytest.fixture
def start(tmp_path, environ, url):
    """Starts the program on one directory; left to itself at the end, it is ended."""
    with contextlib.ExitStack() as running:

        def start_one():
            process = running.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.s3.one_log", tmp_path / "data", url],
                    env=environ, cwd=ROOT, text=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                )
            )  # fmt: skip
            running.callback(process.kill)
            return Program(process)

        yield start_one


def bytes_below(folder):
    return b"".join(path.read_bytes() for path in Path(folder).rglob("*") if path.is_file())


def assert_names_the_clock(text, said):
    assert f"set the clock of {HERE}, which is about {said} the store's" in text, text


@pytest.mark.parametrize(("ahead_seconds", "said"), WRONG)
def test_a_clock_that_goes_wrong_stops_tiering_by_name_and_once_right_all_goes_on(
    start, clock, tmp_path, ahead_seconds, said
):
    program = start()
    assert program("append", "first word", "second word") == 2
    before = program("tier")
    assert (before["errors"], before["tiered"], before["indexed"]) == ([], 2, 2)

    clock.set(ahead_seconds)
    program.wait_until_ahead(ahead_seconds)
    assert program("append", "third word", "fourth word") == 4
    wrong = program("tier")
    assert wrong["errors"]
    assert (wrong["tiered"], wrong["writable"]) == (2, True)
    for text in (*wrong["errors"], wrong["last_error"]):
        assert_names_the_clock(text, said)
    assert b"third word" in bytes_below(tmp_path / "data" / "wal")
    assert program("read", 2, 2) == ["third word", "fourth word"]
    refused = program("read", 0, 2)  # the bucket's alone
    assert (refused["error"], refused["retriable"]) == ("AccessDeniedError", False)
    assert_names_the_clock(refused["said"], said)
    found = program("search", "word")
    assert not found["complete"]
    assert set(found["hits"]) == {2, 3}
    assert_names_the_clock(" ".join(found["reasons"]), said)
    assert program("append", "fifth word") == 5

    clock.set(0)
    program.wait_until_ahead(0)
    after = program("tier")
    assert (after["errors"], after["last_error"]) == ([], "")
    assert (after["tiered"], after["indexed"]) == (5, 5)
    assert b"third word" not in bytes_below(tmp_path / "data" / "wal")
    every = [f"{name} word" for name in ("first", "second", "third", "fourth", "fifth")]
    assert program("read", 0, 5) == every
    found = program("search", "word")
    assert (found["complete"], sorted(found["hits"])) == (True, [0, 1, 2, 3, 4])


def test_a_log_opens_and_takes_records_by_a_wrong_clock_and_claims_the_bucket_by_a_right_one(
    start, clock
):
    clock.set(-50 * HOUR)
    program = start()
    assert program("append", "one", "two") == 2
    wrong = program("tier")
    assert wrong["tiered"] == 0
    assert_names_the_clock(wrong["last_error"], "50 hours behind")
    clock.set(0)
    program.wait_until_ahead(0)
    after = program("tier")
    assert (after["errors"], after["tiered"]) == ([], 2)
    assert program("read", 0, 2) == ["one", "two"]


def test_the_verbs_that_ask_the_bucket_name_the_clock(start, clock, environ, url):
    program = start()
    program("append", "one", "two")
    program("tier")
    clock.set(HOUR)
    for arguments in (["doctor", url], ["-d", url, "consume", "events"], ["-d", url, "status"]):
        ended = subprocess.run(
            [sys.executable, "-m", "chronik_server", *arguments],
            env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ended.returncode == 3, ended
        assert_names_the_clock(ended.stderr, "60 minutes ahead of")
