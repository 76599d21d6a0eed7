"""What a cluster agrees on: a fold that every node repeats, and commands that refuse themselves."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from chronik_server import metadata_commands as commands
from chronik_server.metadata import Metadata
from chronik_server.metadata_commands import (
    AdmitNode,
    BindNode,
    ClaimBucket,
    Command,
    DropTopic,
    ForgetTopic,
    GrowTopic,
    MakeTopic,
    MoveNode,
    PlacePartition,
    RemoveNode,
    RetireNode,
    SettlePartition,
)
from chronik_store.errors import CorruptionError, FutureVersionError
from chronik_store.format import cbor

A, B, LOG = "aa" * 16, "bb" * 16, "cc" * 16
TOPIC = MakeTopic("events", A, (LOG, LOG), 3, (("1", "2"), ("2", "3")))
ALL: tuple[Command, ...] = (
    AdmitNode("1", "h:1", "member"),
    BindNode("1", A),
    MoveNode("1", "h:2"),
    RetireNode("1"),
    RemoveNode("1"),
    TOPIC,
    GrowTopic(A, 2, (LOG, B), (("1", "2"), ("2", "3"))),
    DropTopic(A),
    ForgetTopic(A),
    PlacePartition(A, 1, ("1", "2")),
    SettlePartition(A, 1, 5),
    ClaimBucket("d" * 32, "file:///b"),
)


def fold(*given: Command) -> Metadata:
    state = Metadata()
    for command in given:
        state.apply(command, state.offset)
    return state


def members(*nodes: str) -> tuple[Command, ...]:
    return tuple(AdmitNode(node, f"h:{node}", "member") for node in nodes)


@pytest.mark.parametrize("command", ALL, ids=lambda c: type(c).__name__)
def test_a_command_is_read_as_it_was_written(command: Command) -> None:
    assert command == commands.decode(commands.encode(command))


def test_a_command_of_a_newer_version_is_refused_by_name() -> None:
    with pytest.raises(FutureVersionError, match=r"'later'.*upgrade this node"):
        commands.decode(cbor.encode(["later", {}]))


@pytest.mark.parametrize("item", [{}, ["admit_node"], [1, {}], ["admit_node", {"node_id": 3}]])
def test_what_is_no_command_is_corruption(item: object) -> None:
    with pytest.raises(CorruptionError):
        commands.decode(cbor.encode(item))


def test_the_load_of_each_node_is_what_counting_it_would_give() -> None:
    """It is kept beside the topics, since who places a topic would count them all."""
    chance, state, ids = random.Random(7), fold(*members("1", "2", "3", "4")), list[str]()
    for number in range(300):
        names = tuple(sorted(chance.sample(["1", "2", "3", "4"], 2)))
        kind = chance.choice(["make", "make", "grow", "drop", "place", "settle"])
        if kind == "make" or not ids:
            ids.append(f"{number:032x}")
            name = f"t{chance.randrange(60)}"  # some are there already, and change nothing
            command: Command = MakeTopic(name, ids[-1], (LOG,) * 2, 2, (names, names))
        elif kind == "grow":
            present = chance.choice((2, 2, 3))  # of those that have grown nobody knows
            command = GrowTopic(chance.choice(ids), present, (LOG,), (names,))
        elif kind == "drop":
            command = DropTopic(ids.pop(chance.randrange(len(ids))))
        elif kind == "place":
            command = PlacePartition(chance.choice(ids), chance.randrange(3), names)
        else:
            command = SettlePartition(chance.choice(ids), 0, state.offset - 1)
        state.apply(command, state.offset)
        counted = Counter(
            node
            for topic in state.topics.values()
            for place in topic.places
            for node in place.replicas
        )
        assert counted == state.load, command
    assert len(state.topics) > 5
    assert {2, 3} <= {topic.partitions for topic in state.topics.values()}


# --- nodes ----------------------------------------------------------------------------------------


def test_a_node_joins_by_the_directory_that_is_bound_to_its_id() -> None:
    state = fold(AdmitNode("4", "h:4"))
    assert "joining" == state.state_of("4")

    state.apply(BindNode("4", A), state.offset)
    assert ("member", A) == (state.nodes["4"].state, state.nodes["4"].node_uuid)


def test_12_s3_an_id_that_is_bound_is_never_bound_to_another_directory() -> None:
    state = fold(AdmitNode("4", "h:4"), BindNode("4", A), BindNode("4", B))

    assert A == state.nodes["4"].node_uuid


def test_12_an_id_is_used_once() -> None:
    gone = fold(*members("1", "4"), RetireNode("4"), RemoveNode("4"), AdmitNode("4", "h:9"))

    assert ("removed", "h:4") == (gone.nodes["4"].state, gone.nodes["4"].address)


def test_the_last_node_stays() -> None:
    assert "member" == fold(*members("1"), RetireNode("1")).state_of("1")
    state = fold(*members("1", "2"), RetireNode("1"), RetireNode("2"))
    assert ("leaving", "member") == (state.state_of("1"), state.state_of("2"))


def test_a_node_is_removed_only_when_it_leaves_and_holds_nothing() -> None:
    begin = (*members("1", "2", "3"), TOPIC)
    assert "member" == fold(*begin, RemoveNode("1")).state_of("1")

    state = fold(*begin, RetireNode("1"), RemoveNode("1"))
    assert "leaving" == state.state_of("1")
    for command in (PlacePartition(A, 0, ("2", "3")), RemoveNode("1")):
        state.apply(command, state.offset)
    assert "leaving" == state.state_of("1")  # it is a holder until the wish is in force
    version = state.topics["events"].places[0].version
    for command in (SettlePartition(A, 0, version), RemoveNode("1")):
        state.apply(command, state.offset)
    assert "removed" == state.state_of("1")


# --- topics ---------------------------------------------------------------------------------------


def test_a_name_is_taken_once_and_free_again_while_the_old_topic_is_being_deleted() -> None:
    namesake = MakeTopic("events", B, (LOG,), 3, (("1",),))
    state = fold(TOPIC, namesake)
    assert A == state.topics["events"].topic_id

    for command in (DropTopic(A), namesake):
        state.apply(command, state.offset)
    assert B == state.topics["events"].topic_id
    assert [A] == list(state.deleting)
    state.apply(DropTopic(A), state.offset)  # said twice
    assert B == state.topics["events"].topic_id
    state.apply(ForgetTopic(A), state.offset)
    assert not state.deleting


def test_a_topic_that_is_not_being_deleted_is_not_forgotten() -> None:
    assert "events" in fold(TOPIC, ForgetTopic(A)).topics


def test_holders_keep_a_partition_until_the_wish_of_that_version_is_in_force() -> None:
    state = fold(TOPIC, PlacePartition(A, 0, ("2", "3")))
    place = state.topics["events"].places[0]
    assert ({"2", "3"}, {"1", "2", "3"}) == (set(place.replicas), set(place.holders))

    state.apply(SettlePartition(A, 0, place.version - 1), state.offset)
    assert not state.topics["events"].places[0].is_settled
    state.apply(SettlePartition(A, 0, place.version), state.offset)
    assert {"2", "3"} == state.topics["events"].places[0].holders


def test_a_wish_and_back_is_another_wish() -> None:
    """A report of the first one must not settle the third."""
    state = fold(TOPIC, PlacePartition(A, 0, ("2", "3")))
    first = state.topics["events"].places[0].version
    for replicas in (("1", "2"), ("2", "3")):
        state.apply(PlacePartition(A, 0, replicas), state.offset)
    state.apply(SettlePartition(A, 0, first), state.offset)

    assert not state.topics["events"].places[0].is_settled


def test_since_when_a_node_holds_a_partition_is_known_whatever_is_wished_for_others() -> None:
    state = fold(TOPIC)

    def then(command: Command) -> dict[str, int]:
        state.apply(command, state.offset)
        return dict(state.topics["events"].places[0].since)

    assert {"1": 0, "2": 0, "3": 1} == then(PlacePartition(A, 0, ("2", "3")))
    assert {"2": 0, "3": 1} == then(SettlePartition(A, 0, 1))
    assert {"1": 3, "2": 0, "3": 1} == then(PlacePartition(A, 0, ("1", "2")))
    place = state.topics["events"].places[0]
    assert place.begins_on("2")
    assert not place.begins_on("1")


def test_the_same_wish_is_no_change() -> None:
    state = fold(TOPIC, PlacePartition(A, 0, ("2", "1")), PlacePartition(B, 0, ("1",)))

    assert TOPIC.placement[0] == state.topics["events"].places[0].replicas


def test_a_cluster_has_one_bucket_for_life() -> None:
    state = fold(ClaimBucket("d" * 32, "file:///b"), ClaimBucket("e" * 32, "file:///other"))

    assert state.bucket == ClaimBucket("d" * 32, "file:///b")
