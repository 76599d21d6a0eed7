"""What a leader knows of one peer, and how much it sends ahead of the answers.

Place: under the leader role; pure bookkeeping. Promise: in flight to a peer are at most a window of
bytes and messages; whatever is lost is sent again. Invariant: `match_index` is what the peer has
said to hold durably in this boot of its; next_index > match_index.

    PROBE      one message at a time, until the place where the logs agree is known
    REPLICATE  messages follow each other without waiting
    SNAPSHOT   the peer needs entries that are gone here; beats only, until it has the snapshot
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from chronik_server.raft.settings import RaftSettings


class Mode(StrEnum):
    """See the module."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class PeerProgress:
    """One peer of one leader. Not thread-safe: the event loop's."""

    __slots__ = (
        "commit_sent",
        "commit_shown",
        "epoch",
        "heard_at",
        "inflight",
        "inflight_bytes",
        "is_full",
        "is_reading",
        "is_suspect",
        "match_index",
        "mode",
        "moved_at",
        "next_index",
        "probe_sent",
        "request_id",
        "snapshot_index",
        "snapshot_sent_at",
        "trust_round",
    )

    def __init__(self, next_index: int, now: float) -> None:
        self.mode = Mode.PROBE
        self.match_index = 0
        self.next_index = next_index
        self.inflight: deque[tuple[int, int, int]] = deque()
        """(first index, last index, bytes) of each message that was not answered yet."""
        self.inflight_bytes = 0
        self.probe_sent = False
        self.is_reading = False
        self.is_suspect = False
        self.is_full = False
        self.commit_sent = 0
        self.commit_shown = 0
        """The peer has answered what told it that entries up to here are committed."""
        self.request_id = 0
        self.heard_at = now
        self.moved_at = now
        self.trust_round = 0
        """The first round of beats that began after this peer was known to be suspect."""
        self.snapshot_index = 0
        self.snapshot_sent_at = float("-inf")
        self.epoch = 0
        """Counts resets, so that a disk read that began before one is not sent after it."""

    def may_send(self, settings: RaftSettings) -> bool:
        """Whether more entries may go out before an answer comes."""
        if self.is_reading or self.mode is Mode.SNAPSHOT:
            return False
        if self.mode is Mode.PROBE:
            return not self.probe_sent
        return (
            self.inflight_bytes < settings.window_bytes
            and len(self.inflight) < settings.window_messages
        )

    def sent(self, first_index: int, last_index: int, size_bytes: int, now: float) -> None:
        """These entries are on their way."""
        if not self.inflight:
            self.moved_at = now
        self.inflight.append((first_index, last_index, size_bytes))
        self.inflight_bytes += size_bytes
        if self.mode is Mode.PROBE:
            self.probe_sent = True
        else:
            self.next_index = last_index + 1

    def matched(self, index: int, now: float) -> bool:
        """The peer holds everything up to `index`. True: that is news."""
        while self.inflight and self.inflight[0][1] <= index:
            self.inflight_bytes -= self.inflight.popleft()[2]
        news = index > self.match_index
        if news:
            self.match_index = index
            self.moved_at = now
        self.next_index = max(self.next_index, self.match_index + 1)
        return news

    def arrived(self, index: int, now: float) -> None:
        """The peer has everything up to `index`, if not yet on its disk: nothing of it was lost."""
        if self.inflight and self.inflight[0][1] <= index:
            self.moved_at = now

    def replicate(self) -> None:
        """The logs agree: send without waiting."""
        self.mode = Mode.REPLICATE
        self._clear()

    def probe(self, next_index: int) -> None:
        """Look for the place where the logs agree, from here."""
        self.mode = Mode.PROBE
        self.next_index = max(next_index, self.match_index + 1)
        self._clear()

    def retry(self) -> None:
        """What is in flight was lost: go back to where it began."""
        self.probe(self.inflight[0][0] if self.inflight else self.next_index)

    def await_snapshot(self, base_index: int, now: float) -> None:
        """A snapshot that stands for `base_index` was sent."""
        self.mode = Mode.SNAPSHOT
        self.snapshot_index = base_index
        self.snapshot_sent_at = now
        self._clear()

    def reset(self, next_index: int) -> None:
        """Nothing of what the peer said counts any more: it has started anew (protocol 9). But for
        its disk, which is no emptier for that: it says so if it is.
        """
        self.match_index = 0
        self.commit_sent = 0
        self.commit_shown = 0
        self.request_id = 0
        self.is_suspect = False
        self.probe(next_index)

    def is_stalled(self, now: float, patience_seconds: float) -> bool:
        """Something is in flight and no answer has moved it for too long: it was lost."""
        return bool(self.inflight) and now - self.moved_at > patience_seconds

    def _clear(self) -> None:
        self.inflight.clear()
        self.inflight_bytes = 0
        self.probe_sent = False
        self.epoch += 1
