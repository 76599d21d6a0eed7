"""What `search` says about its answer, on stderr."""

from __future__ import annotations

import pytest

from chronik_store import LogStore
from chronik_store.cli.search import _remarks
from chronik_store.model import Coverage, SearchResult


def test_a_path_counts_as_unknown_only_if_no_partition_has_it(chronik):
    """It was said of each path that one partition alone lacked, as an empty one does."""
    with LogStore.open("data") as store:
        store.create_topic("t", partitions=3)
        store.partition("t", 1).append([b'{"level": "error"}'])

    found = chronik("search", "t", "json.level:error OR json.nope:x", "--format", r"%p %o\n")

    assert ["1 0"] == found.lines
    assert "chronik: note: no record searched has json.nope\n" == found.err


@pytest.mark.parametrize(
    ("reason", "helps"),
    [
        ("deadline", True),
        ("not indexed yet: deadline", True),
        ("deadline: indexes/t/partition-0/bundle.tar.gz is still being fetched", True),
        ("the bucket is away", False),
    ],
)
def test_more_time_is_advised_where_it_helps(capsys, reason, helps):
    coverage = Coverage(searched=(), missing=((0, 5),), reasons=(reason,))

    _remarks([SearchResult((), 0, False, (coverage,), (), 1.0)], 0, 1)

    assert helps == ("--deadline gives it more time" in capsys.readouterr().err)
