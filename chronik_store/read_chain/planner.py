"""Which tier has a place, and the entries from there.

Place: the lower half of the read chain. Promise: `fetch` returns at least one entry, exactly the
one asked for first, running on in index and offset. A WAL file pruned or an object collected under
it makes it plan again, a bounded number of times, with a fresh manifest; then it says what is the
matter: OffsetOutOfRangeError when retention has overtaken the reader, UnavailableError when a copy
may come back, CorruptionError when every copy is damaged or nobody holds the range. Where a restore
has cut the log since a place was handed out, its offset counts, not its index. Invariant: a
range is called missing only when the manifest read *after* the WAL did not have it is still the
one known before: a file is pruned after the manifest that covers it, so a newer one would be seen.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import NamedTuple, TypeVar

from chronik_store.errors import (
    ChronikError,
    CorruptionError,
    FutureVersionError,
    OffsetOutOfRangeError,
    UnavailableError,
)
from chronik_store.format.entry import Entry
from chronik_store.format.manifest_file import Manifest, SegmentInfo
from chronik_store.model import Position, Tier
from chronik_store.objectstore.base import ObjectNotFoundError
from chronik_store.read_chain.diagnosis import hole, most_telling, require_start
from chronik_store.read_chain.objects import ObjectTier
from chronik_store.read_chain.views import WalView
from chronik_store.segment.footers import FooterCache
from chronik_store.segment.reader import NO_LIMIT, UNKNOWN, Place, SegmentReader, SegmentRun
from chronik_store.segment.source import ByteSource, LocalSegments, SegmentAbsentError

PLANS = 4
"""How often one call looks for its place before it gives up: each time with a newer manifest."""

_log = logging.getLogger("chronik_store.read_chain")
_END_OFFSET = attrgetter("end_offset")
_LAST_INDEX = attrgetter("last_index")
T = TypeVar("T")


class Budget(NamedTuple):
    """How much to read: up to `limit` (exclusive), about this many bytes, this many records."""

    limit: Position
    max_bytes: int
    max_records: int = NO_LIMIT


class Fetched(NamedTuple):
    """Entries, where they came from, and the place behind them."""

    entries: list[Entry]
    tier: Tier
    path: str
    next: Place


class Copy(NamedTuple):
    """One copy of a segment."""

    tier: Tier
    source: ByteSource
    path: str


class Planner:
    """The tiers of one partition. Thread-safe: it keeps nothing between calls.

    wal: None when there is no local log. manifest: the folded manifest now (raises
    UnavailableError while it is not known: unknown is not empty); refresh: the same, read anew
    from where it is kept. objects: the bytes of segment objects, through the cache.
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
    ) -> None:
        self.wal = wal
        self.manifest = manifest
        self.refresh = refresh
        self._local = local
        self._objects = objects
        self._footers = footers

    def fetch(self, place: Place, budget: Budget) -> Fetched:
        """Whole entries from `place`, which is below `budget.limit`. Errors: see the module."""
        failures: list[ChronikError] = []
        manifest = self.manifest()
        for attempt in range(PLANS):
            if attempt:
                known, manifest = manifest, self.refresh()
                if _same(known, manifest):
                    break
            require_start(manifest, place, budget.limit)
            failures = []
            fetched = self._from_wal(place, budget, failures)
            if fetched is not None:
                return fetched
            info = segment_at(manifest, place)
            if _is_offset_only(manifest, info, place):
                return self.fetch(Place(place.offset), budget)
            if info is not None:
                fetched = self._from_segment(info, place, budget, failures)
                if fetched is not None:
                    return fetched
            if failures and not _object_missing(failures):
                break  # Damage, or a bucket that does not answer, does not heal by looking again.
        if failures:
            raise most_telling(failures)
        raise hole(manifest, self.wal, place, budget.limit)

    def in_segment(self, info: SegmentInfo, ask: Callable[[SegmentReader], T]) -> T:
        """The answer of the first healthy copy of a segment.

        Errors: CorruptionError, UnavailableError (ObjectNotFoundError: the bucket has none).
        """
        failures: list[ChronikError] = []
        found = next(self._answers(info, ask, failures), None)
        if found is not None:
            return found[0]
        missing = [error for error in failures if isinstance(error, ObjectNotFoundError)]
        raise missing[0] if missing else most_telling(failures)

    def _from_wal(
        self, place: Place, budget: Budget, failures: list[ChronikError]
    ) -> Fetched | None:
        wal = self.wal
        if wal is None:
            return None
        try:
            if place.index != UNKNOWN:
                index = place.index
            elif wal.base.offset <= place.offset < wal.end_offset:
                index = wal.index_for_offset(place.offset)
            else:
                return None
            if not wal.first_index <= index <= wal.last_index:
                return None
            tier: Tier = "wal_tail" if index >= wal.tail_first_index else "wal"
            last = min(wal.last_index, budget.limit.index - 1, index + budget.max_records - 1)
            entries = self._read_wal(wal, index, last, budget.max_bytes)
            _require_run(entries, place)
        except (IndexError, OffsetOutOfRangeError):
            return None  # Pruned between the look and the read: a segment has it now.
        except (CorruptionError, FutureVersionError, UnavailableError) as error:
            _log.warning("the WAL cannot give entry %s: %s; trying the segments", place, error)
            failures.append(error)
            return None
        header = entries[-1].header
        return Fetched(entries, tier, "wal", Place(header.end_offset, header.index + 1))

    @staticmethod
    def _read_wal(wal: WalView, first: int, last: int, max_bytes: int) -> list[Entry]:
        try:
            return wal.read(first, last, max_bytes)
        except CorruptionError:
            if first == last:
                raise
            # The damage may lie behind the entry asked for, which is good on its own then.
            return wal.read(first, first, 1)

    def _from_segment(
        self, info: SegmentInfo, place: Place, budget: Budget, failures: list[ChronikError]
    ) -> Fetched | None:
        def ask(reader: SegmentReader) -> SegmentRun:
            return reader.read(place, max_bytes=budget.max_bytes, max_records=budget.max_records)

        found = next(self._answers(info, ask, failures), None)
        if found is None:
            return None
        (entries, following), copy = found
        if place.index != UNKNOWN and place.offset != entries[0].header.base_offset:
            # A restore has cut the log that the place is of: the index is another entry's here.
            return self.fetch(Place(place.offset), budget)
        if copy.tier == "object_store" and place.index != UNKNOWN:
            self._read_ahead(info, following, budget)
        if following.index > budget.limit.index:
            entries = _below(entries, budget.limit)
            header = entries[-1].header
            following = Place(header.end_offset, header.index + 1)
        return Fetched(entries, copy.tier, copy.path, following)

    def _read_ahead(self, info: SegmentInfo, following: Place, budget: Budget) -> None:
        """A sequential reader (it came with a place) near the end of an object wants the next one.

        Inside an object the cache itself reads ahead.
        """
        left_bytes = info.size_bytes - info.footer_bytes - following.position
        if left_bytes > budget.max_bytes or following.index > budget.limit.index:
            return
        successor = segment_at(self.manifest(), Place(info.end_offset, info.last_index + 1))
        if successor is None or self._is_local(successor):
            return
        if self.wal is None or successor.first_index < self.wal.first_index:
            self._objects.prefetch(successor, min(budget.max_bytes, successor.size_bytes))

    def _is_local(self, info: SegmentInfo) -> bool:
        """There is a local copy. A disk that cannot say has none to give: the bucket is asked."""
        try:
            return self._local is not None and self._local.holds(info.key)
        except UnavailableError:
            return False

    def _answers(
        self,
        info: SegmentInfo,
        ask: Callable[[SegmentReader], T],
        failures: list[ChronikError],
    ) -> Iterator[tuple[T, Copy]]:
        """The answer of each copy, nearest first; those that fail are noted and passed over."""
        for copy in self._copies(info):
            try:
                answer = self._ask(info, copy, ask)
            except SegmentAbsentError:
                continue
            except (CorruptionError, FutureVersionError, UnavailableError) as error:
                _log.warning("%s (%s) failed: %s", copy.path, copy.tier, error)
                failures.append(error)
                continue
            yield answer, copy

    def _ask(self, info: SegmentInfo, copy: Copy, ask: Callable[[SegmentReader], T]) -> T:
        try:
            footer = self._footers.get(info, copy.source, path=copy.path)
            return ask(SegmentReader(copy.source, info, footer, path=copy.path))
        except (CorruptionError, FutureVersionError):
            if copy.tier != "object_store":
                raise
        # What the cache holds may be what is damaged: once more, from the bucket.
        self._objects.forget(info)
        footer = self._footers.get(info, copy.source, path=copy.path)
        return ask(SegmentReader(copy.source, info, footer, path=copy.path))

    def _copies(self, info: SegmentInfo) -> Iterator[Copy]:
        if self._local is not None:
            path = self._local.path_of(info.key)
            yield Copy("local_segment", self._local.source(info.key), path)
        yield Copy("object_store", self._objects.source(info), info.key)


