"""The sending half of a leader: entries, beats and snapshots towards each peer.

Place: under the leader role. Promise: a peer gets what it lacks, in order, in batches, up to a
window ahead of its answers; entries that are not in memory are read in a worker, never on the event
loop. Invariant: what a peer has acknowledged moves only by its answers; everything else about it is
a guess that a beat corrects.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from chronik_server.raft.messages import AppendEntries, AppendEntriesResponse, InstallSnapshot
from chronik_server.raft.progress import Mode, PeerProgress
from chronik_store.errors import ChronikError, CorruptionError
from chronik_store.format.control import Members
from chronik_store.format.entry import ENTRY_HEADER_BYTES, Entry
from chronik_store.replica import Snapshot

if TYPE_CHECKING:
    from chronik_server.raft.group import RaftGroup
    from chronik_server.raft.leader import LeaderRole

logger = logging.getLogger("chronik_server.raft")


class Replication:
    """One leader's peers. Not thread-safe: the event loop's."""

    def __init__(self, leader: LeaderRole, group: RaftGroup) -> None:
        self._leader = leader
        self._group = group
        self._replica = group.replica
        self._settings = group.node.settings
        self.peers: dict[str, PeerProgress] = {}
        self._members: Members | None = None
        self._snapshot_fault = self._read_fault = ""

    def sync_peers(self) -> None:
        """Follow the members in force."""
        members = self._group.members
        if members is self._members:
            return
        self._members = members
        now = self._leader.loop.time()
        wanted = self._group.peers
        self._group.node.watch(wanted)
        for peer in wanted:
            if peer not in self.peers:
                self.peers[peer] = PeerProgress(self._replica.last_index + 1, now)
        for peer in [each for each in self.peers if each not in wanted]:
            del self.peers[peer]

    def reset(self, peer: str) -> None:
        """The peer's process is a new one: nothing that it said before counts."""
        progress = self.peers.get(peer)
        if progress is not None:
            progress.reset(self._replica.last_index + 1)

    def lost_connection(self, peer: str) -> None:
        """What was in flight is void."""
        progress = self.peers.get(peer)
        if progress is not None and progress.mode is not Mode.SNAPSHOT:
            progress.retry()

    # --- send ------------------------------------------------------------------------------------

    def send_all(self) -> None:
        """Towards every peer, what is new."""
        for peer in self.peers:
            self.send_on(peer)

    def send_on(self, peer: str) -> None:
        """As `send`, when entries are all that there may be to say."""
        progress = self.peers[peer]
        if progress.mode is not Mode.REPLICATE or progress.next_index <= self._replica.last_index:
            self.send(peer)

    def send(self, peer: str, *, beat: bool = False) -> None:
        """What the peer lacks, as far as its window goes; with `beat` something in any case."""
        progress = self.peers[peer]
        if beat:
            self._before_beat(progress)
        if progress.mode is Mode.SNAPSHOT:
            now = self._leader.loop.time()
            if now - progress.snapshot_sent_at > self._settings.snapshot_retry_seconds:
                self._send_snapshot(peer)
            elif beat:
                self._send_entries(peer, self._replica.first_index, ())
            return
        last_index = self._replica.last_index
        while True:
            next_index = progress.next_index
            if next_index < self._replica.first_index:
                self._send_snapshot(peer)
                return
            entries: Sequence[Entry] = ()
            if next_index <= last_index and progress.may_send(self._settings):
                if next_index < self._replica.tail_first_index:
                    self._read(peer, next_index)
                else:
                    try:
                        entries = self._replica.entries(next_index, self._settings.batch_bytes)
                    except IndexError:
                        self._send_snapshot(peer)  # pruned meanwhile
                        return
            if not entries and not beat:
                return
            is_sent = self._send_entries(peer, next_index, entries)
            if not is_sent or not entries or progress.next_index > last_index:
                return
            beat = False

    def _before_beat(self, progress: PeerProgress) -> None:
        """What was not answered for too long was lost."""
        now = self._leader.loop.time()
        if progress.is_stalled(now, 2 * self._settings.heartbeat_seconds):
            progress.retry()
        if progress.mode is Mode.PROBE:
            progress.probe_sent = False

    def _send_entries(self, peer: str, next_index: int, entries: Sequence[Entry]) -> bool:
        """False: a snapshot is made instead; a thread of the pipeline has pruned what stands before
        them.
        """
        leader, progress, group = self._leader, self.peers[peer], self._group
        try:
            prev_term = self._replica.term(next_index - 1)
        except IndexError:
            self._send_snapshot(peer)
            return False
        suspect = progress.is_suspect
        message = AppendEntries(  # by place: it is made for every group of entries
            self._replica.current_term,
            group.id,
            next_index - 1,
            prev_term,
            leader.commit_index,
            leader.trusted_index(progress) if suspect else 0,
            group.node.boot_of(peer) if suspect else "",
            leader.request_id,
            tuple(entries),
        )
        progress.commit_sent = leader.commit_index
        if entries:
            size = 0
            for header, _ in entries:
                size += ENTRY_HEADER_BYTES + header.payload_bytes
            progress.sent(next_index, entries[-1].header.index, size, leader.loop.time())
        group.send(message, peer)
        return True

    def _read(self, peer: str, next_index: int) -> None:
        """Entries that only the disk has; a worker reads them."""
        progress = self.peers[peer]
        progress.is_reading = True
        self._group.node.offload(
            partial(self._replica.entries, next_index, self._settings.batch_bytes),
            partial(self._read_done, peer, progress.epoch, next_index),
        )

    def _read_done(
        self, peer: str, epoch: int, next_index: int, read: Sequence[Entry] | BaseException
    ) -> None:
        progress = self.peers.get(peer)
        if progress is None or not self._leader.is_current:
            return
        progress.is_reading = False
        if isinstance(read, IndexError):
            self._send_snapshot(peer)  # pruned meanwhile
        elif isinstance(read, BaseException):
            if str(read) != self._read_fault:
                logger.warning("%s: entry %d cannot be read: %s", self._group, next_index, read)
            self._read_fault = str(read)
            if isinstance(read, CorruptionError):
                self._offer_the_lead(next_index)
        elif progress.epoch == epoch and progress.next_index == next_index:
            if self._send_entries(peer, next_index, read):
                self.send(peer)
        else:
            self.send(peer)

    def _offer_the_lead(self, index: int) -> None:
        """An entry from here on is damaged, and a peer lacks it: a voter that has it is to lead.
        Once for each such place while this process lives, whoever led meanwhile: where the other
        one cannot read it either, the two would pass the lead to and fro.
        """
        group, leader = self._group, self._leader
        if index in group.offered_for or not leader.is_ready:
            return
        able = [
            (each.match_index, peer)
            for peer, each in self.peers.items()
            if peer in group.voters
            and each.match_index >= max(index, leader.commit_index)
            and not (each.is_suspect or each.is_full)
            and group.node.liveness.is_up(peer)
        ]
        if able:
            group.offered_for.add(index)
            heir = max(able)[1]
            logger.warning("%s: %s is asked to lead, which has what is damaged here", group, heir)
            leader.transfer.begin(heir).add_done_callback(_heard)

    # --- snapshots -------------------------------------------------------------------------------

    def _send_snapshot(self, peer: str) -> None:
        progress = self.peers[peer]
        if progress.is_reading:
            return
        progress.is_reading = True
        self._group.node.offload(
            self._group.snapshot_source, partial(self._snapshot_made, peer, progress.epoch)
        )

    def _snapshot_made(self, peer: str, epoch: int, made: Snapshot | BaseException) -> None:
        progress = self.peers.get(peer)
        if progress is None or not self._leader.is_current:
            return
        progress.is_reading = False
        if isinstance(made, ChronikError):
            if str(made) != self._snapshot_fault:
                logger.warning("%s: no snapshot for %s yet: %s", self._group, peer, made)
            self._snapshot_fault = str(made)
            return
        if isinstance(made, BaseException):
            raise made
        if progress.epoch != epoch:
            return  # the peer has moved while the snapshot was made: the next beat looks again
        progress.await_snapshot(made.base.index, self._leader.loop.time())
        message = InstallSnapshot(self._group.term, self._group.id, self._leader.request_id, made)
        self._group.send(message, peer)

    # --- answers ---------------------------------------------------------------------------------

    def answered(self, peer: str, response: AppendEntriesResponse) -> bool:
        """Take an answer into account. True: more of what the peer holds counts than before."""
        progress = self.peers[peer]
        now = self._leader.loop.time()
        progress.heard_at = now
        progress.request_id = max(progress.request_id, response.request_id)
        recovered = progress.is_suspect and not response.is_suspect
        if response.is_suspect and not progress.is_suspect:
            progress.trust_round = self._leader.request_id + 1
        progress.is_suspect = response.is_suspect
        progress.is_full = response.is_full
        if response.success:
            news = progress.matched(response.match_index, now) or recovered
            progress.arrived(response.prev_log_index, now)
            if response.request_id >= self._leader.commit_round:
                shown = min(response.match_index, self._leader.commit_index)
                progress.commit_shown = max(progress.commit_shown, shown)
            if progress.mode is not Mode.REPLICATE and self._invites(progress, response):
                progress.replicate()
                progress.next_index = max(response.prev_log_index, progress.match_index) + 1
            return news
        prev = response.prev_log_index
        ahead = progress.mode is Mode.REPLICATE and prev > progress.match_index
        probed = progress.mode is Mode.PROBE and prev == progress.next_index - 1
        if ahead or probed:
            progress.probe(self._agreeing_index(response))
        return recovered

    def _invites(self, progress: PeerProgress, response: AppendEntriesResponse) -> bool:
        """Whether entries follow each other to this peer from now on. Not to a full one that took
        none: it is asked again with a beat.
        """
        if progress.mode is Mode.PROBE:
            return not response.is_full or response.match_index > response.prev_log_index
        return progress.mode is Mode.SNAPSHOT and progress.match_index >= progress.snapshot_index

    def _agreeing_index(self, response: AppendEntriesResponse) -> int:
        """The next index to try after a conflict: whole terms are skipped (paper 5.3)."""
        prev, replica = response.prev_log_index, self._replica
        index = response.hint_index
        if response.hint_term:
            low = replica.first_index - 1
            span = range(low, min(prev, replica.last_index) + 1)
            last = low + bisect_right(span, response.hint_term, key=replica.term) - 1
            if last >= low and replica.term(last) == response.hint_term:
                index = last + 1
        return max(1, min(index, prev))


def _heard(offer: asyncio.Future[None]) -> None:
    """It led nowhere: this node leads on, as it has said."""
    if not offer.cancelled() and offer.exception() is not None:
        logger.warning("%s", offer.exception())
