"""What a node that nobody leads, as far as it knows, learns from those that it knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from chronik_server import control
from chronik_server.addresses import Address
from chronik_server.control import Control
from chronik_server.metadata import Metadata
from chronik_server.metadata_commands import AdmitNode, MoveNode
from chronik_server.protocol.cluster import ClusterDescription, NodeInfo
from chronik_server.protocol.greeting import PeerIdentity
from chronik_store.environment import Environment
from tests.server.serving import QUICK

OWN = PeerIdentity("cc" * 16, "1", "a1" * 16, "b1" * 16)
KNOWN = {"2": (Address("h2", 1),), "3": (Address("h3", 1),)}
"""One by the registry, the other by the settings."""


class Around:
    """The control side of node "1", and the nodes around it, which all answer the same."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        answer: ClusterDescription,
        *,
        leader: str | None = None,
        connected: str = "",
    ) -> None:
        self.asked: list[Sequence[Address]] = []
        self.followed: dict[str, tuple[Address, ...]] = {}
        self.ends = 0
        self.state = state = Metadata()
        for node in ("1", "2"):
            state.apply(AdmitNode(node, f"h{node}:1", "member"), state.offset)

        async def cluster() -> ClusterDescription:
            return answer

        @asynccontextmanager
        async def client_of(
            _env: object, to: Sequence[Address], _: object, *, node_id: str
        ) -> AsyncIterator[Any]:
            self.asked.append(to)
            yield SimpleNamespace(cluster=cluster, add_node=add_node)

        async def add_node(node_id: str, address: str) -> None:
            state.apply(MoveNode(node_id, address), state.offset)

        def follow(addresses: dict[str, tuple[Address, ...]]) -> None:
            self.followed = addresses

        def end() -> None:
            self.ends += 1

        monkeypatch.setattr(control, "client_of", client_of)
        members = SimpleNamespace(voters=("1", "2"), learners=())
        consensus = SimpleNamespace(leader=leader, status=lambda: members, is_ready=False)
        parts: Any = {
            "group": SimpleNamespace(state=state, part=SimpleNamespace(consensus=consensus)),
            "peers": SimpleNamespace(
                own=OWN, follow=follow, is_connected=lambda node: node in connected
            ),
            **dict.fromkeys(("hosting", "changes", "steward", "spread", "bucket", "add_node")),
        }
        self.control = Control(
            node_id="1", own_address=Address("h1", 1), hints={"3": Address("h3", 1)}, entrances=(),
            options=QUICK, env=Environment(), on_removed=end, **parts,
        )  # fmt: skip
        self.control.connect()

    def ask_twice(self) -> None:
        """Others are asked when nobody led at two looks."""

        async def ask() -> None:
            for _ in range(2):
                await self.control._ask_around()

        asyncio.run(ask())


@pytest.mark.parametrize("cluster_id", [OWN.cluster_id, "dd" * 16], ids=["its own", "another"])
def test_a_node_connects_to_those_of_its_cluster_that_it_is_told_of(
    monkeypatch: pytest.MonkeyPatch, cluster_id: str
) -> None:
    """They had joined while it was away, and one of them leads: neither called the other."""
    nodes = (
        *(NodeInfo(node, f"h{node}:1") for node in "1234"),
        NodeInfo("5", "h5:1", state="removed"),
    )
    around = Around(monkeypatch, ClusterDescription(cluster_id, "2", nodes, "4"))
    assert KNOWN == around.followed

    around.ask_twice()
    assert [(*KNOWN["2"], *KNOWN["3"])] == around.asked
    told = {"4": (Address("h4", 1),)} if cluster_id == OWN.cluster_id else {}
    assert {**KNOWN, **told} == around.followed


@pytest.mark.parametrize(
    ("node_uuid", "ends"),
    [(None, 1), (OWN.node_uuid, 1), ("a9" * 16, 0)],
    ids=["never connected", "its own", "another's"],
)
def test_a_node_ends_when_it_is_told_that_it_was_removed(
    monkeypatch: pytest.MonkeyPatch, node_uuid: str | None, ends: int
) -> None:
    """Also one that was removed before the registry had its directory: it waited for good."""
    nodes = (NodeInfo("1", "h1:1", node_uuid, "removed"), NodeInfo("2", "h2:1"))
    around = Around(monkeypatch, ClusterDescription(OWN.cluster_id, "2", nodes, "2"))
    around.ask_twice()
    assert ends == around.ends


@pytest.mark.parametrize(
    ("leader", "connected", "ends"), [("2", "23", 0), ("1", "", 0), ("2", "3", 1), ("2", "", 1)]
)
def test_a_learner_that_its_leader_hung_up_on_asks_whether_it_was_removed(
    monkeypatch: pytest.MonkeyPatch, leader: str, connected: str, ends: int
) -> None:
    """It elects nobody, so it names that leader for ever; and those who removed it do not call."""
    nodes = (NodeInfo("1", "h1:1", OWN.node_uuid, "removed"), NodeInfo("2", "h2:1"))
    found = ClusterDescription(OWN.cluster_id, "2", nodes, "2")
    around = Around(monkeypatch, found, leader=leader, connected=connected)
    around.ask_twice()
    assert ends == around.ends == len(around.asked)


def test_a_node_says_that_another_process_moves_it_to_and_fro(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a copy of the node whose id sorts last nobody heard: that one is called by the others."""
    around = Around(monkeypatch, ClusterDescription(OWN.cluster_id, "2", (), "2"))
    state, announce = around.state, around.control._announce

    async def main() -> None:
        for times in range(3):
            await announce()
            assert "h1:1" == state.nodes["1"].address
            await announce()
            assert (times > 1) == ("must end" in caplog.text)
            state.apply(MoveNode("1", "h9:1"), state.offset)

    asyncio.run(main())
