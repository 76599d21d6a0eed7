"""Search bundles that are lost or damaged in the bucket are found, and built anew on request."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import chronik_store as chronik
from chronik_store import bundles as room
from chronik_store import restore
from chronik_store.bundles import Bundles
from chronik_store.errors import ConfigError, LogClosedError, UnavailableError
from chronik_store.log_store import LogStore
from chronik_store.model import BundlesFound, BundlesRebuilt
from chronik_store.objectstore.base import ObjectNotFoundError
from chronik_store.objectstore.layout import parse_bundle_key
from chronik_store.pipeline import index
from chronik_store.testing.faulty_object_store import Fault, FaultyObjectStore, Operation

CONFIG = chronik.LogConfig(
    pipeline_enabled=False, disk_reserve_bytes=0, disk_throttle_bytes=0, garbage_seconds=0.0
)


def opened(path: Path, **changes: Any) -> LogStore:
    url = f"file://{path}/bucket"
    return LogStore.open(path / "data", object_store=url, config=CONFIG.replace(**changes))


class Case:
    """A log of some segments of ten records, each with its bundle in the bucket."""

    def __init__(self, path: Path, store: LogStore, segments: int = 3) -> None:
        self.path = path
        self.store = store
        store.create_topic("t")
        self.log = store.partition("t")
        for number in range(segments):
            self.log.append([b"%d needle" % (10 * number + each) for each in range(10)])
            self.log.seal()
        self.drain()
        core = self.log._core
        assert core is not None
        self.core = core
        self.bundles = Bundles(store, core)
        self.first = self.listed()
        assert segments == len(self.first)

    def listed(self) -> list[str]:
        listed = (segment.bundle for segment in self.core.manifest.segments)
        return [each.key for each in listed if each is not None]

    def drain(self) -> None:
        while not (report := self.log.run_pipeline_once()).idle:
            assert () == report.errors

    def file(self, key: str) -> Path:
        return self.path / "bucket" / key

    def fail(self) -> FaultyObjectStore:
        """Put a bucket that may fail before the real one."""
        bucket, pipeline = self.store._bucket, self.store._assembly.pipeline
        away = FaultyObjectStore(bucket.store, clock=self.core.env.clock)
        bucket.store = away
        pipeline._tiering = dataclasses.replace(pipeline._tiering, store=away)
        return away

    def damage(self, key: str) -> None:
        """One byte of it."""
        data = bytearray(self.file(key).read_bytes())
        data[len(data) // 2] ^= 0xFF
        self.file(key).write_bytes(data)


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    with opened(tmp_path) as store:
        yield Case(tmp_path, store)


def cut(case: Case, key: str) -> None:
    case.file(key).write_bytes(case.file(key).read_bytes()[:-1])


@pytest.mark.parametrize("harm", [Case.damage, cut, lambda case, key: case.file(key).unlink()])
def test_what_is_lost_or_damaged_is_found_by_every_byte_and_nothing_else(
    case: Case, harm: Callable[[Case, str], None]
) -> None:
    assert BundlesFound(()) == case.bundles.find()
    harm(case, case.first[1])

    assert BundlesFound((case.first[1],)) == case.bundles.find()
    assert BundlesFound(tuple(case.first)) == case.bundles.find(everything=True)


def test_all_that_there_are_are_named_without_a_look_at_the_bucket(case: Case) -> None:
    away = case.fail()
    away.outage = True

    assert BundlesFound(tuple(case.first)) == case.bundles.find(everything=True)
    assert [] == away.calls


def test_a_look_ends_in_time_at_its_most_keys_and_goes_on_where_it_ended(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in case.first:
        case.damage(key)

    hurried = case.bundles.find(seconds=0.0)
    assert BundlesFound((case.first[0],), 10) == hurried  # one in any case
    assert BundlesFound((case.first[1],), 20) == case.bundles.find(10, seconds=0.0)
    assert BundlesFound((case.first[2],)) == case.bundles.find(20, seconds=0.0)
    assert BundlesFound(tuple(case.first[1:])) == case.bundles.find(15)
    monkeypatch.setattr(room, "BUNDLE_KEYS_MAX", 2)
    assert BundlesFound(tuple(case.first[:2]), 20) == case.bundles.find(everything=True)


def test_a_bucket_that_does_not_answer_is_no_bucket_without_damage(case: Case) -> None:
    away = case.fail()
    operations: tuple[Operation, ...] = ("head", "range")
    for operation in operations:
        away.add(Fault("unavailable", operation, times=None))
        with pytest.raises(UnavailableError):
            case.bundles.find()
        away.clear()
    assert BundlesFound(()) == case.bundles.find()


def test_what_went_while_it_was_looked_at_is_not_lost(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dropped(*_: Any, **__: Any) -> None:
        case.log.drop_before(10)
        case.drain()
        monkeypatch.undo()
        raise ObjectNotFoundError("it was there a moment ago")

    monkeypatch.setattr(room, "check_bundle", dropped)

    assert BundlesFound(()) == case.bundles.find()
    assert not case.file(case.first[0]).exists()


def test_they_are_built_anew_and_listed_and_published_while_the_others_stay(case: Case) -> None:
    case.damage(case.first[0])
    case.file(case.first[2]).unlink()
    published = case.core.manifest.published_number
    found = case.bundles.find()

    assert BundlesRebuilt(2) == case.bundles.rebuild(found.keys)

    assert case.first[1] == case.listed()[1]
    assert not {case.first[0], case.first[2]} & set(case.listed())
    assert BundlesFound(()) == case.bundles.find()
    assert case.core.manifest.published_number > published
    case.drain()
    assert not case.file(case.first[0]).exists(), "the damaged one is garbage"
    with chronik.open_bucket(f"file://{case.path}/bucket", topic="t") as log:
        assert 30 == log.search("needle", limit=1, require_complete=True).total


def test_who_asks_again_has_nothing_built_twice(case: Case) -> None:
    """An answer may be lost, or another may have asked for the same."""
    asked = case.bundles.rebuild(case.first[:1])
    now = case.listed()

    assert BundlesRebuilt(1) == asked == case.bundles.rebuild(case.first[:1])
    assert now == case.listed()


def test_a_step_is_bounded_and_names_what_waits(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        case = Case(tmp_path, store, segments=6)

        assert BundlesRebuilt(4, tuple(case.first[4:])) == case.bundles.rebuild(case.first)
        assert BundlesRebuilt(2) == case.bundles.rebuild(case.first[4:])


def test_what_was_asked_for_is_built_also_when_nobody_asks_on(case: Case) -> None:
    away = case.fail()
    away.outage = True
    found = case.bundles.rebuild(case.first)
    assert (0, tuple(case.first)) == (found.rebuilt, found.waiting)
    assert found.errors
    away.outage = False
    case.drain()

    assert not set(case.first) & set(case.listed())


def test_what_is_asked_for_while_a_run_looks_is_not_forgotten(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run had passed its segment, and then found that every segment has its bundle."""
    plain = index.is_readable
    pipeline = case.store._assembly.pipeline

    def asked(info: Any) -> bool:
        if info.key == case.first[-1]:
            pipeline.rebuild_indexes(case.core, case.first[:1])
        return plain(info)

    monkeypatch.setattr(index, "is_readable", asked)
    pipeline._lanes["t", 0].all_indexed = None  # as if no run had looked yet
    assert 0 == case.log.run_pipeline_once().indexed
    monkeypatch.undo()

    assert 1 == case.log.run_pipeline_once().indexed
    assert case.first[0] not in case.listed()


