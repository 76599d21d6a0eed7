"""A topic of a cluster gets more partitions: the command, who asks for it, and who has the logs."""

from __future__ import annotations

import asyncio
import shutil
import types
from pathlib import Path
from typing import Any

import pytest

from chronik_server.cluster_topics import ClusterTopics
from chronik_server.hosting_notes import UNMADE_NAME
from chronik_server.metadata import Made, Metadata
from chronik_server.metadata_commands import (
    AdmitNode,
    Command,
    DropTopic,
    ForgetTopic,
    GrowTopic,
    MakeTopic,
    PlacePartition,
    RetireNode,
    SettlePartition,
)
from chronik_server.protocol.topics import CreateTopic, TopicDescription
from chronik_store import replicated
from chronik_store.environment import Environment
from chronik_store.errors import UnavailableError
from chronik_store.log_store import LogStore
from tests.server.cluster.one_hosting import EVENTS, LOG, A, B, Here, fold, on_node

MORE = GrowTopic(A, 2, ("11" * 16, "22" * 16), (("1", "2"), ("1", "3")))
"""To EVENTS: both are here."""


class EndedError(Exception):
    """The process."""


# --- the fold -------------------------------------------------------------------------------------


def test_a_topic_has_more_partitions_behind_those_that_it_had() -> None:
    state = fold(EVENTS, PlacePartition(A, 0, ("2", "3")))
    before = state.topics["events"]
    state.apply(MORE, state.offset)
    topic = state.topics["events"]

    assert (A, 4, 2) == (topic.topic_id, topic.partitions, topic.copies)
    assert (*EVENTS.log_ids, *MORE.log_ids) == topic.log_ids
    assert (*EVENTS.placement, *MORE.placement) == topic.first
    assert before.places == topic.places[:2]
    assert [MORE.placement[0], MORE.placement[1]] == [each.replicas for each in topic.places[2:]]
    assert {2} == {each.version for each in topic.places[2:]}
    assert [Made(0, A)] * 2 + [Made(2, "11" * 16)] * 2 == [each.made for each in topic.places]
    assert (True, False) == (topic.places[2].begins_on("2"), topic.places[3].begins_on("2"))


@pytest.mark.parametrize(
    "command",
    [
        GrowTopic(A, 1, (B,), (("1",),)),
        GrowTopic(A, 3, (B,), (("1",),)),
        GrowTopic(B, 2, (B,), (("1",),)),
        GrowTopic(A, 2, (), ()),
        GrowTopic(A, 2, (B,), (("1",), ("2",))),
    ],
)
def test_a_growth_of_another_topic_than_it_was_meant_for_changes_nothing(
    command: GrowTopic,
) -> None:
    state = fold(EVENTS)
    topic, load = state.topics["events"], dict(state.load)
    state.apply(command, state.offset)
    assert (topic, load) == (state.topics["events"], dict(state.load))


def test_the_same_growth_twice_is_one() -> None:
    assert 4 == fold(EVENTS, MORE, MORE).topics["events"].partitions


def test_a_topic_that_is_being_deleted_does_not_grow_and_takes_all_its_partitions_along() -> None:
    assert 2 == fold(EVENTS, DropTopic(A), MORE).deleting[A].partitions
    state = fold(EVENTS, MORE, DropTopic(A))
    assert 4 == state.deleting[A].partitions
    assert not +state.load
    namesake = MakeTopic("events", B, (LOG, LOG), 2, (("1",), ("1",)))
    assert 2 == fold(EVENTS, DropTopic(A), namesake, MORE).topics["events"].partitions


def test_new_partitions_are_placed_and_settled_like_others() -> None:
    state = fold(EVENTS, MORE, PlacePartition(A, 3, ("1", "2")))
    assert {"1", "2", "3"} == state.holders_of("events", 3)
    assert (False, Made(1, "11" * 16)) == (
        (place := state.topics["events"].places[3]).is_settled,
        place.made,
    )
    state.apply(SettlePartition(A, 3, 2), state.offset)
    assert {"1", "2"} == state.holders_of("events", 3)
    assert state.place_of(A, 4) is None


