"""Upload "all", for comparison: followers put what their leader has announced, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from chronik_store.errors import ConfigError, UnavailableError
from chronik_store.format.control import DropPrefix


def announced(kit: Any, **config: Any) -> Any:
    """A world whose leader has announced a segment and could not put it."""
    world = kit.World(**config)
    leader = world.open()
    leader.append(5)
    leader.bucket.fail["put"] = lambda _key: UnavailableError("the bucket is away for this node")
    leader.run()
    assert world.object_keys("segments/") == []
    assert world.folded().manifest.intents
    return world


def follower_of(world: Any) -> Any:
    process = world.open()
    process.leads = None
    return process


def test_a_follower_puts_what_is_announced_and_the_leader_adopts_it(kit: Any) -> None:
    world = announced(kit, upload="all")
    entries = len(world.entries)
    report = follower_of(world).run()

    assert (1, ()) == (report.uploaded, report.errors)
    assert entries == len(world.entries)  # it proposes nothing
    assert set(world.object_keys("segments/")) <= world.named()

    leader = world.open()
    report = leader.run()
    assert (0, 1) == (report.uploaded, report.adopted)
    assert world.ranges_in_bucket() == [(0, 5)]


def test_by_default_a_follower_puts_nothing(kit: Any) -> None:
    world = announced(kit)
    report = follower_of(world).run()

    assert (0, ()) == (report.uploaded, report.errors)
    assert world.object_keys("segments/") == []


def test_a_follower_puts_nothing_that_is_not_announced(kit: Any) -> None:
    world = kit.World(upload="all")
    leader = world.open()
    leader.append(5)
    assert leader.pipeline.seal_now(leader)
    follower = follower_of(world)
    assert ((), 0) == (follower.run().errors, follower.run().uploaded)

    assert world.object_keys("segments/") == []


def test_a_follower_puts_a_segment_once(kit: Any) -> None:
    world = announced(kit, upload="all")
    follower = follower_of(world)
    for _ in range(3):
        follower.run()

    assert 1 == sum(verb == "put" for verb, _ in follower.bucket.calls)


def successor(kit: Any, world: Any) -> Any:
    """Another leads now, while the process before it goes on."""
    world.term += 1
    return kit.Process(world, kit.Steps())


@pytest.mark.parametrize("meanwhile", ["listed", "dropped", "collected"])
def test_a_follower_looks_once_more_when_it_has_waited_to_put(
    kit: Any, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """The room for the bytes in flight may be long in coming."""
    world = announced(kit, upload="all")
    follower = follower_of(world)
    leader = successor(kit, world)
    take = follower.tiering.budget.take

    def wait(size_bytes: int) -> Any:
        leader.drain()
        if meanwhile != "listed":
            command = DropPrefix(offset=5, reason="test", clock_us=world.clock.time_us())
            leader.propose(command, term=world.term)
        if meanwhile == "collected":
            leader.drain()
            world.clock.advance(101)
            leader.drain()
            assert world.object_keys("segments/") == []
        follower.state = world.folded()
        return take(size_bytes)

    monkeypatch.setattr(follower.tiering.budget, "take", wait)
    report = follower.run()

    puts = sum(verb == "put" for verb, _ in follower.bucket.calls)
    assert (puts, report.uploaded, report.adopted, report.errors) == (0, 0, 0, ())


@pytest.mark.parametrize("who", ["a follower", "a deposed leader"])
def test_a_put_that_comes_when_all_is_collected_is_taken_back(kit: Any, who: str) -> None:
    """A process is stopped (SIGSTOP, a paused machine) between its last look and its put."""
    world = announced(kit, upload="all" if who == "a follower" else "leader")
    late = world.open()
    if who == "a follower":
        late.leads = None
    leader = successor(kit, world)
    put = late.bucket.put_if_absent

    def stopped(key: str, data: Any) -> Any:
        late.bucket.put_if_absent = put
        leader.drain()
        command = DropPrefix(offset=5, reason="test", clock_us=world.clock.time_us())
        leader.propose(command, term=world.term)
        leader.drain()
        world.clock.advance(101)
        leader.drain()
        assert world.object_keys("segments/") == []
        late.leads = None
        late.state = world.folded()  # the other leader's entries arrive
        outcome = put(key, data)
        assert world.object_keys("segments/") == [key]
        return outcome

    late.bucket.put_if_absent = stopped
    report = late.run()
    assert (1, ()) == (report.collected_objects, report.errors)
    assert world.object_keys("segments/") == []
    assert late.run().idle


def test_what_the_log_still_names_is_not_taken_back(kit: Any) -> None:
    world = announced(kit, upload="all")
    follower = follower_of(world)
    follower.run()
    leader = successor(kit, world)
    leader.drain()
    follower.state = world.folded()
    follower.run()
    assert world.ranges_in_bucket() == [(0, 5)]

    leader.propose(DropPrefix(offset=5, reason="test", clock_us=0), term=world.term)
    follower.state = world.folded()
    follower.run()
    assert world.ranges_in_bucket() == [(0, 5)]  # garbage by now, and the leader's to collect


def test_another_policy_is_refused(kit: Any) -> None:
    with pytest.raises(ConfigError, match="upload"):
        kit.World(upload="some")
