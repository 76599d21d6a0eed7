"""A change that stops half-way (no memory, Ctrl-C) ends the log before anything is built on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import chronik_store as chronik
from chronik_store.append_path import AppendPath
from chronik_store.commit.committer import Committer
from chronik_store.environment import Environment
from chronik_store.errors import LogPoisonedError
from chronik_store.format.control import Seal
from chronik_store.manifest.state import FoldedState
from chronik_store.testing.simulated_disk import SimulatedDisk
from chronik_store.wal import entry_table, group_commit
from chronik_store.wal.durable import DurableLimit
from chronik_store.wal.entry_table import EntryTable
from chronik_store.wal.stageable import StageableWal
from chronik_store.wal.staging import Staging
from chronik_store.wal.tail import MemoryTail
from tests.store.tasks import Task, at_each_step, at_each_two_steps

CONFIG = chronik.LogConfig(pipeline_enabled=False)
OutOfMemory = Callable[..., Any]


def open_log(tmp_path: Any) -> chronik.PartitionLog:
    return chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG)


def values(log: chronik.PartitionLog) -> list[bytes]:
    return [record.value for record in log.scan()]


def fails_once(
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    error: type[BaseException],
    *,
    late: bool,
) -> None:
    """`owner.name` raises at its next call: before it has done anything, or after all of it."""
    inner = getattr(owner, name)
    left = [1]

    def call(*args: Any, **kwargs: Any) -> Any:
        if not left[0]:
            return inner(*args, **kwargs)
        left[0] -= 1
        if late:
            inner(*args, **kwargs)
        raise error("injected")

    monkeypatch.setattr(owner, name, call)


INSIDE = [
    (EntryTable, "append"),
    (Staging, "add"),
    (MemoryTail, "append"),
    (DurableLimit, "stage"),
    (FoldedState, "note_records"),
    (StageableWal, "stage_entry"),
    (AppendPath, "_stage_locked"),
]


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("owner", "name"), INSIDE, ids=[f"{owner.__name__}.{name}" for owner, name in INSIDE]
)
def test_what_was_acknowledged_is_there_after_an_interrupted_append(
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    late: bool,
    error: type[BaseException],
) -> None:
    log = open_log(tmp_path)
    log.append(b"0")
    acknowledged, refusals = [b"0"], []
    fails_once(monkeypatch, owner, name, error, late=late)

    with pytest.raises(error):
        log.append(b"interrupted")
    for value in (b"1", b"2"):
        try:
            log.append(value)
        except LogPoisonedError as refused:
            refusals.append(refused.durability)
        else:
            acknowledged.append(value)
    log.close()
    assert set(refusals) <= {"not_durable"}

    with open_log(tmp_path) as again:
        assert again.recovery.verdict == "clean"
        assert [value for value in values(again) if value != b"interrupted"] == acknowledged


@pytest.mark.parametrize(("owner", "name"), [*INSIDE[:5], (AppendPath, "_join_locked")])
def test_an_append_in_flight_learns_of_a_later_one_that_was_interrupted(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    log = open_log(tmp_path)
    log.append(b"0")
    monkeypatch.setattr(Committer, "notify", lambda *_: None)
    in_flight = log.append_nowait(b"1")
    fails_once(monkeypatch, owner, name, MemoryError, late=False)

    with pytest.raises(MemoryError):
        log.append_nowait(b"interrupted")

    with pytest.raises(LogPoisonedError) as caught:
        in_flight.result(0)
    assert caught.value.durability == "unknown"
    log.close()
    with open_log(tmp_path) as again:
        assert values(again) == [b"0"]


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Staging, "add"), (FoldedState, "note_command"), (StageableWal, "stage_rotation")],
)
def test_a_command_that_stops_half_way_ends_the_log(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    log = open_log(tmp_path)
    log.append(b"0")
    fails_once(monkeypatch, owner, name, MemoryError, late=False)

    with pytest.raises(MemoryError):
        log.seal()
    with pytest.raises(LogPoisonedError):
        log.append(b"1")
    log.close()

    with open_log(tmp_path) as again:
        assert again.recovery.verdict == "clean"
        assert values(again) == [b"0"]


def test_a_command_that_cannot_be_encoded_changes_nothing(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_log(tmp_path) as log:
        log.append(b"0")
        fails_once(monkeypatch, Seal, "encode", ValueError, late=False)

        with pytest.raises(ValueError, match="injected"):
            log.seal()
        log.append(b"1")
        assert values(log) == [b"0", b"1"]


def test_a_fold_that_stops_half_way_ends_the_log(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(tmp_path)
    log.append(b"0")
    fails_once(monkeypatch, FoldedState, "_fold", MemoryError, late=False)

    with pytest.raises(MemoryError):
        log.seal()
    with pytest.raises(LogPoisonedError):
        log.append(b"1")
    log.close()

    with open_log(tmp_path) as again:
        assert again.watermarks.sealed == 1
        assert values(again) == [b"0"]


def test_a_start_that_stops_half_way_is_not_made_twice(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(tmp_path)
    fails_once(monkeypatch, StageableWal, "_stage_file", MemoryError, late=False)

    with pytest.raises(MemoryError):
        log.append(b"0")
    with pytest.raises(LogPoisonedError):
        log.append(b"1")
    log.close()

    with open_log(tmp_path) as again:
        assert again.append(b"2") == (0, 1, False)


def test_whoever_waits_for_a_group_whose_leader_is_interrupted_gets_a_typed_error(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group was on disk and its records were not committed: it was an AssertionError."""
    log = open_log(tmp_path)
    log.append(b"0")
    wal = log._core.wal
    others: list[Task] = []
    write = wal._active.write

    def others_come(*args: Any) -> None:
        if not others:
            others.append(Task(lambda: wal.lead(wal.last_seq)))
            while not wal._commit._waiters:
                pass
        write(*args)

    def interrupted(*_: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(wal._active, "write", others_come)
    monkeypatch.setattr(FoldedState, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        log.append(b"1")
    with pytest.raises(LogPoisonedError):
        others[0].outcome()
    log.close()


def test_a_log_that_ctrl_c_ended_at_any_step_of_its_table_can_be_looked_at() -> None:
    """What stood in one of its columns and not in all of them was an IndexError of `status`."""
    for ctrl_c in at_each_step(entry_table):
        env = Environment(fs=SimulatedDisk(seed=1))
        with chronik.LogStore.open("/d", config=CONFIG, env=env) as store:
            store.create_topic("t")
            log = store.partition("t")
            log.append(b"1")
            with ctrl_c:
                log.append(b"2")
            assert not [each for each in log.verify().findings if each.severity == "corruption"]
            assert log.status().watermarks.end in {1, 2}
            assert b"1" == values(log)[0]


def test_ctrl_c_twice_leaves_no_future_open_and_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second one met who was about to tell: nobody was told any more, also by `close`, or the
    lead was lost, for which appends waited, and `close`.
    """
    for ctrl_c in at_each_two_steps(group_commit):
        env = Environment(fs=SimulatedDisk(seed=1))
        store = chronik.LogStore.open("/d", config=CONFIG, env=env)
        store.create_topic("t")
        log = store.partition("t")
        log.append(b"0")
        with monkeypatch.context() as patch:
            patch.setattr(Committer, "notify", lambda *_: None)
            in_flight = log.append_nowait(b"1")
        with ctrl_c:
            log.append(b"2")
        with suppress(LogPoisonedError):
            Task(lambda log=log: log.append(b"3")).outcome()
        assert in_flight.done()
        Task(store.close).outcome()
