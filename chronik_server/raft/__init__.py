"""The consensus room: Raft groups whose log is the partition log itself.

Place: under the server's handlers, over `chronik_store.replica`. Promise: what `propose` answered
for is held durably by a quorum, and every replica holds the same entries at the same indexes.
Invariant: three gates stand between the wire and the roles (protocol 13): terms are checked before
dispatch, every outgoing message waits until the frames it speaks of are durable, and quorum,
members and leadership are per group.

    consensus           the narrow interface that handlers see; `local` is one node, trivially
    node                all groups of one process  >  raftos_consensus  >  group
    follower, candidate, leader     the roles, over raftos's (`raftos_skeleton` is its one owner)
    replication, progress           of the leader: what it sends to each peer, and knows of it
    proposals, read_barriers        of the leader: who waits for a commit, who for a round of beats
    transfer                        of the leader: how it hands over
    liveness, pacing    who is alive per pair of nodes; how fast elections may start
    messages, transport values on the wire, and who carries them

Importing this package does not import raftos; `node` does.
"""

from chronik_server.raft.consensus import (
    Consensus,
    ConsensusStatus,
    Payload,
    PeerStatus,
    Proposed,
    Role,
)
from chronik_server.raft.errors import NotLeaderError, OutcomeUnknownError
from chronik_server.raft.settings import RaftSettings
from chronik_server.raft.transport import Transport

__all__ = [
    "Consensus",
    "ConsensusStatus",
    "NotLeaderError",
    "OutcomeUnknownError",
    "Payload",
    "PeerStatus",
    "Proposed",
    "RaftSettings",
    "Role",
    "Transport",
]
