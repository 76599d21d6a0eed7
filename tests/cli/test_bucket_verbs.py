"""What the verbs show of a bucket that is named in place of a directory, damaged or not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import chronik_store
from chronik_store.cli import session
from chronik_store.log_store import LogStore

QUIET = chronik_store.LogConfig(pipeline_enabled=False)


def test_a_bucket_lists_its_topics(chronik, bucket):
    found = chronik("-d", bucket, "topic", "list", "--json").objects
    assert [(each["topic"], each["partitions"], each["records"]) for each in found] == [
        ("a", 2, 4), ("b", 1, 2),
    ]  # fmt: skip


def test_a_bucket_has_a_status_a_verdict_and_cursors_without_a_topic(chronik, bucket):
    parts = chronik("-d", bucket, "status", "--json").objects
    assert [(part["topic"], part["partition"]) for part in parts] == [("a", 0), ("a", 1), ("b", 0)]
    ran = chronik("-d", bucket, "verify", "--json")
    assert [report["partition"] for report in ran.objects] == ["a/0", "a/1", "b/0"], ran.err
    cursors = chronik("-d", bucket, "cursor", "list", "b", "--json").objects
    assert [(each["cursor"], each["offset"]) for each in cursors] == [("mine", 1)]


def test_a_bucket_shows_every_partition_that_has_published_and_no_other_hides_it(chronik, tmp_path):
    """Without one of 0 all was refused; behind any other gap the rest was left out in silence."""
    url = f"file://{tmp_path}/gaps"
    with LogStore.open("data", object_store=url, config=QUIET) as store:
        store.create_topic("a", partitions=5)
        for number in (1, 3):
            log = store.partition("a", number)
            log.append(b"of %d" % number)
            log.seal()
        store.run_pipeline_once()

    assert chronik("-d", url, "consume", "a").lines == ["of 1", "of 3"]
    assert chronik("-d", url, "search", "a", "of", "-c").lines == ["2"]
    assert chronik("-d", url, "export", "a", "--to", "a.jsonl").code == 0
    assert len(Path("a.jsonl").read_text().splitlines()) == 2
    assert [part["partition"] for part in chronik("-d", url, "status", "--json").objects] == [1, 3]
    ran = chronik("-d", url, "consume", "a", "-p", "2")
    assert (ran.code, "holds no manifest of a/2" in ran.err) == (2, True), ran.err


@pytest.mark.parametrize("verb", ["status", "verify --bucket", "topic list", "cursor list"])
def test_a_prefix_in_which_there_is_nothing_of_chronik_is_mistyped(chronik, bucket, verb):
    """`verify` of it ended with 0: all is well."""
    Path("bucket/typo").mkdir()
    ran = chronik("-d", f"{bucket}/typo", *verb.split())
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert "holds no Chronik store (no STORE object): check bucket and prefix" in ran.err


@pytest.mark.parametrize("deleted", [False, True])
def test_why_a_log_is_fenced_is_said_beside_its_writer(chronik, bucket, deleted):
    """`status` reads; it said of a topic that was deleted that its bucket was taken over."""
    chronik_store.restore(bucket, "new", config=QUIET)
    if deleted:
        with LogStore.open("new", config=QUIET) as store:
            store.delete_topic("b")
    with LogStore.open("data", config=QUIET) as store:
        log = store.partition("b")
        log.append(b"three")
        log.seal()
        log.run_pipeline_once()

    ran = chronik("status", "b")

    [said] = [line for line in ran.out.splitlines() if "! fenced" in line]
    assert ("its topic was deleted" if deleted else "a restore has claimed the folder") in said


def test_a_cursor_past_what_the_bucket_has_is_not_behind_it(chronik, tmp_path):
    """It has read what is not uploaded yet, and came with the manifest of what is."""
    url = f"file://{tmp_path}/bucket"
    with LogStore.open("data", object_store=url, config=QUIET) as store:
        store.create_topic("a")
        log = store.partition("a")
        log.append([b"one", b"two"])
        log.seal()
        log.append([b"three"])
        log.cursor("mine").commit(3)
        store.run_pipeline_once()

    ran = chronik("-d", url, "status")

    assert "cursor mine at 3, 0 behind" in ran.out, ran.out
    listed = chronik("-d", url, "cursor", "list", "--json").objects
    assert [0] == [each["behind"] for each in listed]


@pytest.mark.parametrize("verb", ["status", "verify", "verify --bucket --deep"])
def test_a_store_without_a_log_is_said_to_have_none(chronik, tmp_path, verb):
    """The writer was killed between its STORE and its first manifest: nothing was shown at all."""
    url = f"file://{tmp_path}/young"
    with LogStore.open("data", object_store=url, config=QUIET) as store:
        store.create_topic("a")
        log = store.partition("a")
        log.append(b"x")
        log.seal()
        store.run_pipeline_once()
    shutil.rmtree("young/manifests")

    ran = chronik("-d", url, *verb.split())

    assert (ran.code, ran.out) == (0, "")
    said = "has published a segment yet" if verb == "status" else "nothing was checked"
    assert said in ran.err
    assert url in ran.err


def test_a_bench_is_not_of_a_bucket_that_is_named_for_its_directory(chronik, bucket):
    """It measured a directory, and called that the bucket."""
    ran = chronik("-d", bucket, "bench", "--records", "1000")
    assert (ran.code, "is a bucket" in ran.err, ran.out) == (2, True, "")


def test_cursors_of_a_topic_that_is_not_there_are_a_mistake(chronik, bucket):
    ran = chronik("cursor", "list", "nosuch")
    assert (ran.code, "no topic 'nosuch' in data" in ran.err) == (2, True), ran.err
    assert chronik("cursor", "list", "c").code == 1


def test_an_offset_that_is_not_in_every_partition_names_the_one(chronik, bucket):
    assert chronik("produce", "a", "-p", "0", "--key-sep", ":", __file__).code == 0
    ran = chronik("consume", "a", "--from", "5")
    assert (ran.code, "a/1: offset 5 is outside [0, 2]; -p N" in ran.err) == (2, True), ran.err
    assert chronik("consume", "a", "-p", "0", "--from", "5", "-n", "1").code == 0


VERBS_THAT_LOOK = ["status", "status events", "consume events", "search events x", "verify"]


@pytest.mark.parametrize("verb", VERBS_THAT_LOOK)
def test_a_place_that_cannot_be_looked_into_is_unavailable(chronik, verb):
    """Not a traceback: rights that are missing come the same way as a name that is too long."""
    ran = chronik("-d", "x" * 300, *verb.split())

    assert 3 == ran.code
    assert ran.err.startswith("chronik: error: cannot look into xxx")


@pytest.mark.parametrize("verb", VERBS_THAT_LOOK)
def test_a_log_that_cannot_be_read_is_unavailable_to_every_verb_and_not_damaged(chronik, verb):
    assert 0 == chronik("topic", "create", "events").code
    for wal in Path("data/wal/events/0").iterdir():
        wal.unlink()
        wal.mkdir()  # no rights would keep root from reading it

    ran = chronik(*verb.split())

    if verb == "verify":  # it goes on behind it, and what it could not check is a warning
        assert (ran.code, "warning: events/0: could not be checked" in ran.out) == (1, True)
    else:
        assert 3 == ran.code, ran.err


def damage_manifest(topic, partition):
    damaged = max(Path(f"bucket/manifests/{topic}/{partition}").rglob("*.cbor"))
    body = bytearray(damaged.read_bytes())
    body[300] ^= 1
    damaged.write_bytes(body)
    return damaged


def test_behind_a_damaged_manifest_verify_goes_on(chronik, bucket):
    """The first one ended it: of all other topics nothing was known."""
    damaged = damage_manifest("a", 0)

    ran = chronik("-d", bucket, "verify", "--bucket", "--deep")

    assert 4 == ran.code
    heads = [line.split("  ")[0] for line in ran.lines if line.startswith(("a/", "b/"))]
    assert heads == ["a/0: NOT ok", "a/1: ok", "b/0: ok"]
    assert ran.out.count(damaged.name) == 1
    for verb in (["status"], ["consume", "a"]):
        ran = chronik("-d", bucket, *verb)
        assert (ran.code, damaged.name in ran.err) == (4, True)


@pytest.mark.parametrize(
    ("verb", "shown"),
    [
        ("status", ["a/1", "b/0"]),
        ("status a", ["a/1"]),
        ("topic list", ["a", "b"]),
        ("topic describe a", [1]),
        ("cursor list", ["a", "b"]),
    ],
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_behind_a_damaged_manifest_the_rest_is_shown(chronik, bucket, verb, shown, form):
    """The first one ended it, and nothing was shown."""
    damaged = damage_manifest("a", 0)

    ran = chronik("-d", bucket, *(["--json"] if form == "json" else []), *verb.split())

    assert 4 == ran.code
    assert 1 == ran.err.count(damaged.name), ran.err
    assert 1 == len(ran.err.splitlines())
    if form == "text":
        assert all(any(line.lstrip().startswith(f"{each}") for line in ran.lines) for each in shown)
        return
    assert "CorruptionError" == json.loads(ran.err)["error"]
    told = [
        f"{each['topic']}/{each['partition']}" if verb.startswith("status")
        else each["partition" if verb.startswith("topic describe") else "topic"]
        for each in ran.objects
    ]  # fmt: skip
    assert shown == told


def test_a_topic_is_listed_with_what_is_known_of_it(chronik, bucket):
    whole = {
        each["topic"]: each for each in chronik("-d", bucket, "topic", "list", "--json").objects
    }
    damage_manifest("a", 0)
    damage_manifest("b", 0)
    part, none = chronik("-d", bucket, "topic", "list", "--json").objects
    (row,) = [line.split() for line in chronik("-d", bucket, "topic", "list").lines if "a " in line]

    assert [] == whole["a"]["missing"]
    assert {
        "partitions": 2,
        "missing": [0],
        "topic_id": whole["a"]["topic_id"],
    }.items() <= part.items()
    assert 0 < part["records"] < whole["a"]["records"]
    assert {"topic_id": None, "partitions": 1, "records": 0, "missing": [0]}.items() <= none.items()
    assert f"{part['records']}+" == row[2]


def test_a_topic_that_was_deleted_while_all_were_looked_at_is_left_out(
    chronik, bucket, monkeypatch
):
    """It was an error, and nothing was shown."""
    opening = session.open_bucket

    def open_bucket(url, *, topic, **options):
        if topic == "a":
            shutil.rmtree("bucket/manifests/a", ignore_errors=True)
        return opening(url, topic=topic, **options)

    monkeypatch.setattr(session, "open_bucket", open_bucket)
    ran = chronik("-d", bucket, "topic", "list", "--json")

    assert (0, ["b"]) == (ran.code, [each["topic"] for each in ran.objects])


@pytest.mark.parametrize(
    "verb", ["status", "topic list", "topic describe b", "cursor list b", "verify", "verify b"]
)
def test_of_a_directory_too_what_is_damaged_is_named_beside_the_rest(chronik, bucket, verb):
    """`verify` ended there, all but `status` left it out and ended with 0."""
    shutil.rmtree("data/wal/b/0")
    ran = chronik(*verb.split())

    assert 4 == ran.code, (ran.out, ran.err)
    assert "wal/b/0 has no WAL file" in (ran.out if verb.startswith("verify") else ran.err)
    if verb in {"status", "topic list", "verify"}:
        assert {"a", "c"} <= {line[0] for line in ran.lines if line}
    assert 0 == chronik("topic", "describe", "a").code


def test_a_topic_of_a_bucket_is_described_as_it_is_listed(chronik, bucket):
    [listed] = [each for each in chronik("-d", bucket, "topic", "list", "--json").objects
                if each["topic"] == "a"]  # fmt: skip
    parts = chronik("-d", bucket, "topic", "describe", "a", "--json").objects

    assert [each["partition"] for each in parts] == [0, 1]
    assert sum(each["committed"] - each["start"] for each in parts) == listed["records"]
    assert sum(each["bucket_bytes"] for each in parts) == listed["bytes"] > 0
    ran = chronik("-d", bucket, "topic", "describe", "nosuch")
    assert (ran.code, "holds no manifest of nosuch/0" in ran.err) == (2, True)
