"""All groups of one process: messages in and out, beats, and the one place that loads raftos.

Place: the top of the room; the server makes one. Promise: each message reaches its group or is
dropped; a node that restarted is trusted with nothing that its former self has said; a poisoned log
or a broken invariant ends in `on_fatal`, which ends the process. Invariant: one event loop runs it
all; what must wait for a disk waits in a worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any, Protocol

from chronik_server.raft.consensus import Consensus
from chronik_server.raft.group import RaftGroup
from chronik_server.raft.leader import LeaderRole
from chronik_server.raft.liveness import NodeLiveness
from chronik_server.raft.messages import Beat, BeatAck, Message
from chronik_server.raft.pacing import ElectionPacer
from chronik_server.raft.raftos_consensus import RaftosConsensus
from chronik_server.raft.settings import RaftSettings
from chronik_server.raft.transport import NODE_TO_NODE, Transport
from chronik_server.turn import Turn
from chronik_server.workers import workers
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError
from chronik_store.format.control import Members
from chronik_store.replica import Replica, Snapshot

logger = logging.getLogger("chronik_server.raft")

READERS = 4
"""Threads that read what peers lack."""


class Offload(Protocol):
    """Runs blocking work elsewhere and brings its result, or its exception, back to the loop."""

    def __call__(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None: ...


class RaftNode:
    """See the module. Not thread-safe: the event loop's.

    boot_id: random for each start. on_fatal(group_id, error): end the process. turn: in which the
    transport speaks.
    """

    def __init__(
        self,
        node_id: str,
        *,
        boot_id: str,
        transport: Transport,
        on_fatal: Callable[[str, BaseException], None],
        settings: RaftSettings = RaftSettings(),  # noqa: B008 (frozen)
        env: Environment | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        offload: Offload | None = None,
        turn: Turn | None = None,
    ) -> None:
        self.node_id = node_id
        self.boot_id = boot_id
        self.settings = settings
        self.loop = loop if loop is not None else asyncio.get_running_loop()
        self.turn = Turn(self.loop) if turn is None else turn
        env = Environment() if env is None else env
        self.uniform, self.threads = env.entropy.uniform, env.threads
        self.pacer = ElectionPacer(settings.elections_per_second, self.loop.time)
        self.liveness = NodeLiveness(
            loop=self.loop,
            boot_id=boot_id,
            beat_seconds=settings.heartbeat_seconds,
            patience_seconds=settings.check_quorum_seconds,
            send=lambda peer, beat: self.post(peer, NODE_TO_NODE, beat),
            on_up=self._kick_led,
            on_down=_nothing,
        )
        self._transport = transport
        self._on_fatal = on_fatal
        self._groups: dict[str, RaftosConsensus] = {}
        self._boots: dict[str, str] = {}
        # Of its own: elsewhere threads wait for the bucket, and a follower behind would, too.
        self._readers = workers(READERS, "chronik-catch-up") if offload is None else None
        self.offload: Offload = self._in_executor if offload is None else offload
        self._is_stopped = False

    # --- groups ----------------------------------------------------------------------------------

    def add_group(
        self,
        group_id: str,
        replica: Replica,
        *,
        members: Members,
        may_vote: Callable[[], Collection[str] | None],
        snapshot_source: Callable[[], Snapshot] | None = None,
    ) -> Consensus:
        """A replica that takes part once it is started.

        members: while its log names none; the same on all nodes. may_vote: who else may be a
        voter, whatever a log says that may have been cut; None: nobody can tell. snapshot_source:
        called in a worker, may read the disk; by default what the replica can tell from memory.
        """
        assert group_id, "the empty group id is the nodes' own"
        assert group_id not in self._groups, f"group {group_id} is here already"
        source = replica.snapshot if snapshot_source is None else snapshot_source
        group = RaftGroup(self, group_id, replica, members, source, may_vote)
        replica.on_poisoned(lambda error: self.fail(group_id, error))
        consensus = RaftosConsensus(group)
        self._groups[group_id] = consensus
        return consensus

    def remove_group(self, group_id: str) -> None:
        """Stop it and forget it. KeyError if it is not here."""
        self._groups.pop(group_id).stop()

    def group(self, group_id: str) -> Consensus | None:
        """The group of this id."""
        return self._groups.get(group_id)

    def start(self) -> None:
        """Begin to beat; groups are started one by one."""
        self.liveness.start()

    def stop(self) -> None:
        """Stop everything. Idempotent."""
        self._is_stopped = True
        if self._readers is not None:
            self._readers.shutdown(wait=False)
        for group in list(self._groups.values()):
            group.stop()
        self.liveness.stop()

    # --- messages --------------------------------------------------------------------------------

    def receive(self, sender: str, group_id: str, message: Message) -> None:
        """From the transport; `sender` is authenticated."""
        if self._is_stopped:
            return
        if isinstance(message, Beat):
            self.liveness.on_beat(sender, message)
        elif isinstance(message, BeatAck):
            self.liveness.on_beat_ack(sender, message)
        else:
            self._dispatch(sender, group_id, message)

    def _dispatch(self, sender: str, group_id: str, message: Message) -> None:
        consensus = self._groups.get(group_id)
        if consensus is None:
            return  # it has no such group, or has it no more
        self.liveness.watch(sender)
        try:
            consensus.raft.receive(sender, message)
        except ChronikError as error:
            # Damaged on its way (then it will come again), of another log, or our disk is gone,
            # which `on_poisoned` tells.
            logger.warning("%s: dropped %s of %s: %s", group_id, message.KIND, sender, error)
        except AssertionError as error:
            self.fail(group_id, error)

    def post(self, peer: str, group_id: str, message: Message) -> None:
        """To the transport."""
        if not self._is_stopped:
            self._transport.send(peer, group_id, message)

    def peer_up(self, peer: str, boot_id: str) -> None:
        """The transport shook hands with a node. A new boot id: it may have lost what it had."""
        self.liveness.connected(peer)
        if self._boots.get(peer) != boot_id:
            self._boots[peer] = boot_id
            self.liveness.forget(peer)
            for role in self._led():
                role.replication.reset(peer)
        self._kick_led(peer)

    def boot_of(self, peer: str) -> str:
        """The boot id that this node last shook hands with; "" for none."""
        return self._boots.get(peer, "")

    def peer_down(self, peer: str) -> None:
        """The connection is gone, and what was in flight with it."""
        self.liveness.disconnected(peer)
        for each in self._groups.values():
            if each.leader == peer:
                each.raft.leader_lost()
        for role in self._led():
            role.replication.lost_connection(peer)

    def fail(self, group_id: str, error: BaseException) -> None:
        """Nothing that this process says can be trusted any more."""
        logger.critical("%s: %r; this process must end", group_id, error)
        self.stop()
        self._on_fatal(group_id, error)

    # --- inside ----------------------------------------------------------------------------------

    def watch(self, peers: tuple[str, ...]) -> None:
        """Beat towards these nodes."""
        for peer in peers:
            self.liveness.watch(peer)

    def _led(self) -> list[LeaderRole]:
        roles = (each.raft.state for each in self._groups.values() if each.raft.is_running)
        return [role for role in roles if isinstance(role, LeaderRole)]

    def _kick_led(self, peer: str) -> None:
        for role in self._led():
            if peer in role.replication.peers:
                role.kick()

    def _in_executor(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        def finish(future: asyncio.Future[Any]) -> None:
            if not future.cancelled():
                error = future.exception()
                done(future.result() if error is None else error)

        if not self._is_stopped:
            self.loop.run_in_executor(self._readers, work).add_done_callback(finish)


def _nothing(_peer: str) -> None:
    """Leaders ask the table themselves."""
