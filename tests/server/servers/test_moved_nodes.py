"""Nodes that come back at other addresses find each other, and are found by clients."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from chronik_server.addresses import Address
from chronik_server.testing.servers.world import LOG, PORT, ServersWorld
from tests.server.servers.watching import agree, backend, until

NAMES = ("n1", "n2", "n3")
ELSEWHERE = PORT + 89


def move(world: ServersWorld, name: str, **settings: Any) -> None:
    """It is started again, at another address; it was given none of the others, but for these."""
    node = world.nodes[name]
    node.kill()
    node.config = dataclasses.replace(
        node.config, listen=Address(name, ELSEWHERE), **{"peers": (), **settings}
    )
    node.boot()


def recorded(world: ServersWorld, name: str) -> dict[str, str]:
    """Where that node believes all of them to be."""
    found = backend(world, name)
    nodes = () if found is None else found._group.state.nodes.values()
    return {node.node_id: node.address for node in nodes}


@pytest.mark.parametrize("moved", [("n1",), ("n1", "n2", "n3")])
def test_one_that_leads_the_metadata_is_recorded_where_it_is(moved: tuple[str, ...]) -> None:
    """The others sent it, and every client, to where it was: for as long as it led."""
    world = ServersWorld(NAMES, seed=0, log=LOG)

    async def story() -> None:
        for node in world.nodes.values():
            node.boot()
        await until(lambda: agree(world), "they elect")
        now = {name: Address(name, ELSEWHERE if name in moved else PORT) for name in NAMES}
        for name in NAMES:
            world.nodes[name].kill()
        for name in NAMES:
            peers = tuple(now.items()) if len(moved) == len(NAMES) else ()
            if name in moved:
                move(world, name, peers=peers)
            else:
                world.nodes[name].boot()
        await until(lambda: agree(world), "they elect again")
        assert backend(world, "n1")._group.part.consensus.is_ready, "what is to be seen here"
        wanted = {name: str(address) for name, address in now.items()}
        for name in NAMES:
            await until(lambda name=name: wanted == recorded(world, name), f"{name} knows it")

    world.run(story)
    assert [] == world.violations


def test_one_that_was_away_while_others_moved_finds_them_through_any_that_it_is_to_join() -> None:
    """It asked only where they had been, and they wait for it to connect."""
    world = ServersWorld(NAMES, seed=0, log=LOG)

    async def story() -> None:
        for node in world.nodes.values():
            node.boot()
        await until(lambda: agree(world), "they elect")
        world.nodes["n1"].kill()
        for name in ("n2", "n3"):
            peers = tuple((each, Address(each, ELSEWHERE)) for each in ("n2", "n3"))
            move(world, name, peers=peers)
        wanted = {"n1": f"n1:{PORT}", "n2": f"n2:{ELSEWHERE}", "n3": f"n3:{ELSEWHERE}"}
        await until(lambda: wanted == recorded(world, "n3"), "two are a majority")
        move(world, "n1", join=(Address("n2", ELSEWHERE),))
        await until(lambda: agree(world), "the third one has found them")

    world.run(story)
    assert [] == world.violations


def test_two_of_three_that_move_at_once_are_found_by_the_one_that_stays() -> None:
    """It has the least id, so it connects; it knew where they had been, and no majority was left
    to be told where they are. It is told that by themselves.
    """
    world = ServersWorld(NAMES, seed=0, log=LOG)

    async def story() -> None:
        for node in world.nodes.values():
            node.boot()
        await until(lambda: agree(world), "they elect")
        for name in ("n2", "n3"):
            world.nodes[name].kill()
        for name in ("n2", "n3"):
            move(world, name)
        await until(lambda: agree(world), "they elect again")
        wanted = {"n1": f"n1:{PORT}", "n2": f"n2:{ELSEWHERE}", "n3": f"n3:{ELSEWHERE}"}
        for name in NAMES:
            await until(lambda name=name: wanted == recorded(world, name), f"{name} knows it")

    world.run(story)
    assert [] == world.violations
