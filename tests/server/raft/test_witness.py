"""A cluster with a bucket: pipelines run, the witness finds what it must, the dead stay dead."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from chronik_server.raft.errors import NotLeaderError
from chronik_server.testing.blocking import Blocking
from chronik_server.testing.node import Node
from chronik_server.testing.virtual_loop import VirtualLoop
from chronik_server.testing.world import World
from chronik_store.config import LogConfig
from chronik_store.control_path import StaleTermError
from chronik_store.format.control import Noop
from chronik_store.manifest.keys import live_keys
from chronik_store.pipeline import fence
from chronik_store.testing.crash import CrashError

CONFIG = LogConfig(
    segment_bytes=600,
    indexing_enabled=False,
    garbage_seconds=0.0,
    disk_reserve_bytes=0,
    disk_throttle_bytes=0,
)


@pytest.fixture
def world():
    with World(3, config=CONFIG, is_tiered=True) as made:
        made.boot_all()
        yield made


def found(world: World) -> list[str]:
    """What the witness says, without the time."""
    return [what.partition(" s: bucket: ")[2] for what in world.violations]


def run(world: World, node: Node) -> Node:
    """One pass of its pipeline, to the end."""
    node.tiering.start_run()
    world.until(lambda: not node.tiering.blocking.is_busy)
    return node


def tiered(world: World) -> Node:
    """The leader, after it has uploaded and published a few segments."""
    for number in range(40):
        world.commit(b"%04d" % number * 12)
    leader = run(world, world.elect())
    assert (leader.tiering.report.errors, leader.tiering.report.published) == ((), 1)
    assert len(leader.core.manifest.segments) > 1
    return leader


def keys(world: World, prefix: str) -> list[str]:
    return [info.key for info in world.bucket.list(prefix)]


def test_a_pass_uploads_publishes_and_prunes_on_every_node(world):
    leader = tiered(world)
    assert leader.replica.first_index > 1
    follower = next(node for node in world.nodes.values() if node is not leader)
    world.until(world.converged)
    run(world, follower)

    assert follower.tiering.report.errors == ()
    assert follower.replica.first_index > 1
    assert set(keys(world, "segments/")) == live_keys(follower.core.manifest)
    world.witness.check_rest(leader)
    assert [] == found(world)


def test_who_is_deposed_in_a_pass_proposes_nothing_more(world):
    for number in range(20):
        world.commit(b"%04d" % number * 12)
    leader = world.elect()
    term = leader.group.term
    leader.tiering.start_run()
    world.until(lambda: keys(world, "segments/"))
    leader.group.to_follower()
    world.until(lambda: not leader.tiering.blocking.is_busy)
    outcome: list[BaseException] = []

    def late() -> None:
        try:
            leader.core.propose(Noop(), term=term)
        except StaleTermError as error:
            outcome.append(error)

    leader.tiering.blocking.start(late)
    world.until(lambda: outcome)

    assert isinstance(outcome[0].__cause__, NotLeaderError)
    run(world, world.elect())
    world.witness.check_rest(world.elect())
    assert [] == found(world)


def test_a_put_that_nobody_hears_of_takes_effect_after_its_node_has_died(world, monkeypatch):
    tiered(world)
    monkeypatch.setattr(fence, "check_published", lambda *_: None)  # the put is what is lost
    leader = world.elect()
    world.network.bucket_loss, world.network.late = 1.0, 1.0
    world.network.bucket_delays = (0.05,)  # it waits for the next call when it dies
    for number in range(20):
        world.commit(b"%04d" % number * 12)
    before = keys(world, "segments/")
    leader.tiering.start_run()
    world.until(lambda: world.events["bucket calls late"])
    world.kill(leader.name)
    world.run(1.0)

    assert len(keys(world, "segments/")) == len(before) + 1
    assert leader.tiering.blocking.is_busy, "the dead wait for ever"
    world.network.bucket_loss = 0.0
    heir = run(world, world.elect())
    assert (heir.tiering.report.errors, heir.tiering.report.adopted) == ((), 1)
    assert [] == found(world)


def test_an_object_that_vanishes(world):
    leader = tiered(world)
    segment = leader.core.manifest.segments[0]
    world.bucket.delete([segment.key])

    world.witness.check_rest(leader)
    assert f"listed and not there: ['{segment.key}']" in found(world)
    world.violations.clear()
    world.witness.before_prune(leader, segment.last_index)
    assert [f"{segment.key} is not there: pruned"] == found(world)


def test_an_object_with_other_entries(world):
    leader = tiered(world)
    segment = leader.core.manifest.segments[0]
    index = segment.first_index + 1
    term, data = world.judge.committed[index]
    world.judge.committed[index] = (term, data[:-1] + b"?")

    world.witness.check_rest(leader)
    assert [f"{segment.key} differs at {index}"] == found(world)


def test_what_is_put_without_a_name_and_what_goes_while_it_is_listed(world):
    leader = tiered(world)
    listed = leader.core.manifest.segments[0].key
    world.witness.before_put(leader, "segments/events/0/nobody-knows-it.seg")
    world.witness.before_put(leader, listed)
    world.witness.before_delete(["segments/events/0/nobody-knows-it.seg"])
    world.witness.before_delete([listed])

    assert [
        f"{leader.name} puts segments/events/0/nobody-knows-it.seg: not named",
        f"{listed} is deleted, and the log names it",
        f"{listed} is deleted, and the newest manifest lists it",
    ] == found(world)


def test_what_is_pruned_before_it_is_published(world):
    leader = tiered(world)
    covered = world.witness.published().next.index
    world.witness.before_prune(leader, covered)
    world.witness.before_prune(leader, covered + 1)

    assert [f"{leader.name} prunes {covered + 1}, covered: {covered}"] == found(world)


def test_a_hole_in_what_is_kept(world):
    leader = tiered(world)
    manifest = leader.core.manifest
    leader.core.state.manifest = replace(manifest, segments=manifest.segments[1:])

    world.witness.check_rest(leader)
    last = manifest.segments[0].last_index
    assert f"committed entry {last - 1} is nowhere" in found(world)
    assert f"committed entry {last + 1} is nowhere" not in found(world)


def test_work_that_waits_lets_the_loop_go_on_and_ends_with_its_machine():
    loop, seen, alive, crashes = VirtualLoop(), [], [True], []
    asyncio.set_event_loop(loop)
    work = Blocking(loop, lambda: alive[0], lambda: crashes.append(loop.time()))

    def wait() -> None:
        try:
            work.sleep(1.0)
            seen.append(loop.time())
            seen.append(work.wait(loop.create_future()))
        finally:
            seen.append("unwound")

    work.start(wait)
    loop.run_for(3.0)
    assert ([1.0], True) == (seen, work.is_busy)
    alive[0] = False
    loop.run_for(3.0)
    assert [1.0] == seen
    work.end()
    assert (["unwound"], []) == (seen[1:], crashes)

    alive[0] = True

    def die() -> None:
        raise CrashError("in a disk call")

    work.start(die)
    loop.run_for(1.0)
    assert ([6.0], False) == (crashes, work.is_busy)
    loop.close()
    asyncio.set_event_loop(None)
