"""A topic deleted and made again: what is meant for the new one never enters the old one."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chronik_server import steward
from chronik_server.client import AsyncClient
from chronik_server.hosting import Hosting
from chronik_server.metadata import Metadata
from chronik_server.metadata_commands import (
    AdmitNode,
    Command,
    DropTopic,
    ForgetTopic,
    GrowTopic,
    MakeTopic,
    PlacePartition,
)
from chronik_server.protocol.cluster import NodeReport
from chronik_server.steward import Steward
from chronik_store.errors import ChronikError, UnavailableError
from tests.server.cluster.nodes import clustered, servers
from tests.server.serving import ONCE, QUICK, run

OLD = "aa" * 16


def test_a_node_that_is_busy_acknowledges_nothing_for_the_topic_that_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reconciliation waits for disks and for the bucket; nobody else may wait for it."""
    free = asyncio.Event()
    plain = Hosting.reconcile

    async def slowly(self: Hosting, state: Metadata) -> None:
        await free.wait()
        await plain(self, state)

    async def main() -> None:
        free.set()
        async with (
            clustered(tmp_path, 1) as (node,),
            AsyncClient(node.address, options=QUICK) as client,
            AsyncClient(node.address, options=ONCE) as once,
        ):
            await client.create_topic("x")
            await client.append("x", [b"old"])
            monkeypatch.setattr(Hosting, "reconcile", slowly)
            free.clear()
            await client.delete_topic("x")
            assert node.backend.known_partition("x", 0) is None
            await client.create_topic("x")
            assert node.backend.known_partition("x", 0) is None
            with pytest.raises(UnavailableError) as refused:
                await once.append("x", [b"new"])
            assert refused.value.durability == "not_durable"
            with pytest.raises(ChronikError):
                await once.read("x", 0)
            free.set()
            assert (await client.append("x", [b"new"])).base_offset == 0
            assert [b"new"] == [each.value for each in (await client.read("x", 0)).records]

    run(main())


def test_a_topic_is_made_again_when_a_quorum_of_the_old_one_has_ended(tmp_path: Path) -> None:
    """By the nodes themselves, at once, and not at the next tick of anybody."""

    async def main() -> None:
        async with (
            clustered(tmp_path, 3) as nodes,
            AsyncClient(servers(nodes), options=QUICK) as client,
        ):
            for number in range(3):
                await client.create_topic("x")
                # Every node that could still take part in the old group has said that it does not.
                for node in nodes:
                    if node.backend._group.part.consensus.is_ready:
                        assert set() == node.backend._steward._may_acknowledge("x")
                await client.append("x", [b"%d" % number])
                held = (await client.read("x", 0)).records
                assert [b"%d" % number] == [each.value for each in held]
                await client.delete_topic("x")

    run(main())


def test_while_a_quorum_of_the_old_one_may_run_it_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_: Hosting, __: Metadata) -> tuple[str, ...]:
        return ()

    async def main() -> None:
        async with (
            clustered(tmp_path, 1) as (node,),
            AsyncClient(node.address, options=QUICK) as client,
            AsyncClient(node.address, options=ONCE) as once,
        ):
            await client.create_topic("x")
            monkeypatch.setattr(steward, "FREE_SECONDS", 0.01)
            monkeypatch.setattr(Hosting, "stopped", silent)
            monkeypatch.setattr(Hosting, "cleared", lambda *_: ())
            await client.delete_topic("x")
            with pytest.raises(UnavailableError, match="an older topic 'x'"):
                await once.create_topic("x")
            assert () == await client.topics()

    run(main())


class Leader:
    """A steward over metadata that the test makes."""

    def __init__(self, *commands: Command) -> None:
        self.state = Metadata()
        self.fold(*commands)
        group: Any = SimpleNamespace(state=self.state)
        nothing: Any = None
        self.steward = Steward(
            group, nothing, node_id="1", first={}, found=nothing, acted_on=nothing, greeted=nothing,
            is_connected=lambda _node: True, sweep=nothing, now=lambda: 0.0,
        )  # fmt: skip

    def fold(self, *commands: Command) -> None:
        for command in commands:
            self.state.apply(command, self.state.offset)

    def stopped(self, *nodes: str) -> None:
        for node in nodes:
            self.steward.take(node, NodeReport(stopped=(OLD,)))

    @property
    def running(self) -> set[str]:
        return self.steward._may_acknowledge("x")


def made(*replicas: str) -> MakeTopic:
    return MakeTopic("x", OLD, ("11" * 16,), len(replicas), (replicas,))


