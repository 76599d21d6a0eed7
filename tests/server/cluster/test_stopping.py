"""A node that stops hands over what it leads; one whose log has ended refuses nobody for good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chronik_server.client import AsyncClient
from chronik_store.errors import ChronikError, Durability, LogPoisonedError
from tests.server.cluster.nodes import clustered, servers
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
