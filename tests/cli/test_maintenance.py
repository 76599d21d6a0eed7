"""The verbs that look after what is stored: verify, inspect, repair, restore, doctor."""

from __future__ import annotations

import gzip
import itertools
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from chronik_store import LogStore, PartitionLog
from chronik_store.cli import anatomy, doctor, rebuilding, terminal
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import Progress
from chronik_store.clock import SystemClock
from chronik_store.errors import UnavailableError
from chronik_store.model import BundlesFound, BundlesRebuilt
from chronik_store.objectstore.memory import MemoryObjectStore
from chronik_store.testing.faulty_object_store import Fault, FaultyObjectStore
from tests.cli.test_terminal import Screen


def test_a_sound_store_verifies(chronik, events):
    ran = chronik("verify", "--bucket", "--deep", "--json")

    assert (0, True) == (ran.code, ran.objects[0]["ok"])


@pytest.mark.parametrize("verb", ["verify --bucket --deep", "rebuild-index"])
def test_how_far_it_has_come_is_shown_on_a_terminal_and_never_on_stdout(
    chronik, events, monkeypatch, verb
):
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    ran = chronik("--json", *verb.split())

    assert 0 == ran.code
    assert "events/0" in screen.getvalue()
    assert "\x1b" in screen.getvalue()
    assert 1 == len(ran.objects)


def test_a_look_at_many_bundles_says_how_far_it_has_come(monkeypatch):
    """For minutes nothing was shown: all of them are read for it."""
    seen = []

    @contextmanager
    def progress(label, total, *, unit):
        yield Progress(
            SimpleNamespace(update=lambda _, **step: seen.append((label, *step.values())))
        )

    monkeypatch.setattr(rebuilding, "progress", progress)
    keys = rebuilding._wanted(Steps(5), "events/0", 5, everything=False)

    assert 5 == len(keys)
    assert [("look at events/0", done, 5) for done in (2, 4, 5)] == seen


def test_the_bundles_of_a_directory_are_looked_at_a_while_at_a_time(chronik, events):
    """Lest one partition is one step."""
    session = Session("data")
    with session.writing_store(pipeline_enabled=False) as store:
        log = store.partition("events")
        for _ in range(2):
            log.append([b"more"])
            log.seal()
            assert not log.run_pipeline_once().errors
        bundles = session.bundles_of(store, log)
        store._env.clock.monotonic = itertools.count().__next__
        found = bundles.find(0, everything=True)

    assert (1, 50) == (len(found.keys), found.next_offset)


def test_a_damaged_object_is_found(chronik, events):
    (segment,) = Path("data/object_store/segments").rglob("*.seg")
    flip(segment, 300)

    ran = chronik("verify", "--bucket", "--deep")

    assert 4 == ran.code
    assert "corruption" in ran.out


def test_every_kind_of_file_can_be_inspected(chronik, events):
    files = [path for path in Path("data").rglob("*") if path.suffix in {".log", ".seg", ".cbor"}]
    files += [*Path("data").rglob("*.tar.gz"), *Path("data").rglob("STORE")]

    ran = chronik("inspect", "--json", *files)

    assert 0 == ran.code, ran.err
    seen = {each["structure"] for each in ran.objects}
    assert {"WAL file", "frame CHECKPOINT", "frame ENTRY", "segment", "entry", "segment footer",
            "manifest", "file", "STORE"} <= seen  # fmt: skip
    assert 0 == chronik("inspect", *files).code


def test_damage_is_shown_where_it_is_and_what_follows_it_too(chronik, events):
    wal = max(Path("data/wal/events/0").glob("*.log"), key=lambda path: path.stat().st_size)
    first = chronik("inspect", "--json", wal).objects
    flip(wal, next(each["position"] for each in first if each["structure"] == "frame ENTRY") + 20)

    ran = chronik("inspect", "--json", wal)

    assert 4 == ran.code
    assert "damage" in {each["structure"] for each in ran.objects}


def test_the_names_in_a_manifest_reach_a_terminal_escaped(chronik, monkeypatch):
    """They are the fields of records that are JSON."""
    with PartitionLog.open("data", topic="events") as log:
        log.append([json.dumps({f"field {n}\x1b[2J": n}).encode() for n in range(20)])
        log.seal()
        while not log.run_pipeline_once().idle:
            pass
    manifest = max(Path("data/object_store/manifests").rglob("*.cbor"))
    assert "\x1b" in chronik("inspect", manifest).out
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(terminal, "is_terminal", lambda _: True)

    shown = chronik("inspect", manifest).out

    assert ("\x1b" in shown, r"field 1\x1b[2J" in shown) == (False, True)