def test_the_name_is_free_when_those_who_have_not_said_so_are_no_quorum() -> None:
    leader = Leader(made("1", "2", "3"))
    assert set() == leader.running  # it is live: nobody asks
    leader.fold(DropTopic(OLD))
    assert {"1", "2", "3"} == leader.running
    leader.stopped("2")
    assert {"1", "3"} == leader.running
    leader.stopped("2")
    assert {"1", "3"} == leader.running
    leader.stopped("3")
    assert set() == leader.running


@pytest.mark.parametrize(("copies", "enough"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_a_quorum_of_any_size(copies: int, enough: int) -> None:
    nodes = [str(number) for number in range(copies)]
    leader = Leader(made(*nodes), DropTopic(OLD))
    for count, node in enumerate(nodes, start=1):
        assert bool(leader.running) == (count <= enough)
        leader.stopped(node)


def test_of_partitions_that_were_added_a_quorum_is_enough_as_well() -> None:
    more = GrowTopic(OLD, 1, ("22" * 16,), (("3", "4", "5"),))
    leader = Leader(made("1", "2", "3"), more, DropTopic(OLD))
    leader.stopped("1", "2")
    assert {"3", "4", "5"} == leader.running
    leader.stopped("5", "3")
    assert set() == leader.running


def test_of_a_partition_that_moved_every_node_that_may_have_it_is_heard_or_removed() -> None:
    """Its voters may be any of them, one alone included."""
    nodes = [AdmitNode(each, f"h:{each}", "leaving") for each in ("3", "4")]
    leader = Leader(*nodes, made("1", "2", "3"), PlacePartition(OLD, 0, ("1", "2", "4")))
    leader.fold(DropTopic(OLD))
    leader.stopped("1", "2", "3")
    assert {"4"} == leader.running
    leader.state.nodes["4"] = leader.state.nodes["4"].__class__("4", "h:4", None, "removed")
    assert set() == leader.running


def test_who_makes_it_waits_for_that_and_is_told_who_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        leader = Leader(made("1", "2", "3"), DropTopic(OLD))
        waiting = [asyncio.ensure_future(leader.steward.name_is_free("x")) for _ in range(2)]
        await asyncio.sleep(0)
        leader.stopped("1")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not any(each.done() for each in waiting)
        leader.stopped("3")
        await asyncio.gather(*waiting)

        monkeypatch.setattr(steward, "FREE_SECONDS", 0.01)
        leader = Leader(made("1", "2", "3"), DropTopic(OLD))
        leader.stopped("1")
        with pytest.raises(UnavailableError, match="bring 2, 3 back"):
            await leader.steward.name_is_free("x")
        leader.fold(ForgetTopic(OLD))
        await leader.steward.name_is_free("x")

    run(main())


def test_what_nodes_say_of_a_topic_that_is_forgotten_is_not_kept() -> None:
    """They repeat it until they have heard; topics come and go for as long as a node leads."""
    leader = Leader(made("1", "2"), DropTopic(OLD))
    leader.stopped("1", "2")
    leader.steward.take("2", NodeReport(cleared=(OLD,)))

    asyncio.run(leader.steward._forget_topics())
    assert {OLD} == leader.steward._stopped.keys() == leader.steward._cleared.keys()

    leader.fold(ForgetTopic(OLD))
    asyncio.run(leader.steward._forget_topics())
    assert {} == leader.steward._stopped == leader.steward._cleared


def test_a_sweep_that_fails_when_nobody_looks_any_more_says_nothing() -> None:
    async def main() -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: said.append(what))

        async def away(_: object) -> None:
            await asyncio.sleep(0.01)
            raise UnavailableError("the bucket does not answer")

        leader = Leader(made("1"), DropTopic(OLD))
        leader.steward._sweep = away
        leader.steward.take("1", NodeReport(cleared=(OLD,)))
        await leader.steward._forget_topics()
        await leader.steward.stop()
        del leader
        gc.collect()
        return said

    assert [] == asyncio.run(main())


def test_topics_that_wait_for_the_bucket_leave_threads_to_the_others() -> None:
    """A dozen of them took every thread while the bucket was away: no partition was opened."""

    async def main() -> None:
        ids = [f"{number:032x}" for number in range(1, 6)]
        topics = [MakeTopic(f"t{each[-1]}", each, ("11" * 16,), 1, (("1",),)) for each in ids]
        leader = Leader(*topics, *map(DropTopic, ids))
        begun: list[str] = []
        is_back = asyncio.Event()

        async def sweep(topic: Any) -> None:
            begun.append(topic.topic_id)
            await is_back.wait()

        leader.steward._sweep = sweep
        leader.steward.take("1", NodeReport(cleared=tuple(ids)))
        await leader.steward._forget_topics()
        await asyncio.sleep(0)
        assert ids[: steward.SWEEPS_MAX] == begun
        is_back.set()
        await leader.steward.stop()
        assert ids == begun

    asyncio.run(main())
