"""Batches, records, scans and time lookups over the tiers.

Place: the upper half of the read chain, what a partition's reading methods call. Promise: only
entries below the given `limit` (the caller's `committed`) are shown, in order, none twice, none
left out; each answer says which tier gave it and how long it took. Invariant: a call that returns
without an error has made progress or stands at the limit, so no loop over it can spin.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import NamedTuple

from chronik_store.clock import Clock
from chronik_store.errors import (
    ChronikError,
    CorruptionError,
    OffsetOutOfRangeError,
    UnavailableError,
)
from chronik_store.format.entry import Entry, EntryKind
from chronik_store.format.manifest_file import Manifest
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.model import FetchResult, Position, StoredRecord, Tier
from chronik_store.objectstore.base import ObjectNotFoundError
from chronik_store.read_chain.diagnosis import most_telling
from chronik_store.read_chain.objects import ObjectTier
from chronik_store.read_chain.planner import PLANS, Budget, Fetched, Planner
from chronik_store.read_chain.views import WalView
from chronik_store.segment.footers import FooterCache
from chronik_store.segment.reader import Place
from chronik_store.segment.source import LocalSegments

CHUNK_BYTES = 1 << 20
"""Sequential readers ask for this much at a time."""

_RECORDS = int(EntryKind.RECORDS)
_LAST_TIMESTAMP = attrgetter("last_timestamp_us")


class BatchRun(NamedTuple):
    """Consecutive batches (whole: the first may begin before the offset asked for), the tier that
    gave them, and the place to go on from. No batches: the limit is reached.
    """

    batches: list[StoredBatch]
    tier: Tier
    next: Place


class EntryRun(NamedTuple):
    """Consecutive entries and the tier that gave them. No entries: the limit is reached."""

    entries: list[Entry]
    tier: Tier


class ReadChain:
    """The readable log of one partition. Thread-safe; keeps no state between calls.

    `limit` is everywhere the exclusive committed position that the caller has read. Errors of all
    methods: OffsetOutOfRangeError (below start; above the limit), CorruptionError (no healthy
    copy), UnavailableError (a copy may come back), FutureVersionError.
    """

    def __init__(
        self,
        *,
        wal: WalView | None,
        manifest: Callable[[], Manifest],
        refresh: Callable[[], Manifest],
        local: LocalSegments | None,
        objects: ObjectTier,
        footers: FooterCache,
        clock: Clock,
    ) -> None:
        self._planner = Planner(
            wal=wal,
            manifest=manifest,
            refresh=refresh,
            local=local,
            objects=objects,
            footers=footers,
        )
        self._clock = clock

    def read(
        self,
        offset: int,
        *,
        max_records: int = 1000,
        max_bytes: int = CHUNK_BYTES,
        limit: Position,
    ) -> FetchResult:
        """Records from `offset`: up to `max_records`, about `max_bytes`, at least one if any is
        there. At the limit: none, next_offset == offset.

        Goes on over tier borders until half of the bytes are there; `tier` is the one that gave
        the first record. An error behind the first record waits for the next call, which starts
        at it.
        """
        started = self._clock.monotonic()
        if max_records == 1:
            record = self._tail_record(offset, limit)
            if record is not None:
                elapsed = self._clock.monotonic() - started
                return FetchResult((record,), offset + 1, "wal_tail", elapsed)
        records: list[StoredRecord] = []
        tier: Tier = "none"
        place = Place(offset)
        left = max_bytes
        while place.offset < limit.offset and len(records) < max_records:
            budget = Budget(limit, left, max_records - len(records))
            try:
                fetched = self._planner.fetch(place, budget)
                run = _opened(fetched, place.offset)
            except ChronikError:
                if not records:
                    raise
                break
            if not records:
                tier = run.tier
            room = left
            for batch in run.batches:
                count, size = _fitting(batch, place.offset, max_records - len(records), room)
                if not count and not records:
                    count = 1
                records += batch.records_from(place.offset, count)
                room -= size
                if records[-1].offset + 1 < batch.end_offset:
                    return self._result(records, offset, tier, started)
            place = run.next
            # Of compressed batches what they are unpacked counts, of tiny ones what was read.
            left = min(room, left - sum(entry.header.entry_bytes for entry in fetched.entries))
            if records and left < max_bytes // 2:
                break
        if not records:
            self._check_limit(offset, limit)
        return self._result(records, offset, tier, started)

    def _tail_record(self, offset: int, limit: Position) -> StoredRecord | None:
        """The short way to one record in memory; None: take the long one, which knows why."""
        planner = self._planner
        wal = planner.wal
        if wal is None or not planner.manifest().start_offset <= offset < limit.offset:
            return None
        try:
            index = wal.index_for_offset(offset)
            if index < wal.tail_first_index:
                return None
            header, payload = wal.read(index, index, 1)[0]
            batch = StoredBatch(payload, header.base_offset, header.timestamp_us, verify=False)
            return batch.record(offset)
        except (IndexError, ChronikError):
            return None

    def _result(
        self, records: list[StoredRecord], offset: int, tier: Tier, started: float
    ) -> FetchResult:
        following = records[-1].offset + 1 if records else offset
        return FetchResult(tuple(records), following, tier, self._clock.monotonic() - started)

    def read_batches(
        self,
        offset: int,
        *,
        max_bytes: int = CHUNK_BYTES,
        limit: Position,
        place: Place | None = None,
    ) -> BatchRun:
        """Whole batches from the one that holds `offset`, about `max_bytes`, at least one if any
        is there, from one tier. `place` (of the run before) saves the search for `offset`.
        """
        if place is None or place.offset != offset:
            place = Place(offset)
        while place.offset < limit.offset:
            fetched = self._planner.fetch(place, Budget(limit, max_bytes))
            run = _opened(fetched, place.offset)
            if run.batches:
                return run
            place = run.next
        self._check_limit(offset, limit)
        return BatchRun([], "none", place)

    def scan_batches(
        self,
        offset: int,
        *,
        limit: Callable[[], Position],
        stop: int | None = None,
        wait: Callable[[int], bool] | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> Iterator[StoredBatch]:
        """All batches that hold offsets [offset, stop), read ahead by `chunk_bytes`.

        The first may begin before `offset`; and one before the end of the last, where a restore
        has cut the log meanwhile: their records are others at the same offsets.
        At the committed end `wait(offset)` is asked: True looks again, False (or no `wait`) ends.
        Holds a position and no pin: overtaken by retention it raises OffsetOutOfRangeError.
        """
        place = Place(offset)
        while stop is None or place.offset < stop:
            committed = limit()
            if place.offset >= committed.offset:
                self._check_limit(place.offset, committed)
                if wait is None or not wait(place.offset):
                    return
                continue
            run = self.read_batches(
                place.offset, max_bytes=chunk_bytes, limit=committed, place=place
            )
            for batch in run.batches:
                if stop is not None and batch.base_offset >= stop:
                    return
                yield batch
            place = run.next

    def scan(
        self,
        offset: int,
        *,
        limit: Callable[[], Position],
        stop: int | None = None,
        wait: Callable[[int], bool] | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> Iterator[StoredRecord]:
        """The records [offset, stop) in order; see `scan_batches`."""
        for batch in self.scan_batches(
            offset, limit=limit, stop=stop, wait=wait, chunk_bytes=chunk_bytes
        ):
            first = max(offset, batch.base_offset)
            end = batch.end_offset if stop is None else min(stop, batch.end_offset)
            yield from batch.records_from(first, end - first)
            offset = end

    def read_entries(self, offset: int, *, max_bytes: int, limit: Position) -> EntryRun:
        """Entries of records, verbatim, from the one that holds `offset`: about `max_bytes`, at
        least one if any is there, from one tier. For those who pass them on unopened.
        """
        place = Place(offset)
        while place.offset < limit.offset:
            fetched = self._planner.fetch(place, Budget(limit, max_bytes))
            entries = [
                entry
                for entry in fetched.entries
                if entry.header.kind == _RECORDS and entry.header.end_offset > offset
            ]
            if entries:
                return EntryRun(entries, fetched.tier)
            place = fetched.next
        self._check_limit(offset, limit)
        return EntryRun([], "none")

    def offset_for_timestamp(
        self, timestamp_us: int, *, limit: Callable[[], Position]
    ) -> int | None:
        """The first readable offset whose index timestamp is at least this; None: there is none.

        At most one block of one segment is read. All records of an entry share its index
        timestamp, so the answer is an entry's base offset, or start inside one.
        """
        planner = self._planner
        wal = planner.wal
        failures: list[ChronikError] = []
        for attempt in range(PLANS):
            committed = limit()
            first_index = 0 if wal is None else wal.first_index
            manifest = planner.refresh() if attempt else planner.manifest()
            if manifest.start_offset > committed.offset and attempt < PLANS - 1:
                # The log went on, and dropped all that the limit knows of. (On a replica that lags
                # it stays so: nothing can be read there yet.)
                continue
            try:
                if manifest.next.index + 1 < first_index:
                    continue  # Read after the WAL, yet older than it: not what is there now.
                found = self._first_at(manifest, timestamp_us, first_index)
            except IndexError:
                continue  # Pruned meanwhile.
            except ObjectNotFoundError as error:
                failures.append(error)
                continue
            # A file pruned meanwhile may have held the answer.
            if wal is None or wal.first_index == first_index:
                return _clipped(found, manifest.start_offset, committed)
        if failures:
            raise most_telling(failures)
        raise UnavailableError(
            "what lies between the end of the segments and the WAL cannot be found; it is being "
            "moved (try again), or `chronik verify` tells more"
        )

    def _first_at(self, manifest: Manifest, timestamp_us: int, wal_first: int) -> int | None:
        """The first offset at or after a time, start and limit left aside."""
        wal = self._planner.wal
        segments = manifest.segments
        at = bisect_left(segments, timestamp_us, key=_LAST_TIMESTAMP)
        if at < len(segments) and (wal is None or segments[at].first_index < wal_first):
            info = segments[at]
            if timestamp_us <= info.first_timestamp_us:
                return info.base_offset
            return self._planner.in_segment(
                info, lambda reader: reader.offset_for_timestamp(timestamp_us)
            )
        if wal is None:
            return None
        index = wal.index_for_timestamp(timestamp_us, wal_first)
        return None if index is None else wal.position_after(index - 1).offset

    def _check_limit(self, offset: int, limit: Position) -> None:
        """OffsetOutOfRangeError unless `offset` is the limit itself."""
        start = self._planner.manifest().start_offset
        if offset > limit.offset or offset < start:
            raise OffsetOutOfRangeError(
                f"offset {offset} is outside the log, which holds {start} to {limit.offset} now",
                offset=offset,
                first_offset=start,
                end_offset=max(start, limit.offset),
            )


def _opened(fetched: Fetched, offset: int) -> BatchRun:
    """The record entries that hold `offset` or lie behind it, as batches."""
    batches: list[StoredBatch] = []
    for header, payload in fetched.entries:
        if header.kind != _RECORDS or header.end_offset <= offset:
            continue
        try:
            batch = StoredBatch(payload, header.base_offset, header.timestamp_us, verify=False)
        except CorruptionError as error:
            if batches:
                return BatchRun(batches, fetched.tier, Place(header.base_offset, header.index))
            # Its checksums are right, so every copy is like this: written so, not damaged since.
            raise CorruptionError(
                f"{fetched.path}: the batch of entry {header.index} cannot be opened: "
                f"{error.finding}",
                path=fetched.path,
                offset_range=(header.base_offset, header.end_offset),
            ) from error
        batches.append(batch)
    return BatchRun(batches, fetched.tier, fetched.next)


def _fitting(batch: StoredBatch, offset: int, count: int, max_bytes: int) -> tuple[int, int]:
    """How many records from `offset`, up to `count`, have keys and values that fit in `max_bytes`
    together, and the bytes of those.
    """
    first = max(0, offset - batch.base_offset)
    count = min(count, batch.record_count - first)
    values, keys = batch.value_offsets, batch.key_offsets

    def size(number: int) -> int:
        total: int = values[first + number] - values[first]
        if keys:
            total += keys[first + number] - keys[first]
        return total

    if size(count) > max_bytes:
        count = bisect_right(range(count + 1), max_bytes, key=size) - 1
    return count, size(count)


def _clipped(offset: int | None, start: int, limit: Position) -> int | None:
    if offset is None:
        return None
    offset = max(offset, start)
    return offset if offset < limit.offset else None
