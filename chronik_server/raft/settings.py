"""How consensus behaves: times and bounds.

Place: the bottom of the room; one value for all groups of a node. Promise: checked when made.
Invariant: a leader is heard at least twice within the least election timeout.
"""

from __future__ import annotations

from dataclasses import dataclass

from chronik_store.errors import ConfigError

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftSettings:
    """heartbeat_seconds: between beats of two nodes, and of a group that is not idle.
    election_seconds_min/max: a follower that hears nothing for a time drawn from these asks for
    votes. lost_seconds: how long a lost connection to the leader's node may take to come back until
    a follower takes it for silence; it asks for votes between once and twice that after the loss.
    check_quorum_seconds: a leader that no quorum answered within it steps down.
    commit_notice_seconds: how long followers of a quiet group may lag behind a commit.
    snapshot_retry_seconds: when an unanswered snapshot is sent again.
    batch_bytes: of entries in one message. window_bytes, window_messages: in flight to one peer.
    queue_bytes: proposed and not committed, per group. elections_per_second: of one node.
    """

    heartbeat_seconds: float = 0.3
    election_seconds_min: float = 1.0
    election_seconds_max: float = 2.0
    lost_seconds: float = 0.45
    check_quorum_seconds: float = 1.5
    commit_notice_seconds: float = 0.005
    snapshot_retry_seconds: float = 5.0
    batch_bytes: int = 1 * MIB
    window_bytes: int = 8 * MIB
    window_messages: int = 64
    queue_bytes: int = 64 * MIB
    elections_per_second: float = 200.0

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_seconds * 2 <= self.election_seconds_min:
            raise ConfigError(
                f"heartbeat_seconds is {self.heartbeat_seconds}; it must be positive and at most "
                f"half of election_seconds_min ({self.election_seconds_min})"
            )
        if not self.election_seconds_min < self.election_seconds_max:
            raise ConfigError(
                f"election_seconds_max ({self.election_seconds_max}) must be above "
                f"election_seconds_min ({self.election_seconds_min}), or votes split for ever"
            )
        if not 0 < self.lost_seconds <= self.election_seconds_min:
            raise ConfigError(
                f"lost_seconds is {self.lost_seconds}; it must be positive and at most "
                f"election_seconds_min ({self.election_seconds_min})"
            )
        if self.check_quorum_seconds < self.election_seconds_min:
            raise ConfigError(
                f"check_quorum_seconds is {self.check_quorum_seconds}; below election_seconds_min "
                f"({self.election_seconds_min}) a leader would give up before anybody replaces it"
            )
