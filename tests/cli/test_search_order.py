"""Which hits `search` shows first."""

from __future__ import annotations

import pytest

from chronik_store import LogStore, Record


@pytest.fixture(autouse=True)
def store():
    """Topics `t`, whose second partition has times that go back, and `one` with those alone."""
    late, early = Record(b"full 0", None, 9_000_000), Record(b"full 1", None, 1_000_000)
    with LogStore.open("data") as store:
        store.create_topic("t", partitions=2)
        store.create_topic("one")
        store.partition("t", 0).append([Record(b"full", None, 5_000_000)])
        for log in (store.partition("t", 1), store.partition("one")):
            log.append([late, early])


@pytest.mark.parametrize("where", [["t", "full", "-p", "1"], ["one", "full"]])
@pytest.mark.parametrize(
    ("order", "expected"), [("newest", ["1", "0"]), ("oldest", ["0", "1"]), ("score", ["1", "0"])]
)
def test_hits_of_one_partition_go_by_offset(chronik, where, order, expected):
    """As docs/search-language.md and `PartitionLog.search` have it; they went by time."""
    ran = chronik("search", *where, "--order", order, "--format", r"%o\n")

    assert (ran.code, ran.lines) == (0, expected)


@pytest.mark.parametrize(
    ("order", "expected"), [("newest", ["1 0", "0 0", "1 1"]), ("oldest", ["1 1", "0 0", "1 0"])]
)
def test_hits_of_several_go_by_time(chronik, order, expected):
    ran = chronik("search", "t", "full", "--order", order, "--format", r"%p %o\n")

    assert (ran.code, ran.lines) == (0, expected)
