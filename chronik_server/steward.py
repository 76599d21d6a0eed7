"""What the node that leads the metadata does for the cluster, step by step.

Place: under `raft_backend`, over `metadata_group` and `placement`. Promise: every duty looks at the
committed metadata and does what is missing, so that a new leader goes on where the old one ended;
what cannot be taken back needs proof: a removed node holds nothing, and of a forgotten topic every
node that held it has confirmed that nothing is left. Invariant: reports of nodes are hints that
they repeat; none outlives this leadership.

    registry    the first nodes enter; a node's id is bound to the directory that greets with it
    placement   leaving nodes' partitions get others; partitions get the copies they asked for
    removal     a leaving node loses its vote about metadata, and is removed when it has no data;
                it hears of that, ends, and leaves the group of the metadata
    topics      deleted everywhere: the bucket is swept by the published manifests, then forgotten
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from chronik_server import metadata_commands as commands
from chronik_server.group_changes import MemberSteps, committed_members
from chronik_server.metadata import Metadata, Topic
from chronik_server.metadata_group import MetadataGroup
from chronik_server.placement import is_reached, metadata_wish, next_wish
from chronik_server.protocol.cluster import NodeReport
from chronik_server.protocol.greeting import PeerIdentity
from chronik_store.errors import ChronikError, UnavailableError
from chronik_store.format.control import Members

logger = logging.getLogger("chronik_server.steward")

STEPS_MAX = 100
"""Placements in one tick: a large cluster is rearranged without a burst."""
COMMANDS_MAX = 1000
"""In one batch."""
SWEEPS_MAX = 2
"""At once: each takes a thread for as long as the bucket does not answer, and to open a partition
takes one, too.
"""
STOP_SECONDS = 2.0
FREE_SECONDS = 10.0
"""How long the name of a deleted topic is waited for."""
FAREWELL_SECONDS = 10.0
"""How long a removed node that is still there may take to hear of it and end."""


class Steward:
    """See the module. Belongs to the event loop; one task calls `tick`.

    first: address of each node that the cluster began with. found: topics that the first node had
    before. acted_on: the newest fold of the metadata that anything here was done by. greeted: nodes
    that have proved who they are, this one included. sweep: deletes what the bucket has of a topic;
    UnavailableError.
    """

    def __init__(
        self,
        group: MetadataGroup,
        steps: MemberSteps,
        *,
        node_id: str,
        first: dict[str, str],
        found: Callable[[], Awaitable[tuple[commands.MakeTopic, ...]]],
        acted_on: Callable[[], int],
        greeted: Callable[[], Iterable[PeerIdentity]],
        is_connected: Callable[[str], bool],
        sweep: Callable[[Topic], Awaitable[None]],
        now: Callable[[], float],
    ) -> None:
        self._group = group
        self._steps = steps
        self._node_id = node_id
        self._first = first
        self._found = found
        self._acted_on = acted_on
        self._greeted = greeted
        self._is_connected = is_connected
        self._sweep = sweep
        self._now = now
        self._settled: dict[tuple[str, int], int] = {}
        self._cleared: dict[str, set[str]] = {}
        self._stopped: dict[str, set[str]] = {}
        self._others_acted_on = 0
        self._news = asyncio.Event()
        self._removed_at: dict[str, float] = {}
        self._placed: tuple[int, frozenset[str]] | None = None
        """The fold, and the nodes that were there, at which nothing was left to be placed."""
        self._sweeps: dict[str, asyncio.Future[None]] = {}
        self._sweep_turns = asyncio.Semaphore(SWEEPS_MAX)

    @property
    def _state(self) -> Metadata:
        return self._group.state

    async def stop(self) -> None:
        """See what is being deleted in the bucket through, if it does not take long: the next
        leader of the metadata begins it again.
        """
        if self._sweeps:
            await asyncio.wait(self._sweeps.values(), timeout=STOP_SECONDS)

    def take(self, sender: str, report: NodeReport) -> None:
        """What a node says of itself."""
        for each in report.settled:
            self._settled[each.topic_id, each.partition] = each.version
        for topic_id in report.cleared:
            self._cleared.setdefault(topic_id, set()).add(sender)
        for topic_id in report.stopped:
            self._stopped.setdefault(topic_id, set()).add(sender)
        self._others_acted_on = max(self._others_acted_on, report.acted_on)
        self._news.set()

    async def name_is_free(self, name: str) -> None:
        """Return when no deleted topic of this name can acknowledge anything any more: nodes that
        have not heard of its end would take what is meant for the next one. UnavailableError.
        """
        missing: set[str] = set()
        try:
            async with asyncio.timeout(FREE_SECONDS):
                while missing := self._may_acknowledge(name):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError as error:
            raise UnavailableError(
                f"an older topic {name!r} was deleted, and may still be served by nodes that have "
                f"not heard of it: bring {', '.join(sorted(missing))} back, or remove them; ask "
                "again"
            ) from error

    def _may_acknowledge(self, name: str) -> set[str]:
        """Nodes that can, together, as far as is known, commit to a deleted topic of this name."""
        state = self._state
        for topic in state.deleting.values():
            if topic.name != name:
                continue
            stopped = self._stopped.get(topic.topic_id, set()) | set(state.nodes_in("removed"))
            for place in topic.places:
                running = set(place.holders) - stopped
                # Who votes now is known only of a group that nobody ever wished to change.
                known = place.version == place.made.at
                if running and not (known and 2 * len(running) <= len(place.replicas)):
                    return running
        return set()

    async def tick(self) -> None:
        """Every duty once, if this node leads the metadata and has applied all of it."""
        consensus = self._group.part.consensus
        if not consensus.is_ready:
            self._settled.clear()
            self._cleared.clear()
            self._stopped.clear()
            self._others_acted_on = 0
            self._sweeps = {each: sweep for each, sweep in self._sweeps.items() if not sweep.done()}
            return  # who leads now sees to it
        if not self._group.is_current:
            return
        for duty in (self._register, self._go_on, self._place, self._settle, self._remove,
                     self._forget_topics, self._change_members):  # fmt: skip
            try:
                await duty()
            except ChronikError as error:
                logger.warning("%s: %s", duty.__name__.strip("_"), error)

    # --- registry --------------------------------------------------------------------------------

    async def _register(self) -> None:
        state = self._state
        if not state.nodes:
            await self._group.command(
                *(
                    commands.AdmitNode(node_id, address, "member")
                    for node_id, address in sorted(self._first.items())
                ),
                *await self._found(),
            )
        for peer in self._greeted():
            node = state.nodes.get(peer.node_id)
            if node is not None and node.node_uuid is None and node.state != "removed":
                await self._group.command(commands.BindNode(peer.node_id, peer.node_uuid))
                logger.info("node %s is directory %s", peer.node_id, peer.node_uuid)

    async def _go_on(self) -> None:
        """Nodes act on no older fold than they have; one that a roll call has cut would keep all
        partitions closed until it has as many commands again: they may be such as change nothing.
        """
        own = self._state.nodes.get(self._node_id)
        missing = max(self._acted_on(), self._others_acted_on) - self._state.offset
        if own is not None and missing > 0:
            logger.error("%d commands of the metadata are lost; it goes on without them", missing)
            same = commands.MoveNode(own.node_id, own.address)
            await self._group.command(*[same] * min(missing, COMMANDS_MAX))

    # --- placement -------------------------------------------------------------------------------

    def _alive(self) -> set[str]:
        return {
            node for node in self._state.nodes if node == self._node_id or self._is_connected(node)
        }

    async def _place(self) -> None:
        for _ in range(STEPS_MAX):
            seen = (self._state.offset, frozenset(self._alive()))
            if seen == self._placed:
                return
            wish = next_wish(self._state, seen[1])
            if wish is None:
                self._placed = seen
                return
            topic = wish.topic
            await self._group.command(
                commands.PlacePartition(topic.topic_id, wish.partition, wish.replicas)
            )
            logger.info("%s/%d belongs on %s", topic.name, wish.partition, wish.replicas)

    async def _settle(self) -> None:
        settled, self._settled = self._settled, {}
        found = []
        for (topic_id, partition), version in settled.items():
            place = self._state.place_of(topic_id, partition)
            if place is not None and place.version == version and not place.is_settled:
                found.append(commands.SettlePartition(topic_id, partition, version))
        if found:
            await self._group.command(*found)

    # --- nodes that go ---------------------------------------------------------------------------

    async def _remove(self) -> None:
        state = self._state
        now = committed_members(self._group.part)
        for node in state.nodes_in("leaving"):
            clearing = any(node in topic.holders for topic in state.deleting.values())
            if state.has_data(node) or (clearing and self._is_connected(node)):
                continue
            if now is None or node in now.voters:
                continue  # what it would take with it is a vote: `_change_members` sees to that
            await self._group.command(commands.RemoveNode(node))
            logger.info("node %s is removed", node)

    # --- topics that go --------------------------------------------------------------------------

    async def _forget_topics(self) -> None:
        state = self._state
        for told in (self._cleared, self._stopped):
            for topic_id in told.keys() - state.deleting.keys():
                del told[topic_id]  # it is forgotten, and a node has said it once more
        for topic in list(state.deleting.values()):
            waiting = {
                node
                for node in topic.holders - self._cleared.get(topic.topic_id, set())
                if state.state_of(node) != "removed"
            }
            if waiting:
                continue
            sweep = self._sweeps.get(topic.topic_id)
            if sweep is None:
                # Beside the other duties: a bucket that is away keeps nobody waiting.
                begun = self._sweeps[topic.topic_id] = asyncio.ensure_future(self._in_turn(topic))
                begun.add_done_callback(_seen)
            elif sweep.done():
                del self._sweeps[topic.topic_id]
                sweep.result()
                await self._group.command(commands.ForgetTopic(topic.topic_id))
                self._cleared.pop(topic.topic_id, None)
                self._stopped.pop(topic.topic_id, None)
                self._news.set()
                logger.info("topic %s (%s) is gone", topic.name, topic.topic_id)

    async def _in_turn(self, topic: Topic) -> None:
        async with self._sweep_turns:
            await self._sweep(topic)

    # --- the metadata's own group ----------------------------------------------------------------

    async def _change_members(self) -> None:
        part = self._group.part
        now = committed_members(part)
        if now is None or not self._state.nodes:
            return
        wish = self._without_haste(now, metadata_wish(self._state, now))
        if not is_reached(now, wish):
            await self._steps.advance(part.consensus, now, wish)

    def _without_haste(self, now: Members, wish: Members) -> Members:
        """A removed node learns of it as a member; it ends then, and only then is dropped."""
        staying: list[str] = []
        for node in self._state.nodes_in("removed"):
            if node in (*now.voters, *now.learners) and self._is_connected(node):
                since = self._removed_at.setdefault(node, self._now())
                if self._now() - since < FAREWELL_SECONDS:
                    staying.append(node)
            else:
                self._removed_at.pop(node, None)
        voters = tuple(node for node in staying if node in now.voters)
        learners = tuple(node for node in staying if node in now.learners)
        return Members((*wish.voters, *voters), (*wish.learners, *learners))


def _seen(sweep: asyncio.Future[None]) -> None:
    """Nobody may look at how it ended: this node stops, or leads no more. The next leader will."""
    if not sweep.cancelled():
        sweep.exception()
