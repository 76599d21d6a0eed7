"""What a node says of its partitions, for Prometheus.

Place: under `health`, which asks the backend at each scrape. Promise: sums over the node's
partitions, so that their number bounds nothing; what cannot be asked is shown as absent, with
`chronik_status_answered` 0, never as 0. Invariant: reads one `StatusFound`, changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import get_args

from prometheus_client.core import GaugeMetricFamily, Metric

from chronik_server.protocol.cluster import GroupRole, StatusFound
from chronik_store.log_status import CUT, SUSPECT
from chronik_store.model import LogStatus

_PARTITIONS = {
    "chronik_partitions_stalled": (
        "Partitions with a stage of the pipeline that stands still, or a failed log",
        lambda part: part.last_error is not None,
    ),
    "chronik_partitions_read_only": (
        "Partitions whose log takes no records: poisoned, or another's",
        lambda part: not part.writable,
    ),
    "chronik_partitions_suspect": (
        "Partitions in which this node has no vote, since its disk was damaged",
        lambda part: any(note.startswith(SUSPECT) for note in part.notes),
    ),
    "chronik_partitions_cut_short": (
        "Partitions that this node leads since no voter was sure of its copy: records may be lost",
        lambda part: any(note.startswith(CUT) for note in part.notes),
    ),
    "chronik_partitions_fenced": (
        "Partitions whose place in the bucket another store has taken",
        lambda part: part.fenced,
    ),
}
_BYTES = {
    "chronik_wal_bytes": ("Write-ahead logs on this disk", lambda part: part.wal_bytes),
    "chronik_local_segment_bytes": (
        "Sealed segments on this disk",
        lambda part: part.local_segment_bytes,
    ),
    "chronik_bucket_segment_bytes": (
        "Segments in the bucket",
        lambda part: part.segment_bytes,
    ),
}


def families(found: StatusFound | None) -> Iterator[Metric]:
    """Metric families of one node's status; None: it did not answer."""
    yield _gauge("chronik_status_answered", "Whether the node could be asked", found is not None)
    if found is None:
        return
    store = found.store
    yield _gauge("chronik_disk_free_bytes", "Free on the data directory's disk",
                 store.disk_free_bytes)  # fmt: skip
    yield _gauge("chronik_disk_total_bytes", "Size of that disk", store.disk_total_bytes)
    yield _gauge("chronik_partitions_unavailable", "Partitions that could not be opened",
                 len(store.unavailable))  # fmt: skip
    for name, (text, holds) in _PARTITIONS.items():
        yield _gauge(name, text, sum(map(holds, store.partitions)))
    for name, (text, size) in _BYTES.items():
        yield _gauge(name, text, sum(map(size, store.partitions)))
    yield _waiting(store.partitions)
    yield from _roles(found)


def _waiting(partitions: tuple[LogStatus, ...]) -> Metric:
    """How far the plot line's limits are behind, in records."""
    behind: Counter[str] = Counter()
    for line in (part.watermarks for part in partitions):
        behind["committed"] += line.end - line.committed
        behind["tiered"] += line.committed - line.tiered
        behind["indexed"] += line.committed - line.indexed
    family = GaugeMetricFamily(
        "chronik_records_waiting", "Records that a limit has not reached yet", labels=["limit"]
    )
    for limit in ("committed", "tiered", "indexed"):
        family.add_metric([limit], behind[limit])
    return family


def _roles(found: StatusFound) -> Iterator[Metric]:
    roles = Counter(part.role for part in found.roles)
    family = GaugeMetricFamily(
        "chronik_partitions", "Partitions of this node by its role in them", labels=["role"]
    )
    for role in get_args(GroupRole):
        family.add_metric([role], roles[role])
    yield family
    yield _gauge("chronik_partitions_without_leader", "Partitions whose leader it does not know",
                 sum(part.leader is None for part in found.roles))  # fmt: skip
    yield _gauge("chronik_terms", "Sum of their terms: it grows with each election",
                 sum(part.term for part in found.roles))  # fmt: skip


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
