"""Retain: move the log's start past what its retention no longer asks for.

Place: after prune. Promise: DROP_PREFIX is proposed at the end of a *tiered* segment only, so an
upload that stalls is never overtaken (protocol 18); what is dropped becomes garbage by the fold,
and objects are deleted by `collect` alone, later. Invariant: size counts listed segments only,
never a failed or pending upload.

Age is that of the SEAL's stamp, compared with `SteadyTime`: a clock that leaps forward expires
nothing until the leap has stood for an hour.
"""

from __future__ import annotations

from chronik_store.config import LogConfig
from chronik_store.format.control import DropPrefix
from chronik_store.format.manifest_file import Manifest
from chronik_store.pipeline.turn import Turn


def retain(turn: Turn) -> None:
    """Propose DROP_PREFIX if retention by size or age asks for it."""
    config = turn.tiering.config
    if turn.term is None or turn.is_kept:
        return
    if config.retention_bytes is None and config.retention_seconds is None:
        return
    manifest = turn.manifest
    now_us = turn.now_us()
    dropped, reason = expired(manifest, config, now_us)
    if not dropped:
        return
    offset = manifest.segments[dropped - 1].end_offset
    turn.propose(DropPrefix(offset=offset, reason=reason, clock_us=now_us))
    if turn.manifest.start_offset >= offset:
        turn.done["dropped_segments"] += dropped


def expired(manifest: Manifest, config: LogConfig, now_us: int) -> tuple[int, str]:
    """How many segments at the front are past retention, and why. Pure."""
    kept_bytes = sum(segment.size_bytes for segment in manifest.segments)
    reason = ""
    for count, segment in enumerate(manifest.segments):
        age_seconds = (now_us - segment.sealed_us) / 1e6
        if config.retention_bytes is not None and kept_bytes > config.retention_bytes:
            reason = "retention_bytes"
        elif config.retention_seconds is not None and age_seconds >= config.retention_seconds:
            reason = "retention_seconds"
        else:
            return count, reason
        kept_bytes -= segment.size_bytes
    return len(manifest.segments), reason
