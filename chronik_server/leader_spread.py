"""Partition leaders are spread over the nodes, gently.

Place: under `raft_backend`; works on the node that leads the metadata. Promise: while a node leads
at least two partitions more than another that could lead one of them, a few are handed over, one
after the other, and then none for a while; a node that has just come back leads nothing for its
first seconds; one that did not take over is left out for a while, and the others are not.
Invariant: a handover is a request to the leader, which refuses it when the other is not caught up:
nothing is decided here that could cost more than a pause of milliseconds.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from chronik_server.metadata import Metadata, group_of
from chronik_server.placement import Handover, Led, next_handover
from chronik_store.errors import ChronikError

logger = logging.getLogger("chronik_server.leaders")

PAUSE_SECONDS = 1.0
"""Between two rounds of handovers."""
ROUND_SHARE = 50
"""A round is one handover, and one more for so many partitions: all of them are spread within a
minute or so, however many they are.
"""
EVEN_PAUSE_SECONDS = 5.0
"""Until the next look, when nothing was to be done."""
FAILED_PAUSE_SECONDS = 10.0
"""After one that did not happen."""
LEFT_OUT_SECONDS = 120.0
"""So long nothing more is handed over between two nodes between which it failed: the next best is.
Nor to a node that two others could not hand over to: the fault is its own, a full disk, perhaps.
"""
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
        self._failed: dict[tuple[str, str], float] = {}
        """By (from, to): until when that is left out."""
        self._not_before = 0.0

    async def tick(self, state: Metadata) -> None:
        """At most one round of handovers."""
        now = self._now()
        members = state.nodes_in("member")
        for node in members:
            if not self._is_there(node):
                self._there_since.pop(node, None)
            else:
                self._there_since.setdefault(node, now)
        if now < self._not_before:
            return
        self._failed = {each: until for each, until in self._failed.items() if until > now}
        failures = Counter(to for _, to in self._failed)
        able = {
            node
            for node in members
            if now - self._there_since.get(node, now) >= PROVEN_SECONDS and failures[node] < 2
        }
        led = self._led(state)
        pause_seconds = EVEN_PAUSE_SECONDS
        for _ in range(1 + len(led) // ROUND_SHARE):
            found = next_handover(led, able, self._failed)
            if found is None:
                break
            try:
                await self._hand_over(found)
            except ChronikError as error:
                pause_seconds = FAILED_PAUSE_SECONDS
                self._failed[found.leader, found.to] = self._now() + LEFT_OUT_SECONDS
                logger.info(
                    "%s/%d stays on %s: %s", found.topic, found.partition, found.leader, error
                )
                break
            pause_seconds = PAUSE_SECONDS
            logger.info("%s/%d: %s hands over to %s", *found)
            led = [_after(each, found) for each in led]
        self._not_before = self._now() + pause_seconds

    def _led(self, state: Metadata) -> list[Led]:
        """Partitions whose members are settled; those that move are left alone."""
        led = []
        for topic in state.topics.values():
            for partition, place in enumerate(topic.places):
                leader = self._leader_of(group_of(topic.topic_id, partition))
                if leader is not None and place.is_settled:
                    led.append(Led(topic.name, partition, leader, place.replicas))
        return led


def _after(led: Led, handover: Handover) -> Led:
    """Who leads this partition behind a handover, of this or another one."""
    is_this = (led.topic, led.partition) == (handover.topic, handover.partition)
    return led._replace(leader=handover.to) if is_this else led
