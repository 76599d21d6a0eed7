"""A segment that ends where a cut says: the records of another one, up to there.

Place: used by `takeover` when a cut falls inside a segment. Promise: batches below the cut are
taken verbatim, the one that the cut divides is encoded anew without what is past it; entries are
numbered on from the base and closed by a SEAL of the new log's term. Invariant: deterministic, so
a restore that is run again derives the same key and adopts the object.

A divided batch loses its producer: what the producer would send again is not the same batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from chronik_store.environment import Environment
from chronik_store.errors import CorruptionError
from chronik_store.format.control import Seal
from chronik_store.format.entry import (
    Entry,
    EntryKind,
    decode_entry_header,
    encode_entry_header,
)
from chronik_store.format.manifest_file import LogBase, SealedRange, SegmentInfo
from chronik_store.format.producer_state import ProducerEntry
from chronik_store.format.record_batch import RecordBatch
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.manifest.producers import ProducerTable
from chronik_store.manifest.state import producer_entry
from chronik_store.objectstore.base import ObjectStore
from chronik_store.objectstore.layout import segment_key
from chronik_store.objectstore.verified import put_verified
from chronik_store.restore.succession import Kept, OpenSegmentReader
from chronik_store.segment.sealer import SegmentIdentity, write_segment
from chronik_store.segment.source import LocalSegments


class CutSegment:
    """The entries of a new segment out of `kept.split`.

    They are read twice, once to count and once to write, and never held.
    """

    def __init__(
        self, kept: Kept, term: int, now_us: int, producers_max: int, open_reader: OpenSegmentReader
    ) -> None:
        assert kept.split is not None
        self._kept = kept
        self._split = kept.split
        self._term = term
        self._open_reader = open_reader
        self._seal = Seal(first_index=kept.base.index + 1, reason="admin", clock_us=now_us)
        self._producers = ProducerTable(producers_max)
        self._producers.restore(kept.producers, kept.base.index)
        end = kept.base
        for entry in self._records():
            header = entry.header
            end = LogBase(header.index, term, header.end_offset, header.timestamp_us)
            batch = RecordBatch.from_buffer(entry.payload, verify=False)
            if batch.producer_id:
                self._producers.append(producer_entry(header, batch))
        if end.offset != kept.end_offset:
            raise CorruptionError(
                f"{self._split.key}: its records end at {end.offset}, before the cut at "
                f"{kept.end_offset}",
                path=self._split.key,
            )
        self._producers.commit(end.index)
        self.base = end._replace(index=end.index + 1)
        """The SEAL, as the new log's base."""

    @property
    def sealed(self) -> SealedRange:
        """The range that the SEAL closes."""
        return SealedRange(
            first_index=self._kept.base.index + 1,
            last_index=self.base.index,
            base_offset=self._kept.base.offset,
            end_offset=self.base.offset,
            term=self._term,
            sealed_us=self._seal.clock_us,
            timestamp_us=self.base.timestamp_us,
        )

    @property
    def producers(self) -> tuple[ProducerEntry, ...]:
        """As of the SEAL."""
        return self._producers.entries()

    def entries(self) -> Iterator[Entry]:
        """All entries, the SEAL last."""
        yield from self._records()
        base = self.base
        yield _entry(EntryKind.SEAL, base, 0, base.offset, self._seal.encode())

    def _records(self) -> Iterator[Entry]:
        index, cut = self._kept.base.index, self._kept.end_offset
        for header, payload in self._open_reader(self._split).iterate():
            if header.kind != EntryKind.RECORDS or header.base_offset >= cut:
                continue
            body, count = bytes(payload), header.record_count
            if header.end_offset > cut:
                stored = StoredBatch(payload, header.base_offset, header.timestamp_us, verify=False)
                batch = RecordBatch.from_records(
                    [each for each in stored.records() if each.offset < cut]
                )
                body, count = batch.buffer, batch.record_count
            index += 1
            place = LogBase(index, self._term, header.base_offset, header.timestamp_us)
            yield _entry(EntryKind.RECORDS, place, count, header.base_offset, body)


def put_cut_segment(
    env: Environment,
    store: ObjectStore,
    identity: SegmentIdentity,
    directory: str,
    segment: CutSegment,
) -> SegmentInfo:
    """Write the segment as a local file and put it into the bucket, or adopt it there."""
    env.fs.make_directories(directory)
    info = write_segment(
        env.fs,
        directory,
        identity,
        segment.sealed,
        segment.entries(),
        segment.producers,
        key_of=partial(segment_key, identity.topic, identity.partition),
    )
    file = env.fs.open(LocalSegments(env.fs, directory).path_of(info.key))
    try:
        with file.map() as body:
            put_verified(store, info.key, body)
    finally:
        file.close()
    return info


def _entry(kind: EntryKind, place: LogBase, count: int, base_offset: int, payload: bytes) -> Entry:
    encoded = encode_entry_header(
        int(kind), place.term, place.index, base_offset, count, place.timestamp_us, payload
    )
    return Entry(decode_entry_header(encoded), payload)
