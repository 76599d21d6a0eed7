"""What a damaged log does not say any more, others do: who votes, and which log it is."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from chronik_server.client import AsyncClient
from chronik_server.hosting import Hosting
from chronik_server.testing.servers.world import LOG, ServersWorld
from chronik_store.testing.disk_faults import fail_next
from tests.server.servers.watching import PATIENCE, agree, backend, until

METADATA = "/data/wal/__chronik_metadata/0"
GROWN = ("n1", "n2", "n3")


def flip(world: ServersWorld) -> None:
    """One bit behind the entry that made n1 the only voter, in front of those that came later."""
    disk = world.nodes["n1"].machine.disk
    for path in sorted(disk.paths(METADATA)):
        at = disk.peek(path).find(b"make_topic")
        if path.endswith(".log") and at >= 0:
            disk.flip_bit(path, at + 2, 1)
            return
    raise AssertionError("there is nothing to damage")


def lose(world: ServersWorld) -> None:
    """All of the log."""
    disk = world.nodes["n1"].machine.disk
    for path in sorted(disk.paths(METADATA)):
        disk.flip_bit(path, 1, 1)


@pytest.mark.parametrize("damage", [flip, lose])
@pytest.mark.parametrize("all_restart", [False, True])
def test_it_elects_nobody_without_those_that_joined_later(
    damage: Callable[[ServersWorld], None],
    all_restart: bool,
) -> None:
    """It led alone by the log that was cut: topics were gone, and the others ended."""
    world = ServersWorld(
        ["n1"], seed=0, log=LOG.replace(segment_age_seconds=3600.0, wal_file_bytes=64_000)
    )

    async def story() -> None:
        world.nodes["n1"].boot()
        async with world.client("n1", **PATIENCE) as client:
            await client.create_topic("old")
        for name in GROWN[1:]:
            world.add(name, join=["n1"]).boot()
        await until(lambda: agree(world, "old"), "they have grown")
        async with world.client(*GROWN, **PATIENCE) as client:
            await client.create_topic("new", replicas=3)
            await client.append("new", [b"x"])
            await asyncio.sleep(30)
            for name in GROWN if all_restart else GROWN[:1]:
                world.nodes[name].kill()
            damage(world)
            world.nodes["n1"].boot()
            await asyncio.sleep(10)
            assert not backend(world, "n1")._group.part.consensus.is_ready
            for node in world.nodes.values():
                node.boot_if_down()
            await until(lambda: agree(world, "old", "new"), "they agree again")
            (record,) = (await client.read("new", 0)).records
            assert b"x" == record.value

    world.run(story)
    assert [] == world.violations


def test_metadata_that_is_gone_from_a_node_elects_nobody_without_the_rest() -> None:
    """It voted for one that lacked what it had acknowledged itself: that was gone."""
    world = ServersWorld(GROWN, seed=0)

    async def story() -> None:
        for node in world.nodes.values():
            node.boot()
        await until(lambda: agree(world), "they elect")
        async with world.client("n1", "n2", **PATIENCE) as client:
            await client.transfer_leader("", to="n1")
            world.nodes["n3"].kill()
            await asyncio.sleep(1)  # a client that was at it hears of that
            await client.create_topic("a", replicas=1)
        known = backend(world, "n1")._group.state.topics["a"].topic_id
        for name in ("n1", "n2"):
            world.nodes[name].kill()
        disk = world.nodes["n2"].machine.disk
        for path in sorted(disk.paths(METADATA)):
            disk.vanish(path)
        for name in ("n2", "n3"):
            world.nodes[name].boot()
        await asyncio.sleep(10)
        for name in ("n2", "n3"):
            assert not backend(world, name)._group.part.consensus.is_ready
        world.nodes["n1"].boot()
        await until(lambda: agree(world, "a"), "they agree again")
        assert known == backend(world, "n2")._group.state.topics["a"].topic_id

    world.run(story)
    assert [] == world.violations


def test_metadata_that_was_cut_goes_on_where_any_node_had_acted_on_it() -> None:
    """Its leader had acted on less: the other one opened nothing, for good."""
    world = ServersWorld(
        GROWN, seed=0, log=LOG.replace(segment_age_seconds=3600.0, wal_file_bytes=64_000)
    )

    async def story() -> None:
        for node in world.nodes.values():
            node.boot()
        await until(lambda: agree(world), "they elect")
        async with world.client(*GROWN, **PATIENCE) as client:
            await client.create_topic("a", replicas=3)
            await asyncio.sleep(4)
            world.nodes["n1"].kill()
            for name in "bcd":
                await client.create_topic(name, replicas=1)
                await client.delete_topic(name)
            await asyncio.sleep(5)
            acted_on = max(backend(world, name)._hosting.acted_on for name in ("n2", "n3"))
            for name in ("n2", "n3"):
                world.nodes[name].kill()
                disk = world.nodes[name].machine.disk
                for path in sorted(disk.paths(METADATA)):
                    disk.flip_bit(path, 1, 1)
            disk = world.nodes["n1"].machine.disk
            newest = max(path for path in disk.paths(METADATA) if path.endswith(".log"))
            disk.flip_bit(newest, len(disk.peek(newest).rstrip(b"\0")) - 8, 1)
            for node in world.nodes.values():
                node.boot()

            def all_run() -> bool:
                found = [backend(world, name) for name in GROWN]
                return None not in found and all(("a", 0) in b._hosting.partitions for b in found)

            await until(all_run, "each opens its copy")
            group = backend(world, "n1")._group
            assert group.state.offset >= acted_on > 0

    world.run(story)
    assert [] == world.violations


def test_a_copy_whose_headers_are_all_damaged_is_of_the_same_log_again() -> None:
    """It took an id of its own, and published under it when it led: then nobody published more."""
    world = ServersWorld(
        GROWN, seed=0, log=LOG.replace(segment_age_seconds=3600.0, wal_file_bytes=64_000)
    )

    async def story() -> None:
        for node in world.nodes.values():
            node.boot()
        await until(lambda: agree(world), "they elect")
        async with world.client(*GROWN, **PATIENCE) as client:
            made = await client.create_topic("a", replicas=3)
            await client.append("a", [b"x"])
            await asyncio.sleep(3)
            world.nodes["n1"].kill()
            disk = world.nodes["n1"].machine.disk
            for path in sorted(disk.paths("/data/wal/a/0")):
                disk.flip_bit(path, 0, 1)
            world.nodes["n1"].boot()

            def partition() -> Any:
                found = backend(world, "n1")
                return None if found is None else found._hosting.partitions.get(("a", 0))

            await until(lambda: partition() and not partition().core.replica.suspect, "it is whole")
            (log_id,) = backend(world, "n2")._group.state.topics["a"].log_ids
            assert log_id == partition().core.identity.log_id
            assert made.topic_id == partition().topic_id
            await client.transfer_leader("a", to="n1")
            await client.append("a", [b"y"])
            assert [b"x", b"y"] == [record.value for record in (await client.read("a", 0)).records]

    world.run(story)
    assert [] == world.violations


def test_a_disk_that_fails_while_a_copy_is_marked_as_suspect_ends_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It went on, opened nothing more, and a node that was to leave stayed."""
    world = ServersWorld(GROWN, seed=0)
    plain, failed = Hosting._suspect, list[str]()

    async def failing(self: Hosting, replica: Any) -> None:
        if self._raft.node_id == "n4" and not failed:
            failed.append("n4")
            world.nodes["n4"].machine.disk.hook = fail_next("sync_data", errno.EIO)
        await plain(self, replica)

    monkeypatch.setattr(Hosting, "_suspect", failing)

    async def story() -> None:
        for node in world.nodes.values():
            node.boot()
        await until(lambda: agree(world), "they elect")
        async with world.client(*GROWN, **PATIENCE) as client:
            await client.create_topic("a", replicas=3)
            await client.append("a", [b"x"])
            late = world.add("n4", join=["n1", "n2", "n3"])
            late.boot()
            await until(lambda: agree(world, "a"), "it joins")
            await client.remove_node("n3")
            await until(lambda: not late.is_up, "its disk has failed, and it goes on")
            assert "Input/output error" in late.ended
            late.boot()

            def has_moved() -> bool:
                state = backend(world, "n1")._group.state
                return bool(state.state_of("n3") == "removed")

            await until(has_moved, "n3 has left")
            (record,) = (await client.read("a", 0)).records
            assert b"x" == record.value

    world.run(story)
    assert [] == world.violations


