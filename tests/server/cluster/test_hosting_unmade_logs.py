"""A log that its node could not make, or had not finished making, when its process ended."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from chronik_server.hosting import Hosting
from chronik_server.hosting_notes import ANEW_NAME, UNMADE_NAME
from chronik_server.metadata_commands import Command, DropTopic, MakeTopic
from chronik_store import replicated
from chronik_store.errors import CorruptionError, UnavailableError
from chronik_store.log_store import LogStore
from tests.server.cluster.one_hosting import BACK, EVENTS, MOVED, A, B, Here, fold, on_node

OLDER = MakeTopic("older", "11" * 16, ("12" * 16, "13" * 16), 2, (("1", "2"), ("1", "2")))
NEWER = MakeTopic("newer", "21" * 16, ("22" * 16,), 2, (("1", "2"),))
ELSEWHERE = MakeTopic("elsewhere", B, ("99" * 16,), 2, (("2", "3"),))
GONE = "is gone from this node's disk"


class EndedError(Exception):
    """The process."""


def suspect(here: Here, name: str, partition: int = 0) -> bool:
    replica = here.hosting.partitions[name, partition].core.replica
    assert replica is not None
    return replica.suspect


def refuse(monkeypatch: pytest.MonkeyPatch, topic: str, partition: int = 0) -> None:
    """To make this one: an older namesake has not left, or the disk is full."""
    plain = replicated.install_partition

    def install(store: LogStore, name: str, *arguments: Any) -> None:
        if name == topic and arguments[-1] == partition:
            raise UnavailableError("not yet")
        plain(store, name, *arguments)

    monkeypatch.setattr(replicated, "install_partition", install)


@pytest.mark.parametrize("partition", [0, 1])
def test_one_that_could_not_be_made_while_a_newer_one_was_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, partition: int
) -> None:
    """It has promised nothing, so it needs no leader to be trusted; and of two copies one without a
    vote stops both.
    """

    async def first(here: Here) -> None:
        with monkeypatch.context() as patch:
            refuse(patch, "older", partition)
            for _ in range(2):
                await here.hosting.reconcile(fold(OLDER, NEWER))
        assert {"older", "newer"} == {
            lane[0] for lane in (*here.hosting.unopened, *here.hosting.partitions)
        }
        assert [("newer", 0)] == list(here.hosting.partitions)
        assert {OLDER.topic_id} == replicated.remembered_ids(here.store, UNMADE_NAME)

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(OLDER, NEWER))
        assert {} == here.hosting.unopened
        assert not any(suspect(here, "older", number) for number in range(2))
        assert frozenset() == replicated.remembered_ids(here.store, UNMADE_NAME)

    on_node(tmp_path, first, second)
    assert not [each for each in caplog.messages if GONE in each]
    # From here on one that is not there is lost.
    shutil.rmtree(tmp_path / "1/wal/older/1")

    async def third(here: Here) -> None:
        await here.hosting.reconcile(fold(OLDER, NEWER))
        assert [False, True] == [suspect(here, "older", number) for number in range(2)]

    on_node(tmp_path, third)


def test_one_that_was_to_be_made_when_another_one_left_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The process ended in between: the fold of the removal is noted, which has the new topic."""

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))

    async def second(here: Here) -> None:
        def ends(*_: object) -> None:
            raise EndedError

        with monkeypatch.context() as patch:
            patch.setattr(replicated, "remove_partition", ends)
            with pytest.raises(EndedError):
                await here.hosting.reconcile(fold(*MOVED, NEWER))
        assert {} == here.hosting.partitions

    async def third(here: Here) -> None:
        await here.hosting.reconcile(fold(*MOVED, NEWER))
        assert [("newer", 0)] == list(here.hosting.partitions)
        assert not suspect(here, "newer")
        assert frozenset() == replicated.remembered_ids(here.store, UNMADE_NAME)

    on_node(tmp_path, first, second, third)
    assert not [each for each in caplog.messages if GONE in each]


