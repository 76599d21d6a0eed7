"""How fast leaders are spread, and what stops it."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from chronik_server.leader_spread import (
    EVEN_PAUSE_SECONDS,
    FAILED_PAUSE_SECONDS,
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
    """Three nodes, of which the first leads everything."""

    def __init__(self, partitions: int) -> None:
        self.now = 100.0
        self.refuses = False
        self.there = set(NODES)
        self.state = Metadata()
        for node in NODES:
            self.state.apply(AdmitNode(node, f"h:{node}", "member"), self.state.offset)
        places = place_topic(partitions, 3, NODES, Counter())
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
        if self.refuses:
            raise UnavailableError("not caught up")
        assert self.leaders[found.partition] == found.leader
        self.leaders[found.partition] = found.to

    def tick(self, seconds: float) -> int:
        """How many were handed over, after so many seconds."""
        self.now += seconds
        before = dict(self.leaders)
        asyncio.run(self.spread.tick(self.state))
        return sum(before[each] != self.leaders[each] for each in before)


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
    world.refuses = True
    assert world.tick(PROVEN_SECONDS) == 0
    world.refuses = False
    assert world.tick(FAILED_PAUSE_SECONDS / 2) == 0
    assert world.tick(FAILED_PAUSE_SECONDS / 2) == 7


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
