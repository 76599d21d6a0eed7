"""Decisions of the control side: they end, they never take a quorum, they move little."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection

import pytest

from chronik_server.metadata import Metadata
from chronik_server.metadata_commands import (
    AdmitNode,
    MakeTopic,
    PlacePartition,
    RetireNode,
    SettlePartition,
)
from chronik_server.placement import (
    Handover,
    Led,
    is_reached,
    metadata_wish,
    next_handover,
    next_members,
    next_wish,
    place_topic,
)
from chronik_store.format.control import Members

A = "aa" * 16


def cluster(*nodes: str, copies: int = 3, partitions: int = 4) -> Metadata:
    state = Metadata()
    for node in nodes:
        state.apply(AdmitNode(node, f"h:{node}", "member"), state.offset)
    placement = place_topic(partitions, copies, nodes, Counter())
    logs = ("cc" * 16,) * partitions
    state.apply(MakeTopic("events", A, logs, copies, placement), state.offset)
    return state


def wishes(state: Metadata, alive: set[str]) -> int:
    """Carry wishes out until there is none; how many there were."""
    count = 0
    while (wish := next_wish(state, alive)) is not None:
        state.apply(PlacePartition(A, wish.partition, wish.replicas), state.offset)
        count += 1
        assert count < 100
    return count


def test_a_topic_is_placed_evenly_and_never_twice_on_one_node() -> None:
    placement = place_topic(10, 3, ["1", "2", "3", "4", "5"], Counter())

    load = Counter(node for nodes in placement for node in nodes)
    assert {6} == set(load.values())
    assert all(len(set(nodes)) == 3 for nodes in placement)


def test_the_nodes_with_least_to_do_are_taken_first() -> None:
    assert (("3",),) == place_topic(1, 1, ["1", "2", "3"], Counter({"1": 2, "2": 1}))


def test_nodes_that_are_away_are_taken_only_for_want_of_others_and_spread_among_themselves() -> (
    None
):
    """A topic of four copies begins with the three of five nodes that are there: a quorum."""
    load = Counter({"3": 5, "4": 5, "5": 5})
    placement = place_topic(4, 4, ["1", "2", "3", "4", "5"], load, {"1", "2"})

    assert all({"3", "4", "5"} < set(nodes) for nodes in placement)
    assert Counter("12" * 2) == Counter(n for nodes in placement for n in nodes if n in "12")
    assert (("3", "4", "5"),) == place_topic(1, 3, ["1", "2", "3", "4", "5"], load, {"1", "2"})


def test_a_partition_gets_the_copies_it_asked_for_as_soon_as_there_are_nodes() -> None:
    state = cluster("1")
    assert 0 == wishes(state, {"1"})
    for node in ("2", "3", "4"):
        state.apply(AdmitNode(node, f"h:{node}", "member"), state.offset)

    wishes(state, {"1", "2", "3", "4"})
    places = state.topics["events"].places
    assert {3} == {len(place.replicas) for place in places}
    assert all("1" in place.replicas for place in places)  # what is there stays
    assert max(state.load.values()) - min(state.load.values()) <= 2


def test_nothing_moves_because_a_node_is_new_or_away() -> None:
    state = cluster("1", "2", "3")
    state.apply(AdmitNode("4", "h:4", "member"), state.offset)

    assert next_wish(state, {"1", "2", "4"}) is None


def test_a_leaving_node_is_replaced_by_one_that_is_there() -> None:
    state = cluster("1", "2", "3", "4", "5")
    state.apply(RetireNode("1"), state.offset)
    wishes(state, {"1", "2", "3", "4"})

    for place in state.topics["events"].places:
        assert "1" not in place.replicas
        assert 3 == len(place.replicas)
    assert 0 == sum(1 for place in state.topics["events"].places if "1" in place.replicas)


def test_without_a_spare_node_a_partition_has_fewer_copies() -> None:
    state = cluster("1", "2", "3")
    state.apply(RetireNode("1"), state.offset)
    wishes(state, {"1", "2", "3"})

    assert {("2", "3")} == {place.replicas for place in state.topics["events"].places}


# --- members --------------------------------------------------------------------------------------


def steps(now: Members, wish: Members, away: Collection[str] = ()) -> list[Members]:
    found = []
    able = set("0123456") - set(away)
    while (step := next_members(now, wish, able & set(now.learners), able)) is not None:
        assert 2 * len(able & set(step.voters)) > len(step.voters), "it can be committed"
        assert len(set(now.voters) ^ set(step.voters)) <= 1, "one voter at a time"
        fresh = set(step.voters) - set(now.voters)
        assert fresh <= set(now.learners), "a new voter has learned first"
        assert step.voters
        found.append(step)
        now = step
        assert len(found) < 50
    assert is_reached(now, wish)
    return found


@pytest.mark.parametrize("seed", range(200))
def test_any_members_become_any_others_one_voter_at_a_time(seed: int) -> None:
    rng = random.Random(seed)
    nodes = [str(number) for number in range(7)]

    def some() -> Members:
        chosen = rng.sample(nodes, rng.randint(1, 7))
        count = rng.randint(1, len(chosen))
        return Members(tuple(chosen[:count]), tuple(chosen[count:]))

    now, wish = some(), some()
    steps(now, wish)
    if set(now.voters) - set(wish.voters):
        dead = rng.choice(sorted(set(now.voters) - set(wish.voters)))
        if len(now.voters) > 2 and dead not in wish.learners:
            steps(now, wish, {dead})


@pytest.mark.parametrize("voters", ["123", "132", "213", "231", "312", "321"])
def test_of_those_that_go_the_dead_one_goes_first(voters: str) -> None:
    """Two of three are to go, and one of them never comes back: were the vote of the other taken
    before its own, nobody could commit that, and nobody would lead.
    """
    found = steps(Members(tuple(voters), ()), Members(("1",), ()), {"3"})

    assert [{"1", "2"}, {"1"}] == [set(step.voters) for step in found]


@pytest.mark.parametrize(
    ("able", "wish", "expected"),
    [
        ("12", Members(("1", "3"), ()), None),
        ("123", Members(("1", "3"), ()), Members(("1", "3"), ())),
        ("12", Members(("1", "2"), ()), Members(("1", "2"), ())),
        ("12", Members(("1", "2", "4"), ()), Members(("1", "2", "3"), ("4",))),
        ("1", Members(("1", "2", "4"), ()), None),
        ("1", Members(("1", "2"), ()), None),
    ],
)
def test_no_step_is_taken_that_nobody_could_commit(
    able: str, wish: Members, expected: Members | None
) -> None:
    assert expected == next_members(Members(("1", "2", "3"), ()), wish, set(), set(able))


def test_nobody_loses_its_vote_before_every_new_voter_has_one() -> None:
    now = Members(("1", "2", "3"), ("4",))

    assert next_members(now, Members(("1", "2", "4"), ()), set(), set("1234")) is None
    step = next_members(now, Members(("1", "2", "4"), ()), {"4"}, set("1234"))
    assert Members(("1", "2", "3", "4"), ()) == step


def test_12_a_node_that_leaves_loses_its_vote_on_metadata_while_it_still_listens() -> None:
    state = cluster("1", "2", "3", "4")
    state.apply(RetireNode("1"), state.offset)

    assert Members(("2", "3", "4"), ("1",)) == metadata_wish(state, Members(("1", "2", "3"), ()))


def test_at_most_five_nodes_vote_on_metadata_and_those_that_do_go_on() -> None:
    state = cluster("1", "2", "3", "4", "5", "6", "7")
    wish = metadata_wish(state, Members(("3", "6", "7"), ()))

    assert 5 == len(wish.voters)
    assert {"3", "6", "7"} < set(wish.voters)
    assert set("1234567") == {*wish.voters, *wish.learners}


# --- leaders --------------------------------------------------------------------------------------


def spread(led: list[Led], able: set[str]) -> list[Led]:
    count = 0
    while (found := next_handover(led, able)) is not None:
        led = [
            each._replace(leader=found.to) if each.partition == found.partition else each
            for each in led
        ]
        count += 1
        assert count <= 100
    return led


def test_leaders_are_spread_until_the_difference_is_one() -> None:
    led = [Led("events", number, "1", ("1", "2", "3")) for number in range(10)]

    counts = Counter(each.leader for each in spread(led, {"1", "2", "3"}))
    assert [3, 3, 4] == sorted(counts.values())


def test_a_difference_of_one_moves_nothing() -> None:
    led = [Led("events", 0, "1", ("1", "2"))]

    assert next_handover(led, {"1", "2"}) is None


def test_a_node_that_is_not_there_long_enough_gets_nothing() -> None:
    led = [Led("events", number, "1", ("1", "2", "3")) for number in range(4)]

    assert {"1", "2"} == {each.leader for each in spread(led, {"1", "2"})}


def test_a_node_gets_only_what_it_has_a_copy_of() -> None:
    led = [Led("events", number, "1", ("1", "2")) for number in range(4)]
    led.append(Led("events", 4, "1", ("1", "3")))

    found = spread(led, {"1", "2", "3"})
    assert {"1", "3"} >= {each.leader for each in found if each.partition == 4}


def test_where_a_handover_has_failed_the_next_best_is_tried() -> None:
    led = [Led("events", number, "1", ("1", "2", "3")) for number in range(4)]

    assert next_handover(led, {"1", "2", "3"}) == Handover("events", 0, "1", "2")
    failed = {("1", "2")}
    assert next_handover(led, {"1", "2", "3"}, failed) == Handover("events", 0, "1", "3")
    assert next_handover(led, {"1", "2", "3"}, {*failed, ("1", "3")}) is None


def test_settled_wishes_ask_for_nothing_more() -> None:
    state = cluster("1", "2", "3")
    place = state.topics["events"].places[0]
    state.apply(SettlePartition(A, 0, place.version), state.offset)

    assert next_wish(state, {"1", "2", "3"}) is None