def test_it_is_not_made_on_an_old_fold_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have moved since; and a log of it that lies here takes no part before the others."""

    async def first(here: Here) -> None:
        with monkeypatch.context() as patch:
            refuse(patch, "older", 1)
            await here.hosting.reconcile(fold(OLDER, NEWER))
        assert [True, False] == [here.holds("older", number) for number in range(2)]

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(OLDER))
        assert {} == here.hosting.partitions
        assert not here.holds("older", 1)
        await here.hosting.reconcile(fold(OLDER, NEWER))
        assert {("older", 0), ("older", 1), ("newer", 0)} == set(here.hosting.partitions)

    on_node(tmp_path, first, second)


def test_no_fold_is_noted_before_what_could_not_be_made_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first(here: Here) -> None:
        with monkeypatch.context() as patch:
            refuse(patch, "older")

            def fails(*_: object) -> None:
                raise UnavailableError("the disk is full")

            patch.setattr(replicated, "remember_ids", fails)
            await here.hosting.reconcile(fold(OLDER, NEWER))
        assert 0 == replicated.remembered(here.store, "FOLDED")
        assert {} == here.hosting.partitions

    on_node(tmp_path, first)


def test_what_was_deleted_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(here: Here) -> None:
        with monkeypatch.context() as patch:
            refuse(patch, "older")
            await here.hosting.reconcile(fold(OLDER, NEWER))
        assert {OLDER.topic_id} == replicated.remembered_ids(here.store, UNMADE_NAME)
        await here.hosting.reconcile(fold(OLDER, NEWER, DropTopic(OLDER.topic_id)))
        assert frozenset() == replicated.remembered_ids(here.store, UNMADE_NAME)

    on_node(tmp_path, act)


def test_one_that_was_made_and_not_listed_yet_when_its_process_ended_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that moved here: its WAL was there, its topic was not; it could never be opened."""

    async def first(here: Here) -> None:
        def ends(*_: object) -> None:
            raise EndedError

        with monkeypatch.context() as patch:
            patch.setattr(type(here.store._directory.topics), "put", ends)
            with pytest.raises(EndedError):
                await here.hosting.reconcile(fold(*BACK))
        assert here.holds("events", 0)

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(*BACK))
        assert {} == here.hosting.unopened
        assert here.runs(A, 0)
        assert suspect(here, "events")

    on_node(tmp_path, first, second)


def test_one_that_was_made_and_not_listed_before_its_topic_was_deleted_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node was down when it was. A topic of that name could never be opened there."""
    namesake = MakeTopic("events", B, ("33" * 16,), 1, (("1",),))

    async def first(here: Here) -> None:
        def ends(*_: object) -> None:
            raise EndedError

        with monkeypatch.context() as patch:
            patch.setattr(type(here.store._directory.topics), "put", ends)
            with pytest.raises(EndedError):
                await here.hosting.reconcile(fold(EVENTS))
        assert here.holds("events", 0)

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS, DropTopic(A), namesake))
        assert {} == here.hosting.unopened
        assert here.runs(B, 0)
        assert not suspect(here, "events")
        assert here.hosting.partitions["events", 0].core.identity.log_id == "33" * 16

    on_node(tmp_path, first, second)
    kept = list((tmp_path / "1/quarantine/events/0").rglob("*.log"))
    assert 1 == len(kept), "what no list names is never deleted"


@pytest.mark.parametrize("first_fold", [None, (), (ELSEWHERE,)])
def test_26_an_old_fold_does_not_end_the_doubt_about_lost_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_fold: tuple[Command, ...] | None
) -> None:
    """A process begins with one: what it says is here is not all that is."""

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(ELSEWHERE, EVENTS))

    async def second(here: Here) -> None:
        def ends(*_: object) -> None:
            raise EndedError

        with monkeypatch.context() as patch:
            patch.setattr(Hosting, "_suspect", ends)
            with pytest.raises(EndedError):
                await here.hosting.reconcile(fold(ELSEWHERE, EVENTS))
        assert here.holds("events", 0)

    async def third(here: Here) -> None:
        if first_fold is not None:
            await here.hosting.reconcile(fold(*first_fold))
        assert 1 == replicated.remembered(here.store, ANEW_NAME)
        await here.hosting.reconcile(fold(ELSEWHERE, EVENTS))
        assert suspect(here, "events")
        assert 0 == replicated.remembered(here.store, ANEW_NAME)

    on_node(tmp_path, first)
    shutil.rmtree(tmp_path / "1/wal/events/0")
    on_node(tmp_path, second, third)


def test_an_only_copy_that_is_gone_keeps_no_other_in_doubt(tmp_path: Path) -> None:
    alone = MakeTopic("alone", B, ("99" * 16,), 1, (("1",),))

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(alone, EVENTS))

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(alone, EVENTS, NEWER))
        assert [("alone", 0)] == list(here.hosting.unopened)
        assert suspect(here, "events")

    async def third(here: Here) -> None:
        await here.hosting.reconcile(fold(alone, EVENTS, NEWER))
        assert not suspect(here, "newer")

    on_node(tmp_path, first)
    for name in ("events", "alone"):
        shutil.rmtree(tmp_path / f"1/wal/{name}/0")
    on_node(tmp_path, second, third)


def test_ids_are_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    async def act(here: Here) -> None:
        assert frozenset() == replicated.remembered_ids(here.store, UNMADE_NAME)
        for ids in ({A}, {A, B}, frozenset[str]()):
            replicated.remember_ids(here.store, UNMADE_NAME, ids)
            assert ids == replicated.remembered_ids(here.store, UNMADE_NAME)
        for damaged in ("aa", f"{A} 0123456789abcdef", f"{A},{B}\n"):
            (tmp_path / "1" / UNMADE_NAME).write_text(damaged)
            with pytest.raises(CorruptionError, match=UNMADE_NAME):
                replicated.remembered_ids(here.store, UNMADE_NAME)

    on_node(tmp_path, act)
