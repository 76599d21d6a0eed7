"""What a node does for all of its groups: the table of claims, and reads from disk."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from chronik_server.raft.liveness import WITHDRAWN_MAX, NodeLiveness
from chronik_server.raft.messages import Beat, BeatAck
from chronik_server.raft.node import RaftNode


class Silence:
    """A transport to nowhere."""

    def send(self, *_: Any) -> None:
        """Lost."""


def table_that_tells(told: list[Any]) -> NodeLiveness:
    """Of a node that beats when a test says so; its beats come to `told`."""
    return NodeLiveness(
        loop=asyncio.get_running_loop(), boot_id="b" * 32, beat_seconds=1e3,
        patience_seconds=1.5, send=lambda _peer, beat: told.append(beat),
        on_up=lambda _peer: None, on_down=lambda _peer: None,
    )  # fmt: skip


def test_24_what_is_not_led_any_more_is_forgotten_once_every_peer_knows() -> None:
    async def main() -> None:
        told: list[Any] = []
        table = table_that_tells(told)
        for peer in "23":
            table.watch(peer)
        table.claim("stays", 1)
        table.claim("goes", 1)
        table.claim("goes", 0)
        table._tick()
        table.on_beat_ack("2", BeatAck(1, table._version))
        table._tick()
        assert {"stays", "goes"} == set(table._changes)  # node 3 may still believe it
        table.on_beat_ack("3", BeatAck(2, table._version))
        table._tick()
        assert {"stays"} == set(table._changes)
        table.claim("goes", 2)
        table._tick()
        assert (("goes", 2),) == told[-1].claims
        table.stop()

    asyncio.run(main())


def test_24_what_is_not_led_any_more_does_not_wait_for_ever_for_a_node_that_is_away() -> None:
    """A node that was down for a month, or removed, had its peers remember each group ever led."""

    async def main() -> None:
        told: list[Any] = []
        table = table_that_tells(told)
        away: list[Any] = []
        other = table_that_tells(away)
        table.watch("2")
        table.watch("3")
        table.claim("stays", 1)
        table.claim("goes", 1)
        table._tick()
        beat = told[-1]
        other.on_beat("1", beat)
        table.on_beat_ack("2", BeatAck(beat.round, beat.version))
        early = away[-1]  # of node 3, which falls silent now
        table.claim("goes", 0)
        for number in range(WITHDRAWN_MAX + 1):
            table.claim(f"{number}", 1)
            table.claim(f"{number}", 0)
        table._tick()
        table.on_beat_ack("2", BeatAck(told[-1].round, told[-1].version))
        table._tick()
        assert {"stays"} == set(table._changes)

        for late in (early, None):  # node 3 is back: what it said last, and what it says now
            if late is not None:
                table.on_beat_ack("3", late)
            table._tick()
            other.on_beat("1", told[-1])
        assert {"stays": 1} == other._peers["1"].claims
        table.on_beat_ack("3", away[-1])
        table.claim("comes", 1)
        table._tick()
        assert (("comes", 1),) == told[-1].claims
        table.stop()

    asyncio.run(main())


def test_15_a_beat_that_was_overtaken_brings_no_claim_back() -> None:
    """A group that is not led any more would be waited for as if it were."""

    async def main() -> None:
        told: list[Any] = []
        table = table_that_tells(told)
        late = Beat("c" * 32, 1, 2, 0, (("group", 5),))
        table.on_beat("2", late)
        assert ("2", 5) == table.claimant("group")
        table.on_beat("2", Beat("c" * 32, 2, 3, 2, (("group", 0),)))
        assert table.claimant("group") is None
        table.on_beat("2", late)
        assert table.claimant("group") is None

    asyncio.run(main())


def test_25_catching_up_waits_for_nobody_elses_threads() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        node = RaftNode(
            "1", boot_id="b" * 32, transport=Silence(), on_fatal=lambda _group, error: None
        )
        found: asyncio.Future[str] = loop.create_future()
        node.offload(lambda: threading.current_thread().name, found.set_result)
        assert (await found).startswith("chronik-catch-up")
        node.stop()
        node.offload(lambda: 1, found.set_result)  # nobody waits for it: not an error

    asyncio.run(main())
