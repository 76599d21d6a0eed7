"""The groups that this node leads follow the wish of the metadata (protocol 12).

Place: under `raft_backend`, over `placement` and `Consensus`. Promise: members change one step at
a time, learners first, a learner votes only once it has what the leader had a round ago; a leader
that is to go hands over first, and removes itself only when nobody can take over. What came true is
told to the node that leads the metadata, until the metadata says so (docs/decisions/0016).
Invariant: only the leader of a group, in a term that has committed, proposes for it; a stale wish
costs a step that the next one takes back, never a quorum.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from chronik_server.hosting import Lane
from chronik_server.metadata import Metadata
from chronik_server.placement import is_reached, next_members
from chronik_server.protocol.cluster import REPORTED_MAX, Settled
from chronik_server.raft.consensus import Consensus, ConsensusStatus
from chronik_server.raft_partition import RaftPartition
from chronik_store.errors import BackpressureError, ChronikError, UnavailableError
from chronik_store.format.control import Members

logger = logging.getLogger("chronik_server.members")


LOOK_AT_ALL_TICKS = 20
"""Settled partitions are looked at so seldom: a leader with old metadata may have moved one on."""


class MemberSteps:
    """From the members that are to those that should be, for groups that are led here.

    is_connected: whether a message to that node would find its way now.
    """

    def __init__(self, node_id: str, is_connected: Callable[[str], bool]) -> None:
        self._node_id = node_id
        self._is_connected = is_connected
        self._commits: dict[str, int] = {}
        """By group: the commit index of the last look; a learner that has it is caught up."""

    async def advance(self, consensus: Consensus, now: Members, wish: Members) -> None:
        """One step; what cannot be done now is tried again at the next call."""
        status = consensus.status()
        seen = self._commits.get(status.group_id)
        self._commits[status.group_id] = status.commit_index
        step = next_members(now, wish, self._caught_up(status, seen))
        if step is None:
            return
        del self._commits[status.group_id]
        try:
            if self._node_id in now.voters and self._node_id not in step.voters:
                heir = self._heir(status, step.voters)
                if heir is not None:
                    await consensus.transfer(heir)
                    return
            await consensus.change_members(step)
        except (BackpressureError, UnavailableError, TimeoutError) as error:
            logger.info("%s: its members cannot change yet: %s", status.group_id, error)
        except ChronikError as error:
            logger.warning("%s: its members did not change: %s", status.group_id, error)
        else:
            logger.info(
                "%s: voters %s, learners %s",
                status.group_id, ",".join(step.voters), ",".join(step.learners) or "none",
            )  # fmt: skip

    @staticmethod
    def _caught_up(status: ConsensusStatus, seen: int | None) -> set[str]:
        if seen is None:
            return set()
        return {
            each.peer
            for each in status.peers
            if each.is_alive and not each.is_suspect and each.match_index >= seen
        }

    def _heir(self, status: ConsensusStatus, voters: Iterable[str]) -> str | None:
        """Who leads when this node goes: connected, and with the most of the log."""
        able = [
            (each.match_index, each.peer)
            for each in status.peers
            if each.peer in voters and each.is_alive and self._is_connected(each.peer)
        ]
        return max(able)[1] if able else None


class GroupChanges:
    """The partitions of this node. Belongs to the event loop; one task calls `tick`."""

    def __init__(self, steps: MemberSteps) -> None:
        self._steps = steps
        self._ticks = 0

    async def tick(
        self, state: Metadata, partitions: Mapping[Lane, RaftPartition]
    ) -> tuple[Settled, ...]:
        """One step for each led group that differs from its wish; which wishes came true."""
        settled: list[Settled] = []
        self._ticks += 1
        every = self._ticks % LOOK_AT_ALL_TICKS == 1
        for (name, number), part in list(partitions.items()):
            topic = state.topics.get(name)
            if topic is None or not part.consensus.is_ready:
                continue
            place = topic.places[number]
            if place.is_settled and not every:
                continue
            wish = Members(place.replicas, ())
            now = committed_members(part)
            if now is None:
                continue
            if not is_reached(now, wish):
                await self._steps.advance(part.consensus, now, wish)
            elif not place.is_settled:
                settled.append(Settled(topic.topic_id, number, place.version))
        return tuple(settled[:REPORTED_MAX])


def committed_members(part: RaftPartition) -> Members | None:
    """Of a group that is led here; None while a change is under way."""
    replica = part.core.replica
    assert replica is not None
    named = replica.members
    if named is None or named[0] > part.consensus.commit_index:
        return None
    return named[1]
