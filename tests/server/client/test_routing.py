"""Whom a client asks when nodes disagree about who leads."""

from __future__ import annotations

from pathlib import Path

from chronik_server.client import AsyncClient
from chronik_server.errors import NotLeaderError
from chronik_server.protocol import data, topics
from tests.server.serving import QUICK, run, serving


def test_a_node_that_knows_of_no_leader_is_not_asked_for_ever(tmp_path: Path) -> None:
    """It may be cut off from the others; every other node that can be reached is asked first."""

    async def main() -> None:
        async with (
            serving(tmp_path / "off") as (cut_off, first),
            serving(tmp_path / "on") as (_, second),
        ):
            asked = []

            async def knows_nobody(message: object, *_: object) -> object:
                asked.append(type(message).__name__)
                raise NotLeaderError("led by nobody that this node knows of")

            async def describes(message: topics.DescribeTopic, *_: object) -> object:
                asked.append(type(message).__name__)
                place = topics.PartitionPlace(0, None, None, 3, ("1", "2"))
                return topics.TopicDescription(message.topic, "0" * 32, (place,)), b""

            handlers = cut_off.handlers.by_message
            handlers[data.Produce] = knows_nobody  # type: ignore[assignment]
            handlers[topics.CreateTopic] = knows_nobody  # type: ignore[assignment]
            handlers[topics.DescribeTopic] = describes  # type: ignore[assignment]
            async with AsyncClient(f"{first},{second}", options=QUICK) as client:
                await client.ping()  # the one channel that is open leads to the node cut off
                await client.create_topic("events")
                assert (0, 1, False) == await client.append("events", b"x")
            assert "CreateTopic" in asked
            assert len(asked) < 6

    run(main())
