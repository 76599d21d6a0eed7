"""Metadata that a roll call has cut: nodes act on no older fold than they have, so it goes on."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from chronik_server.metadata import Metadata
from chronik_server.metadata_commands import AdmitNode, Command, MoveNode
from chronik_server.protocol.cluster import NodeReport
from chronik_server.steward import Steward


@pytest.mark.parametrize(
    ("acted_on", "another", "added"), [(0, 0, 0), (2, 2, 0), (5, 0, 3), (2, 5, 3), (4, 5, 3)]
)
def test_it_is_brought_to_where_any_node_had_acted_on_it(
    acted_on: int, another: int, added: int
) -> None:
    """All partitions stayed closed, "being opened", until enough new commands had come."""
    state, wished = Metadata(), list[Command]()
    for node in ("1", "2"):
        state.apply(AdmitNode(node, f"h:{node}", "member"), state.offset)
    nodes = dict(state.nodes)

    async def command(*wanted: Command) -> None:
        for each in wanted:
            wished.append(each)
            state.apply(each, state.offset)

    nothing: Any = None
    group: Any = SimpleNamespace(state=state, command=command)
    steward = Steward(
        group, nothing, node_id="1", first={}, found=nothing, acted_on=lambda: acted_on,
        greeted=nothing, is_connected=nothing, sweep=nothing, now=nothing,
    )  # fmt: skip
    steward.take("2", NodeReport(acted_on=another))
    steward.take("3", NodeReport())
    asyncio.run(steward._go_on())
    asyncio.run(steward._go_on())
    assert [MoveNode("1", "h:1")] * added == wished
    assert nodes == state.nodes
