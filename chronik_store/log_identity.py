"""Which log this is, and where its files are.

Place: a low room; carried by every log. Promise: two values that never change while a log is
open. Invariant: ids are 32 hex digits; a namesake that was created later has another topic id.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_ID = "0" * 32
"""The log id as long as nothing is known of a log."""
LOCAL_OWNER = "local"
"""Owner of an embedded log; a cluster's logs name their cluster and node (protocol 11)."""


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Topic, partition, topic id, log id and the owner of the data directory."""

    topic: str
    partition: int
    topic_id: str
    log_id: str
    owner: str = LOCAL_OWNER


@dataclass(frozen=True, slots=True)
class LogPaths:
    """Directories of one partition. `scratch` may be wiped whenever the log is closed."""

    wal: str
    segments: str
    scratch: str
    quarantine: str
