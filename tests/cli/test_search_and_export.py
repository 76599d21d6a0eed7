"""What is searched and exported from a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

import chronik_store


def test_search_finds_newest_first_in_all_tiers(chronik, events):
    ran = chronik("search", "events", "disk AND full", "-n", "6", "--format", r"%o\n")

    assert (0, ["93", "83", "73", "63", "53", "43"]) == (ran.code, ran.lines)


def test_search_counts(chronik, events):
    ran = chronik("search", "events", "full", "-c")

    assert (0, "10\n") == (ran.code, ran.out)
    assert {"total": 10, "total_is_exact": True} == chronik(
        "search", "events", "full", "-c", "--json"
    ).objects[0]


def test_search_shows_what_stands_around_a_hit(chronik, events):
    options = ["-C", "1", "-n", "2", "--order", "oldest", "--format", r"%o\n"]

    assert ["2", "3", "4", "--", "12", "13", "14"] == chronik(
        "search", "events", "full", *options
    ).lines


def test_search_without_a_hit_ends_with_one(chronik, events):
    ran = chronik("search", "events", "nowhere")

    assert (1, "") == (ran.code, ran.out)
    assert "nothing matched" in ran.err


def test_a_query_that_cannot_be_answered_is_refused(chronik, events):
    ran = chronik("search", "events", "err*")

    assert 2 == ran.code
    assert "value:/err.*/" in ran.err


def test_an_export_to_json_lines_is_what_consume_prints(chronik, events):
    ran = chronik("export", "events", "--to", "out.jsonl")

    assert (0, "100 records in out.jsonl\n") == (ran.code, ran.err)
    assert chronik("consume", "events", "--json").out == Path("out.jsonl").read_text()
    assert ["data", "out.jsonl"] == sorted(path.name for path in Path().iterdir())


def test_an_export_to_parquet_has_every_record(chronik, events):
    parquet = pytest.importorskip("pyarrow.parquet")

    assert 0 == chronik("export", "events", "--to", "out.parquet", "--from", "10").code

    table = parquet.read_table("out.parquet")
    assert [line.encode() for line in events[10:]] == table["value"].to_pylist()
    assert list(range(10, 100)) == table["offset"].to_pylist()


def test_an_export_to_parquet_holds_a_part_of_it_at_a_time(chronik, events, monkeypatch):
    """It held 50,000 records, however large: of a few gigabytes all, several times over."""
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("chronik_store.cli.export.BYTES_PER_GROUP", 100)

    assert 0 == chronik("export", "events", "--to", "out.parquet").code

    file = parquet.ParquetFile("out.parquet")
    assert file.num_row_groups > 1
    assert file.read().num_rows == len(chronik("consume", "events").lines)


def test_a_search_that_left_something_out_does_not_say_that_nothing_matched(chronik, tmp_path):
    with chronik_store.PartitionLog.open("data", topic="events") as log:
        log.append([b"disk full", b"all fine"])
        log.seal()
        while not log.run_pipeline_once().idle:
            pass
        assert 2 == log.watermarks.indexed
    for lost in ("segments", "indexes"):
        Path(f"data/object_store/{lost}").rename(lost)

    ran = chronik("search", "events", "full")

    assert 3 == ran.code
    assert "not searched: offsets 0 to 1" in ran.err
    assert "nothing matched in what was searched" in ran.err