# --- who asks for it ------------------------------------------------------------------------------


class Asked:
    """The verbs of node "1", which leads the metadata of three nodes; `events` has 2 partitions."""

    def __init__(self, *, away: str = "") -> None:
        self.state = Metadata()
        self.committed: list[Command] = []
        self.before: list[Command] = []
        """Others' commands that are committed in front of the next one."""
        for node in "123":
            self.commit(AdmitNode(node, f"h:{node}", "member"))
        self.commit(MakeTopic("events", A, (LOG, LOG), 2, (("1", "2"), ("1", "2"))))
        leads: Any = types.SimpleNamespace(consensus=types.SimpleNamespace(is_ready=True))
        group: Any = types.SimpleNamespace(
            part=leads, is_current=True, state=self.state, command=self._command
        )
        liveness = types.SimpleNamespace(claimant=lambda _group: None)
        self.topics = ClusterTopics(
            group,
            types.SimpleNamespace(running=lambda _topic, _part: None),  # type: ignore[arg-type]
            types.SimpleNamespace(node_id="1", liveness=liveness),  # type: ignore[arg-type]
            env=Environment(),
            address_of=lambda node: f"h:{node}",
            is_connected=lambda node: node not in away,
            name_is_free=self._is_free,
            options=None,  # type: ignore[arg-type]
        )

    async def _is_free(self, _name: str) -> None:
        pass

    def commit(self, command: Command) -> None:
        self.state.apply(command, self.state.offset)
        self.committed.append(command)

    async def _command(self, command: Command) -> None:
        while self.before:
            self.commit(self.before.pop(0))
        self.commit(command)

    def ask(self, partitions: int, **options: Any) -> TopicDescription:
        request = CreateTopic("events", partitions, exist_ok=True, **options)
        return asyncio.run(self.topics.create(request))


def test_partitions_that_are_asked_for_and_missing_are_made_as_those_of_a_new_topic_are() -> None:
    asked = Asked()
    found = asked.ask(5, replicas=1)

    assert (A, 5) == (found.topic_id, len(found.partitions))
    assert ("1", "2") == found.partitions[1].replicas
    new = [place.replicas for place in found.partitions[2:]]
    assert {2} == set(map(len, new)), "as many copies as the topic asked for"
    assert ("1", "3") == new[0], "where there is least"
    topic = asked.state.topics["events"]
    assert 4 == len(set(topic.log_ids)), "each log has an id of its own"
    assert (LOG, LOG) == topic.log_ids[:2]


@pytest.mark.parametrize("partitions", [1, 2])
def test_fewer_than_there_are_change_nothing(partitions: int) -> None:
    asked = Asked()
    count = len(asked.committed)
    assert 2 == len(asked.ask(partitions).partitions)
    assert count == len(asked.committed)


def test_new_partitions_go_where_nodes_are_there_and_stay() -> None:
    asked = Asked(away="3")
    asked.commit(AdmitNode("4", "h:4", "member"))
    asked.commit(RetireNode("2"))
    found = asked.ask(4)
    assert [("1", "4")] * 2 == [place.replicas for place in found.partitions[2:]]


@pytest.mark.parametrize(("others", "wanted"), [(3, 5), (5, 5), (8, 8)])
def test_two_growths_at_once_are_one(others: int, wanted: int) -> None:
    """Whoever comes second adds what is missing then, if anything."""
    asked = Asked()
    added = others - 2
    asked.before = [GrowTopic(A, 2, ("99" * 16,) * added, (("3",),) * added)]
    assert wanted == len(asked.ask(5).partitions)
    assert ("3",) == asked.state.topics["events"].places[2].replicas
    assert wanted == asked.state.topics["events"].partitions


def test_a_growth_of_a_topic_that_is_deleted_at_once_is_asked_for_again() -> None:
    asked = Asked()
    asked.before = [DropTopic(A)]
    with pytest.raises(UnavailableError, match="deleted at once; ask again") as caught:
        asked.ask(5)
    assert caught.value.retriable
    assert {} == asked.state.topics
    assert 2 == asked.state.deleting[A].partitions
    assert 5 == len((made := asked.ask(5)).partitions)
    assert A != made.topic_id