def segment_at(manifest: Manifest, place: Place) -> SegmentInfo | None:
    """The listed segment that holds a place, by index where it is known."""
    segments = manifest.segments
    if place.index != UNKNOWN:
        at = bisect_left(segments, place.index, key=_LAST_INDEX)
        found = at < len(segments) and segments[at].first_index <= place.index
    else:
        at = bisect_right(segments, place.offset, key=_END_OFFSET)
        found = at < len(segments) and segments[at].base_offset <= place.offset
    return segments[at] if found else None


def _is_offset_only(manifest: Manifest, info: SegmentInfo | None, place: Place) -> bool:
    """Whether of a place with both an index and an offset only the offset can be found, where
    `info` is the segment of the index.

    What was dropped may reach up to this very offset: the control entries behind the last record
    have gone with it, and no record has. Or the place is of a log that a restore has cut since: no
    control entry is left in the segment that ends at the cut, so indexes are others from there on.
    """
    if place.index == UNKNOWN:
        return False
    if info is not None:
        return not info.base_offset <= place.offset <= info.end_offset
    segments = manifest.segments
    first_index = segments[0].first_index if segments else manifest.next.index + 1
    return place.index < first_index or segment_at(manifest, Place(place.offset)) is not None


def _below(entries: list[Entry], limit: Position) -> list[Entry]:
    """What a reader may show of a segment that reaches past its limit.

    None is below by its index: the limit is of a log that a restore has cut since, whose indexes
    mean nothing here. Its offset does.
    """
    return [each for each in entries if each.header.index < limit.index] or [
        each for each in entries if each.header.base_offset < limit.offset
    ]


def _same(left: Manifest, right: Manifest) -> bool:
    """Nothing that a plan depends on has changed."""
    return (left.log_id, left.generation, left.start_offset) == (
        right.log_id,
        right.generation,
        right.start_offset,
    )


def _object_missing(failures: list[ChronikError]) -> bool:
    return any(isinstance(error, ObjectNotFoundError) for error in failures)


def _require_run(entries: list[Entry], place: Place) -> None:
    """CorruptionError unless the entries start at `place` and run on without a gap."""
    first = entries[0].header
    index, offset = first.index, first.base_offset
    if place.index != UNKNOWN:
        index, offset = place.index, place.offset
    elif not first.base_offset <= place.offset < first.end_offset:
        offset = place.offset
    for entry in entries:
        header = entry.header
        if header.index != index or header.base_offset != offset:
            raise CorruptionError(
                f"the WAL answered with entry {header.index} at offset {header.base_offset} where "
                f"entry {index} at offset {offset} belongs",
                offset_range=(header.base_offset, header.end_offset),
            )
        index += 1
        offset = header.end_offset
