"""Whole servers in a hostile world: seeds, faults, and what must hold whatever happens.

A failing seed prints itself: `chronik simulate --servers --seed N` replays it.
`SERVERS_SEEDS=first:last` runs others.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from chronik_server.hosting import Hosting
from chronik_server.testing.servers.judge import ServersJudge
from chronik_server.testing.servers.playing import play
from chronik_server.testing.servers.story import ServersStory
from chronik_server.testing.servers.told import Told
from chronik_server.testing.servers.world import ServersWorld
from tests.depth import share
from tests.server.servers.watching import PATIENCE, agree, until


def seeds() -> range:
    first, _, last = os.environ.get("SERVERS_SEEDS", "0:2").partition(":")
    return range(int(first), int(last))


@pytest.mark.parametrize("seed", seeds())
def test_no_answer_of_whole_servers_contradicts_another(seed: int) -> None:
    played = play(seed)
    assert not played.violation, played.details


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", range(2))
def test_many_more_seeds(block: int) -> None:
    first = int(os.environ.get("CHRONIK_SEED", "0")) * 1000 + 100
    for seed in range(first, first + share(12, every=18))[block::2]:
        played = play(seed)
        assert not played.violation, played.details


def test_equal_seeds_run_equally() -> None:
    first, second = (ServersStory(3, seconds=5) for _ in range(2))
    first.run()
    second.run()
    assert first.world.simulation.trace_hash == second.world.simulation.trace_hash
    assert first.world.events == second.world.events
    assert first.told.acknowledged == second.told.acknowledged > 0


def test_a_quiet_cluster_takes_records_over_a_power_loss_and_comes_to_rest() -> None:
    world = ServersWorld(["n1", "n2", "n3"], seed=1)

    async def story() -> None:
        for node in world.nodes.values():
            node.boot()
        options = {"connect_seconds": 1.0, "request_seconds": 2.0}
        async with world.client(**options) as client:
            await client.create_topic("a", partitions=3)
            for number in range(60):
                await client.append("a", [b"%d" % number], partition=number % 3)
            world.nodes["n1"].crash("torn")
            for number in range(60):
                await client.append("a", [b"%d" % number], partition=number % 3)
            world.nodes["n1"].boot()
            for partition in range(3):
                found = await client.read("a", 0, partition=partition)
                assert [int(record.value or b"") for record in found.records] == [
                    *range(partition, 60, 3), *range(partition, 60, 3),
                ]  # fmt: skip
        for node in world.nodes.values():
            node.stop()
        await asyncio.sleep(10)

    world.run(story)
    assert world.violations == []
    assert [node.ended for node in world.nodes.values()] == ["asked to end"] * 3


def test_it_is_judged_whether_each_partition_has_the_copies_that_it_asked_for() -> None:
    """A cluster that grew and copied nothing was found to be in order."""
    world = ServersWorld(["n1"], seed=0)
    told = Told(world.violate)

    async def story() -> None:
        world.nodes["n1"].boot()
        async with world.client("n1", **PATIENCE) as client:
            made = await client.create_topic("a", partitions=2)
            told.made("a", made.topic_id, 2)
        for name in ("n2", "n3"):
            world.add(name, join=["n1"]).boot()
        await until(lambda: agree(world, "a"), "they have grown")
        await ServersJudge(world, told).judge()

    world.run(story)
    assert world.violations == []


def test_what_a_duty_of_a_node_only_logs_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is tried again for ever, and its defects go to the log: nobody looked there."""

    async def fails(_self: Hosting) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(Hosting, "note_rolls", fails)
    world = ServersWorld(["n1"], seed=0)

    async def story() -> None:
        world.nodes["n1"].boot()
        await until(lambda: agree(world), "it leads")

    world.run(story)
    assert world.violations[0].endswith("ValueError: a defect")


def test_what_a_story_finds_is_told_with_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    async def violates(self: ServersStory) -> None:
        self.world.violate("this must not be")

    monkeypatch.setattr(ServersStory, "_story", violates)
    played = play(4)
    assert played.violation == "this must not be"
    assert "VIOLATION this must not be" in played.details


def test_what_breaks_off_is_a_violation_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(self: ServersStory) -> None:
        raise ValueError("broken off")

    monkeypatch.setattr(ServersStory, "_story", breaks)
    played = play(4)
    assert played.violation == "ValueError: broken off"
    assert "Traceback" in played.details