# --- who has the logs -----------------------------------------------------------------------------


def suspect(here: Here, partition: int) -> bool:
    replica = here.hosting.partitions["events", partition].core.replica
    assert replica is not None
    return replica.suspect


def listed(here: Here) -> list[tuple[str, int]]:
    return [(each.name, each.partitions) for each in here.store.topics()]


def test_new_partitions_are_made_and_run_beside_those_that_run(tmp_path: Path) -> None:
    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        old = here.hosting.partitions["events", 0]
        await here.hosting.reconcile(fold(EVENTS, MORE))
        assert old is here.hosting.partitions["events", 0]
        assert [0, 2, 3] == [partition for _, partition in here.hosting.partitions]
        assert not any(suspect(here, partition) for partition in (0, 2, 3))
        cores = [here.hosting.partitions["events", number].core for number in (2, 3)]
        assert [A, A] == [core.identity.topic_id for core in cores]
        assert list(MORE.log_ids) == [core.identity.log_id for core in cores]
        assert [("events", 4)] == listed(here)

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))  # an old fold: nothing ends by it
        assert all(here.holds("events", partition) for partition in (0, 2, 3))
        assert [("events", 4)] == listed(here)
        await here.hosting.reconcile(fold(EVENTS, MORE))
        assert [0, 2, 3] == [partition for _, partition in here.hosting.partitions]
        assert not any(suspect(here, partition) for partition in (0, 2, 3))

    on_node(tmp_path, first, second)


def test_a_node_without_any_partition_of_it_gets_one(tmp_path: Path) -> None:
    elsewhere = MakeTopic("events", A, (LOG,), 2, (("2", "3"),))
    more = GrowTopic(A, 1, ("11" * 16,), (("1", "3"),))

    async def act(here: Here) -> None:
        await here.hosting.reconcile(fold(elsewhere))
        assert {} == here.hosting.partitions
        await here.hosting.reconcile(fold(elsewhere, more))
        assert [("events", 1)] == list(here.hosting.partitions)
        assert not suspect(here, 1)

    on_node(tmp_path, act, act)


def ends_in(monkeypatch: pytest.MonkeyPatch, what: object, name: str) -> None:
    def ends(*_: object) -> None:
        raise EndedError

    monkeypatch.setattr(what, name, ends)


@pytest.mark.parametrize(("part", "name"), [("topics", "put"), ("files", "write")])
def test_a_process_that_ends_while_it_makes_them_has_lost_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, part: str, name: str
) -> None:
    """Before it has listed them; or has, and has not noted that. Then it begins with a fold that
    does not know of them.
    """

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        with monkeypatch.context() as patch:
            ends_in(patch, type(getattr(here.store._directory, part)), name)
            with pytest.raises(EndedError):
                await here.hosting.reconcile(fold(EVENTS, MORE))

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert {} == here.hosting.unopened
        await here.hosting.reconcile(fold(EVENTS, MORE))
        assert [0, 2, 3] == [partition for _, partition in here.hosting.partitions]
        assert not any(suspect(here, partition) for partition in (0, 2, 3))
        assert [("events", 4)] == listed(here)

    on_node(tmp_path, first, second)
    assert not [each for each in caplog.messages if "is gone from this node's disk" in each]


@pytest.mark.parametrize(("part", "name"), [("topics", "put"), ("files", "write")])
def test_what_was_made_when_its_process_ended_goes_with_its_topic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, name: str
) -> None:
    """Its files would stand in the way of a topic of that name for ever."""
    namesake = MakeTopic("events", B, ("33" * 16,) * 4, 1, (("1",),) * 4)

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        with monkeypatch.context() as patch:
            ends_in(patch, type(getattr(here.store._directory, part)), name)
            with pytest.raises(EndedError):
                await here.hosting.reconcile(fold(EVENTS, MORE))

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS, MORE, DropTopic(A), namesake))
        assert {} == here.hosting.unopened
        assert all(here.runs(B, partition) for partition in range(4))

    on_node(tmp_path, first, second)


