"""The metadata has a command that a node's version does not know: the node ends, and loses nothing.

It passed over it, made what came later, and noted that; upgraded, it took the logs of the command
that it had not known for lost ones.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from chronik_server import joining
from chronik_server import metadata_commands as commands
from chronik_server.addresses import Address, parse_address
from chronik_server.client import AsyncClient
from chronik_server.metadata_commands import AdmitNode, GrowTopic, MakeTopic
from chronik_store.errors import FutureVersionError
from chronik_store.format import cbor
from chronik_store.format.record_batch import RecordBatch
from tests.server.cluster import nodes as nodes_module
from tests.server.cluster.nodes import clustered, servers, start
from tests.server.serving import QUICK, run

ONE = (("1",),)
LATER = MakeTopic("later", "bb" * 16, ("cc" * 16,), 1, ONE)


def test_a_node_ends_at_what_it_does_not_know_and_goes_on_from_there_when_it_is_upgraded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    ended: list[BaseException] = []
    must_end = asyncio.Event()

    def failed(error: BaseException) -> None:
        ended.append(error)
        must_end.set()

    monkeypatch.setattr(nodes_module, "_failed", failed)

    async def main() -> None:
        async with clustered(tmp_path, 1) as nodes:
            (node,) = nodes
            peers = (("1", parse_address(node.address)),)
            async with AsyncClient(servers(nodes), options=QUICK) as client:
                made = await client.create_topic("events")
                await client.append("events", b"before")
                said = [
                    commands.encode(GrowTopic(made.topic_id, 1, ("dd" * 16,), ONE)),
                    commands.encode(LATER),
                ]
                with monkeypatch.context() as older:
                    older.delitem(commands._SHAPES, "grow_topic")
                    group = node.backend._group
                    await group.part.produce(RecordBatch.build(said), "quorum", None)
                    await must_end.wait()
                    assert {FutureVersionError} == {type(each) for each in ended}
                    assert "'grow_topic'" in str(ended[0])
                    assert ["events"] == list(group.state.topics)
                    await node.server.stop()

                    must_end.clear()  # started again as it is, it ends again
                    nodes[0] = await start(tmp_path, "1", peers)
                    await must_end.wait()
                    await nodes[0].server.stop()
                    assert 1 == nodes[0].backend._group.state.topics["events"].partitions

            ended.clear()
            nodes[0] = await start(tmp_path, "1", peers)
            async with AsyncClient(servers(nodes), options=QUICK) as client:
                assert 0 == (await client.append("events", b"new", partition=1)).base_offset
                assert 0 == (await client.append("later", b"new")).base_offset
                (record,) = await client.read("events", 0)
                assert b"before" == record.value
            assert [] == ended

    run(main())
    assert not [each for each in caplog.messages if "is gone from this node's disk" in each]


def test_where_nodes_are_is_learnt_beside_what_is_not_known() -> None:
    """Of entries that may never be committed: they end nobody."""
    found: dict[str, Address] = {}
    for value in (
        commands.encode(AdmitNode("1", "h:1")),
        cbor.encode(["later", {}]),
        commands.encode(AdmitNode("2", "h:2")),
    ):
        joining._note(found, value)
    assert {"1": Address("h", 1), "2": Address("h", 2)} == found
