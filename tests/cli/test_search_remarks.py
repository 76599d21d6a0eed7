"""What `search` says about its answer, on stderr."""

from __future__ import annotations

from chronik_store import LogStore


def test_a_path_counts_as_unknown_only_if_no_partition_has_it(chronik):
    """It was said of each path that one partition alone lacked, as an empty one does."""
    with LogStore.open("data") as store:
        store.create_topic("t", partitions=3)
        store.partition("t", 1).append([b'{"level": "error"}'])

    found = chronik("search", "t", "json.level:error OR json.nope:x", "--format", r"%p %o\n")

    assert ["1 0"] == found.lines
    assert "chronik: note: no record searched has json.nope\n" == found.err
