"""What repair promises, in the shapes in which `chronik simulate` found it broken."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from chronik_store import LogStore
from chronik_store.errors import CorruptionError, UnavailableError
from chronik_store.format.entry import EntryKind
from chronik_store.format.frame import FrameKind, decode_frame, frame_entry
from chronik_store.format.wal_file import decode_wal_file_header
from chronik_store.log_identity import NO_ID
from chronik_store.objectstore.base import PutOutcome
from chronik_store.objectstore.local import LocalObjectStore
from chronik_store.partition_log import PartitionLog
from chronik_store.repair import PartitionRepair, apply_repair, plan_repair
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.testing.tree import failure
from chronik_store.wal.wal import Wal
from tests.store.test_repair import CONFIG, damage, env_of, everything, open_store, value, values

IN_THE_CHECKPOINT = 600


def logs(disk: SimulatedDisk) -> list[str]:
    return [path for path in disk.paths("/data/wal") if path.endswith(".log")]


def plan_of(disk: SimulatedDisk) -> PartitionRepair:
    before = everything(disk)
    [plan] = plan_repair("/data", config=CONFIG, env=env_of(disk))
    assert before == everything(disk)
    return plan


def repaired(disk: SimulatedDisk) -> PartitionRepair:
    [plan] = apply_repair("/data", config=CONFIG, env=env_of(disk))
    return plan


def filled(store: LogStore, numbers: range) -> PartitionLog:
    if not store.topics():
        store.create_topic("t")
    log = store.partition("t")
    for number in numbers:
        log.append([value(number)])
    return log


def tier(log: PartitionLog) -> None:
    log.seal()
    assert log.run_pipeline_once().errors == ()


def damage_checkpoints(disk: SimulatedDisk) -> None:
    for path in logs(disk):
        disk.flip_bit(path, IN_THE_CHECKPOINT)


def fail_sync_of(directory: str) -> Callable[[int, str, str], None]:
    def hook(_number: int, operation: str, path: str) -> None:
        if (operation, path) == ("sync_directory", directory):
            raise failure(errno.EIO, path)

    return hook


def position_of(disk: SimulatedDisk, kind: EntryKind) -> tuple[str, int]:
    """Where the newest entry of a kind stands: file and byte."""
    for path in reversed(logs(disk)):
        view = memoryview(disk.peek(path))
        header = decode_wal_file_header(view)
        at = header.header_bytes
        while (frame := decode_frame(view, at, file_id=header.file_id)) is not None:
            at = frame.next_position
            if frame.kind == FrameKind.ENTRY and frame_entry(view, frame)[0].kind == kind:
                return path, frame.payload_start
    raise AssertionError(kind)


def test_a_log_without_any_checkpoint_is_in_the_bucket() -> None:
    """It said that the bucket had nothing, and gave the offsets from 0 on out again."""
    with open_store(disk := SimulatedDisk()) as store:
        tier(filled(store, range(20)))
    disk = disk.kill()
    damage_checkpoints(disk)

    plan = plan_of(disk)

    assert ("restore", 20) == (plan.action, plan.tiered_offset)


def test_a_log_without_any_checkpoint_and_bucket_begins_anew_under_its_own_id() -> None:
    """Its id was nobody's, so that its files were those of two logs until they were moved."""
    with open_store(disk := SimulatedDisk()) as store:
        core = filled(store, range(5))._core
        assert core is not None
        log_id = core.identity.log_id
    disk = disk.kill()
    damage_checkpoints(disk)
    assert ("go_on", 0, 0) == (
        (plan := plan_of(disk)).action,
        plan.end_offset,
        plan.tiered_offset,
    )
    with LogStore.open(
        "/data", config=CONFIG.replace(accept_suspect=True), env=env_of(disk)
    ) as store:
        core = store.partition("t")._core
        assert core is not None
        core.begin()  # and here a repair was cut off
        assert log_id == core.identity.log_id

    repaired(disk)

    assert values(disk) == []
    with open_store(disk) as store:
        tier(filled(store, range(100, 105)))
    assert values(disk) == [value(number) for number in range(100, 105)]


