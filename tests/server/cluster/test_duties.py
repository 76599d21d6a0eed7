"""The duties of a node's control side do not wait for each other."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from chronik_server import control
from chronik_server.addresses import Address
from chronik_server.control import Control
from chronik_server.metadata import Metadata
from chronik_store.environment import Environment
from tests.server.serving import QUICK


def test_a_leader_that_does_not_answer_when_it_is_asked_to_hand_over_holds_up_no_other_duty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing was placed, removed or forgotten meanwhile: for half a minute each time."""
    monkeypatch.setattr(control, "TICK_SECONDS", 0.001)

    async def main() -> None:
        asked, governed = asyncio.Event(), asyncio.Event()

        async def nothing(*_: object) -> tuple[str, ...]:
            return ()

        async def hand_over(_state: Metadata) -> None:
            asked.set()
            await asyncio.Event().wait()

        async def govern() -> None:
            if asked.is_set():
                governed.set()

        members = SimpleNamespace(voters=("1",), learners=())
        consensus = SimpleNamespace(leader="1", is_ready=True, status=lambda: members)
        state, part = Metadata(), SimpleNamespace(consensus=consensus)
        parts: Any = {
            "group": SimpleNamespace(state=state, part=part, is_current=True),
            "hosting": SimpleNamespace(
                partitions={},
                acted_on=0,
                stopped=nothing,
                cleared=lambda _state: (),
                note_rolls=nothing,
            ),
            "peers": SimpleNamespace(follow=lambda _addresses: None),
            "changes": SimpleNamespace(tick=nothing),
            "steward": SimpleNamespace(tick=govern, stop=nothing),
            "spread": SimpleNamespace(tick=hand_over),
            "bucket": SimpleNamespace(tick=nothing),
        }
        node = Control(
            node_id="1", own_address=Address("h1", 1), hints={}, entrances=(), options=QUICK,
            env=Environment(), add_node=nothing, on_removed=lambda: None, **parts,
        )  # fmt: skip
        node.start()
        try:
            async with asyncio.timeout(10):
                await governed.wait()
        finally:
            await node.stop()

    asyncio.run(main())
