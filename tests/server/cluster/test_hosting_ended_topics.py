"""What a node does about topics that end: a namesake takes nothing over, and none keeps others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from pathlib import Path

import pytest

from chronik_server import deletions
from chronik_server.hosting_notes import TOLD_NAME
from chronik_server.metadata_commands import (
    DropTopic,
    MakeTopic,
)
from chronik_store import replicated
from chronik_store.errors import UnavailableError
from chronik_store.log_store import LogStore
from chronik_store.replicated import remembered
from tests.server.cluster.one_hosting import EVENTS, LOG, A, B, Here, fold, on_node


def test_6_a_namesake_waits_until_the_old_topic_has_left_and_takes_nothing_over(
    tmp_path: Path,
) -> None:
    namesake = MakeTopic("events", B, ("11" * 16,), 1, (("1",),))

    async def act(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        state = fold(EVENTS, DropTopic(A), namesake)
        await here.hosting.reconcile(state)
        assert (False, True) == (here.runs(A, 0), here.runs(B, 0))
        part = here.hosting.partitions["events", 0]
        assert (B, "11" * 16) == (part.core.identity.topic_id, part.core.identity.log_id)
        assert (A,) == await here.hosting.stopped(state) == here.hosting.cleared(state)

    on_node(tmp_path, act)


def test_6_a_namesake_never_begins_in_the_log_of_the_topic_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    namesake = MakeTopic("events", B, ("11" * 16,), 1, (("1",),))

    def away(*_: object) -> None:
        raise UnavailableError("not now")

    async def act(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        state = fold(EVENTS, DropTopic(A), namesake)
        with monkeypatch.context() as patch:
            patch.setattr("chronik_store.replicated.delete_topics_here", away)
            await here.hosting.reconcile(state)
        assert (False, False) == (here.runs(A, 0), here.runs(B, 0))
        assert here.hosting.running(state.topics["events"], 0) is None
        await here.hosting.reconcile(state)
        assert here.runs(B, 0)

    on_node(tmp_path, act)


def test_6_a_partition_is_found_by_its_topics_id(tmp_path: Path) -> None:
    namesake = MakeTopic("events", B, ("11" * 16,), 1, (("1",),))

    async def act(here: Here) -> None:
        old, new = fold(EVENTS), fold(EVENTS, DropTopic(A), namesake)
        await here.hosting.reconcile(old)
        assert here.hosting.running(old.topics["events"], 0) is not None
        assert here.hosting.running(old.topics["events"], 1) is None
        assert here.hosting.running(new.topics["events"], 0) is None
        here.hosting.close_stale(old)
        assert here.runs(A, 0)
        here.hosting.close_stale(new)
        assert not here.runs(A, 0)

    on_node(tmp_path, act)


def test_6_nothing_is_reported_as_gone_before_its_end_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The topic was forgotten, and a node that ended then made its copy once more, for good."""
    state = fold(EVENTS, DropTopic(A))
    may_note, plain = threading.Event(), replicated.remember

    def slow(store: LogStore, name: str, number: int) -> None:
        if name == TOLD_NAME:
            may_note.wait()
        plain(store, name, number)

    async def act(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        here.hosting.close_stale(state)
        telling = asyncio.ensure_future(here.hosting.stopped(state))
        try:
            await here.hosting.reconcile(state)
            assert not here.holds("events", 0)
            assert () == here.hosting.cleared(state)
        finally:
            may_note.set()
        assert (A,) == await telling == here.hosting.cleared(state)

    monkeypatch.setattr(replicated, "remember", slow)
    on_node(tmp_path, act)


def test_6_what_a_node_said_is_stopped_stays_stopped_over_a_restart(tmp_path: Path) -> None:
    """A fold that begins anew may have the topic once more, and others count on its end."""
    dropped = (EVENTS, DropTopic(A))

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert () == await here.hosting.stopped(fold(*dropped))  # it runs
        here.hosting.close_stale(fold(*dropped))
        assert (A,) == await here.hosting.stopped(fold(*dropped))
        assert 2 == remembered(here.store, TOLD_NAME)

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert (False, True) == (here.runs(A, 0), here.holds("events", 0))
        await here.hosting.reconcile(fold(*dropped))
        assert not here.holds("events", 0)

    on_node(tmp_path, first, second)


def test_6_what_metadata_does_not_name_is_never_removed(tmp_path: Path) -> None:
    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold())
        state = fold(MakeTopic("other", B, (LOG,), 1, (("2",),)), DropTopic(B), DropTopic(B))
        await here.hosting.reconcile(state)
        assert here.holds("events", 0)
        assert not here.runs(A, 0)

    on_node(tmp_path, first, second)


def test_what_a_thread_still_does_is_waited_for_though_its_task_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It removes the files of a log that the end of this process would write to."""
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slowly(*_: object) -> None:
        begun.set()
        assert go_on.wait(10)
        ended.set()

    async def act(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        monkeypatch.setattr("chronik_store.replicated.delete_topics_here", slowly)
        task = asyncio.ensure_future(here.hosting.reconcile(fold(EVENTS, DropTopic(A))))
        await asyncio.get_running_loop().run_in_executor(None, begun.wait)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        asyncio.get_running_loop().call_soon(go_on.set)
        await here.hosting.settle()
        assert ended.is_set()

    on_node(tmp_path, act)


def test_a_deleted_topic_goes_though_no_header_of_its_files_can_be_read(tmp_path: Path) -> None:
    """Nobody tells this node any more which log that was."""

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))

    async def second(here: Here) -> None:
        state = fold(EVENTS, DropTopic(A))
        await here.hosting.reconcile(state)
        assert not here.holds("events", 0)
        assert (A,) == await here.hosting.stopped(state) == here.hosting.cleared(state)

    on_node(tmp_path, first)
    for path in (tmp_path / "1/wal/events/0").glob("*.log"):
        with path.open("r+b") as file:
            file.write(b"?")
    on_node(tmp_path, second)


def test_a_deletion_that_waits_for_the_bucket_keeps_nothing_else_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each deleted topic stood in front of all others, for as long as the bucket was asked."""
    go_on, calls = threading.Event(), []
    plain = replicated.delete_topics_here

    def slowly(store: LogStore, topic_ids: Collection[str]) -> None:
        calls.append(topic_ids)
        assert go_on.wait(10)
        plain(store, topic_ids)

    others = [
        MakeTopic(name, 16 * pair, (16 * log,), 1, (("1",),))
        for name, pair, log in (("x", "1a", "1b"), ("y", "2a", "2b"), ("new", "3a", "3b"))
    ]
    drops = [DropTopic(topic.topic_id) for topic in others[:2]]

    async def act(here: Here) -> None:
        await here.hosting.reconcile(fold(*others[:2]))
        monkeypatch.setattr(deletions, "WAIT_SECONDS", 0.05)
        monkeypatch.setattr("chronik_store.replicated.delete_topics_here", slowly)
        state = fold(*others, *drops)
        for _ in range(2):
            await here.hosting.reconcile(state)
        assert here.runs(others[2].topic_id, 0)
        assert 1 == len(calls)
        assert set(calls[0]) == {topic.topic_id for topic in others[:2]}
        go_on.set()
        monkeypatch.setattr(deletions, "WAIT_SECONDS", 10.0)
        await here.hosting.reconcile(state)
        assert (False, False) == (here.holds("x", 0), here.holds("y", 0))

    on_node(tmp_path, act)
