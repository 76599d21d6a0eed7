"""A node that stops hands over what it leads; one whose log has ended refuses nobody for good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from chronik_server import handing_over
from chronik_server.client import AsyncClient
from chronik_server.raft_partition import RaftPartition
from chronik_store.errors import ChronikError, Durability, LogPoisonedError, UnavailableError
from tests.server.cluster.nodes import InProcess, clustered, servers
from tests.server.serving import QUICK, run


@pytest.mark.parametrize("victim", [1, 3])
def test_11_what_it_leads_has_a_leader_when_it_has_stopped(tmp_path: Path, victim: int) -> None:
    """Node 1 calls the others, node 3 is called by them: its sessions are its way to them."""

    async def main() -> None:
        async with (
            clustered(tmp_path, 3) as nodes,
            AsyncClient(servers(nodes), options=QUICK) as client,
        ):
            await client.create_topic("x")
            await client.append("x", [b"a"])
            node = nodes[victim - 1]
            while not node.leads("x"):
                try:
                    await client.transfer_leader("x", to=node.node_id)
                    await client.append("x", [b"b"])
                except ChronikError:
                    continue  # it has not caught up yet, or another has just been elected
            term = node.backend.known_partition("x", 0).consensus.term
            await node.server.stop()
            others = [each for each in nodes if each is not node]
            found = [each.backend.known_partition("x", 0).consensus for each in others]
            assert term + 1 == max(each.term for each in found)
            assert any(each.leader in {each.node_id for each in others} for each in found)

    run(main())


async def led_by(client: AsyncClient, node: InProcess, partitions: int) -> None:
    """Until it leads all of these of topic `x`."""
    for number in range(partitions):
        while not node.backend.known_partition("x", number).consensus.is_ready:
            try:
                await client.transfer_leader("x", partition=number, to=node.node_id)
                await client.append("x", [b"b"], partition=number)
            except ChronikError:
                continue  # it has not caught up yet, or another has just been elected


@asynccontextmanager
async def about_to_stop(
    path: Path, partitions: int
) -> AsyncIterator[tuple[AsyncClient, InProcess, list[InProcess]]]:
    """A client, a node that leads all of `x`, and the others."""
    async with clustered(path, 3) as nodes, AsyncClient(servers(nodes), options=QUICK) as client:
        await client.create_topic("x", partitions=partitions)
        for number in range(partitions):
            await client.append("x", [b"a"], partition=number)
        await led_by(client, nodes[0], partitions)
        yield client, nodes[0], nodes[1:]


def leaders(nodes: list[InProcess], partitions: int) -> set[str | None]:
    parts = [nodes[0].backend.known_partition("x", number) for number in range(partitions)]
    return {part.consensus.leader for part in parts}


def test_13_what_waits_for_its_turn_is_served_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients were seen off first: all partitions rested until the last had been handed over."""
    monkeypatch.setattr(handing_over, "HAND_OVERS_AT_ONCE", 1)

    async def main() -> None:
        async with about_to_stop(tmp_path, 3) as (client, node, others):
            transfer, turn, go_on = (
                node.backend._membership.transfer,
                asyncio.Event(),
                asyncio.Event(),
            )

            async def slow(part: RaftPartition, to: str | None) -> None:
                turn.set()
                await go_on.wait()
                await transfer(part, to)

            node.backend._membership.transfer = slow
            stopping = asyncio.create_task(node.server.stop())
            await turn.wait()
            for number in range(3):
                await client.append("x", [b"c"], partition=number)
                assert node.backend.known_partition("x", number).consensus.is_ready
            assert not stopping.done()
            go_on.set()
            await stopping
            assert leaders(others, 3) <= {each.node_id for each in others}

    run(main())


def test_13_a_few_are_handed_over_at_a_time_and_all_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handing_over, "HAND_OVERS_AT_ONCE", 2)

    async def main() -> None:
        async with about_to_stop(tmp_path, 6) as (_, node, others):
            transfer, under_way, most = node.backend._membership.transfer, 0, 0

            async def counting(part: RaftPartition, to: str | None) -> None:
                nonlocal under_way, most
                under_way += 1
                most = max(most, under_way)
                try:
                    await transfer(part, to)
                finally:
                    under_way -= 1

            node.backend._membership.transfer = counting
            await node.server.stop()
            assert 2 == most
            assert leaders(others, 6) <= {each.node_id for each in others}

    run(main())


@pytest.mark.parametrize("how", ["refused", "late"])
def test_13_what_could_not_be_handed_over_at_once_is_tried_again(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with about_to_stop(tmp_path, 2) as (_, node, others):
            transfer, seen = node.backend._membership.transfer, []

            async def once(part: RaftPartition, to: str | None) -> None:
                seen.append(part)
                if str(part).startswith("x/") and seen.count(part) == 1:
                    if how == "late":
                        await asyncio.sleep(60)
                    raise UnavailableError("not now")
                await transfer(part, to)

            node.backend._membership.transfer = once
            await node.server.stop()
            assert leaders(others, 2) <= {each.node_id for each in others}
            assert "handed over" not in caplog.text
            assert {2} == {seen.count(part) for part in seen if str(part).startswith("x/")}

    run(main())


@pytest.mark.parametrize("durability", ["not_durable", "unknown"])
@pytest.mark.parametrize("acks", ["quorum", "leader"])
def test_9_an_append_that_met_a_log_that_has_ended_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Durability, acks: Any
) -> None:
    """The process of such a node ends; its clients come to the next leader with the same batch."""

    async def main() -> None:
        async with (
            clustered(tmp_path, 1) as (node,),
            AsyncClient(node.address, options=QUICK) as client,
        ):
            await client.create_topic("x")
            await client.append("x", [b"a"])
            consensus = node.backend.known_partition("x", 0).consensus
            met = []

            def ended(*_: Any, **__: Any) -> Any:
                met.append(1)
                monkeypatch.undo()
                raise LogPoisonedError("no space", cause=OSError(28, "full"), durability=durability)

            for way in ("propose", "propose_batch"):
                monkeypatch.setattr(consensus, way, ended)
            assert (1, 2) == (await client.append("x", [b"b"], acks=acks))[:2]
            assert met == [1]
            assert [b"a", b"b"] == [each.value for each in (await client.read("x", 0)).records]

    run(main())


def test_13_a_handover_ends_when_the_next_leader_is_heard_of(tmp_path: Path) -> None:
    """It ended with the old leader's term: a node that stops was gone before it had voted."""

    async def main() -> None:
        async with about_to_stop(tmp_path, 1) as (_, node, others):
            part = node.backend.known_partition("x", 0)
            for _ in range(10):
                await led_by_itself(node, others)
                await node.backend._membership.transfer(part, None)
                assert part.consensus.leader in {each.node_id for each in others}

    run(main())


async def led_by_itself(node: InProcess, others: list[InProcess]) -> None:
    """Until it leads `x/0` again, by the others' own word."""
    consensus = node.backend.known_partition("x", 0).consensus
    while not consensus.is_ready:
        for each in others:
            part = each.backend.known_partition("x", 0)
            if part.consensus.is_ready:
                with suppress(ChronikError):
                    await each.backend._membership.transfer(part, node.node_id)
        await asyncio.sleep(0.02)
