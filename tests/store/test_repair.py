"""A damaged WAL opens again by itself, at a price that was named before."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from chronik_store import LogConfig, LogStore
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError, ConfigError, CorruptionError, DirectoryLockedError
from chronik_store.repair import apply_repair, plan_repair
from chronik_store.testing.crash import MortalThreads
from chronik_store.testing.disk_faults import crash_at
from chronik_store.testing.simulated_disk import CrashError, SimulatedDisk

CONFIG = LogConfig(
    pipeline_enabled=False,
    indexing_enabled=False,
    wal_file_bytes=4096,
    segment_bytes=1 << 20,
    cache_disk_bytes=0,
    disk_reserve_bytes=0,
    disk_throttle_bytes=0,
)


def env_of(disk: SimulatedDisk) -> Environment:
    return Environment(fs=disk, threads=MortalThreads())


def open_store(disk: SimulatedDisk) -> LogStore:
    return LogStore.open("/data", config=CONFIG, env=env_of(disk))


def value(number: int) -> bytes:
    return b"%04d" % number + b"v" * 300


def filled(count: int = 30) -> SimulatedDisk:
    """A closed log over several WAL files, nothing tiered."""
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        for number in range(count):
            log.append([value(number)])
    return disk.kill()


def values(disk: SimulatedDisk) -> list[bytes]:
    with open_store(disk) as store:
        return [record.value for record in store.partition("t").scan()]


def damage(disk: SimulatedDisk, number: int) -> None:
    """One bit of a record that was acknowledged."""
    for path in disk.paths("/data/wal"):
        position = disk.peek(path).find(value(number))
        if position >= 0:
            disk.flip_bit(path, position + 50)
            return
    raise AssertionError("no such record in the WAL")


def everything(disk: SimulatedDisk) -> dict[str, bytes]:
    return {path: disk.peek(path) for path in disk.paths("/")}


def test_a_whole_log_needs_nothing() -> None:
    disk = filled()
    [plan] = plan_repair("/data", config=CONFIG, env=env_of(disk))
    assert (plan.verdict, plan.action, plan.end_offset, plan.files) == ("clean", "none", 30, ())
    before = disk.paths("/data/wal")
    apply_repair("/data", config=CONFIG, env=env_of(disk))
    assert disk.paths("/data/wal") == before


def test_planning_changes_nothing() -> None:
    disk = filled()
    damage(disk, 12)
    before = everything(disk)
    [plan] = plan_repair("/data", config=CONFIG, env=env_of(disk))
    assert (plan.verdict, plan.action, plan.end_offset) == ("suspect", "go_on", 12)
    assert plan.findings
    assert everything(disk) == before


def test_applying_goes_on_behind_the_last_good_entry_and_keeps_what_was_given_up() -> None:
    disk = filled()
    damage(disk, 12)
    with pytest.raises(CorruptionError, match="repair"):
        values(disk)
    whole = everything(disk)
    [plan] = apply_repair("/data", config=CONFIG, env=env_of(disk))
    assert values(disk) == [value(number) for number in range(12)]
    kept = {path: disk.peek(path) for path in disk.paths("/data/quarantine")}
    assert len(kept) == len(plan.files) > 0
    assert sorted(kept.values()) == sorted(whole[path] for path in plan.files)
    with open_store(disk) as store:
        log = store.partition("t")
        assert log.append([b"next"]).base_offset == 12
    assert [each.action for each in plan_repair("/data", config=CONFIG, env=env_of(disk))] == [
        "none"
    ]


def test_damage_that_the_bucket_covers_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from chronik_store.wal.wal import Wal

    disk = SimulatedDisk()
    # Tiered and published, but the files are still there: the removal never happened.
    monkeypatch.setattr(Wal, "remove_files", lambda _self, _through_seq: (0, 0))
    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        for number in range(20):
            log.append([value(number)])
        log.seal()
        assert log.run_pipeline_once().errors == ()
        for number in range(20, 40):
            log.append([value(number)])
    monkeypatch.undo()
    disk = disk.kill()
    damage(disk, 7)
    with pytest.raises(CorruptionError):
        values(disk)
    [plan] = plan_repair("/data", config=CONFIG, env=env_of(disk))
    assert (plan.action, plan.end_offset, plan.tiered_offset) == ("set_aside", 40, 20)
    apply_repair("/data", config=CONFIG, env=env_of(disk))
    assert values(disk) == [value(number) for number in range(40)]
    assert [path.rpartition("/")[2] for path in plan.files] == [
        path.rpartition("/")[2] for path in disk.paths("/data/quarantine")
    ]
    with open_store(disk) as store:
        log = store.partition("t")
        log.seal()
        assert log.run_pipeline_once().errors == ()
        assert log.verify(bucket=True, deep=True).findings == ()


def test_damage_is_not_set_aside_when_the_object_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    from chronik_store.wal.wal import Wal

    disk = SimulatedDisk()
    monkeypatch.setattr(Wal, "remove_files", lambda _self, _through_seq: (0, 0))
    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        for number in range(20):
            log.append([value(number)])
        log.seal()
        assert log.run_pipeline_once().errors == ()
    disk = disk.kill()
    damage(disk, 7)
    for path in disk.paths("/data/object_store/segments"):
        disk.vanish(path)
    [plan] = plan_repair("/data", config=CONFIG, env=env_of(disk))
    assert plan.action != "set_aside"


def test_where_the_bucket_has_more_than_the_disk_repair_points_to_restore() -> None:
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t")
        log = store.partition("t")
        for number in range(5):
            log.append([value(number)])
    early = {path: disk.peek(path) for path in disk.paths("/data/wal")}
    with open_store(disk) as store:
        log = store.partition("t")
        for number in range(5, 20):
            log.append([value(number)])
        log.seal()
        assert log.run_pipeline_once().errors == ()
    # The disk is that of a while ago, and damaged on top.
    for path in disk.paths("/data/wal"):
        disk.vanish(path)
    for path, content in early.items():
        file = disk.create(path)
        file.write_at(0, [content])
        file.sync_all()
        file.close()
    disk.sync_directory("/data/wal/t/0")
    damage(disk, 3)
    before = everything(disk)
    [plan] = apply_repair("/data", config=CONFIG, env=env_of(disk))
    assert (plan.action, plan.end_offset, plan.tiered_offset) == ("restore", 3, 20)
    after = everything(disk)
    assert {path: after[path] for path in before if "/wal/" in path} == {
        path: content for path, content in before.items() if "/wal/" in path
    }


def test_only_the_damaged_partition_is_touched() -> None:
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t", partitions=2)
        for number in range(20):
            store.partition("t", 0).append([value(number)])
            store.partition("t", 1).append([value(100 + number)])
    disk = disk.kill()
    damage(disk, 105)
    healthy = {path: disk.peek(path) for path in disk.paths("/data/wal/t/0")}
    plan = apply_repair("/data", config=CONFIG, env=env_of(disk))
    assert [each.action for each in plan] == ["none", "go_on"]
    assert {path: disk.peek(path) for path in disk.paths("/data/wal/t/0")} == healthy


def test_an_open_directory_is_refused() -> None:
    disk = filled()
    with open_store(disk), pytest.raises(DirectoryLockedError):
        apply_repair("/data", config=CONFIG, env=env_of(disk))


def test_a_crash_at_any_call_of_a_repair_loses_no_file_and_is_finished_by_the_next() -> None:
    def calls() -> int:
        disk = filled(20)
        damage(disk, 8)
        disk = disk.kill()
        apply_repair("/data", config=CONFIG, env=env_of(disk))
        return disk.calls

    for call in range(1, calls(), 9):
        disk = filled(20)
        damage(disk, 8)
        contents = [disk.peek(path) for path in disk.paths("/data/wal")]
        disk = disk.kill()
        disk.hook = crash_at(call)
        with suppress(CrashError, ChronikError):
            apply_repair("/data", config=CONFIG, env=env_of(disk))
        disk = disk.crash("any")
        apply_repair("/data", config=CONFIG, env=env_of(disk))
        assert values(disk) == [value(number) for number in range(8)], f"call {call}"
        left: list[Any] = [disk.peek(path) for path in disk.paths("/data")]
        for content in contents:
            assert any(each[: len(content)] == content for each in left), f"call {call}"


def test_a_lost_wal_directory_is_for_restore(tmp_path: Path) -> None:
    config = LogConfig(pipeline_enabled=False)
    with LogStore.open(tmp_path / "d", config=config) as store:
        store.create_topic("t")
        store.partition("t").append([b"x"] * 5)
        store.partition("t").seal()
        assert store.run_pipeline_once().errors == ()
    for path in (tmp_path / "d" / "wal" / "t" / "0").iterdir():
        path.unlink()
    (each,) = plan_repair(tmp_path / "d", config=config)
    assert ("suspect", "restore", 5) == (each.verdict, each.action, each.tiered_offset)


@pytest.mark.parametrize("verb", [plan_repair, apply_repair])
def test_a_path_may_be_what_an_open_takes_and_no_more(verb: Any, tmp_path: Path) -> None:
    LogStore.open(tmp_path / "data", config=CONFIG).close()
    for path in (tmp_path / "data", str(tmp_path / "data"), os.fsencode(tmp_path / "data")):
        assert verb(path, config=CONFIG) == ()
    for path in ("a\0b", "", "s3://bucket/p", b"s3:/bucket/p"):
        with pytest.raises(ConfigError, match="cannot be a data directory"):
            verb(path, config=CONFIG)
    with pytest.raises(TypeError, match="LogConfig"):
        verb(tmp_path / "data", config={})


def test_a_log_whose_beginning_is_damaged_is_taken_out() -> None:
    """It opened no better after a repair that went on with it, and could never upload anything."""
    disk = SimulatedDisk()
    for first in (0, 5):  # each open begins a file
        with open_store(disk) as store:
            if not first:
                store.create_topic("t")
            for number in range(first, first + 5):
                store.partition("t").append([value(number)])
        disk = disk.kill()
    oldest = min(path for path in disk.paths("/data/wal") if path.endswith(".log"))
    disk.flip_bit(oldest, 400)
    before = everything(disk)

    [plan] = apply_repair("/data", config=CONFIG, env=env_of(disk))

    assert ("suspect", "take_out") == (plan.verdict, plan.action)
    assert (5, 10, 0) == (plan.first_offset, plan.end_offset, plan.tiered_offset)
    assert before == everything(disk)
    with LogStore.open("/data", config=CONFIG, env=env_of(disk), read_only=True) as store:
        left = [record.value for record in store.partition("t").scan(plan.first_offset)]
    assert [value(number) for number in range(5, 10)] == left


def test_what_is_damaged_before_the_first_record_is_not_looked_for_in_an_empty_bucket() -> None:
    """It said `restore`, of a bucket that holds nothing."""
    disk = SimulatedDisk()
    with open_store(disk) as store:
        store.create_topic("t")
        store.partition("t").cursor("reader").commit(0)
    disk = disk.kill()
    with open_store(disk) as store:
        store.partition("t").append([value(0)])
    disk = disk.kill()
    oldest = min(path for path in disk.paths("/data/wal") if path.endswith(".log"))
    disk.flip_bit(oldest, 400)

    [plan] = plan_repair("/data", config=CONFIG, env=env_of(disk))

    assert ("suspect", "take_out") == (plan.verdict, plan.action)
    assert (0, 1, 0) == (plan.first_offset, plan.end_offset, plan.tiered_offset)
