"""Where a run looks: directories, buckets and servers that are named, mistyped or not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import chronik_store
from chronik_server import cli_remote
from chronik_server.cli import VERBS as SERVER_VERBS
from chronik_server.cli_remote import session as remote
from chronik_store.cli import main, options
from chronik_store.environment import Environment

NOWHERE = "127.0.0.1:1"


@pytest.fixture
def served(monkeypatch):
    """The command line with the server's verbs and -s; nobody listens at NOWHERE."""
    monkeypatch.setattr(cli_remote, "RETRY_SECONDS", 0.3)
    monkeypatch.setattr(options, "remote_session", remote)
    for verb, module in SERVER_VERBS.items():
        monkeypatch.setitem(main.VERBS, verb, module)


# --- a directory behind the verb ------------------------------------------------------------------


@pytest.mark.parametrize("behind", [False, True])
def test_a_directory_that_is_named_beats_a_server_of_the_environment(
    chronik, served, bucket, monkeypatch, behind
):
    monkeypatch.setenv("CHRONIK_SERVER", NOWHERE)
    verb, where = ["consume", "b", "--json"], ["-d", "data"]

    ran = chronik(*verb, *where) if behind else chronik(*where, *verb)

    assert (ran.code, len(ran.objects)) == (0, 2), ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("-s", NOWHERE, "-d", "data", "consume", "b"),
        ("-s", NOWHERE, "consume", "b", "-d", "data"),
        ("-d", "data", "consume", "b", "-s", NOWHERE),
        ("consume", "b", "-d", "data", "-s", NOWHERE),
        ("consume", "b", "-s", NOWHERE, "-d", "data"),
        ("consume", "b", "-s", NOWHERE, "--object-store", "file:///x"),
        ("--object-store", "file:///x", "consume", "b", "-s", NOWHERE),
        ("-s", NOWHERE, "--object-store", "file:///x", "consume", "b"),
        ("-s", NOWHERE, "consume", "b", "--object-store", "file:///x"),
    ],
)
def test_what_a_server_excludes_is_refused_wherever_it_stands(chronik, served, bucket, words):
    ran = chronik(*words)
    assert (ran.code, "Traceback" in ran.err) == (2, False), ran.err
    assert "exclude each other" in ran.err or "belongs to a data directory" in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("consume", "b", "-s", NOWHERE, "--json"),
        ("consume", "b", "--json", "-s", NOWHERE),
        ("--json", "topic", "list", "--server", NOWHERE),
        ("-s", "127.0.0.1:2", "status", "--json", "-s", NOWHERE),
    ],
)
def test_a_server_may_stand_behind_the_verb_too(chronik, served, bucket, words):
    ran = chronik(*words)

    told = json.loads(ran.err.splitlines()[-1])
    assert (ran.code, told["error"], NOWHERE in told["message"]) == (
        3, "ConnectionLostError", True,
    ), ran.err  # fmt: skip


def test_a_server_without_a_name_is_told_as_json(chronik, served):
    for words in (("--json", "-s", "", "status"), ("status", "--json", "-s", "")):
        ran = chronik(*words)
        assert (ran.code, json.loads(ran.err)["error"]) == (2, "ConfigError"), ran.err


@pytest.mark.parametrize(
    "verb", ["verify", "doctor", "serve", "cluster", "node convert", "node doubt"]
)
def test_what_works_on_files_takes_no_server_wherever_it_stands(chronik, served, verb):
    """Not the directory `data` that happens to be here, in its place."""
    words = verb.split()
    more = ("--metadata",) if verb == "node doubt" else ()
    for line in (("-s", NOWHERE, *words, *more), (*words, *more, "-s", NOWHERE)):
        ran = chronik(*line)
        assert (ran.code, f"{verb} works on files of this machine" in ran.err) == (2, True), ran.err
    assert "--server" not in chronik(*words, "--help").out


@pytest.mark.parametrize("words", [("node", "convert"), ("node", "doubt", "--metadata")])
def test_a_server_of_the_environment_is_not_meant_by_what_works_on_files(
    chronik, served, monkeypatch, tmp_path, words
):
    monkeypatch.setenv("CHRONIK_SERVER", NOWHERE)
    monkeypatch.setenv("CHRONIK_DATA_DIR", f"{tmp_path}/absent")

    ran = chronik(*words)

    assert (ran.code, f"no data directory: '{tmp_path}/absent'" in ran.err) == (2, True), ran.err


def test_a_copy_is_doubted_by_its_number(chronik, served):
    for words in (("events",), ("--metadata", "-p", "1")):
        ran = chronik("node", "doubt", *words)
        assert (ran.code, "name the partition of the topic with -p" in ran.err) == (2, True)


