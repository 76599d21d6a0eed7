"""What the pipeline does to a log, without a bucket: list segments, prune what they cover.

Place: over `node`; stories and tests call it. Promise: a log that was sealed loses its files behind
a checkpoint, as after an upload. Invariant: nothing is uploaded: what was pruned is only in the
manifest, and who lags behind it gets a snapshot.
"""

from __future__ import annotations

from chronik_server.testing.node import Node
from chronik_store.format.control import AddSegment
from chronik_store.format.segment_info import SegmentInfo


def add_segment(node: Node) -> AddSegment:
    """What the uploader would say of the next sealed range."""
    sealed = node.core.manifest.sealed[0]
    info = SegmentInfo(
        key=f"segments/events/0/{sealed.base_offset:020}-{sealed.end_offset:020}-1-ab.seg",
        first_index=sealed.first_index,
        last_index=sealed.last_index,
        base_offset=sealed.base_offset,
        end_offset=sealed.end_offset,
        term=sealed.term,
        size_bytes=100,
        hash="ab" * 8,
        record_count=sealed.end_offset - sealed.base_offset,
        first_timestamp_us=0,
        last_timestamp_us=0,
        min_timestamp_us=0,
        max_timestamp_us=0,
        footer_bytes=10,
        sealed_us=0,
    )
    return AddSegment(info)


def prune(node: Node) -> None:
    """Remove files whose entries all lie in listed segments, behind a new checkpoint."""
    wal, base = node.core.wal, node.core.manifest.next.index
    wal.rotate()
    going = [each for each in wal.files()[:-1] if each.last_index <= base]
    if going:
        wal.remove_files(going[-1].seq)
