"""A log that its node should have and has not: it begins anew without a vote, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from chronik_server.hosting import Hosting
from chronik_server.hosting_notes import (
    ANEW_NAME,
    FOLDED_NAME,
    TOLD_NAME,
    UNMADE_NAME,
    HostingNotes,
)
from chronik_server.metadata import METADATA_TOPIC
from chronik_server.metadata_commands import (
    MakeTopic,
    PlacePartition,
)
from chronik_store import replicated
from chronik_store.errors import CorruptionError
from chronik_store.log_store import LogStore
from tests.server.cluster.one_hosting import BACK, EVENTS, LOG, MOVED, A, B, Here, fold, on_node


def test_a_copy_for_an_older_group_starts_without_a_vote_durably(tmp_path: Path) -> None:
    def replica(here: Here) -> Any:
        return here.hosting.partitions["events", 0].core.replica

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert not replica(here).suspect  # made with its topic: it has promised nothing before
        await here.hosting.reconcile(fold(*MOVED))
        await here.hosting.reconcile(fold(*BACK))
        assert replica(here).suspect

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(*BACK))
        assert replica(here).suspect

    on_node(tmp_path, first, second)


def test_a_copy_that_was_wished_from_the_first_has_a_vote_whatever_was_wished_since(
    tmp_path: Path,
) -> None:
    """Its node was down when the topic was made, or nothing was written before it restarted: of two
    copies one without a vote stops both.
    """
    moved = fold(EVENTS, PlacePartition(A, 0, ("1", "3")))

    async def act(here: Here) -> None:
        await here.hosting.reconcile(moved)
        replica = here.hosting.partitions["events", 0].core.replica
        assert replica is not None
        assert not replica.suspect

    on_node(tmp_path, act, act)
    shutil.rmtree(tmp_path / "1/wal/events/0")

    async def later(here: Here) -> None:
        await here.hosting.reconcile(moved)
        assert here.hosting.partitions["events", 0].core.replica.suspect  # type: ignore[union-attr]

    on_node(tmp_path, later)


def test_a_log_that_is_gone_from_the_disk_begins_anew_without_a_vote(tmp_path: Path) -> None:
    """Protocol 12: it has voted and acknowledged before, and knows of nothing."""

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert not here.hosting.partitions["events", 0].core.replica.suspect  # type: ignore[union-attr]

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert here.hosting.partitions["events", 0].core.replica.suspect  # type: ignore[union-attr]

    on_node(tmp_path, first)
    shutil.rmtree(tmp_path / "1/wal/events/0")
    on_node(tmp_path, second)


def test_a_log_into_which_nothing_was_written_yet_is_not_taken_for_lost(tmp_path: Path) -> None:
    """Both of two nodes had ended before an election: neither had a vote any more, for good."""

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        replica = here.hosting.partitions["events", 0].core.replica
        assert replica is not None
        assert ((0, ""), False) == (replica.hard_state, replica.suspect)

    on_node(tmp_path, first, second)


def test_when_lost_logs_are_made_anew_others_that_are_empty_are_not_taken_for_such(
    tmp_path: Path,
) -> None:
    new = MakeTopic("new", B, ("99" * 16,), 2, (("1", "2"),))

    def suspects(here: Here) -> dict[str, bool]:
        return {
            topic: part.core.replica.suspect  # type: ignore[union-attr]
            for (topic, _), part in here.hosting.partitions.items()
        }

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert {"events": True} == suspects(here)
        assert 0 == replicated.remembered(here.store, ANEW_NAME)
        await here.hosting.reconcile(fold(EVENTS, new))

    async def third(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS, new))
        assert {"events": True, "new": False} == suspects(here)

    on_node(tmp_path, first)
    shutil.rmtree(tmp_path / "1/wal/events/0")
    on_node(tmp_path, second, third)


def test_those_that_were_here_and_empty_when_the_first_lost_one_was_found_are_not_lost(
    tmp_path: Path,
) -> None:
    """In a new topic of two copies, in which nobody was elected yet, nobody ever was."""
    new = MakeTopic("new", B, ("99" * 16,), 2, (("1", "2"),))

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS, new))

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS, new))
        parts = here.hosting.partitions
        assert parts["events", 0].core.replica.suspect  # type: ignore[union-attr]
        assert not parts["new", 0].core.replica.suspect  # type: ignore[union-attr]

    on_node(tmp_path, first)
    shutil.rmtree(tmp_path / "1/wal/events/0")
    on_node(tmp_path, second)


def test_the_only_copy_is_never_made_anew(tmp_path: Path) -> None:
    """Its offsets would begin at 0 again, as if nothing had ever been there."""
    alone = MakeTopic("events", A, (LOG,), 1, (("1",),))

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(alone))
        assert here.runs(A, 0)

    async def second(here: Here) -> None:
        for _ in range(2):
            await here.hosting.reconcile(fold(alone))
            assert (False, False) == (here.holds("events", 0), here.runs(A, 0))

    on_node(tmp_path, first)
    shutil.rmtree(tmp_path / "1/wal/events/0")
    on_node(tmp_path, second, second)


class EndedError(Exception):
    """Its process."""


def end(*_: object) -> None:
    raise EndedError


def test_26_a_lost_log_is_suspect_though_its_process_ended_before_it_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies there, empty, and has voted and acknowledged before."""

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))

    async def second(here: Here) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Hosting, "_suspect", end)
            with pytest.raises(EndedError):
                await here.hosting.reconcile(fold(EVENTS))
        assert here.holds("events", 0)

    async def third(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert here.hosting.partitions["events", 0].core.replica.suspect  # type: ignore[union-attr]

    on_node(tmp_path, first)
    shutil.rmtree(tmp_path / "1/wal/events/0")
    on_node(tmp_path, second, third)


HELD = pytest.mark.parametrize(
    "held", [(EVENTS,), ()], ids=["it holds a partition", "it holds none"]
)


@HELD
def test_26_metadata_likewise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: tuple[MakeTopic, ...]
) -> None:
    topic = fold(MakeTopic(METADATA_TOPIC, B, (LOG,), 1, (("1",),))).topics[METADATA_TOPIC]

    async def first(here: Here) -> None:
        await here.hosting.open_metadata(topic)
        await here.hosting.reconcile(fold(*held))

    async def second(here: Here) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Hosting, "_suspect", end)
            with pytest.raises(EndedError):
                await here.hosting.open_metadata(topic)
        assert here.holds(METADATA_TOPIC, 0)

    async def third(here: Here) -> None:
        meta = await here.hosting.open_metadata(topic)
        assert meta.core.replica.suspect  # type: ignore[union-attr]

    on_node(tmp_path, first)
    shutil.rmtree(tmp_path / f"1/wal/{METADATA_TOPIC}/0")
    on_node(tmp_path, second, third)