def bundle_of(data: str) -> Path:
    (bundle,) = Path(data).rglob("*.tar.gz")
    return bundle


def test_a_search_bundle_says_what_it_is_of(chronik, events):
    head, *files = chronik("inspect", "--json", bundle_of("data")).objects

    assert ("search bundle", 0, 50) == tuple(
        head[name] for name in ("structure", "base_offset", "end_offset")
    )
    assert head["members"] == len(files) > 3
    assert {"file"} == {each["structure"] for each in files}


@pytest.mark.parametrize("named", [True, False])
def test_each_flipped_bit_of_a_search_bundle_is_damage(chronik, events, named):
    """It was a traceback, or nothing at all: no checksum was looked at."""
    bundle = bundle_of("data")
    sound, path = bundle.read_bytes(), str(bundle) if named else "copy.tar.gz"
    for bit in [*range(16, 80), *range(80, len(sound) * 8, 37)]:
        data = bytearray(sound)
        data[bit // 8] ^= 1 << bit % 8
        found = {what for what, _ in anatomy.items_of(bytes(data), path)}
        if "damage" not in found:  # what is packed is the same: only its name has a hash of all
            assert not named
            assert gzip.decompress(data) == gzip.decompress(sound)


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.99])
def test_half_a_search_bundle_is_damage(chronik, events, cut):
    bundle = bundle_of("data")
    data = bundle.read_bytes()
    bundle.write_bytes(data[: int(len(data) * cut)])

    ran = chronik("inspect", bundle)

    assert (ran.code, "Traceback" in ran.err) == (4, False), ran.err
    assert "damage  message=" in ran.out
    assert "run `chronik rebuild-index`" in ran.out


def test_a_bundle_whose_file_is_not_what_it_announces_is_damage(chronik, events):
    """As its gzip member is whole, only the checksums in bundle.cbor tell."""
    data = bytearray(gzip.decompress(bundle_of("data").read_bytes()))
    data[data.index(b"meta.json", 4000) + 600] ^= 1
    Path("forged.tar.gz").write_bytes(gzip.compress(data))

    ran = chronik("inspect", "forged.tar.gz")

    assert (ran.code, "meta.json does not match its checksum" in ran.out) == (4, True), ran.out


def test_records_behind_damage_are_taken_out_and_appended_again(chronik):
    """What a log goes on without is still in its file: nobody has to write a program for it."""
    with PartitionLog.open("data", topic="events") as log:
        for value in (b"one", b"two", b"three"):
            log.append(value)
    (wal,) = (path for path in Path("data/wal/events/0").iterdir() if b"two" in path.read_bytes())
    frames = chronik("inspect", "--json", wal).objects
    flip(wal, [each["position"] for each in frames if each.get("entry") == "RECORDS"][1] + 200)

    ran = chronik("inspect", "--records", wal)

    assert [("one", 0), ("three", 2)] == [(each["value"], each["offset"]) for each in ran.objects]
    assert 4 == ran.code
    assert "damage in" in ran.err
    assert ["one"] == [
        each["value"] for each in chronik("inspect", "--records", "-n", "1", wal).objects
    ]
    Path("lost").write_text(ran.lines[1] + "\n")
    assert 0 == chronik("-d", "other", "produce", "events", "--records", "lost").code
    assert ["three"] == chronik("-d", "other", "consume", "events").lines
    assert 2 == chronik("inspect", "--records", "data/STORE").code


def test_a_file_of_somebody_elses_is_refused(chronik):
    Path("x").write_text("hello")

    assert 2 == chronik("inspect", "x").code
    assert 3 == chronik("inspect", "nowhere").code


def test_a_damaged_log_is_repaired_only_when_told(chronik):
    Path("in").write_text("one\ntwo\n")
    assert 0 == chronik("produce", "events", "in").code
    assert 0 == chronik("repair").code
    (wal,) = (path for path in Path("data/wal/events/0").iterdir() if path.stat().st_size > 4096)
    frames = chronik("inspect", "--json", wal).objects
    flip(wal, next(each["position"] for each in frames if each.get("entry") == "RECORDS") + 200)

    assert 1 == chronik("repair").code
    assert 4 == chronik("produce", "events", "in").code
    assert 0 == chronik("repair", "--apply").code
    assert 0 == chronik("produce", "events", "in").code
    assert ["one", "two"] == chronik("consume", "events").lines


