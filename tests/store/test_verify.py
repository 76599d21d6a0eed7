"""Whatever is damaged or missing becomes a finding; what is whole becomes none; nothing changes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from chronik_store import LogConfig, LogStore, open_bucket
from chronik_store.environment import Environment
from chronik_store.errors import UnavailableError
from chronik_store.format.control import DropPrefix
from chronik_store.objectstore.local import LocalObjectStore
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.verify import bucket as bucket_checks

CONFIG = LogConfig(
    pipeline_enabled=False,
    indexing_enabled=False,
    segment_bytes=2000,
    local_segment_bytes=4000,
    cache_disk_bytes=0,
    disk_reserve_bytes=0,
    disk_throttle_bytes=0,
)
URL = "file:///bucket"


def open_store(disk: SimulatedDisk, *, read_only: bool = False, **changes: Any) -> LogStore:
    env = Environment(fs=disk, threads=MortalThreads())
    config = CONFIG.replace(**changes)
    return LogStore.open("/data", object_store=URL, config=config, env=env, read_only=read_only)


def filled(segments: int = 3) -> SimulatedDisk:
    """A closed store with tiered segments, local copies of the newest, and records behind them."""
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        for number in range(5 * segments):
            log.append([b"%06d" % number + b"v" * 300])
            if number % 5 == 4:
                log.seal()
                assert log.run_pipeline_once().errors == ()
        log.append([b"in the wal only"])
    return disk.kill()


def findings(disk: SimulatedDisk, *, bucket: bool = True, deep: bool = True) -> list[Any]:
    with open_store(disk, read_only=True, accept_suspect=True) as store:
        return list(store.partition("t").verify(bucket=bucket, deep=deep).findings)


def the_worst(disk: SimulatedDisk, **options: bool) -> list[tuple[str, str]]:
    return [(each.severity, each.where) for each in findings(disk, **options)]


def one(disk: SimulatedDisk, below: str, number: int = 0) -> str:
    return disk.paths(below)[number]


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_log_has_no_findings_and_the_counts_say_what_was_looked_at(deep: bool) -> None:
    disk = filled()
    with open_store(disk, read_only=True) as store:
        report = store.partition("t").verify(bucket=True, deep=deep)
    assert report.findings == ()
    assert report.ok
    assert report.objects_checked == 4
    assert report.files_checked >= 3
    assert report.bytes_checked > 0


def steps_of(disk: SimulatedDisk, **options: bool) -> list[tuple[int, int]]:
    steps: list[tuple[int, int]] = []
    with open_store(disk, read_only=True, accept_suspect=True) as store:
        store.partition("t").verify(progress=lambda *step: steps.append(step), **options)
    return steps


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("bucket", [False, True])
def test_it_says_how_far_it_has_come_and_ends_where_it_said(bucket: bool, deep: bool) -> None:
    steps = steps_of(filled(), bucket=bucket, deep=deep)

    done = [step[0] for step in steps]
    assert done == sorted(done)
    assert {steps[-1][0]} == {step[1] for step in steps}


def test_it_moves_within_a_segment_and_within_a_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """There was one step for each partition."""
    monkeypatch.setattr(bucket_checks, "READ_BYTES", 100)
    disk = SimulatedDisk()
    with open_store(disk, segment_bytes=1 << 28, indexing_enabled=True) as store:
        store.create_topic("t")
        log = store.partition("t")
        for number in range(8):
            log.append([b"%d" % number + b"v" * 1_000_000])
        log.seal()
        assert log.run_pipeline_once().indexed == 1
        [segment] = log._core.manifest.segments  # type: ignore[union-attr]
    steps: list[tuple[int, int]] = []
    env = Environment(fs=disk, threads=MortalThreads())
    with open_bucket(URL, topic="t", config=CONFIG, env=env) as log:
        log.verify(deep=True, progress=lambda *step: steps.append(step))

    sizes = [after[0] - before[0] for before, after in itertools.pairwise([(0, 0), *steps])]
    assert max(sizes) < segment.size_bytes / 3
    assert segment.bundle is not None
    assert segment.bundle.size_bytes // 100 <= sum(size == 100 for size in sizes)


def test_what_is_read_twice_because_it_is_damaged_leads_not_beyond_the_end() -> None:
    disk = filled()
    disk.flip_bit(one(disk, "/bucket/segments"), 400)
    steps = steps_of(disk, bucket=True, deep=True)

    assert max(done for done, _ in steps) == steps[-1][1]
    assert steps == sorted(steps)


def test_verify_changes_nothing() -> None:
    disk = filled()
    before = {path: disk.peek(path) for path in disk.paths("/")}
    findings(disk)
    assert {path: disk.peek(path) for path in disk.paths("/")} == before


def test_a_missing_segment_object_is_corruption() -> None:
    disk = filled()
    path = one(disk, "/bucket/segments")
    disk.vanish(path)
    assert the_worst(disk, deep=False) == [("corruption", path.removeprefix("/bucket/"))]


def test_a_segment_object_of_another_size_is_corruption() -> None:
    disk = filled()
    disk.truncate(one(disk, "/bucket/segments"), 100)
    assert [severity for severity, _ in the_worst(disk, deep=False)] == ["corruption"]


@pytest.mark.parametrize("position", [10, 400, 900])
def test_a_flipped_bit_in_an_object_is_found_by_a_deep_check(position: int) -> None:
    disk = filled()
    path = one(disk, "/bucket/segments")
    disk.flip_bit(path, position)
    assert the_worst(disk, deep=True) == [("corruption", path.removeprefix("/bucket/"))]


def test_a_flipped_bit_in_a_local_segment_is_found_and_says_where() -> None:
    disk = filled()
    path = one(disk, "/data/segments")
    disk.flip_bit(path, 500)
    assert the_worst(disk, bucket=False, deep=True) == [("corruption", path)]


def test_each_damage_is_found_beside_the_others() -> None:
    disk = filled()
    disk.vanish(one(disk, "/bucket/segments", 0))
    disk.flip_bit(one(disk, "/bucket/segments", 0), 500)
    disk.flip_bit(one(disk, "/data/segments"), 500)
    assert [severity for severity, _ in the_worst(disk)] == ["corruption"] * 3


def test_a_missing_or_foreign_published_manifest_is_corruption() -> None:
    disk = filled()
    path = one(disk, "/bucket/manifests", -1)
    disk.flip_bit(path, 60)
    assert the_worst(disk, deep=False) == [("corruption", "published manifest")]
    disk.vanish(path)
    assert the_worst(disk, deep=False) == [("corruption", "published manifest")]


def test_a_damaged_wal_file_is_found() -> None:
    disk = filled()
    path = one(disk, "/data/wal", -1)
    position = disk.peek(path).index(b"in the wal only")
    disk.flip_bit(path, position)
    severities = {severity for severity, _ in the_worst(disk, bucket=False)}
    assert "corruption" in severities


def test_an_object_that_nothing_names_is_noted_and_kept() -> None:
    disk = filled()
    store = LocalObjectStore(
        disk, "/bucket", entropy=Environment().entropy, clock=Environment().clock
    )
    key = f"segments/t/0/{100:020}-{101:020}-9-{'0' * 16}.seg"
    store.put_if_absent(key, b"stray")
    with open_store(disk, read_only=True) as opened:
        report = opened.partition("t").verify(bucket=True)
    assert [(each.severity, each.where) for each in report.findings] == [("note", key)]
    assert report.ok
    assert store.head(key) is not None


def test_garbage_and_intents_are_named_objects() -> None:
    disk = filled()
    with open_store(disk) as store:
        log = store.partition("t")
        log.drop_before(5)
        assert log.verify(bucket=True).findings == ()
        core = log._core
        assert core is not None
        core.propose(DropPrefix(offset=10, reason="test", clock_us=0), term=core.leader_term())
        assert log.verify(bucket=True, deep=True).findings == ()


def test_a_bucket_that_is_down_is_a_warning_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = filled()

    def down(*_arguments: Any, **_options: Any) -> Any:
        raise UnavailableError("503")

    with open_store(disk, read_only=True) as store:
        log = store.partition("t")
        for name in ("head", "get", "get_range", "list"):
            monkeypatch.setattr(LocalObjectStore, name, down)
        report = log.verify(bucket=True)
    assert {each.severity for each in report.findings} == {"warning"}
    assert "could not be checked: 503" in report.findings[0].message
    assert not report.ok


def test_verify_runs_beside_a_writer() -> None:
    disk = filled()
    with open_store(disk) as writer:
        log = writer.partition("t")
        for number in range(20):
            log.append([b"more %d" % number + b"v" * 300])
            if number % 5 == 0:
                log.run_pipeline_once()
            with open_store(disk.another_process(), read_only=True) as reader:
                assert reader.partition("t").verify(bucket=True, deep=True).findings == ()


def test_a_log_opened_from_the_bucket_alone_is_verified_too() -> None:
    disk = filled()
    env = Environment(fs=disk, threads=MortalThreads())
    with open_bucket(URL, topic="t", env=env) as log:
        assert log.verify(deep=True).findings == ()
    disk.flip_bit(one(disk, "/bucket/segments"), 500)
    with open_bucket(URL, topic="t", env=env) as log:
        assert [each.severity for each in log.verify(deep=True).findings] == ["corruption"]


def test_files_that_somebody_removed_under_their_writer_are_found() -> None:
    """It reads them on through its descriptors, which was called whole."""
    disk = SimulatedDisk()
    with open_store(disk, wal_file_bytes=4096) as store:
        store.create_topic("t")
        log = store.partition("t")
        for _ in range(3):
            log.append(bytes(3000))
        assert log.verify().findings == ()
        paths = sorted(path for path in disk.walk("/data/wal/t/0"))
        assert len(paths) > 1

        for path in paths:
            disk.remove(path)

        found = log.verify().findings
        assert {("corruption", path) for path in paths} == {(f.severity, f.where) for f in found}
