"""What kind of story a seed has: how many nodes, which settings, and what befalls them besides.

Place: under `story`. Promise: a kind has seeds of its own, so that what is added to one kind leaves
the stories of the others as they are. Invariant: a kind depends on its seed alone.

    seed % 8 == 1     one node at first, others join and leave
    seed % 8 == 4     disks are full for long, again and again; some of each is kept free
    seed % 8 == 5     disks and the bucket rot; in half of these old records go, too
    seed % 8 == 6     old records go, by size or by age
    seed % 16 == 8    files rot while they are in use
    seed % 16 == 10   a server of its own at first, which becomes a cluster's first node
    seed % 4 == 3     nodes join and leave
    seed % 5 == 2     all is indexed
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

from chronik_server.testing.servers.world import LOG
from chronik_store.config import LogConfig

SIZES: Final = (3, 1, 3, 5, 3, 4, 2)
ROTTING_MIN: Final = 3
"""Where two are whole nobody has to be asked (decision 0028)."""
CRAMPED: Final[dict[str, Any]] = {"disk_reserve_bytes": 4000, "disk_throttle_bytes": 10_000}
READ_FROM_DISK: Final[dict[str, Any]] = {
    "tail_bytes_max": 0,
    "cache_memory_bytes": 0,
    "cache_disk_bytes": 1 << 16,
}
RETAINED_BYTES: Final = (None, 0, 3000, 9000)
RETAINED_SECONDS: Final = (None, 2.0, 6.0)
SKEWS: Final = (-7200.0, -30.0, 0.0, 90.0, 14_400.0)
SMALL_SKEWS: Final = (-1.0, 0.0, 0.5)
"""Of clocks by which records grow old."""


@dataclass(frozen=True)
class Kind:
    """See the module."""

    size: int
    log: LogConfig
    changes_nodes: bool = False
    is_cramped: bool = False
    rots: bool = False
    wears: bool = False
    is_converted: bool = False
    retains: bool = False
    grows: bool = False

    @property
    def skews(self) -> tuple[float, ...]:
        """By how many seconds a wall clock may be wrong."""
        return SMALL_SKEWS if self.retains else SKEWS

    @property
    def copies_max(self) -> int:
        """So many copies of a topic are asked for at most."""
        return 3 if self.grows else self.size


def kind_of(seed: int) -> Kind:
    """That of this seed."""
    number, size = seed % 8, SIZES[seed % len(SIZES)]
    log = LOG.replace(indexing_enabled=seed % 5 == 2)
    if number == 1:
        return Kind(1, log, changes_nodes=True, grows=True)
    if number == 4:
        return Kind(size, log.replace(**CRAMPED), is_cramped=True)
    retains = number == 6 or seed % 16 == 13
    if retains:
        log = log.replace(**_retention(random.Random(f"{seed}/kind")))
    if number == 5:
        log = log.replace(cache_disk_bytes=1 << 16)
        return Kind(size if size >= ROTTING_MIN else 3, log, rots=True, retains=retains)
    if seed % 16 == 8:
        log = log.replace(**READ_FROM_DISK)
        return Kind(size if size >= ROTTING_MIN else 3, log, wears=True)
    if seed % 16 == 10:
        return Kind(1, log, changes_nodes=True, grows=True, is_converted=True)
    if seed % 4 == 3:
        return Kind(3, log, changes_nodes=True)
    return Kind(size, log, retains=retains)


def _retention(rng: random.Random) -> dict[str, Any]:
    """By size, by age, or both."""
    kept_bytes, seconds = rng.choice(RETAINED_BYTES), rng.choice(RETAINED_SECONDS)
    if kept_bytes is None and seconds is None:
        kept_bytes = RETAINED_BYTES[-1]
    return {"retention_bytes": kept_bytes, "retention_seconds": seconds}