def test_a_bucket_becomes_a_data_directory_again(chronik, events):
    url = f"file://{Path.cwd()}/bucket"
    Path("data/object_store").rename("bucket")

    asked = chronik("restore", url, "again", "--json")
    assert (2, False) == (asked.code, Path("again").exists())
    assert "say --yes" in asked.err
    restored = chronik("restore", url, "again", "--yes", "--json")

    assert (0, [(0, 50)]) == (
        restored.code,
        [(log["start_offset"], log["end_offset"]) for log in restored.objects],
    )
    assert events[:50] == chronik("-d", "again", "consume", "events").lines
    Path("in").write_text("more\n")
    assert 0 == chronik("-d", "again", "produce", "events", "in").code
    assert ["50 more"] == chronik(
        "-d", "again", "consume", "events", "--from", "-1", "--format", r"%o %v\n"
    ).lines


def test_a_restore_that_ended_right_before_its_last_word_is_said_to_be_done(
    chronik, events, tmp_path, monkeypatch
):
    """Run again it does nothing, which is not for want of topics."""
    url = f"file://{tmp_path}/data/object_store"
    with monkeypatch.context() as patch:
        module = sys.modules["chronik_store.restore"]  # its name is a function's
        patch.setattr(module, "remove_plan", lambda _directory: None)  # killed in front of it
        assert 0 == chronik("restore", url, "again", "--yes").code
    ran = chronik("restore", url, "again", "--yes")
    assert 0 == ran.code
    assert "had been restored" in ran.err
    assert "no topics" not in ran.err
    assert events[:50] == chronik("-d", "again", "consume", "events").lines


def test_a_lost_search_bundle_is_built_anew(chronik, events):
    (bundle,) = Path("data/object_store/indexes").rglob("*.tar.gz")
    bundle.unlink()

    found = chronik("verify", "--bucket", "--deep")
    assert (1, True) == (found.code, "run `chronik rebuild-index`, with -s if" in found.out)
    assert "chronik repair" not in found.out, "there is nothing to repair"
    rebuilt = chronik("rebuild-index", "--json")

    assert (0, [1]) == (rebuilt.code, [each["rebuilt"] for each in rebuilt.objects])
    assert 0 == chronik("verify", "--bucket", "--deep").code
    assert ["10"] == chronik("search", "events", "full", "-c").lines
    assert 0 == chronik("rebuild-index", "--json").objects[0]["rebuilt"]
    assert 1 == chronik("rebuild-index", "events", "--all", "--json").objects[0]["rebuilt"]


def test_where_indexing_is_off_a_rebuild_is_refused(chronik, events, monkeypatch):
    monkeypatch.setenv("CHRONIK_WAL_INDEXING_ENABLED", "false")
    ran = chronik("rebuild-index", "--all")

    assert 2 == ran.code
    assert "indexing is off" in ran.err


def test_a_rebuild_in_a_fenced_directory_ends_and_says_why(chronik, events, tmp_path):
    assert 0 == chronik("restore", f"file://{tmp_path}/data/object_store", "again", "--yes").code
    for _ in range(2):  # it is fenced in the first, and was before the second
        ran = chronik("rebuild-index", "--all")

        assert 3 == ran.code
        assert "0 of 1 rebuilt" in ran.err
    assert "fenced: " in ran.err


class Steps:
    """Search bundles of which each step builds or leaves what it is told to."""

    def __init__(self, count, *steps):
        self.keys = tuple(map(str, range(count)))
        self.steps = list(steps)
        self.asked = []

    def find(self, offset, *, everything):
        """Two at a time."""
        more = offset + 2 if offset + 2 < len(self.keys) else None
        return BundlesFound(self.keys[offset : offset + 2], more)

    def rebuild(self, keys):
        self.asked.append(list(keys))
        return self.steps.pop(0)