def test_a_leader_that_cannot_read_what_another_lacks_lets_a_third_lead() -> None:
    """It went on for as long as it ran: the other stayed behind, and one more loss was too many."""
    world = worn_world()

    async def story() -> None:
        async with one_lags_behind(world, "n1") as client:
            await until(lambda: ends(world) == [3, 3, 3], "the third has caught up")
            found = (await client.read("a", 0)).records
            assert [b"record %d" % number for number in range(3)] == [each.value for each in found]

    world.run(story)
    assert [] == world.violations


def test_leaders_of_which_none_can_read_it_do_not_pass_the_lead_to_and_fro() -> None:
    """Each has it taken from it once; there is no more to be had, and appends must go on."""
    world = worn_world()

    async def story() -> None:
        async with one_lags_behind(world, "n1", "n2"):
            await asyncio.sleep(20)
            term = term_of(world)
            await asyncio.sleep(20)
            assert term == term_of(world)

    world.run(story)
    assert [] == world.violations


def worn_world() -> ServersWorld:
    """Nothing is kept in memory: what is sent is read."""
    return ServersWorld(
        GROWN, seed=0, log=LOG.replace(tail_bytes_max=0, segment_age_seconds=3600.0)
    )


@asynccontextmanager
async def one_lags_behind(world: ServersWorld, *damaged: str) -> AsyncIterator[AsyncClient]:
    """n1 leads a/0, n3 lacks its records, of which one is damaged in these copies."""
    for node in world.nodes.values():
        node.boot()
    await until(lambda: agree(world), "they elect")
    async with world.client(*GROWN, **PATIENCE) as client:
        await client.create_topic("a", replicas=3)
        await client.transfer_leader("a", to="n1")
        world.nodes["n3"].kill()
        await asyncio.sleep(1)
        for number in range(3):
            await client.append("a", [b"record %d" % number])
        for name in damaged:
            disk = world.nodes[name].machine.disk
            logs = disk.paths("/data/wal/a/0")
            (path,) = (each for each in logs if b"record 1" in disk.peek(each))
            disk.flip_bit(path, disk.peek(path).index(b"record 1"), 1)
        world.nodes["n3"].boot()
        yield client


def copies(world: ServersWorld) -> list[Any]:
    """The parts of a/0."""
    servers = filter(None, (backend(world, name) for name in world.nodes))
    parts = (part for each in servers for part in each._hosting.partitions.values())
    return [part for part in parts if str(part) == "a/0"]


def ends(world: ServersWorld) -> list[int]:
    """Where they end."""
    return [each.log.watermarks.committed for each in copies(world)]


def term_of(world: ServersWorld) -> int:
    """The newest that one of them knows."""
    return max(each.consensus.term for each in copies(world))
