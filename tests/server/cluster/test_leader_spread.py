"""How fast leaders are spread, and what stops it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from chronik_server.leader_spread import (
    EVEN_PAUSE_SECONDS,
    FAILED_PAUSE_SECONDS,
    LEFT_OUT_SECONDS,
    PAUSE_SECONDS,
    PROVEN_SECONDS,
    LeaderSpread,
)
from chronik_server.metadata import Metadata
from chronik_server.metadata_commands import AdmitNode, MakeTopic, SettlePartition
from chronik_server.placement import Handover, place_topic
from chronik_store.errors import UnavailableError

A = "aa" * 16
NODES = ("1", "2", "3")


class World:
    """Nodes, of which the first leads everything."""

    def __init__(self, partitions: int, nodes: Sequence[str] = NODES) -> None:
        self.now = 100.0
        self.fails: Callable[[Handover], bool] = lambda _: False
        self.failed: list[tuple[float, str]] = []
        """When, and to whom."""
        self.there = set(nodes)
        self.state = Metadata()
        for node in nodes:
            self.state.apply(AdmitNode(node, f"h:{node}", "member"), self.state.offset)
        places = place_topic(partitions, len(nodes), nodes, Counter())
        logs = ("cc" * 16,) * partitions
        self.state.apply(MakeTopic("events", A, logs, 3, places), self.state.offset)
        for number, place in enumerate(self.state.topics["events"].places):
            self.state.apply(SettlePartition(A, number, place.version), self.state.offset)
        self.leaders = dict.fromkeys(range(partitions), "1")
        self.spread = LeaderSpread(
            is_there=lambda node: node in self.there,
            leader_of=lambda group: self.leaders[int(group.rpartition("/")[2])],
            hand_over=self.hand_over,
            now=lambda: self.now,
        )

    async def hand_over(self, found: Handover) -> None:
        if self.fails(found):
            self.failed.append((self.now, found.to))
            raise UnavailableError("not caught up")
        assert self.leaders[found.partition] == found.leader
        self.leaders[found.partition] = found.to

    def tick(self, seconds: float) -> int:
        """How many were handed over, after so many seconds."""
        self.now += seconds
        before = dict(self.leaders)
        asyncio.run(self.spread.tick(self.state))
        return sum(before[each] != self.leaders[each] for each in before)

    def pass_seconds(self, seconds: float) -> Counter[str]:
        """How many each leads after so many seconds."""
        until = self.now + seconds
        while self.now < until:
            self.tick(PAUSE_SECONDS)
        return Counter(self.leaders.values())


@pytest.mark.parametrize(("partitions", "a_round"), [(9, 1), (49, 1), (50, 2), (300, 7)])
def test_a_round_is_one_and_one_more_for_each_fifty(partitions: int, a_round: int) -> None:
    world = World(partitions)
    assert world.tick(0) == 0, "nobody is proven yet"
    assert world.tick(PROVEN_SECONDS) == a_round
    assert world.tick(PAUSE_SECONDS / 2) == 0
    rounds = 1
    while world.tick(PAUSE_SECONDS):
        rounds += 1
    counts = Counter(world.leaders.values())
    assert max(counts.values()) - min(counts.values()) <= 1
    assert rounds <= 60
    assert world.tick(EVEN_PAUSE_SECONDS) == 0


def test_one_that_is_refused_ends_the_round() -> None:
    world = World(300)
    world.tick(0)
    world.fails = lambda _: True
    assert world.tick(PROVEN_SECONDS) == 0
    world.fails = lambda _: False
    assert world.tick(FAILED_PAUSE_SECONDS / 2) == 0
    assert world.tick(FAILED_PAUSE_SECONDS / 2) == 7


def test_one_that_cannot_take_over_does_not_keep_the_others_from_it() -> None:
    """Its disk is full, say: it was asked every ten seconds, and nobody else ever."""
    world = World(10)
    world.fails = lambda found: found.to == "2"
    assert Counter({"1": 5, "3": 5}) == world.pass_seconds(60)
    world.pass_seconds(1000)
    tries = [at for at, _ in world.failed]
    assert all(after - at >= LEFT_OUT_SECONDS for at, after in pairwise(tries[::2]))
    world.fails = lambda _: False
    assert [3, 3, 4] == sorted(world.pass_seconds(LEFT_OUT_SECONDS + 30).values())


def test_one_that_two_could_not_hand_over_to_is_left_out_by_the_others() -> None:
    world = World(40, "12345678")
    world.fails = lambda found: found.to == "2"
    world.pass_seconds(LEFT_OUT_SECONDS)
    assert len(world.failed) <= 2
    assert {5, 6} == set(Counter(world.leaders.values()).values())


def test_one_that_hands_nothing_over_keeps_no_other_from_it() -> None:
    world = World(30)
    world.leaders.update(dict.fromkeys(range(10), "3"))
    world.fails = lambda found: found.leader == "1"
    assert Counter({"1": 20, "3": 5, "2": 5}) == world.pass_seconds(90)


def test_a_node_that_was_away_proves_itself_again() -> None:
    world = World(9)
    world.there = {"1", "2"}
    world.tick(0)
    while world.tick(PROVEN_SECONDS):
        pass
    assert "3" not in world.leaders.values()
    world.there = set(NODES)
    assert world.tick(EVEN_PAUSE_SECONDS) == 0
    assert world.tick(PROVEN_SECONDS) == 1
    assert "3" in world.leaders.values()
