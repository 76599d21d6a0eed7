"""The groups that this node leads follow the wish of the metadata (protocol 12).

Place: under `raft_backend`, over `placement` and `Consensus`. Promise: members change one step at
a time, learners first, a learner votes only once it has what the leader had a round ago; a leader
that is to go hands over first, and removes itself only when nobody can take over. A step is begun
and not waited for: a group that cannot commit keeps no other one waiting. What came true is told to
the node that leads the metadata, until the metadata says so (docs/decisions/0016).
Invariant: only the leader of a group, in a term that has committed, proposes for it; a stale wish
costs a step that the next one takes back, never a quorum.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from chronik_server.hosting_notes import Lane
from chronik_server.metadata import Metadata
from chronik_server.placement import is_reached, next_members
from chronik_server.protocol.cluster import Settled
from chronik_server.raft.consensus import Consensus, ConsensusStatus, PeerStatus, Proposed
from chronik_server.raft_partition import RaftPartition
from chronik_store.errors import BackpressureError, ChronikError, UnavailableError
from chronik_store.format.control import Members

logger = logging.getLogger("chronik_server.members")


LOOK_AT_ALL_TICKS = 20
"""Partitions whose members are as wished are looked at so seldom: a leader with old metadata may
have moved one on.
"""
HAND_OVERS_MAX = 32
"""At once: a partition rests while its handover lasts."""
HEIR_PAUSE_SECONDS = 30.0
"""A node that was to take a group over is not asked again for so long: had it done so, this one
would not lead, and each try costs the group an election timeout without a leader.
"""


class MemberSteps:
    """From the members that are to those that should be, for groups that are led here.

    is_connected: whether a message to that node would find its way now.
    """

    def __init__(self, node_id: str, is_connected: Callable[[str], bool]) -> None:
        self._node_id = node_id
        self._is_connected = is_connected
        self._commits: dict[str, int] = {}
        """By group: the commit index of the last look; a learner that has it is caught up."""
        self._handovers: set[str] = set()
        """Groups of which one is under way."""
        self._asked: dict[tuple[str, str], float] = {}
        """By (group, node): until when that node is not to be asked again to lead it; loop time."""

    async def advance(self, consensus: Consensus, now: Members, wish: Members) -> None:
        """Begin one step; what cannot be done now is tried again at the next call."""
        status = consensus.status()
        seen = self._commits.get(status.group_id)
        self._commits[status.group_id] = status.commit_index
        able = {self._node_id, *(each.peer for each in status.peers if self._counts(each))}
        step = next_members(now, wish, self._caught_up(status, seen), able)
        if step is None:
            return
        del self._commits[status.group_id]
        is_going = self._node_id in now.voters and self._node_id not in step.voters
        heir = self._heir(status, step.voters) if is_going else None
        try:
            if heir is None:
                proposed = consensus.change_members(step)
                proposed.add_done_callback(partial(_changed, status.group_id, step))
            elif len(self._handovers) < HAND_OVERS_MAX:
                self._hand_over(consensus, status.group_id, heir)
        except ChronikError as error:
            _say(status.group_id, error)
        await asyncio.sleep(0)  # a thousand groups do not hold the loop

    def _counts(self, peer: PeerStatus) -> bool:
        """A quorum can count on it now. That it is away is known only after a while, so it must
        have answered this leader, too: a new one leads because another has just died.
        """
        is_there = peer.is_alive and self._is_connected(peer.peer) and peer.match_index > 0
        return is_there and not peer.is_suspect

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
        """Who leads when this node goes: connected, and with the most of the log. A node whose
        disk is full or whose copy is suspect does not take over, and says nothing.
        """
        at = asyncio.get_running_loop().time()
        able = [
            (each.match_index, each.peer)
            for each in status.peers
            if each.peer in voters
            and self._counts(each)
            and not each.is_full
            and self._asked.get((status.group_id, each.peer), at) <= at
        ]
        return max(able)[1] if able else None

    def _hand_over(self, consensus: Consensus, group_id: str, heir: str) -> None:
        ended = consensus.transfer(heir)
        at = asyncio.get_running_loop().time()
        self._asked = {each: until for each, until in self._asked.items() if until > at}
        self._asked[group_id, heir] = at + HEIR_PAUSE_SECONDS
        self._handovers.add(group_id)
        ended.add_done_callback(partial(self._handed_over, group_id))

    def _handed_over(self, group_id: str, ended: asyncio.Future[None]) -> None:
        self._handovers.discard(group_id)
        error = None if ended.cancelled() else ended.exception()
        if error is not None:
            _say(group_id, error)


def _changed(group_id: str, step: Members, proposed: asyncio.Future[Proposed]) -> None:
    error = None if proposed.cancelled() else proposed.exception()
    if error is not None:
        _say(group_id, error)
    elif not proposed.cancelled():
        logger.info(
            "%s: voters %s, learners %s",
            group_id, ",".join(step.voters), ",".join(step.learners) or "none",
        )  # fmt: skip


def _say(group_id: str, error: BaseException) -> None:
    if isinstance(error, BackpressureError | UnavailableError | TimeoutError):
        logger.info("%s: its members cannot change yet: %s", group_id, error)
    else:
        logger.warning("%s: its members did not change: %s", group_id, error)


class GroupChanges:
    """The partitions of this node. Belongs to the event loop; one task calls `tick`."""

    def __init__(self, steps: MemberSteps) -> None:
        self._steps = steps
        self._ticks = 0
        self._reached: dict[Lane, tuple[int, int]] = {}
        """By group that has the members of its wish: the version of that, and the term."""

    async def tick(
        self, state: Metadata, partitions: Mapping[Lane, RaftPartition]
    ) -> tuple[Settled, ...]:
        """One step for each led group that differs from its wish; which wishes came true."""
        settled: list[Settled] = []
        before, self._reached = self._reached, {}
        self._ticks += 1
        every = self._ticks % LOOK_AT_ALL_TICKS == 1
        for lane, part in list(partitions.items()):
            name, number = lane
            topic = state.topics.get(name)
            if topic is None or not part.consensus.is_ready:
                continue
            place = topic.places[number]
            seen = (place.version, part.consensus.term)
            if place.is_settled and before.get(lane) == seen and not every:
                self._reached[lane] = seen
                continue
            wish = Members(place.replicas, ())
            now = committed_members(part)
            if now is None:
                continue
            if not is_reached(now, wish):
                await self._steps.advance(part.consensus, now, wish)
                continue
            self._reached[lane] = seen
            if not place.is_settled:
                settled.append(Settled(topic.topic_id, number, place.version))
        return tuple(settled)


def committed_members(part: RaftPartition) -> Members | None:
    """Of a group that is led here; None while a change is under way."""
    replica = part.core.replica
    assert replica is not None
    named = replica.members
    if named is None or named[0] > part.consensus.commit_index:
        return None
    return named[1]
