"""Seal: close the open segment when it is large or old enough.

Place: first stage. Promise: at most one SEAL in a run, and only for a segment with records, so an
idle log is never sealed (protocol 7); the decision is the leader's, the cut is the log's. What it
proposes is safe to propose twice: SEAL names the first index of the segment that it closes.

Age survives jumps of the clock both ways. The wall clock counts through `SteadyTime`, so a leap
forward seals nothing early for an hour, and then each open segment once. A leap back is answered
by the monotonic clock: a segment that this process has seen with records for `segment_age_seconds`
is sealed whatever the wall clock says.
"""

from __future__ import annotations

from chronik_store.config import LogConfig
from chronik_store.format.control import Seal, SealReason
from chronik_store.manifest.state import OpenSegment
from chronik_store.pipeline.turn import Turn


def seal(turn: Turn) -> None:
    """Propose SEAL if the open segment is due."""
    segment = turn.partition.open_segment()
    age_seconds = _age_seconds(turn, segment)
    if turn.term is None:
        return
    reason = due(segment, age_seconds, turn.tiering.config)
    if reason is not None:
        seal_now(turn, segment, reason)


def seal_now(turn: Turn, segment: OpenSegment, reason: SealReason) -> bool:
    """Propose to seal `segment`; False if it has no records or was sealed meanwhile."""
    if not segment.record_count:
        return False
    index = turn.propose(
        Seal(first_index=segment.first_index, reason=reason, clock_us=turn.now_us())
    )
    sealed = turn.manifest.open_first_index > index
    turn.done["sealed"] += sealed
    _start_file(turn, index)
    return sealed


def _start_file(turn: Turn, index: int) -> None:
    """The WAL goes on in a new file, so that the one with these records can go as a whole.

    Not where nothing is ever pruned: each seal would leave a small file for ever.
    """
    if turn.is_kept:
        return
    wal = turn.partition.wal
    newest = wal.files()[-1]
    if newest.first_index <= index <= newest.last_index:
        wal.rotate()


def due(segment: OpenSegment, age_seconds: float, config: LogConfig) -> SealReason | None:
    """Why the segment is due to be sealed, or None. Pure."""
    if not segment.record_count:
        return None
    if segment.payload_bytes >= config.segment_bytes:
        return "size"
    if age_seconds >= config.segment_age_seconds:
        return "age"
    return None


def _age_seconds(turn: Turn, segment: OpenSegment) -> float:
    """Age of the oldest unsealed record, by the clock that says more; 0 without records.

    Followers keep the monotonic note too, so that a new leader does not start it anew.
    """
    if not segment.record_count or segment.oldest_us is None:
        turn.lane.open_seen = None
        return 0.0
    monotonic = turn.tiering.env.clock.monotonic()
    seen = turn.lane.open_seen
    if seen is None or seen[0] != segment.first_index:
        seen = turn.lane.open_seen = (segment.first_index, monotonic)
    by_wall = (turn.now_us() - segment.oldest_us) / 1e6
    return max(by_wall, monotonic - seen[1])
