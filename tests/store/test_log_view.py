"""The plot line at any moment, also between two steps of another thread."""

from __future__ import annotations

import pytest

import chronik_store as chronik
from chronik_store.log_view import watermarks_of

CONFIG = chronik.LogConfig(pipeline_enabled=False, indexing_enabled=False)


def test_a_reader_beside_the_writer_that_has_folded_more_than_it_shows(tmp_path, monkeypatch):
    """One look may find records, their seal and their upload, and folds them first."""
    with (
        chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as writer,
        chronik.PartitionLog.open(tmp_path / "d", topic="t", read_only=True) as reader,
    ):
        assert 0 == reader.watermarks.end
        writer.append([b"x"] * 10)
        writer.seal()
        assert not writer.run_pipeline_once().errors
        writer.append([b"y"] * 5)
        writer.append(b"z")  # swears to what came before
        core, seen = reader._core, []
        commit = core.state.commit

        def commit_and_look(index):
            commit(index)
            seen.append(watermarks_of(core))

        monkeypatch.setattr(core.state, "commit", commit_and_look)
        line = reader.watermarks
        assert (0, 0, 10, 10) == (line.start, line.indexed, line.tiered, line.sealed)
        assert 15 <= line.committed
        assert any(each.tiered == each.committed == 0 for each in seen)


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (lambda log: log.offset_for_timestamp(0), 15),
        (lambda log: log.search("fish", require_complete=True).total, 6),
    ],
    ids=["time", "search"],
)
def test_what_is_there_is_found_although_all_that_was_known_is_dropped_meanwhile(
    tmp_path, monkeypatch, ask, answer
):
    """Between the look for the end and that for the start, by another thread of the reader."""
    with (
        chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as writer,
        chronik.PartitionLog.open(tmp_path / "d", topic="t", read_only=True) as reader,
    ):
        writer.append([b"fish"] * 10)
        assert b"fish" == reader.read(0, wait_seconds=20).records[0].value
        core, refresh = reader._core, reader._core.refresh

        def and_meanwhile():
            monkeypatch.undo()
            seen = refresh()
            writer.append([b"fish"] * 11)
            writer.drop_before(15)
            writer.append(b"z")
            assert 15 == reader.watermarks.start
            return seen

        monkeypatch.setattr(core, "refresh", and_meanwhile)
        assert answer == ask(reader)