def test_an_old_fold_does_not_shorten_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ended before it had noted any fold: it begins with one that has fewer."""

    async def first(here: Here) -> None:
        with monkeypatch.context() as patch:
            ends_in(patch, type(here.store._directory.files), "write")
            with pytest.raises(EndedError):
                await here.hosting.reconcile(fold(EVENTS, MORE))
        assert [("events", 4)] == listed(here)

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        assert [("events", 4)] == listed(here)
        assert [0] == [partition for _, partition in here.hosting.partitions]
        await here.hosting.reconcile(fold(EVENTS, MORE, DropTopic(A)))
        assert not any(here.holds("events", partition) for partition in range(4))

    on_node(tmp_path, first, first, second)


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, partition: int) -> None:
    """To make this log: the disk is full."""
    plain = replicated.install_partition

    def install(store: LogStore, topic: str, *arguments: Any) -> None:
        if (topic, arguments[-1]) == (name, partition):
            raise UnavailableError("not yet")
        plain(store, topic, *arguments)

    monkeypatch.setattr(replicated, "install_partition", install)


NEWER = MakeTopic("newer", B, ("44" * 16,), 2, (("1", "2"),))


def test_those_that_could_not_be_made_yet_are_not_lost_and_what_is_lost_is_not_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that the topic had before has promised something; they have not."""

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        with monkeypatch.context() as patch:
            refuse(patch, "events", 3)
            await here.hosting.reconcile(fold(EVENTS, MORE, NEWER))
        assert {("events", 0), ("newer", 0)} == set(here.hosting.partitions)
        assert {("events", 2), ("events", 3)} == set(here.hosting.unopened)
        assert {MORE.log_ids[0]} == replicated.remembered_ids(here.store, UNMADE_NAME)

    on_node(tmp_path, first)
    shutil.rmtree(tmp_path / "1/wal/events/0")

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS, MORE, NEWER))
        assert {} == here.hosting.unopened
        assert [True, False, False] == [suspect(here, partition) for partition in (0, 2, 3)]
        assert frozenset() == replicated.remembered_ids(here.store, UNMADE_NAME)

    async def third(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS, MORE, NEWER))
        assert [True, False, True] == [suspect(here, partition) for partition in (0, 2, 3)]

    on_node(tmp_path, second)
    shutil.rmtree(tmp_path / "1/wal/events/3")  # from here on it is lost like any other
    on_node(tmp_path, third)


def test_those_that_were_to_be_made_when_a_copy_left_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fold of the removal is noted, which has them, and the process ended in between."""
    moved = (EVENTS, PlacePartition(A, 0, ("2", "3")), SettlePartition(A, 0, 1), MORE)

    async def first(here: Here) -> None:
        await here.hosting.reconcile(fold(EVENTS))
        with monkeypatch.context() as patch:
            ends_in(patch, replicated, "remove_partition")
            with pytest.raises(EndedError):
                await here.hosting.reconcile(fold(*moved))
        assert {MORE.log_ids[0]} == replicated.remembered_ids(here.store, UNMADE_NAME)

    async def second(here: Here) -> None:
        await here.hosting.reconcile(fold(*moved))
        assert {("events", 2), ("events", 3)} == set(here.hosting.partitions)
        assert not any(suspect(here, partition) for partition in (2, 3))

    on_node(tmp_path, first, second)


def test_a_node_that_passed_over_the_command_has_no_vote_in_what_it_should_have_made(
    tmp_path: Path,
) -> None:
    """It took the command for one that changes nothing, and noted a fold that is past it: its logs
    count as lost. No version does that to a command that it does not know.
    """

    def after(command: Command) -> Metadata:
        state = fold(EVENTS)
        for each in (command, NEWER):
            state.apply(each, state.offset)
        return state

    async def older(here: Here) -> None:
        await here.hosting.reconcile(after(ForgetTopic(B)))
        assert {("events", 0), ("newer", 0)} == set(here.hosting.partitions)

    async def newer(here: Here) -> None:
        await here.hosting.reconcile(after(MORE))
        assert [False, True, True] == [suspect(here, partition) for partition in (0, 2, 3)]

    on_node(tmp_path, older, newer)
