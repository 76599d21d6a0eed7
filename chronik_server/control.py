"""The control side of one node: its own duties, and the cluster's while it leads the metadata.

Place: under `raft_backend`, over `hosting`, `group_changes`, `steward`, `leader_spread`. Promise:
each duty looks again every half second; one that fails is logged and does not stop the others.
Invariant: addresses come from the registry (and, until it is known, from the settings); they say
where to connect, never who votes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from chronik_server.addresses import Address, parse_address
from chronik_server.calling import client_of
from chronik_server.client import AsyncClient, ClientOptions
from chronik_server.group_changes import GroupChanges
from chronik_server.hosting import Hosting
from chronik_server.joining import addresses_in
from chronik_server.leader_spread import LeaderSpread
from chronik_server.metadata import Metadata
from chronik_server.metadata_group import MetadataGroup
from chronik_server.peers import PeerLinks
from chronik_server.protocol.cluster import REPORTED_MAX, NodeReport, Settled
from chronik_server.rarely import Rarely
from chronik_server.shared_bucket import SharedBucket
from chronik_server.steward import Steward
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError, ConfigError, UnavailableError

T = TypeVar("T", bound=Hashable)
logger = logging.getLogger("chronik_server.control")

TICK_SECONDS = 0.5
ANNOUNCE_SECONDS = 2.0
"""Between attempts to have this node's address recorded."""
MOVES_OWN_MAX = 1
"""So often an address of an earlier life may take the place of this one's."""
ASK_SECONDS = 5.0
"""Between looks whether anybody leads; others are asked when nobody did twice."""


