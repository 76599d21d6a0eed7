"""What a node reports to the one that leads the metadata: all of it, as much at a time as fits."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from chronik_server.addresses import Address
from chronik_server.control import Control
from chronik_server.protocol.cluster import NODE_REPORT, REPORTED_MAX, NodeReport, Settled
from chronik_store.environment import Environment
from tests.server.serving import QUICK

MANY = 2 * REPORTED_MAX + 1


def ids(start: int, count: int) -> tuple[str, ...]:
    return tuple(f"{number:032x}" for number in range(start, start + count))


class Node:
    """The control side of node "1", which leads the metadata, and what it reports to itself."""

    def __init__(self, acted_on: int = 0) -> None:
        self.settled: tuple[Settled, ...] = ()
        self.ended: tuple[str, ...] = ()
        """Topics whose end it has seen, and of which nothing is left here."""
        self.reports: list[NodeReport] = []
        consensus = SimpleNamespace(leader="1")

        async def tick(*_: object) -> tuple[Settled, ...]:
            return self.settled

        async def stopped(_state: object) -> tuple[str, ...]:
            return self.ended

        def take(sender: str, report: NodeReport) -> None:
            NODE_REPORT.encode(report)
            assert sender == "1"
            self.reports.append(report)

        parts: Any = {
            "group": SimpleNamespace(
                state=SimpleNamespace(offset=7), part=SimpleNamespace(consensus=consensus)
            ),
            "hosting": SimpleNamespace(
                partitions={}, acted_on=acted_on, stopped=stopped, cleared=lambda _state: self.ended
            ),
            "changes": SimpleNamespace(tick=tick),
            "steward": SimpleNamespace(take=take),
            **dict.fromkeys(("peers", "spread", "bucket", "add_node")),
        }
        self.control = Control(
            node_id="1", own_address=Address("h1", 1), hints={}, entrances=(),
            options=QUICK, env=Environment(), on_removed=lambda: None, **parts,
        )  # fmt: skip

    def told(self, kind: str) -> list[tuple[Any, ...]]:
        return [found for report in self.reports if (found := getattr(report, kind))]

    async def look(self) -> None:
        self.control._ended.set()
        await self.control._tell_stopped()
        await self.control._follow_wish()


def test_all_is_reported_in_turn_however_much_it_is() -> None:
    """The same thousand were, again and again: with one holder away for long, names of topics that
    were deleted later could not be used again.
    """

    async def main() -> None:
        node = Node()
        node.ended = ids(0, MANY)
        node.settled = tuple(Settled(topic_id, 0, 1) for topic_id in node.ended)
        for _ in range(3):
            await node.look()
        for kind, wanted in (
            ("stopped", node.ended), ("cleared", node.ended), ("settled", node.settled),
        ):  # fmt: skip
            told = node.told(kind)
            assert [REPORTED_MAX] * 3 == [len(each) for each in told]
            assert set(wanted) == {one for each in told for one in each}

    asyncio.run(main())


def test_what_is_new_is_reported_first_and_the_rest_again() -> None:
    """A name is free as soon as enough nodes have said that its topic has ended."""

    async def main() -> None:
        node = Node()
        node.ended = ids(0, MANY)
        for _ in range(4):
            await node.look()
        node.ended = (*node.ended, *ids(MANY, 2))
        await node.look()
        newest = node.told("stopped")[-1]
        assert set(ids(MANY, 2)) < set(newest)
        for _ in range(2):
            await node.look()
        assert set(node.ended) <= {one for each in node.told("stopped")[-3:] for one in each}

    asyncio.run(main())


def test_what_is_little_is_reported_at_each_look_and_nothing_is_not() -> None:
    """A report may have been lost, and a leader of the metadata that is new knows of none."""

    async def main() -> None:
        node = Node()
        await node.look()
        assert [] == node.reports
        node.ended = ids(0, 3)
        for _ in range(3):
            await node.look()
        assert [node.ended] * 3 == node.told("stopped") == node.told("cleared")

    asyncio.run(main())


def test_a_node_tells_that_it_has_acted_on_metadata_that_is_gone() -> None:
    """It opened nothing until the metadata had as many commands again, and nobody knew of it."""

    async def main() -> None:
        for acted_on, told in ((7, []), (8, [8])):
            node = Node(acted_on)
            await node.look()
            assert told == [report.acted_on for report in node.reports]

    asyncio.run(main())