def test_what_was_dropped_meanwhile_neither_waits_nor_counts_as_built(case: Case) -> None:
    case.log.drop_before(10)
    case.drain()

    assert BundlesRebuilt(1) == case.bundles.rebuild(case.first[:2])


def test_a_log_that_does_not_lead_builds_none_and_says_so(case: Case) -> None:
    case.core.leader_term = lambda: None  # type: ignore[method-assign]
    before = case.core.manifest

    found = case.bundles.rebuild(case.first)

    assert BundlesRebuilt(0, tuple(case.first), found.errors) == found
    assert "not led here" in str(found.errors)
    assert before == case.core.manifest


def test_a_log_that_was_taken_over_builds_none_and_says_so(case: Case) -> None:
    restore(f"file://{case.path}/bucket", case.path / "again")
    said = [str(case.bundles.rebuild(case.first).errors) for _ in range(2)]
    assert "has claimed the folder" in said[0]
    assert "fenced: " in said[1]


@pytest.mark.parametrize("key", ["", "indexes/t", "indexes/u/partition-0/", "segments/"])
def test_keys_of_something_else_are_refused(case: Case, key: str) -> None:
    name = case.first[0].rpartition("/")[2]
    wrong = f"{key}{name}" if key.endswith("/") else key

    with pytest.raises(ConfigError, match="no search bundle of t/0"):
        case.bundles.rebuild([wrong])
    assert case.first == case.listed()


def test_where_indexing_is_off_none_would_be_built(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        keys = Case(tmp_path, store).first
    with opened(tmp_path, indexing_enabled=False) as store:
        bundles = Bundles(store, store.partition("t")._writable())
        for call in (bundles.find, lambda: bundles.rebuild(keys)):
            with pytest.raises(ConfigError, match="indexing is off"):
                call()


def test_a_log_that_is_closed_is_said_to_be(case: Case) -> None:
    case.store.close()
    for call in (case.bundles.find, lambda: case.bundles.rebuild(case.first)):
        with pytest.raises(LogClosedError):
            call()


def test_a_key_tells_which_segment_a_successor_is_of(case: Case) -> None:
    """`rebuilt` rests on it."""
    runs = [parse_bundle_key(key) for key in case.first]
    assert [(0, 10), (10, 20), (20, 30)] == [run[2:4] for run in runs if run is not None]
