"""Who is alive, per pair of nodes, and which groups each node says it leads (protocol 15).

Place: one per process, shared by its groups. Promise: a thousand idle groups cost one small message
per pair of nodes and beat; a follower whose timer fires asks here whether the node that leads its
group in its term was heard and still claims it. Invariant: claims carry the version of their table,
so a lost or late beat never leaves a claim standing that its node has withdrawn: what does not fit
the version held is asked for again, and counts for nothing meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from chronik_server.raft.messages import Beat, BeatAck

NEVER = float("-inf")
NOT_YET = float("inf")
BEATS_REMEMBERED = 64
WITHDRAWN_MAX = 1000
"""So many claims that are withdrawn wait for nodes that are away, to be told of that."""


class _Peer:
    """What we know of one other node, and what it knows of us."""

    __slots__ = (
        "acked_at",
        "boot_id",
        "claims",
        "heard_at",
        "held",
        "is_up",
        "known",
        "lost_at",
        "rounds",
    )

    def __init__(self) -> None:
        self.boot_id = ""
        self.claims: dict[str, int] = {}
        self.held = 0
        self.heard_at = NEVER
        self.acked_at = NEVER
        self.lost_at = NOT_YET
        self.known = 0
        self.is_up = False
        self.rounds: dict[int, float] = {}


class NodeLiveness:
    """Beats of one node. Not thread-safe: the event loop's.

    send(peer, message): towards another node. on_up, on_down(peer): it began or ceased to answer.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        boot_id: str,
        beat_seconds: float,
        patience_seconds: float,
        send: Callable[[str, Beat | BeatAck], None],
        on_up: Callable[[str], None],
        on_down: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._boot_id = boot_id
        self._beat_seconds = beat_seconds
        self._patience_seconds = patience_seconds
        self._send = send
        self._on_up = on_up
        self._on_down = on_down
        self._peers: dict[str, _Peer] = {}
        self._version = 1
        self._changes: dict[str, tuple[int, int]] = {}
        self._withdrawn = 0
        self._forgotten = 0
        """The newest version of a withdrawn claim that is not remembered any more."""
        self._round = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to beat. Idempotent."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._beat_seconds, self._tick)

    def stop(self) -> None:
        """Fall silent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def watch(self, peer: str) -> None:
        """Beat towards this node from now on."""
        if peer not in self._peers:
            self._peers[peer] = _Peer()

    # --- our own table ---------------------------------------------------------------------------

    def claim(self, group_id: str, term: int) -> None:
        """This node leads the group in `term`; 0: it does not."""
        if self._changes.get(group_id, (0, 0))[1] != term:
            self._version += 1
            # Re-inserted at the end: the dict is in the order of versions.
            self._changes.pop(group_id, None)
            self._changes[group_id] = (self._version, term)
            self._withdrawn += not term

    def _forget_withdrawn(self) -> None:
        """That a group is not led here need not be said any more once every peer knows it. Who is
        away for long, or for good, is not waited for: it is told the whole table when it is back.
        """
        if not self._withdrawn:
            return
        few, peers = self._withdrawn <= WITHDRAWN_MAX, self._peers.values()
        known = min((peer.known for peer in peers if few or peer.is_up), default=self._version)
        for group_id, (at, term) in list(self._changes.items()):
            if at > known:
                break
            if not term:
                del self._changes[group_id]
                self._forgotten = at
        self._withdrawn = sum(not term for _, term in self._changes.values())
        for peer in peers:
            peer.known = self._to_go_on_from(peer.known)

    def _to_go_on_from(self, version: int) -> int:
        """What changed since, or, where that is not remembered, everything."""
        return version if version >= self._forgotten else 0

    def _since(self, version: int) -> tuple[tuple[str, int], ...]:
        changed = []
        for group_id, (at, term) in reversed(self._changes.items()):
            if at <= version:
                break
            if term or version:
                changed.append((group_id, term))
        return tuple(reversed(changed))

    # --- beats -----------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._beat_seconds, self._tick)
        self._round += 1
        self._forget_withdrawn()
        now = self._loop.time()
        for name, peer in self._peers.items():
            peer.rounds[self._round] = now
            if len(peer.rounds) > BEATS_REMEMBERED:
                del peer.rounds[next(iter(peer.rounds))]
            beat = Beat(
                self._boot_id, self._round, self._version, peer.known, self._since(peer.known)
            )
            self._send(name, beat)
            if peer.is_up and now - peer.acked_at > self._patience_seconds:
                peer.is_up = False
                self._on_down(name)

    def on_beat(self, sender: str, beat: Beat) -> None:
        """A node says that it is alive, and what it leads."""
        self.watch(sender)
        peer = self._peers[sender]
        if beat.boot_id != peer.boot_id:
            peer.boot_id, peer.held = beat.boot_id, 0
            peer.claims.clear()
            peer.heard_at = NEVER
        if beat.version < peer.held:
            return  # overtaken by a newer one
        if beat.base_version > peer.held:
            self._send(sender, BeatAck(beat.round, peer.held))
            return  # it takes us for better informed than we are: ask from where we stand
        if beat.base_version == 0:
            peer.claims.clear()
        for group_id, term in beat.claims:
            if term:
                peer.claims[group_id] = term
            else:
                peer.claims.pop(group_id, None)
        peer.held = beat.version
        peer.heard_at = self._loop.time()
        self._send(sender, BeatAck(beat.round, peer.held))

    def on_beat_ack(self, sender: str, ack: BeatAck) -> None:
        """A node has heard us, at the latest when our beat of that round left."""
        peer = self._peers.get(sender)
        sent_at = None if peer is None else peer.rounds.get(ack.round)
        if peer is None or sent_at is None:
            return
        if sent_at >= peer.acked_at:
            peer.acked_at = sent_at
            peer.known = self._to_go_on_from(min(ack.held_version, self._version))
        if not peer.is_up and self._loop.time() - sent_at <= self._patience_seconds:
            peer.is_up = True
            self._on_up(sender)

    def forget(self, peer: str) -> None:
        """That node has started anew: it holds nothing of our table."""
        found = self._peers.get(peer)
        if found is not None:
            found.known = 0
            found.rounds.clear()

    def connected(self, peer: str) -> None:
        """There is a connection to that node."""
        self.watch(peer)
        self._peers[peer].lost_at = NOT_YET

    def disconnected(self, peer: str) -> None:
        """The connection to that node has ended, by whatever end."""
        self.watch(peer)
        self._peers[peer].lost_at = self._loop.time()

    # --- questions -------------------------------------------------------------------------------

    def confirmed_at(self, leader: str | None, group_id: str, term: int) -> float:
        """When that node was last heard to lead the group in this term; -inf if it does not say
        so in its current table. Loop time.
        """
        peer = self._peers.get(leader) if leader is not None else None
        if peer is None or peer.claims.get(group_id) != term:
            return NEVER
        return peer.heard_at

    def claimant(self, group_id: str) -> tuple[str, int] | None:
        """(node, term) of the newest claim to a group, as other nodes' current tables say; the
        table of a node that has fallen silent, or was never connected, is not current.
        """
        claims = [
            (peer.claims[group_id], name)
            for name, peer in self._peers.items()
            if group_id in peer.claims and not self._is_silent(peer)
        ]
        return max(claims)[::-1] if claims else None

    def is_silent(self, peer: str) -> bool:
        """That node has not been heard for longer than a leader's silence is borne."""
        found = self._peers.get(peer)
        return found is None or self._is_silent(found)

    def _is_silent(self, peer: _Peer) -> bool:
        return self._loop.time() - peer.heard_at > self._patience_seconds

    def lost_at(self, peer: str | None) -> float:
        """When the connection to that node was lost; inf while there is one, or never was."""
        found = self._peers.get(peer) if peer is not None else None
        return NOT_YET if found is None else found.lost_at

    def acked_at(self, peer: str) -> float:
        """Loop time of our newest beat that this node answered; -inf for none."""
        found = self._peers.get(peer)
        return NEVER if found is None else found.acked_at

    def is_up(self, peer: str) -> bool:
        """Whether it answers."""
        found = self._peers.get(peer)
        return found is not None and found.is_up
