"""Partition leaders are spread over the nodes, gently.

Place: under `raft_backend`; works on the node that leads the metadata. Promise: while a node leads
at least two partitions more than another that could lead one of them, one is handed over, and then
nothing for a while; a node that has just come back leads nothing for its first seconds. Invariant:
a handover is a request to the leader, which refuses it when the other is not caught up: nothing is
decided here that could cost more than a pause of milliseconds.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from chronik_server.hosting import group_of
from chronik_server.metadata import Metadata
from chronik_server.placement import Handover, Led, next_handover
from chronik_store.errors import ChronikError

logger = logging.getLogger("chronik_server.leaders")

PAUSE_SECONDS = 1.0
"""Between two handovers."""
EVEN_PAUSE_SECONDS = 5.0
"""Until the next look, when nothing was to be done."""
FAILED_PAUSE_SECONDS = 10.0
"""After one that did not happen."""
PROVEN_SECONDS = 5.0
"""So long a node must be there before it is given anything to lead."""


class LeaderSpread:
    """See the module. Belongs to the event loop; one task calls `tick`.

    leader_of: who leads a group, as far as is known here. hand_over: asks its leader.
    """

    def __init__(
        self,
        *,
        is_there: Callable[[str], bool],
        leader_of: Callable[[str], str | None],
        hand_over: Callable[[Handover], Awaitable[None]],
        now: Callable[[], float],
    ) -> None:
        self._is_there = is_there
        self._leader_of = leader_of
        self._hand_over = hand_over
        self._now = now
        self._there_since: dict[str, float] = {}
        self._not_before = 0.0

    async def tick(self, state: Metadata) -> None:
        """At most one handover."""
        now = self._now()
        members = state.nodes_in("member")
        for node in members:
            if not self._is_there(node):
                self._there_since.pop(node, None)
            else:
                self._there_since.setdefault(node, now)
        if now < self._not_before:
            return
        able = {
            node for node in members if now - self._there_since.get(node, now) >= PROVEN_SECONDS
        }
        found = next_handover(self._led(state), able)
        if found is None:
            self._not_before = now + EVEN_PAUSE_SECONDS
            return
        try:
            await self._hand_over(found)
        except ChronikError as error:
            self._not_before = self._now() + FAILED_PAUSE_SECONDS
            logger.info("%s/%d stays on %s: %s", found.topic, found.partition, found.leader, error)
        else:
            self._not_before = self._now() + PAUSE_SECONDS
            logger.info("%s/%d: %s hands over to %s", *found)

    def _led(self, state: Metadata) -> list[Led]:
        """Partitions whose members are settled; those that move are left alone."""
        led = []
        for topic in state.topics.values():
            for partition, place in enumerate(topic.places):
                leader = self._leader_of(group_of(topic.topic_id, partition))
                if leader is not None and place.is_settled:
                    led.append(Led(topic.name, partition, leader, place.replicas))
        return led