class Control:
    """See the module. Belongs to the event loop.

    own_address: where others reach this node; None when that cannot be told. hints: addresses
    from the settings. entrances: nodes to ask while no registry is known, or nobody leads.
    add_node: as the node that leads the metadata does it. on_removed: this node is no member any
    more.
    """

    def __init__(
        self,
        *,
        node_id: str,
        own_address: Address | None,
        hints: Mapping[str, Address],
        entrances: tuple[Address, ...],
        group: MetadataGroup,
        hosting: Hosting,
        peers: PeerLinks,
        changes: GroupChanges,
        steward: Steward,
        spread: LeaderSpread,
        bucket: SharedBucket,
        options: ClientOptions,
        env: Environment,
        add_node: Callable[[str, str], Awaitable[None]],
        on_removed: Callable[[], None],
    ) -> None:
        self._node_id = node_id
        self._own_address = own_address
        self._hints = dict(hints)
        self._heard: dict[str, Address] = {}
        """Where nodes were said to be when nobody was known to lead."""
        self._told: dict[str, Address] = {}
        """Where they said so themselves, then."""
        self._entrances = entrances
        self._group = group
        self._hosting = hosting
        self._peers = peers
        self._changes = changes
        self._steward = steward
        self._spread = spread
        self._bucket = bucket
        self._options = options
        self._env = env
        self._add_node = add_node
        self._on_removed = on_removed
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = asyncio.Event()
        self._is_alone = False
        self._is_recorded = False
        self._times_moved = 0
        """How often this node's address was recorded, and then another one, in this life."""
        self._known_ended: frozenset[str] = frozenset()
        self._settled = Rotation[Settled]()
        self._cleared = Rotation[str]()
        self._stopped = Rotation[str]()

    @property
    def _state(self) -> Metadata:
        return self._group.state

    def start(self) -> None:
        """Begin."""
        self.connect()
        for duty, seconds in (
            (self._follow_wish, TICK_SECONDS),
            (self._steward.tick, TICK_SECONDS),
            (self._spread_leaders, TICK_SECONDS),
            (self._announce, ANNOUNCE_SECONDS),
            (self._ask_around, ASK_SECONDS),
            (self._bucket.tick, TICK_SECONDS),
            (self._hosting.note_rolls, ANNOUNCE_SECONDS),
        ):
            self._tasks.append(asyncio.create_task(_again(duty, seconds)))
        self._tasks.append(asyncio.create_task(_again(self._tell_stopped, 0.0)))

    async def stop(self) -> None:
        """No more duties."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._steward.stop()

    def folded(self, state: Metadata) -> None:
        """The metadata says something new: what is deleted ends now."""
        self._hosting.close_stale(state)
        ended = frozenset(state.deleting)
        if not ended <= self._known_ended:
            self._ended.set()
        self._known_ended = ended

    async def follow(self, state: Metadata) -> None:
        """After each change of the metadata, by the task that applies it."""
        self.connect()
        await self._hosting.reconcile(state)
        if state.state_of(self._node_id) == "removed":
            self._on_removed()

    # --- who is where ----------------------------------------------------------------------------

    def connect(self) -> None:
        """Be connected with every node that has something to say to this one."""
        nodes = {*self._state.nodes, *self._hints, *self._heard} - {self._node_id}
        gone = set(self._state.nodes_in("removed"))
        members = self._group.part.consensus.status()
        gone -= {*members.voters, *members.learners}  # they are still to hear that they are removed
        self._peers.follow({node: self.addresses_of(node) for node in sorted(nodes - gone)})

    def addresses_of(self, node_id: str) -> tuple[Address, ...]:
        """Where a node may be found, the likeliest first."""
        known = self._state.nodes.get(node_id)
        try:
            found = [] if known is None else [parse_address(known.address)]
        except ConfigError:
            found = []  # recorded by an older version: no connection can be made to it
        for hints in (self._told, self._hints, self._heard):
            hint = hints.get(node_id)
            if hint is not None and hint not in found:
                found.append(hint)
        return tuple(found)

    def hear(self, node_id: str, address: Address) -> None:
        """A node of the registry says where it is. While nobody leads that cannot be recorded, and
        it may be needed for a majority: it is looked for there.
        """
        if node_id in self._state.nodes and not self._is_led():
            self._told[node_id] = address
            self.connect()

    async def _announce(self) -> None:
        """Have this node's address in the registry, as it is now; a new node joins by it."""
        known = self._state.nodes.get(self._node_id)
        if self._own_address is None or (known is None and not self._entrances):
            return
        address = str(self._own_address)
        if known is not None and (known.address == address or known.state == "removed"):
            self._is_recorded = True
            return
        if known is not None and self._is_recorded:
            self._note_moved(address, known.address)
        if self._group.part.consensus.is_ready:
            await self._add_node(self._node_id, address)  # others would name where it was
            return
        others = [a for node in self._state.nodes if node != self._node_id
                  for a in self.addresses_of(node)]  # fmt: skip
        servers = dict.fromkeys((*others, *self._entrances, self._own_address))
        async with self._client_of(servers, self._options) as client:
            await client.add_node(self._node_id, address)

    def _client_of(self, servers: Iterable[Address], options: ClientOptions) -> AsyncClient:
        return client_of(self._env, tuple(servers), options, node_id=self._node_id)

    def _note_moved(self, own: str, recorded: str) -> None:
        """Once that may be what an earlier life had said, and nobody had heard."""
        self._is_recorded = False
        self._times_moved += 1
        if self._times_moved == MOVES_OWN_MAX + 1:
            logger.error(
                "node %s runs here, at %s, and is recorded at %s again: another process says so, "
                "which has a copy of its directory and must end, or somebody with `node add`",
                *(self._node_id, own, recorded),
            )

    async def _ask_around(self) -> None:
        """While nobody leads as far as this node knows: it may have been removed while it was away,
        and then nobody calls it any more; or be led by one that it has never heard of.
        """
        was_alone, self._is_alone = self._is_alone, not self._is_led()
        others = {*self._state.nodes, *self._hints, *self._heard} - {self._node_id}
        known = [a for node in sorted(others) for a in self.addresses_of(node)]
        servers = dict.fromkeys((*known, *self._entrances))
        if not (was_alone and self._is_alone and servers):
            return
        once = dataclasses.replace(self._options, retry_seconds=0.0)
        try:
            async with self._client_of(servers, once) as client:
                found = await client.cluster()
        except UnavailableError:
            return  # who is away is logged by whoever calls them
        own = self._peers.own
        if found.cluster_id != own.cluster_id:
            return
        if any(
            (node.node_id, node.state) == (own.node_id, "removed")
            and node.node_uuid in {own.node_uuid, None}  # None: it was never connected
            for node in found.nodes
        ):
            self._on_removed()
        self._heard = addresses_in(found)
        self.connect()

    def _is_led(self) -> bool:
        """By one that it is connected with: a learner elects nobody, and would name for ever the
        leader that hung up on it when it was removed.
        """
        leader = self._group.part.consensus.leader
        return leader is not None and (leader == self._node_id or self._peers.is_connected(leader))

    # --- duties ----------------------------------------------------------------------------------

    async def _follow_wish(self) -> None:
        found = await self._changes.tick(self._state, self._hosting.partitions)
        settled = self._settled.next(found)
        cleared = self._cleared.next(self._hosting.cleared(self._state))
        acted_on = self._hosting.acted_on
        if acted_on <= self._state.offset:
            acted_on = 0  # the rule: the metadata has all of it
        if settled or cleared or acted_on:
            self._report(NodeReport(settled, cleared, acted_on=acted_on))

    async def _tell_stopped(self) -> None:
        """At once when a topic is deleted: its name is free when enough nodes have said it."""
        try:
            async with asyncio.timeout(TICK_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            pass  # told again: the report may have been lost
        self._ended.clear()
        stopped = self._stopped.next(await self._hosting.stopped(self._state))
        if stopped:
            self._report(NodeReport(stopped=stopped))

    def _report(self, report: NodeReport) -> None:
        leader = self._group.part.consensus.leader
        if leader == self._node_id:
            self._steward.take(leader, report)
        elif leader is not None:
            self._peers.report(leader, report)

    async def _spread_leaders(self) -> None:
        if self._group.part.consensus.is_ready and self._group.is_current:
            await self._spread.tick(self._state)


class Rotation(Generic[T]):
    """What is reported again and again, as much as one report takes: what is new first, then what
    was not said for longest. A report may be lost, and the node that takes it may be a new one.
    """

    def __init__(self) -> None:
        self._said: dict[T, int] = {}
        """In which report; 0: in none yet."""
        self._reports = 0

    def next(self, found: Sequence[T]) -> tuple[T, ...]:
        """What is said now of all that there is to say."""
        self._reports += 1
        self._said = {each: self._said.get(each, 0) for each in found}
        chosen = tuple(sorted(self._said, key=self._said.__getitem__)[:REPORTED_MAX])
        self._said.update(dict.fromkeys(chosen, self._reports))
        return chosen


async def _again(duty: Callable[[], Awaitable[None]], seconds: float) -> None:
    rarely = Rarely(asyncio.get_running_loop().time)
    while True:
        try:
            await duty()
            rarely.is_over()
        except ChronikError as error:
            if rarely.is_news(str(error), lasts=not error.retriable):
                logger.warning("%s", error)
        except Exception:
            logger.exception("a duty of the control side failed")
        await asyncio.sleep(seconds)
