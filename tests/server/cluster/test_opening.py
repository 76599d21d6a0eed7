"""Logs that are about to run are opened a few at a time, and run in their order."""

from __future__ import annotations

import asyncio
from typing import Any

from chronik_server.metadata import Metadata
from chronik_server.metadata_commands import MakeTopic
from chronik_server.opening import AT_ONCE, OpenedAhead
from chronik_store.errors import UnavailableError

LANES = [("t", number) for number in range(2 * AT_ONCE)]


def test_a_few_logs_are_opened_side_by_side_and_come_in_their_order() -> None:
    """One after the other, each waited for a dozen syncs, and for a busy event loop in between."""
    state = Metadata()
    state.apply(MakeTopic("t", "aa" * 16, ("bb" * 16,) * len(LANES), 1, (("1",),) * len(LANES)), 0)
    but = {LANES[1], LANES[-1]}

    async def main() -> None:
        begun: list[int] = []
        may_end = asyncio.Event()

        async def run(_function: Any, _store: Any, _topic: Any, partition: int) -> None:
            begun.append(partition)
            await may_end.wait()
            if not partition:
                raise UnavailableError("this one cannot be opened")

        ahead = OpenedAhead(None, run)  # type: ignore[arg-type] # nothing is opened here
        turns = ahead.each(state, LANES, but)
        first = asyncio.ensure_future(anext(turns))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [n for n in range(AT_ONCE) if n != 1] == begun
        assert not first.done()

        may_end.set()
        assert LANES == [await first, *[lane async for lane in turns]]
        assert [n for _, n in LANES if ("t", n) not in but] == begun

    asyncio.run(main())
