"""A leader with a full disk offers what it leads, once in a while."""

from __future__ import annotations

import asyncio
from typing import Any

from chronik_server.giving_way import PAUSE_SECONDS, GivingWay
from chronik_store.errors import UnavailableError


class Part:
    """As much of a partition as it is asked for."""

    def __init__(self, group_id: str) -> None:
        self.consensus = self
        self.group_id = group_id


def test_each_partition_is_offered_once_until_a_pause_is_over() -> None:
    now = [0.0]
    offered: list[str] = []

    async def transfer(part: Any) -> None:
        offered.append(part.group_id)
        if part.group_id == "b":
            raise UnavailableError("nobody is there")

    async def main() -> None:
        giving_way = GivingWay(transfer, lambda: now[0])
        for _ in range(3):  # a refused append each
            giving_way.refused(Part("a"))
            giving_way.refused(Part("b"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert ["a", "b"] == offered

        now[0] = PAUSE_SECONDS
        giving_way.refused(Part("b"))
        await asyncio.sleep(0)
        assert ["a", "b", "b"] == offered
        await giving_way.stop()

    asyncio.run(main())
