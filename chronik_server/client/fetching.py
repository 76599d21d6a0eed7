"""From the payload of a fetch, or of a search, to records.

Place: under the client's `read` and `search` and its consumer. Promise: every entry and every byte
of its batch is verified against the checksums that its producer and its leader made. Invariant:
records of a fetch come contiguous from the offset asked for; a gap is CorruptionError, never
skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

from chronik_server.protocol import data
from chronik_store.errors import CorruptionError
from chronik_store.format.checksum import Buffer
from chronik_store.format.entry import iter_entries
from chronik_store.format.record_batch import StoredBatch
from chronik_store.model import SearchHit, SearchResult, StoredRecord

PIECE_BYTES: Final = 128 << 10
"""Batches smaller than this are handed out together."""


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
        batch = StoredBatch(body, header.base_offset, header.timestamp_us, verify=False)
        batch.check_columns(path="fetch")  # its checksum was verified with the entry's
        batches.append(batch)
        following = header.end_offset
    return batches


def records_of(payload: Buffer, offset: int, limit: int = 1 << 62) -> list[StoredRecord]:
    """At most `limit` records from `offset` on."""
    batches = batches_of(payload, offset)
    return list(chain.from_iterable(pieces(batches, offset, offset + limit)))


def pieces(batches: Iterable[StoredBatch], offset: int, stop: int) -> Iterator[list[StoredRecord]]:
    """The records [offset, stop) of consecutive batches, one batch or a few small ones at a time:
    made when they are asked for, so that they still lie in the processor's cache when they are
    used, and their memory is that of the piece before.
    """
    records: list[StoredRecord] = []
    size = 0
    for batch in batches:
        start = max(offset, batch.base_offset)
        if start >= stop:
            break
        if start < batch.end_offset:
            records += batch.records_from(start, stop - start)
            size += len(batch.value_data)
        if size >= PIECE_BYTES:
            yield records
            records, size = [], 0
    if records:
        yield records


def search_result_of(topic: str, found: data.Searched, payload: Any) -> SearchResult:
    """What was found, its records out of the payload. CorruptionError: not one for each hit."""
    records = StoredBatch(payload, 0, 0).records() if found.hits else []
    if len(records) != len(found.hits):
        raise CorruptionError(
            f"an answer has {len(records)} records for {len(found.hits)} hits of topic {topic!r}"
        )
    hits = []
    for hit, record in zip(found.hits, records, strict=True):
        placed = type(record)(
            record.value, record.key, record.timestamp_us, record.headers, hit.offset
        )
        hits.append(SearchHit(placed, hit.offset, hit.score, topic, hit.partition))
    return SearchResult(
        hits=tuple(hits),
        total=found.total,
        total_is_exact=found.total_is_exact,
        coverage=found.coverage,
        unknown_paths=found.unknown_paths,
        elapsed_seconds=found.elapsed_us / 1_000_000,
    )
