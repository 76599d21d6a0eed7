"""Directories that are damaged: what each verb shows, its exit code, and the way that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chronik_store import LogStore, PartitionLog
from chronik_store.errors import ReadOnlyError, UnavailableError
from chronik_store.restore import _Job


@pytest.fixture
def suspect():
    """A topic `events`: five batches of ten records, the third of them damaged."""
    with PartitionLog.open("data", topic="events") as log:
        for batch in range(5):
            log.append([b"record %d" % (10 * batch + number) for number in range(10)])
    [wal] = Path("data/wal/events/0").glob("*.log")
    data = bytearray(wal.read_bytes())
    data[data.index(b"record 25")] ^= 0xFF
    wal.write_bytes(data)


@pytest.mark.parametrize(
    "verb",
    [
        "consume events",
        "search events record -c",
        "search events nosuch",
        "export events --to events.jsonl",
    ],
)
def test_what_is_good_of_a_suspect_log_is_shown_and_not_taken_for_all(chronik, suspect, verb):
    """It ended with 0, as if nothing more had been there."""
    ran = chronik(*verb.split())

    assert ran.code == 4, ran.err
    if verb.startswith("consume"):
        assert 0 < len(ran.lines) < 25
    assert "may have lost acknowledged entries" in ran.err


def test_who_asked_for_less_than_what_is_good_has_it(chronik, suspect):
    assert chronik("consume", "events", "-n", "5").code == 0


@pytest.mark.parametrize("verb", ["status", "verify", "repair", "produce events /dev/null"])
@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("STORE", "gone", "has topics but no STORE file; restore it from a copy"),
        ("STORE", "damaged", "put the file back from a copy of the directory"),
        ("TOPICS", "gone", "has WAL files but no TOPICS file; restore that file from a copy"),
        ("TOPICS", "damaged", "put the file back from a copy of the directory"),
    ],
)
def test_a_file_that_repair_cannot_mend_is_said_with_what_can(
    chronik, events, verb, name, damage, said
):
    path = Path("data", name)
    if damage == "gone":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    ran = chronik(*verb.split())

    assert (ran.code, said in ran.err) == (4, True), ran.err
    assert "chronik restore" in ran.err
    for wrong in ("read_only", "chronik repair", "chronik verify"):
        assert wrong not in ran.err


def test_repair_promises_nothing_for_a_partition_whose_files_are_gone(chronik, events):
    for path in Path("data/wal/events/0").iterdir():
        path.unlink()
    ran = chronik("repair")

    assert (ran.code, "its WAL files are gone" in ran.out) == (1, True), ran.out
    assert "1 damaged, nothing changed; repair can do nothing about it" in ran.err
    assert "0 repaired, 1 left" in chronik("repair", "--apply").err


@pytest.mark.parametrize("verb", ["status", "produce events /dev/null", "topic create x"])
@pytest.mark.parametrize("files", [["RESTORE"], ["RESTORE", "TOPICS"]])
def test_a_restore_that_was_cut_off_is_taken_up_again_and_nothing_else_is_made_of_it(
    chronik, events, verb, files
):
    """Without a list of topics a new store was made there, and the restore refused from then on."""
    Path("half").mkdir()
    for name in files:
        source = Path("data", name)
        Path("half", name).write_bytes(source.read_bytes() if source.exists() else b"{}")
    ran = chronik("-d", "half", *verb.split())

    if verb == "status" and "TOPICS" not in files:
        assert (ran.code, "is no data directory" in ran.err) == (2, True), ran.err
    else:
        assert (ran.code, "run the same `chronik restore` again" in ran.err) == (4, True), ran.err
    assert not Path("half/STORE").exists()


def test_a_restore_up_to_an_age_goes_on_by_the_time_that_it_meant(chronik, events, monkeypatch):
    words = ("restore", f"file://{Path.cwd()}/data/object_store", "half", "--yes", "--until")

    def cut_off(*_: object) -> None:
        raise UnavailableError("the disk is away")

    with monkeypatch.context() as patch:
        patch.setattr(_Job, "_complete", cut_off)
        first = chronik(*words, "0s")
    assert (first.code, "the disk is away" in first.err) == (3, True), first.err
    again = chronik(*words, "0s")
    assert (again.code, "unfinished restore" in again.err) == (2, True), again.err

    (time,) = re.findall(r"go on with --until (\S+)", first.err)
    ran = chronik(*words, time)
    assert (ran.code, "go on with" in ran.err) == (0, False), ran.err


@pytest.mark.parametrize(
    ("kind", "code", "said", "advice"),
    [
        ("*.seg", 4, "offsets 0 to 49 cannot be read", "bring it back from a copy of the bucket"),
        (
            "*.tar.gz",
            1,
            "its bytes are not those",
            "run `chronik rebuild-index`, with -s if a node has the directory",
        ),
        ("*2.cbor", 4, "its checksum does not match", "bring it back from a copy of the bucket"),
    ],
)
def test_a_damaged_object_is_named_once_with_what_helps(chronik, events, kind, code, said, advice):
    """`repair` looks at a WAL: it says of all of these that there is nothing to do."""
    (damaged,) = Path("data/object_store").rglob(kind)
    body = bytearray(damaged.read_bytes())
    body[300] ^= 1
    damaged.write_bytes(body)

    ran = chronik("-d", f"file://{Path.cwd()}/data/object_store", "verify", "--bucket", "--deep")

    told = ran.out + ran.err
    assert ran.code == code, told
    assert said in told
    assert told.rstrip().endswith(advice)
    assert told.count(damaged.name) == 1
    assert "repair" not in told


@pytest.mark.parametrize("cursor", [False, True])
def test_what_stands_before_a_damaged_segment_is_shown(chronik, events, cursor):
    """Up to 64 KiB of it, all of a small log, went with the error."""
    with PartitionLog.open("data", topic="events") as log:
        log.seal()
        assert not log.run_pipeline_once().errors
    damaged = max(Path("data/object_store").rglob("*.seg"))
    body = bytearray(damaged.read_bytes())
    body[300] ^= 1
    damaged.write_bytes(body)

    ran = chronik("consume", "events", *(["--cursor", "mine"] if cursor else []))

    assert ran.code == 4, ran.err
    assert ran.lines == events[:50]
    shown = chronik("cursor", "list", "events", "--json").objects
    assert [each["offset"] for each in shown] == ([50] if cursor else [])


@pytest.mark.parametrize("error", [UnavailableError, ReadOnlyError])
def test_behind_a_partition_that_cannot_be_read_the_others_are_verified(
    chronik, events, monkeypatch, error
):
    """What came behind it in the alphabet was never looked at."""
    with PartitionLog.open("data", topic="zz") as log:
        log.append(b"x")
    partition = LogStore.partition

    def opened(store, topic, number=0):
        if topic == "events":
            raise error("cannot look into it: Permission denied")
        return partition(store, topic, number)

    monkeypatch.setattr(LogStore, "partition", opened)
    ran = chronik("verify")

    assert ran.code == 1, ran.err
    assert "events/0: NOT ok" in ran.out
    assert "warning: events/0: could not be checked: cannot look into it" in ran.out
    assert "zz/0: ok" in ran.out
    first, second = chronik("verify", "--json").objects
    assert (first["ok"], first["findings"][0]["severity"]) == (False, "warning")
    assert second["ok"]


def test_what_was_taken_apart_before_a_file_that_is_none_is_shown(chronik, events):
    Path("none").write_bytes(b"nothing of Chronik's")

    ran = chronik("inspect", "data/STORE", "none")

    assert ran.code == 2
    assert any(line.startswith("STORE ") for line in ran.lines)
