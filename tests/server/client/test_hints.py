"""What nodes say of each other's addresses, believed or not."""

from __future__ import annotations

from pathlib import Path

from chronik_server.client import AsyncClient
from chronik_server.errors import NotLeaderError
from chronik_server.protocol import data, topics
from tests.server.serving import QUICK, run, serving


def test_a_hint_that_is_no_address_is_none(tmp_path: Path) -> None:
    """One node that talks nonsense ended a call that another node would have granted."""

    async def main() -> None:
        async with (
            serving(tmp_path / "odd") as (odd, first),
            serving(tmp_path / "good") as (_, second),
        ):

            async def sends_away(*_: object) -> object:
                raise NotLeaderError("ask node 2", node_id="2", address="nowhere:99999")

            async def describes(message: topics.DescribeTopic, *_: object) -> object:
                place = topics.PartitionPlace(0, "2", "nowhere:99999", 3, ("2",))
                return topics.TopicDescription(message.topic, "0" * 32, (place,)), b""

            handlers = odd.handlers.by_message
            handlers[data.Produce] = sends_away  # type: ignore[assignment]
            handlers[topics.CreateTopic] = sends_away  # type: ignore[assignment]
            handlers[topics.DescribeTopic] = describes  # type: ignore[assignment]
            async with AsyncClient(f"{first},{second}", options=QUICK) as client:
                await client.ping()
                await client.create_topic("events")
                assert (0, 1, False) == await client.append("events", b"x")

    run(main())
