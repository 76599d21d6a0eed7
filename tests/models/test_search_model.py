"""Search through the public API, against a scan: whatever tier a record is in, it is found.

Appends, seals, uploads, indexing, drops, reopening and a lost bundle in between; after each step
the same questions to the index and to a loop over all records.
"""

from __future__ import annotations

import tempfile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from chronik_store import LogConfig, LogStore, open_bucket
from tests.store.search import reference

CONFIG = LogConfig(
    pipeline_enabled=False,
    segment_bytes=4000,
    garbage_seconds=0,
    disk_reserve_bytes=0,
    disk_throttle_bytes=0,
    cache_disk_bytes=0,
)
steps = st.lists(
    st.sampled_from(["append"] * 4 + ["seal", "pipeline", "pipeline", "drop", "reopen"]),
    min_size=4,
    max_size=10,
)


def agrees(log: Any, clauses: list[reference.Clause]) -> None:
    records = list(log.scan())
    for clause in clauses:
        expected = reference.expected_offsets(records, clause)
        result = log.search(clause.text, limit=100, order="oldest", require_complete=True)
        assert expected == [hit.offset for hit in result], clause
        assert result.total == len(expected)
        assert result.complete
        by_offset = {record.offset: record for record in records}
        assert all(by_offset[hit.offset] == hit.record for hit in result)
        newest = log.search(clause.text, limit=2, order="newest")
        assert expected[::-1][:2] == [hit.offset for hit in newest]


@settings(max_examples=settings.default.max_examples // 8)
@given(data=st.data(), story=steps)
def test_every_tier_answers_as_a_scan(data: st.DataObject, story: list[str]) -> None:
    clauses = data.draw(st.lists(reference.queries, min_size=3, max_size=3))
    with tempfile.TemporaryDirectory() as path:
        store = LogStore.open(path, config=CONFIG)
        store.create_topic("t")
        log = store.partition("t")
        for step in story:
            if step == "append":
                log.append(data.draw(reference.logs))
            elif step == "seal":
                log.seal()
            elif step == "pipeline":
                assert log.run_pipeline_once().errors == ()
            elif step == "drop":
                log.drop_before(log.watermarks.committed // 2)
            else:
                store.close()
                store = LogStore.open(path, config=CONFIG)
                log = store.partition("t")
            agrees(log, clauses)
        log.seal()
        for _ in range(4):
            assert log.run_pipeline_once().errors == ()
        marks = log.watermarks
        agrees(log, clauses)
        store.close()
        if marks.tiered > marks.start:
            with open_bucket(f"file://{path}/object_store", topic="t") as reader:
                agrees(reader, clauses)
