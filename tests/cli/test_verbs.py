"""The verbs, over a real data directory."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import chronik_store
from chronik_store.cli.bench import Bench
from chronik_store.cli.main import VERBS
from chronik_store.cli.produce import say_what_is_left
from chronik_store.cli.rendering import size_text
from chronik_store.log_store import LogStore
from chronik_store.objectstore.local import LocalObjectStore
from chronik_store.partition_log import PartitionLog
from chronik_store.pipeline.runner import PipelineRunner

QUIET = chronik_store.LogConfig(pipeline_enabled=False)


def test_what_is_produced_is_consumed_byte_for_byte(chronik, tmp_path):
    Path("in").write_bytes("one\n\n  three \r\nvier \u00e4\nlast".encode())

    produced = chronik("produce", "events", "in")

    assert (0, "") == (produced.code, produced.out)
    assert "created topic events\n5 records acknowledged, offsets 0 to 4\n" == produced.err
    assert "one\n\n  three \r\nvier \u00e4\nlast\n" == chronik("consume", "events").out


def test_a_file_that_cannot_be_read_is_named_and_the_lines_before_it_are_kept(chronik):
    Path("in").write_text("a\nb\n")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("unreadable")

        produced = chronik("produce", "events", "in", "unreadable")

    assert 3 == produced.code
    assert "2 records acknowledged" in produced.err
    assert "cannot read unreadable" in produced.err
    assert ["a", "b"] == chronik("consume", "events").lines


def test_more_records_than_any_number_holds_are_all_of_them(chronik):
    Path("in").write_text("a\nb\n")
    chronik("produce", "events", "in")

    assert ["a", "b"] == chronik("consume", "events", "-n", str(1 << 70)).lines


def test_a_data_directory_that_is_a_file_is_called_one(chronik):
    Path("plain").write_text("")

    assert "'plain' is a file" in chronik("-d", "plain", "consume", "events").err


def test_keys_are_cut_off_and_shown(chronik):
    Path("in").write_text("a:1\nb:2\n3\n")

    chronik("produce", "events", "--key-sep", ":", "in")

    shown = chronik("consume", "events", "--format", r"%o|%k|%v\n")
    assert ["0|a|1", "1|b|2", "2||3"] == shown.lines


def test_consume_json_and_produce_records_are_inverse(chronik):
    values = b'{"value":"plain","key":"k","timestamp_us":5}\n{"value_base64":"//4="}\n'
    Path("in").write_bytes(values)
    assert chronik("produce", "a", "--records", "in").code == 0

    Path("copy").write_text(chronik("consume", "a", "--json").out)
    assert chronik("produce", "b", "--records", "copy").code == 0

    first, second = (
        chronik("consume", "a", "--json").objects,
        chronik("--json", "consume", "b").objects,
    )
    assert [{**value, "topic": "b"} for value in first] == second
    assert ("plain", "k", 5) == tuple(first[0][name] for name in ("value", "key", "timestamp_us"))
    assert "//4=" == first[1]["value_base64"]


def test_a_bad_line_is_named_and_what_was_acknowledged_counted(chronik):
    Path("in").write_text('{"a": 1}\nnot json\n')

    ran = chronik("produce", "events", "--jsonl", "in")

    assert 2 == ran.code
    assert "in:2:" in ran.err
    assert "0 records acknowledged" in ran.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--from", "98"], ["98", "99"]),
        (["--from", "-1"], ["99"]),
        (["--from", "latest"], []),
        (["--from", "earliest", "-n", "2"], ["0", "1"]),
        (["--since", "1970-01-01T00:00:00Z", "-n", "1"], ["0"]),
        (["-n", "0"], []),
    ],
)
def test_consume_begins_and_ends_where_it_is_told(chronik, events, arguments, expected):
    ran = chronik("consume", "events", "--format", r"%o\n", *arguments)

    assert (0, expected) == (ran.code, ran.lines)


def test_a_cursor_goes_on_where_it_stopped(chronik, events):
    first = chronik("consume", "events", "--cursor", "c", "-n", "60")
    second = chronik("consume", "events", "--cursor", "c")

    assert events == first.lines + second.lines
    assert [] == chronik("consume", "events", "--cursor", "c").lines


def test_cursors_are_listed_set_and_deleted(chronik, events):
    assert 1 == chronik("cursor", "list").code
    assert 0 == chronik("cursor", "set", "events", "c", "10").code
    listed = chronik("cursor", "list", "--json").objects
    assert [
        {"topic": "events", "partition": 0, "cursor": "c", "offset": 10, "behind": 90}
    ] == listed
    assert 2 == chronik("cursor", "set", "events", "c", "5").code
    assert 0 == chronik("cursor", "set", "events", "c", "5", "--reset").code
    assert 0 == chronik("cursor", "delete", "events", "c").code
    assert 1 == chronik("cursor", "delete", "events", "c").code


def test_partitions_are_merged_by_time(chronik):
    Path("one").write_text('{"t": 1}\n{"t": 4}\n')
    Path("two").write_text('{"t": 2}\n{"t": 3}\n')
    chronik("topic", "create", "events", "--partitions", "2")
    for number, name in enumerate(("one", "two")):
        options = ["--jsonl", "--time-field", "t", "-p", str(number)]
        assert 0 == chronik("produce", "events", name, *options).code

    shown = chronik("consume", "events", "--format", r"%p %v\n").lines

    assert ['0 {"t": 1}', '1 {"t": 2}', '1 {"t": 3}', '0 {"t": 4}'] == shown
    assert ['1 {"t": 2}', '1 {"t": 3}'] == chronik(
        "consume", "events", "-p", "1", "--format", r"%p %v\n"
    ).lines


def test_status_shows_the_plot_line(chronik, events):
    ran = chronik("status")

    assert "start 0 <= indexed 50 <= tiered 50 <= sealed 50 <= committed 100" in ran.out
    assert 50 == chronik("status", "events", "--json").objects[0]["watermarks"]["tiered"]


def test_topics_are_created_described_listed_and_deleted(chronik):
    assert 0 == chronik("topic", "create", "a", "--partitions", "3").code
    assert 2 == chronik("topic", "create", "a").code
    assert 0 == chronik("topic", "create", "a", "--exist-ok").code
    assert ["a"] == [each["topic"] for each in chronik("topic", "list", "--json").objects]
    assert [0, 1, 2] == [
        each["partition"] for each in chronik("topic", "describe", "a", "--json").objects
    ]
    assert 2 == chronik("topic", "describe", "b").code
    assert 0 == chronik("topic", "delete", "a", "--yes").code
    assert [] == chronik("topic", "list", "--json").objects


def test_the_bucket_alone_can_be_read(chronik, events):
    url = f"file://{Path.cwd()}/data/object_store"
    Path("data/wal").rename("gone")

    assert events[:50] == chronik("-d", url, "consume", "events").lines
    assert 0 == chronik("-d", url, "search", "events", "full").code
    assert 0 == chronik("-d", url, "status", "events").code
    assert 2 == chronik("-d", url, "produce", "events", "/dev/null").code


def test_a_missing_directory_is_said_in_one_line(chronik):
    ran = chronik("consume", "events")

    assert 2 == ran.code
    assert 1 == ran.err.count("\n")
    assert "no data directory" in ran.err


def test_a_missing_topic_is_said_in_one_line(chronik, events):
    ran = chronik("consume", "nowhere", "--json")

    assert 2 == ran.code
    assert "TopicNotFoundError" == json.loads(ran.err)["error"]


def test_reading_works_beside_a_writer_and_writing_does_not(chronik, events):
    with PartitionLog.open("data", topic="events") as log:
        log.append(b"written meanwhile")
        # Shown once a later frame swears to it, which an idle log writes by itself.
        seen = wait_for(lambda: chronik("consume", "events").lines[-1], "written meanwhile")

        ran = chronik("produce", "events", "/dev/null")

    assert "written meanwhile" == seen
    assert 3 == ran.code
    assert "reading works beside the writer" in ran.err


@pytest.mark.parametrize(
    ("settings", "tiered", "indexed", "told"),
    [
        ({}, 700, 400, "offsets 400 to 699 are not in"),
        ({}, 700, 700, ""),
        ({"indexing_enabled": False}, 700, 0, ""),
        ({"indexing_enabled": False}, 100, 0, "offsets 100 to 699 are not in"),
        ({"pipeline_enabled": False}, 0, 0, ""),
    ],
)
def test_produce_says_what_is_still_on_its_way_to_the_bucket(
    capfd, settings, tiered, indexed, told
):
    config = chronik_store.LogConfig(**settings)
    marks = SimpleNamespace(sealed=700, tiered=tiered, indexed=indexed)

    log = SimpleNamespace(watermarks=marks, status=lambda: SimpleNamespace(fenced=False))
    session = SimpleNamespace(config=lambda: config, has_copies=False, is_remote=False)

    say_what_is_left(session, log)
    shown = capfd.readouterr().err
    assert told in shown if told else not shown

    session.is_remote = True  # the server goes on by itself
    say_what_is_left(session, log)
    assert not capfd.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_examples(chronik, verb):
    shown = chronik(verb, "--help")

    assert 0 == shown.code
    for sub in ("list", "delete") if verb in {"topic", "cursor"} else ():
        shown = chronik(verb, sub, "--help")
    assert f"chronik {verb}" in shown.out
    assert "Examples:" in shown.out


def test_usage_errors_end_with_two(chronik):
    assert 2 == chronik("produce").code
    assert 2 == chronik("nonsense").code
    assert 2 == chronik("produce", "t", "--key-field", "x", "/dev/null").code
    assert 2 == chronik().code


def test_the_version_is_shown(chronik):
    assert chronik("--version").out.startswith("chronik ")


def wait_for(get, expected, seconds=10):
    deadline = time.monotonic() + seconds
    while (seen := get()) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    return seen


def test_bench_counts_nothing_cached_as_read_from_the_bucket(tmp_path, monkeypatch):
    reads = []
    get_range = LocalObjectStore.get_range

    def counting(store, key, start, length):
        reads.append(key)
        return get_range(store, key, start, length)

    monkeypatch.setattr(LocalObjectStore, "get_range", counting)
    bench = Bench(chronik_store.LogConfig(), str(tmp_path), None, records=5000, size_bytes=1000)
    monkeypatch.setattr(bench, "_search", lambda *_: None)
    bench._hot()
    bench._reopened()
    reads.clear()

    bench._cold()

    (cold,) = (row for row in bench._rows if row.what == "read from the bucket, cold")
    assert cold.samples >= 5
    assert len(reads) == 2 + cold.samples  # the footer and the first record before them


def test_produce_into_a_fenced_directory_says_that_nothing_reaches_the_bucket(chronik, tmp_path):
    bucket = f"file://{tmp_path}/bucket"
    with LogStore.open("old", object_store=bucket, config=QUIET) as store:
        store.create_topic("t")
        store.partition("t").append([b"x"])
        store.partition("t").seal()
        store.run_pipeline_once()
    assert chronik("restore", bucket, "new", "--yes").code == 0
    with LogStore.open("old", config=QUIET) as store:
        store.partition("t").append([b"y"])
        store.partition("t").seal()
        store.run_pipeline_once()
        assert store.partition("t").status().fenced
    with LogStore.open("new", config=QUIET) as store:
        successor = store.partition("t").status().log_id
    Path("line").write_bytes(b"z\n")

    ran = chronik("-d", "old", "produce", "t", "line")

    assert ran.code == 0
    assert successor in ran.err
    assert "reaches no bucket" in ran.err
    assert "in the bucket yet" not in ran.err

    ran = chronik("-d", "old", "produce", "t", "line", "--seal")

    assert ran.code == 3
    assert "3 records are sealed and will never be in the bucket" in ran.err
    assert "the next writer goes on" not in ran.err


def test_a_separator_may_be_any_byte(chronik):
    Path("lines").write_bytes(b"a\xffb\n")
    assert chronik("produce", "t", "--key-sep", os.fsdecode(b"\xff"), "lines").code == 0
    assert chronik("consume", "t", "--format", r"%k %v\n").out == "a b\n"


def test_describe_counts_segments_that_are_kept_here_as_local_in_both_forms(chronik, tmp_path):
    config = chronik_store.LogConfig(local_segment_bytes=1 << 20, pipeline_enabled=False)
    with PartitionLog.open(tmp_path / "data", topic="a", config=config) as log:
        log.append([b"x" * 1000] * 100)
        log.seal()
        log.run_pipeline_once()

    [found] = chronik("topic", "describe", "a", "--json").objects
    [_, row] = chronik("topic", "describe", "a").lines

    assert found["local_bytes"] > found["bucket_bytes"] > 100_000
    assert size_text(found["local_bytes"]) in row


def test_a_log_that_ends_in_the_run_behind_produce_is_an_error_of_it(chronik, monkeypatch):
    def poisoned(_log):
        raise chronik_store.LogPoisonedError("the disk is gone", cause=OSError(5, "gone"))

    monkeypatch.setattr(PartitionLog, "run_pipeline_once", poisoned)
    Path("lines").write_text("one\n")

    ran = chronik("produce", "a", "lines")

    assert (3, 1) == (ran.code, ran.err.count("the disk is gone"))
    assert "acknowledged, offsets 0 to 0" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("due", ["CHRONIK_SEGMENT_BYTES=1000", "CHRONIK_SEGMENT_AGE_SECONDS=0.001"])
def test_short_runs_of_produce_take_what_is_due_to_the_bucket(chronik, tmp_path, monkeypatch, due):
    """Nothing else may ever write to the directory; the store's own loop had no time to look."""
    monkeypatch.setattr(PipelineRunner, "_loop", lambda _runner: None)
    monkeypatch.setenv(*due.split("="))
    Path("lines").write_text("a line of some length\n" * 100)
    chronik("topic", "create", "a", "--partitions", "3")

    Path("nothing").write_text("")
    for what in ("lines", "lines", "nothing"):  # by its age, what the last one wrote is too young
        ran = chronik("produce", "a", "-p", "1", what)
        assert (ran.code, "error" in ran.err) == (0, False), ran.err

    [marks] = (
        part["watermarks"]
        for part in chronik("status", "a", "--json").objects
        if part["partition"] == 1
    )
    assert (marks["tiered"], marks["sealed"], marks["end"]) == (200, 200, 200)
