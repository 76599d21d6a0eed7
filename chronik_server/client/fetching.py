"""From the payload of a fetch to records.

Place: under the client's `read` and its consumer. Promise: every entry and every byte of its batch
is verified against the checksums that its producer and its leader made. Invariant: records come
contiguous from the offset asked for; a gap is CorruptionError, never skipped.
"""

from __future__ import annotations

from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import Buffer
from chronik_store.format.entry import iter_entries
from chronik_store.format.record_batch import StoredBatch
from chronik_store.model import StoredRecord


def batches_of(payload: Buffer, offset: int) -> list[StoredBatch]:
    """The batches in a fetch answer, the first of which holds `offset`."""
    batches = []
    following = offset
    for header, body in iter_entries(payload, path="fetch"):
        if not header.base_offset <= following < header.end_offset:
            raise CorruptionError(
                f"an answer goes from offset {following} to {header.base_offset}: nothing may be "
                "left out",
                offset_range=(following, header.base_offset),
            )
        batches.append(StoredBatch(body, header.base_offset, header.timestamp_us))
        following = header.end_offset
    return batches


def records_of(payload: Buffer, offset: int, limit: int = 1 << 62) -> list[StoredRecord]:
    """At most `limit` records from `offset` on."""
    records: list[StoredRecord] = []
    for batch in batches_of(payload, offset):
        if len(records) >= limit:
            break
        records += batch.records_from(offset, limit - len(records))
    return records
