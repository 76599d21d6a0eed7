"""What a verb leaves undone: produce goes on until it is in the bucket, a search says why."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from chronik_server.cli_remote import session
from chronik_store.cli import options
from chronik_store.cli.produce import run_pipeline
from chronik_store.config import LogConfig
from chronik_store.model import PipelineReport


class Log:
    """A thousand sealed records; each run of the pipeline indexes some."""

    def __init__(self, *runs):
        self.runs = list(runs)
        self.watermarks = SimpleNamespace(sealed=1000, tiered=1000, indexed=0)

    def run_pipeline_once(self):
        indexed, errors = self.runs.pop(0)
        self.watermarks.indexed += indexed
        return PipelineReport(indexed=indexed, errors=errors)


@pytest.mark.parametrize(
    ("runs", "left"),
    [
        ([(400, ()), (400, ()), (200, ()), (0, ())], 1),  # done: it does not run once more
        ([(400, ()), (0, ()), (600, ())], 1),  # no further: another owner, or none may index
        ([(400, ()), (100, ("the bucket is away",)), (500, ())], 1),
        ([(1000, ())], 0),
    ],
)
def test_produce_runs_the_pipeline_as_long_as_that_helps(runs, left):
    log = Log(*runs)
    run_pipeline(log, LogConfig())
    assert left == len(log.runs)


def test_without_an_index_the_bucket_is_all_that_is_waited_for():
    log = Log((0, ()), (0, ()))
    run_pipeline(log, LogConfig(indexing_enabled=False))
    assert 1 == len(log.runs)


def test_with_seal_all_of_it_is_in_the_bucket_and_its_index(chronik, tmp_path):
    Path("lines").write_bytes(b"one\ntwo\n")
    bucket = f"file://{tmp_path}/bucket"

    ran = chronik("--object-store", bucket, "produce", "events", "--seal", "lines")

    assert (0, ["one", "two"]) == (ran.code, chronik("-d", bucket, "consume", "events").lines)
    found = chronik("-d", bucket, "status", "events", "--json").objects[0]
    assert 2 == found["watermarks"]["indexed"]
    again = chronik("produce", "events", "--seal", "/dev/null")
    assert (0, 2) == (
        again.code,
        chronik("status", "events", "--json").objects[0]["watermarks"]["end"],
    )


def test_with_seal_it_is_an_error_that_something_waits(chronik, tmp_path):
    """And none that can be taken for a loss: it is acknowledged, and the next writer goes on."""
    Path("lines").write_bytes(b"one\ntwo\n")
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    in_the_way = bucket / "segments"
    in_the_way.write_bytes(b"where a directory should be")

    ran = chronik("--object-store", f"file://{bucket}", "produce", "events", "--seal", "lines")

    assert 3 == ran.code, ran.err
    assert "2 records acknowledged, offsets 0 to 1" in ran.err
    assert "2 records are sealed and not in the bucket" in ran.err
    in_the_way.unlink()
    assert 0 == chronik("produce", "events", "--seal", "/dev/null").code
    assert ["one", "two"] == chronik("-d", f"file://{bucket}", "consume", "events").lines


def test_a_server_seals_by_itself(chronik, monkeypatch):
    monkeypatch.setattr(options, "remote_session", session)
    ran = chronik("-s", "127.0.0.1:1", "produce", "events", "--seal", "/dev/null")
    assert (2, True) == (ran.code, "a server seals by itself" in ran.err)


def test_a_search_may_be_given_less_time_and_more(chronik, events):
    """What has no bundle is indexed for each search of a command line anew."""
    short = chronik("search", "events", "line", "-c", "--deadline", "0")
    assert (3, ["0+"]) == (short.code, short.lines)
    assert "deadline); --deadline gives it more time" in short.err

    asked = chronik("search", "events", "line", "--complete", "--deadline", "0")
    assert 3 == asked.code
    assert "give it more time with --deadline, or leave out --complete" in asked.err

    enough = chronik("search", "events", "line", "-c", "--complete", "--deadline", "60")
    assert (0, ["100"], "") == (enough.code, enough.lines, enough.err)