def test_a_log_of_which_no_header_is_left_gets_an_id() -> None:
    with open_store(disk := SimulatedDisk()) as store:
        filled(store, range(5))
    disk = disk.kill()
    for path in logs(disk):
        disk.flip_bit(path, 40)
    assert "go_on" == repaired(disk).action
    with open_store(disk) as store:
        core = filled(store, range(1))._core
        assert core is not None
        assert NO_ID != core.identity.log_id


@pytest.mark.parametrize("refused", [False, True])
def test_what_was_sealed_and_given_up_is_kept_and_in_nobodys_way(
    refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pruning of local segments stood still for ever: they "cut the log differently". And where
    the sync of its name in quarantine failed, it was nowhere after the next power loss.
    """

    puts = LocalObjectStore.put_if_absent

    def fails(store: LocalObjectStore, key: str, data: bytes) -> PutOutcome:
        if key.startswith(("segments/", "manifests/")):
            raise UnavailableError("not now")
        return puts(store, key, data)

    monkeypatch.setattr(LocalObjectStore, "put_if_absent", fails)
    with open_store(disk := SimulatedDisk()) as store:
        log = filled(store, range(10))
        log.seal()
        assert log.run_pipeline_once().errors
    monkeypatch.undo()
    [sealed] = disk.paths("/data/segments")
    kept = disk.peek(sealed)
    damage(disk := disk.kill(), 5)
    assert ("go_on", 5) == ((plan := repaired(disk)).action, plan.end_offset)

    with open_store(disk) as store:
        log = filled(store, range(50, 60))
        log.seal()
        if refused:
            disk.hook = fail_sync_of("/data/quarantine/t/0")
            assert any("quarantine" in error for error in log.run_pipeline_once().errors)
            disk.hook = None
        assert log.run_pipeline_once().errors == ()
        tier(filled(store, range(60, 61)))
        assert log.run_pipeline_once().errors == ()
        assert log.verify(bucket=True, deep=True).findings == ()

    assert [] == disk.paths("/data/segments")
    disk = disk.crash("lost")
    name = sealed.rpartition("/")[2]
    assert kept == disk.peek(f"/data/quarantine/t/0/{name}")
    assert values(disk) == [value(number) for number in (*range(5), *range(50, 61))]


def test_what_a_repair_could_not_move_is_not_lost() -> None:
    """The sync of its name failed; the next one of the WAL made it durable that it was gone."""
    with open_store(disk := SimulatedDisk()) as store:
        filled(store, range(30))
    damage(disk := disk.kill(), 5)
    plan = plan_of(disk)
    whole = [disk.peek(path) for path in plan.files]
    assert ("go_on", True) == (plan.action, len(whole) > 1)
    disk.hook = fail_sync_of("/data/quarantine/t/0")
    with pytest.raises(UnavailableError, match="cannot move damaged files"):
        repaired(disk)
    disk.hook = None
    repaired(disk)
    with open_store(disk) as store:
        filled(store, range(50, 51))
    disk = disk.crash("lost")

    left = [disk.peek(path) for path in disk.paths("/data") if path.endswith(".log")]
    assert all(each in left for each in whole)
    assert values(disk) == [value(number) for number in (*range(5), 50)]


def test_a_lost_file_without_records_is_missed() -> None:
    """What it held belongs to the next segment. The log opened, and could never upload again; what
    was appended from then on was in no tier for whoever read on from before.
    """
    with open_store(disk := SimulatedDisk()) as store:
        tier(filled(store, range(10)))
    disk = disk.kill()
    with open_store(disk) as store:
        filled(store, range(10, 15))
    disk = disk.kill()
    for path in logs(disk)[:-1]:
        disk.vanish(path)
    before = everything(disk)

    with pytest.raises(CorruptionError, match=r"what was before entry .* is lost"):
        values(disk)

    plan = plan_of(disk)
    assert ("restore", 10, 10, 15) == (
        plan.action,
        plan.tiered_offset,
        plan.first_offset,
        plan.end_offset,
    )
    after = everything(disk)
    assert {path: before[path] for path in logs(disk)} == {path: after[path] for path in logs(disk)}


@pytest.mark.parametrize("kind", [EntryKind.DROP_PREFIX, EntryKind.ADD_SEGMENT])
def test_where_the_bucket_was_changed_behind_the_damage_repair_points_to_restore(
    kind: EntryKind,
) -> None:
    """It went on with a log that listed objects which were deleted, and was fenced."""
    with LogStore.open(
        "/data", config=CONFIG.replace(garbage_seconds=0.0), env=env_of(disk := SimulatedDisk())
    ) as store:
        tier(filled(store, range(10)))
        log = filled(store, range(10, 20))
        tier(log)
        log.drop_before(10)
        assert log.run_pipeline_once().errors == ()
    disk = disk.kill()
    disk.flip_bit(*position_of(disk, kind))

    plan = plan_of(disk)

    assert ("restore", 20) == (plan.action, plan.tiered_offset)


def test_where_only_the_word_of_it_was_lost_the_log_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The newest manifest is the log as it is: the next run adopts it."""
    monkeypatch.setattr(Wal, "remove_files", lambda _self, _through_seq: (0, 0))
    with open_store(disk := SimulatedDisk()) as store:
        tier(filled(store, range(10)))
    disk = disk.kill()
    monkeypatch.undo()
    disk.flip_bit(*position_of(disk, EntryKind.PUBLISHED))
    plan = plan_of(disk)
    assert ("go_on", 10, 10) == (plan.action, plan.end_offset, plan.tiered_offset)

    repaired(disk)

    with open_store(disk) as store:
        log = filled(store, range(10, 15))
        tier(log)
        assert log.verify(bucket=True, deep=True).findings == ()
    assert values(disk) == [value(number) for number in range(15)]


def test_a_damaged_file_that_was_dropped_and_not_published_goes_to_quarantine() -> None:
    """It stayed, and the log was as suspect after each repair as before."""
    with open_store(disk := SimulatedDisk()) as store:
        filled(store, range(5)).seal()
    disk = disk.kill()
    with open_store(disk) as store:
        filled(store, range(5, 10)).drop_before(5)
    disk = disk.kill()
    damaged = logs(disk)[0]
    disk.flip_bit(damaged, IN_THE_CHECKPOINT)

    plan = repaired(disk)

    assert ("go_on", 10, (damaged,)) == (plan.action, plan.end_offset, plan.files)
    assert values(disk) == [value(number) for number in range(5, 10)]
    assert "none" == plan_of(disk).action


def test_what_is_in_the_bucket_and_not_published_yet_is_set_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It gave up all behind the damage, though the log knew of each segment that held it."""
    puts = LocalObjectStore.put_if_absent

    def fails(store: LocalObjectStore, key: str, data: bytes) -> PutOutcome:
        if key.startswith("manifests/"):
            raise UnavailableError("not now")
        return puts(store, key, data)

    monkeypatch.setattr(LocalObjectStore, "put_if_absent", fails)
    with open_store(disk := SimulatedDisk()) as store:
        log = filled(store, range(20))
        log.seal()
        assert log.run_pipeline_once().errors
    monkeypatch.undo()
    disk = disk.kill()
    with open_store(disk) as store:
        filled(store, range(20, 30))
    damage(disk := disk.kill(), 5)

    plan = repaired(disk)

    assert ("set_aside", 30, 0) == (plan.action, plan.end_offset, plan.tiered_offset)
    assert values(disk) == [value(number) for number in range(30)]
    with open_store(disk) as store:
        tier(log := store.partition("t"))
        assert log.verify(bucket=True, deep=True).findings == ()
    assert values(disk) == [value(number) for number in range(30)]


def test_what_is_left_begins_behind_what_was_dropped() -> None:
    """The line to paste began with an offset that a reader refuses."""
    with open_store(disk := SimulatedDisk()) as store:
        filled(store, range(5))
    disk = disk.kill()
    with open_store(disk) as store:
        filled(store, range(5, 10)).drop_before(7)
    disk = disk.kill()
    disk.flip_bit(logs(disk)[0], IN_THE_CHECKPOINT)

    plan = plan_of(disk)

    assert ("take_out", 7, 10) == (plan.action, plan.first_offset, plan.end_offset)
    with LogStore.open("/data", config=CONFIG, env=env_of(disk), read_only=True) as store:
        left = [record.value for record in store.partition("t").scan(plan.first_offset)]
    assert [value(number) for number in range(7, 10)] == left