def test_a_rebuild_asks_on_until_none_waits(monkeypatch, capfd):
    """Segments that have no index yet come first; and so many keys go into one question."""
    monkeypatch.setattr(rebuilding, "BUNDLE_KEYS_MAX", 2)
    steps = Steps(
        3,
        BundlesRebuilt(0, ("0", "1")),
        BundlesRebuilt(1, ("1",), ("the bucket was away for a moment",)),
        BundlesRebuilt(2),
    )

    assert 3 == rebuilding._rebuild(steps, "events/0", 3, everything=True)
    assert [["0", "1"], ["0", "1"], ["1", "2"]] == steps.asked
    assert "" == capfd.readouterr().err


def test_what_retention_took_meanwhile_is_said(capfd):
    assert 1 == rebuilding._rebuild(Steps(3, BundlesRebuilt(1)), "events/0", 3, everything=True)
    assert "events/0: 1 of 3 rebuilt: the others' segments are dropped" in capfd.readouterr().err


def test_a_rebuild_ends_where_nothing_comes_of_it():
    steps = Steps(3, BundlesRebuilt(1, ("1", "2")), BundlesRebuilt(0, ("1", "2"), ("no bucket",)))

    with pytest.raises(UnavailableError, match="events/0: 1 of 3 rebuilt: no bucket"):
        rebuilding._rebuild(steps, "events/0", 3, everything=True)


def test_what_was_built_and_could_not_be_published_is_no_success():
    """Readers of the bucket go on with the old one."""
    steps = Steps(3, BundlesRebuilt(3, (), ("publish: no bucket",)))

    with pytest.raises(UnavailableError, match="events/0: 3 of 3 rebuilt: publish: no bucket"):
        rebuilding._rebuild(steps, "events/0", 3, everything=True)


def test_the_doctor_tries_disk_and_bucket(chronik, tmp_path):
    (tmp_path / "bucket").mkdir()
    ran = chronik("doctor", f"file://{tmp_path}/bucket", "--json")

    assert (0, True) == (ran.code, ran.objects[0]["bucket"]["safe"])


def test_the_doctor_tries_the_bucket_of_the_directory(chronik, tmp_path):
    url = f"file://{tmp_path}/bucket"
    chronik("--object-store", url, "topic", "create", "events")

    assert url == chronik("doctor", "--json").objects[0]["bucket"]["url"]


def test_a_bucket_that_is_bound_for_good_is_said_when_it_is_and_the_doctor_says_whose_it_is(
    chronik, tmp_path
):
    """A mistyped URL that is legal gives a new store at a new place; nobody noticed."""
    url = f"file://{tmp_path}/bucket"
    made = chronik("--object-store", url, "topic", "create", "events")
    assert f"data is a new data directory, and belongs to {url} for good" in made.err
    assert "for good" not in chronik("topic", "create", "others").err
    assert "for good" not in chronik("-d", "plain", "topic", "create", "events").err

    bucket = chronik("doctor", "--json").objects[0]["bucket"]
    assert (None, None) == (bucket["store_id"], bucket["store_is_own"])
    assert "no store is there yet" in chronik("doctor").out

    with LogStore.open("data") as store:
        store.partition("events").append(b"x")
        store.partition("events").seal()
        assert not store.run_pipeline_once().errors
        own = store.status().store_id
    bucket = chronik("doctor", "--json").objects[0]["bucket"]
    assert (own, True) == (bucket["store_id"], bucket["store_is_own"])
    assert f"store {own[:8]}, made 20" in chronik("doctor").out
    asked_about = chronik("-d", "plain", "doctor", url)
    assert (0, True) == (asked_about.code, "not that of plain" in asked_about.out)
    assert 1 == chronik("-d", "plain", "--object-store", url, "doctor").code


def test_the_doctor_does_not_call_a_bucket_unsafe_that_does_not_answer(chronik, monkeypatch):
    bucket = FaultyObjectStore(MemoryObjectStore(), clock=SystemClock())
    bucket.add(Fault("unavailable", skip=4, times=None))
    monkeypatch.setattr(doctor, "open_object_store", lambda *_, **__: bucket)

    ran = chronik("doctor", "memory://x")

    assert 3 == ran.code
    assert "not known to be safe: it did not answer everything" in ran.out
    assert "NOT safe" not in ran.out
    bucket.clear()
    bucket.add(Fault("unavailable", skip=4, times=None))
    assert chronik("doctor", "memory://x", "--json").objects[0]["bucket"]["unanswered"]


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