def test_without_its_extra_the_server_names_it(chronik, monkeypatch):
    monkeypatch.setattr(main, "absent_verbs", set(SERVER_VERBS))

    for words in (("serve",), ("cluster", "--nodes", "3"), ("status", "-s", NOWHERE), ("leader",)):
        ran = chronik(*words)
        assert (ran.code, 'pip install "chronik[server]"' in ran.err) == (2, True), ran.err


# --- names that are mistyped ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("topic", "delete", "a", "--yes"),
        ("cursor", "set", "a", "c", "0"),
        ("cursor", "delete", "a", "c"),
        ("consume", "a", "--cursor", "c"),
        ("rebuild-index",),
        ("consume", "a"),
        ("status",),
        ("node", "convert"),
        ("node", "doubt", "events", "-p", "0"),
    ],
)
@pytest.mark.parametrize("is_there", [False, True])
def test_a_verb_that_looks_or_deletes_makes_no_store(chronik, served, words, is_there):
    if is_there:
        Path("mistyped").mkdir()
    ran = chronik("-d", "mistyped", *words)

    assert (ran.code, "no data directory" in ran.err) == (2, True), ran.err
    assert [str(path) for path in Path("mistyped").glob("*")] == []
    assert Path("mistyped").exists() == is_there


@pytest.mark.parametrize(
    "words",
    [
        ("restore", "URL", "new", "--yes"),
        ("doctor", "URL"),
        ("-d", "URL", "consume", "a"),
        ("-d", "URL", "topic", "list"),
        ("-d", "URL", "status"),
    ],
)
def test_a_bucket_that_is_not_there_is_not_made(chronik, tmp_path, words):
    url = f"file://{tmp_path}/mistyped"
    ran = chronik(*(url if word == "URL" else word for word in words))

    assert (ran.code, f"there is no bucket {url}" in ran.err) == (3, True), ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_a_restore_of_what_is_no_bucket_leaves_no_directory(chronik, tmp_path):
    Path("other").mkdir()
    ran = chronik("restore", f"file://{tmp_path}/other", "new", "--yes")

    assert (ran.code, "holds no Chronik store" in ran.err) == (2, True), ran.err
    assert not Path("new").exists()


@pytest.mark.parametrize("directory", ["", "file:///tmp/x", "s3://bucket/x", "s3:/bucket/x"])
@pytest.mark.parametrize("yes", [["--yes"], []])
def test_a_restore_into_what_is_no_path_takes_nothing_over(
    chronik, bucket, tmp_path, directory, yes
):
    """Of `"$UNSET"` it made the current directory a store, and fenced the owner for good."""
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    ran = chronik("restore", bucket, directory, *yes)

    assert (ran.code, "cannot be a data directory" in ran.err) == (2, True), ran.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "words", [("produce", "t", "lines"), ("topic", "create", "t"), ("serve",), ("cluster",)]
)
@pytest.mark.parametrize("named", [True, False])
def test_nothing_is_written_whose_bucket_ends_with_the_command(
    chronik, served, monkeypatch, words, named
):
    """What was acknowledged went into memory, its files were removed, and the command ended."""
    Path("lines").write_text("a\n")
    if not named:
        monkeypatch.setenv("OBJECT_STORE_BACKEND", "memory")

    ran = chronik(*words, *(["--object-store", "memory://x"] if named else []))

    assert (ran.code, "is memory of this process" in ran.err) == (2, True), ran.err
    assert not Path("data").exists()


def test_a_bucket_is_not_served(chronik, served, tmp_path):
    ran = chronik("-d", f"file://{tmp_path}/bucket", "serve")

    assert (ran.code, "is a bucket" in ran.err) == (2, True), ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("runs", [False, True])
@pytest.mark.parametrize(
    "verb",
    [
        "produce b /dev/null", "consume b --cursor mine", "cursor set b mine 0", "topic create d",
        "topic delete b --yes", "rebuild-index b",
    ],
)  # fmt: skip
def test_a_nodes_directory_is_written_through_its_server(chronik, served, bucket, verb, runs):
    """It was `opened read-only`, and beside a node that runs the advice to stop it first."""
    assert chronik("node", "convert", "--node-id", "7").code == 0
    owner = chronik_store.data_directory.DataDirectory.open(
        Environment(), str(Path("data").absolute()), url=None, read_only=False, owner="local"
    ) if runs else None  # fmt: skip
    ran = chronik(*verb.split())
    if owner is not None:
        owner.close()

    assert ran.code == 3
    assert "data is of node 7 of cluster" in ran.err
    assert "ask its server, with -s HOST:PORT" in ran.err
