"""What a verb leaves undone: produce goes on until it is in the bucket, a search says why."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

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
