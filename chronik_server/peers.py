"""The connections between nodes: one for each pair, for all groups.

Place: under `raft_backend`; `raft.Transport` over the RPC's own connections. Promise: a node is
who the connection proved it to be; what cannot be sent now is dropped, never queued without
bound, and consensus is told when a connection comes and goes; one that has died without a word
is noticed, since every node beats. Invariant: of two nodes the one whose id sorts first connects;
the other waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from chronik_server.addresses import Address
from chronik_server.backend import Link
from chronik_server.client.channel import Channel
from chronik_server.client.options import ClientOptions
from chronik_server.errors import CertificateError
from chronik_server.protocol.cluster import NodeReport
from chronik_server.protocol.greeting import PeerIdentity
from chronik_server.protocol.raft_message import RaftMessage
from chronik_server.raft import messages
from chronik_server.raft.node import RaftNode
from chronik_server.rarely import Rarely
from chronik_server.turn import Turn
from chronik_store.errors import ChronikError, IdentityMismatchError
from chronik_store.format.checksum import Buffer

logger = logging.getLogger("chronik_server.peers")

BACKLOG_BYTES_MAX = 64 << 20
RECONNECT_SECONDS = 0.25
"""Between attempts to reach a node that is away."""
EARLY_MAX = 256
"""Messages that are kept from behind a welcome until it is looked at."""
LOOK_SECONDS = 1.0
SILENT_LOOKS_MAX = 5
"""So many looks in a row without a word, and the link is cut. Looks are counted, not time: a node
that was stopped itself has heard nobody either, and hears them when it wakes.
"""
ALIVE_LOOKS_MAX = 1
"""So many, and the other end is still taken to be there: it beats several times in each."""


class PeerLinks:
    """All links of one node. Belongs to the event loop."""

    def __init__(
        self,
        own: PeerIdentity,
        options: ClientOptions,
        check: Callable[[PeerIdentity], None],
        on_report: Callable[[str, NodeReport], None],
        turn: Turn | None = None,
    ) -> None:
        self.own = own
        self.raft: RaftNode | None = None
        self.known: dict[str, PeerIdentity] = {}
        """Every peer that has greeted or was greeted since the start."""
        self._options = options
        self._check = check
        self._on_report = on_report
        self._turn = turn
        self._addresses: dict[str, tuple[Address, ...]] = {}
        self._links: dict[str, Link] = {}
        self._silent_looks: dict[str, int] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, addresses: Mapping[str, tuple[Address, ...]]) -> None:
        """These are the other nodes, and where each may be found. Those whose id sorts behind
        this one's are connected to, and kept connected; who is not named is hung up on.
        """
        self._addresses = dict(addresses)
        for node_id in addresses:
            if self.own.node_id < node_id and node_id not in self._tasks:
                self._tasks[node_id] = asyncio.create_task(self._keep(node_id))
        for node_id in [each for each in self._tasks if each not in addresses]:
            self._tasks.pop(node_id).cancel()
        for node_id in [each for each in self._links if each not in addresses]:
            self._links[node_id].close()

    def follows(self, node_id: str) -> bool:
        """It is another node of this cluster, as far as is known here."""
        return node_id in self._addresses

    async def _keep(self, node_id: str) -> None:
        rarely, turn = Rarely(asyncio.get_running_loop().time), 0
        while True:
            found = self._addresses[node_id]
            turn += 1
            try:
                if found:
                    await self._connect(node_id, found[turn % len(found)])
                rarely.is_over()
            except CertificateError as error:
                if rarely.is_news(str(error)):  # certificates are replaced: it is tried again
                    logger.warning("node %s is not connected: %s", node_id, error)
            except ChronikError as error:
                if rarely.is_news(type(error).__name__, lasts=not error.retriable):
                    logger.warning("node %s: %s", node_id, error)
            except Exception:
                if rarely.is_news("defect"):
                    logger.exception("node %s: its connection failed; it is tried again", node_id)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _connect(self, node_id: str, address: Address) -> None:
        """One connection's life."""
        lost = asyncio.Event()
        link: Channel | None = None
        early: list[tuple[Any, Buffer]] = []

        def told(message: Any, payload: Buffer) -> None:
            if link is not None:
                self.receive(node_id, link, message, payload)
            elif len(early) < EARLY_MAX:
                early.append((message, payload))  # behind the welcome: who says it is not known yet

        channel = await Channel.open(
            address,
            self._options,
            peer=self.own,
            on_told=told,
            turn=self._turn,
        )
        welcome = channel.welcome
        peer = None if welcome is None else welcome.peer
        if peer is None or peer.node_id != node_id:
            channel.close()
            raise IdentityMismatchError(f"{address} is not node {node_id} of this cluster")
        try:
            self._check(peer)
            link = channel
            self.joined(peer, channel)
            for message, payload in early:
                self.receive(node_id, channel, message, payload)
            early.clear()
            channel.on_lost = lost.set
            if not channel.is_lost:
                await lost.wait()
        finally:
            self.left(peer, channel)
            channel.close()

    def check_only(self, peer: PeerIdentity) -> None:
        """IdentityMismatchError while another directory is connected under this node's id: until
        the registry says whose the id is, two would cut off each other for ever. And while another
        process of the same one is heard: it is a copy, and each would vote and acknowledge without
        knowing what the other one has promised.
        """
        here = self.known.get(peer.node_id)
        if here is None or here == peer or not self.is_connected(peer.node_id):
            return
        if here.node_uuid != peer.node_uuid:
            raise IdentityMismatchError(
                f"node id {peer.node_id} is connected as directory {here.node_uuid}, not "
                f"{peer.node_uuid}: give each node an id of its own, and each cluster a name"
            )
        if self._silent_looks[peer.node_id] <= ALIVE_LOOKS_MAX:
            raise IdentityMismatchError(
                f"node {peer.node_id} is here and answers; this is another process with its "
                "directory, or a copy of it: a copy must never run beside the original, so end it "
                "(a node that was started again is let in once its earlier process is silent)"
            )

    def joined(self, peer: PeerIdentity, link: Link) -> None:
        """A node is connected, by us or by itself."""
        old = self._links.get(peer.node_id)
        self._links[peer.node_id] = link
        self.known[peer.node_id] = peer
        if old is not None and old is not link:
            old.abort()
        self._silent_looks[peer.node_id] = 0
        self._look(peer.node_id, link)
        assert self.raft is not None
        self.raft.peer_up(peer.node_id, peer.boot_id)

    def _look(self, node_id: str, link: Link) -> None:
        """Cut a link on which nothing comes: its other end may be gone with nobody to say so."""
        if self._links.get(node_id) is not link:
            return
        if self._silent_looks[node_id] > SILENT_LOOKS_MAX:
            logger.warning("node %s has fallen silent: its connection is cut", node_id)
            link.abort()
            return
        self._silent_looks[node_id] += 1
        asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look, node_id, link)

    def left(self, peer: PeerIdentity, link: Link) -> None:
        """Its connection has ended."""
        if self._links.get(peer.node_id) is link:
            del self._links[peer.node_id]
            assert self.raft is not None
            self.raft.peer_down(peer.node_id)

    def is_connected(self, node_id: str) -> bool:
        """A message would find its way now."""
        return node_id in self._links

    # --- messages --------------------------------------------------------------------------------

    def send(self, peer: str, group_id: str, message: messages.Message) -> None:
        """See `raft.Transport`."""
        link = self._links.get(peer)
        if link is None:
            return
        if link.backlog_bytes > BACKLOG_BYTES_MAX:
            # It takes nothing: whatever it missed is sent again once it is back.
            link.abort()
            return
        head, buffers = messages.encode(message)
        link.tell(RaftMessage(group_id, head), buffers)

    def report(self, peer: str, report: NodeReport) -> None:
        """Tell the node that leads the metadata; lost if it is away, and told again later."""
        link = self._links.get(peer)
        if link is not None:
            link.tell(report)

    def receive(self, sender: str, link: Link, message: Any, payload: Buffer) -> None:
        """What a peer said. Dropped if it is damaged, or came by another connection than the one
        that is the peer's now: consensus has it sent again.
        """
        if self._links.get(sender) is not link:
            return
        self._silent_looks[sender] = 0
        if isinstance(message, NodeReport):
            self._on_report(sender, message)
            return
        if not isinstance(message, RaftMessage) or self.raft is None:
            return
        try:
            found = messages.decode(message.head, payload)
        except ChronikError as error:
            logger.warning("dropped a message of node %s: %s", sender, error)
            return
        self.raft.receive(sender, message.group, found)

    async def close(self) -> None:
        """Hang up everywhere."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in list(self._links.values()):
            link.close()
        self._links.clear()