@pytest.mark.parametrize("where", ["first log", "second log", "note", "noted", "second opened"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_node_that_ends_while_it_makes_a_topic_has_lost_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, replicas: int, caplog: Any
) -> None:
    """It said of what it had not made yet that it is gone, and of an only copy that for good."""
    holders = ("1", "2")[:replicas]
    topic = MakeTopic("events", A, (LOG, "dd" * 16), 2, (holders, holders))

    class EndedError(Exception):
        pass

    async def first(here: Here) -> None:
        steps = {"_install": Hosting, "fold": HostingNotes, "_open": Hosting}
        calls = dict.fromkeys(steps, 0)
        ends = {
            "first log": ("_install", 1),
            "second log": ("_install", 2),
            "note": ("fold", 1),
            "noted": ("_open", 1),
            "second opened": ("_open", 2),
        }[where]

        def until(name: str) -> Any:
            plain = getattr(steps[name], name)

            async def counted(self: Any, *arguments: Any, **options: Any) -> Any:
                calls[name] += 1
                if ends == (name, calls[name]):
                    raise EndedError
                return await plain(self, *arguments, **options)

            return counted

        with monkeypatch.context() as patch:
            for name, owner in steps.items():
                patch.setattr(owner, name, until(name))
            with pytest.raises(EndedError):
                await here.hosting.reconcile(fold(topic))

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(topic))
        assert {} == here.hosting.unopened
        for partition in range(2):
            assert here.runs(A, partition)
            if replicas == 1:
                replica = here.hosting.partitions["events", partition].core.replica
                assert replica is not None
                assert not replica.suspect

    on_node(tmp_path, first, second)
    assert not [each for each in caplog.messages if "is gone from this node's disk" in each]


def test_a_topic_that_is_made_while_others_are_is_not_taken_for_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, late = (
        MakeTopic(name, id_, (LOG[:30] + id_[:2],), 1, (("1",),))
        for name, id_ in (("one", A), ("two", B), ("late", "99" * 16))
    )
    plain = replicated.install_partition

    async def act(here: Here) -> None:
        state = fold(one, two)

        def install(store: LogStore, name: str, *arguments: Any) -> None:
            if name == "one":
                for command in (late, PlacePartition(B, 0, ("1", "2"))):
                    state.apply(command, state.offset)
            plain(store, name, *arguments)

        monkeypatch.setattr(replicated, "install_partition", install)
        await here.hosting.reconcile(state)
        await here.hosting.reconcile(state)
        part = here.hosting.partitions["late", 0]
        assert not part.core.replica.suspect  # type: ignore[union-attr]

    on_node(tmp_path, act)


@HELD
def test_metadata_that_is_gone_from_the_disk_begins_anew_without_a_vote(
    tmp_path: Path, held: tuple[MakeTopic, ...]
) -> None:
    topic = fold(MakeTopic(METADATA_TOPIC, B, (LOG,), 1, (("1",),))).topics[METADATA_TOPIC]

    def act(*, suspect: bool) -> Callable[[Here], Awaitable[None]]:
        async def act(here: Here) -> None:
            meta = await here.hosting.open_metadata(topic)
            replica = meta.core.replica
            assert replica is not None
            assert suspect == replica.suspect
            if not replica.hard_state[0]:
                replica.save_hard_state(1, "1")  # who has folded records has had a term
            await here.hosting.reconcile(fold(*held))

        return act

    on_node(tmp_path, act(suspect=False), act(suspect=False))
    shutil.rmtree(tmp_path / f"1/wal/{METADATA_TOPIC}/0")
    on_node(tmp_path, act(suspect=True))


@pytest.mark.parametrize("name", [FOLDED_NAME, TOLD_NAME, ANEW_NAME, UNMADE_NAME])
def test_a_node_that_cannot_read_what_it_has_promised_does_not_start(
    tmp_path: Path, name: str
) -> None:
    """It ran without any partition, for ever, or as if it had promised nothing."""
    topic = fold(MakeTopic(METADATA_TOPIC, B, (LOG,), 1, (("1",),))).topics[METADATA_TOPIC]

    async def act(here: Here) -> None:
        with pytest.raises(CorruptionError, match=f"{name} .*under a new id"):
            await here.hosting.open_metadata(topic)

    (tmp_path / "1").mkdir()
    (tmp_path / "1" / name).write_bytes(b"?")
    on_node(tmp_path, act)
