"""One answer out of bundles, tail and records.

Place: the top of `search`; the partition core hands in what it alone knows (bundles of the
manifest, batches of the tiers, records by offset) and calls `execute` once. Promise: every offset
asked for is either in the coverage's `searched`, and then all its matches are counted, or in its
`missing`, with the reason; never neither, never both. Invariant: each offset is searched in one
index only, the bundle or the tail, so no record is counted twice.

    bundles of the manifest   ====b0====|==b1==|  no bundle  |==b3==| not indexed yet |
    outside since..until           |  pruned: counts as searched, nothing is opened
    readable                  ====b0====       |             |==b3==|
    fed to the tail                     |==b1==|=============|      |=================|
    given up by the tail      ====b0====       |             |==b3==|  before it is fed
    not fed by the deadline                                              missing: |===|
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from chronik_store.arguments import check_seconds
from chronik_store.clock import Clock
from chronik_store.errors import (
    ChronikError,
    LogClosedError,
    OffsetOutOfRangeError,
    UnavailableError,
)
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.model import Coverage, SearchHit, SearchResult, StoredRecord
from chronik_store.search import coverage
from chronik_store.search.bundle_cache import BundleCache, BundleRef
from chronik_store.search.coverage import Range
from chronik_store.search.engine import IndexHits, Order, ordered
from chronik_store.search.query_tree import CheckedQuery, may_match
from chronik_store.search.tail import TailIndex

LIMIT_MAX = 1_000_000
_EVERYTHING = 1 << 63
_SLOW_SECONDS = 0.1
"""A record that takes longer is not here: the next may take as long."""

__all__ = ["BundleRef", "SearchOptions", "SearchPlan", "execute", "merge_results", "unindexed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """What to search and how. ValueError for what cannot be meant.

    since_us <= record time < until_us; start <= offset < stop; None: no bound. deadline_seconds:
    None waits for all; a bundle that is being fetched when it passes is not waited for, a request
    for records that is under way is, and the next is not made. bytes_max: behind the record with
    which values, keys and headers reach it no other is read; None: no bound. require_complete:
    UnavailableError rather than an answer with a hole.
    """

    since_us: int | None = None
    until_us: int | None = None
    start: int | None = None
    stop: int | None = None
    limit: int = 10
    order: Order = "newest"
    deadline_seconds: float | None = 10.0
    bytes_max: int | None = None
    require_complete: bool = False

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise ValueError(f"order is {self.order!r}; use one of {', '.join(get_args(Order))}")
        if type(self.limit) is not int:
            raise TypeError(f"limit must be an int, not {type(self.limit).__name__}")
        if not 0 <= self.limit <= LIMIT_MAX:
            raise ValueError(f"limit is {self.limit}; it must be between 0 and {LIMIT_MAX}")
        if self.deadline_seconds is not None:
            check_seconds(self.deadline_seconds, "deadline_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """Everything that one search of one partition needs.

    bundles: of the manifest, any order, disjoint. read_batches(start, stop): the batches that hold
    these offsets, in order; it may begin with the batch around `start`. fetch(offset): the record;
    OffsetOutOfRangeError (dropped meanwhile) leaves the hit out. [start_offset, end_offset): all
    there is.
    """

    query: CheckedQuery
    options: SearchOptions
    bundles: Sequence[BundleRef]
    cache: BundleCache
    tail: TailIndex
    read_batches: Callable[[int, int], Iterable[StoredBatch]]
    fetch: Callable[[int], StoredRecord]
    clock: Clock
    start_offset: int
    end_offset: int
    topic: str = ""
    partition: int = 0


def unindexed(
    bundles: Iterable[BundleRef], cache: BundleCache, start: int, stop: int
) -> tuple[Range, ...]:
    """The ranges of [start, stop) that no usable bundle covers: what the tail is for."""
    usable = [ref for ref in bundles if cache.refused(ref.info.key) is None]
    return coverage.gaps([(ref.base_offset, ref.end_offset) for ref in usable], start, stop)


def execute(plan: SearchPlan) -> SearchResult:
    """Search one partition.

    Raises UnavailableError if `require_complete` and a range is missing, LogClosedError, and
    nothing else that a bundle or a tier may raise: that becomes a range that is missing.
    """
    began = plan.clock.monotonic()
    deadline = plan.options.deadline_seconds
    while True:
        run = _Run(plan)
        result = run.result()
        if run.dropped_below == 0 or len(result) == min(plan.options.limit, result.total):
            return replace(result, elapsed_seconds=plan.clock.monotonic() - began)
        # Hits were dropped before they could be read, and had kept others out of the limit.
        elapsed = plan.clock.monotonic() - began
        left = None if deadline is None else max(0.0, deadline - elapsed)
        options = replace(plan.options, deadline_seconds=left)
        plan = replace(plan, options=options, start_offset=run.dropped_below)


def merge_results(
    results: Sequence[SearchResult], *, order: Order, limit: int, elapsed_seconds: float
) -> SearchResult:
    """One answer out of those of several partitions; that of one keeps its order.

    Offsets of partitions do not compare, so newest and oldest go by record time; "score" compares
    scores that come from different indexes, which is approximate.
    """
    hits = [hit for result in results for hit in result.hits]
    if len(results) > 1 and order == "score":
        hits.sort(key=lambda hit: (hit.score, hit.record.timestamp_us, hit.offset), reverse=True)
    elif len(results) > 1:
        hits.sort(
            key=lambda hit: (hit.record.timestamp_us, hit.partition, hit.offset),
            reverse=order == "newest",
        )
    coverage = [part for result in results for part in result.coverage]
    unknown = [set(result.unknown_paths) for result in results]
    return SearchResult(
        hits=tuple(hits[:limit]),
        total=sum(result.total for result in results),
        total_is_exact=all(result.total_is_exact for result in results),
        coverage=tuple(sorted(coverage, key=lambda part: part.partition)),
        unknown_paths=tuple(sorted(set.intersection(*unknown))) if unknown else (),
        elapsed_seconds=elapsed_seconds,
    )


@dataclass(slots=True)
class _Run:
    """One search under way. Not thread-safe."""

    plan: SearchPlan
    hits: list[tuple[int, float]] = field(default_factory=list)
    total: int = 0
    searched: list[Range] = field(default_factory=list)
    missing: list[tuple[Range, str]] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    some_unknown: bool = False
    dropped_below: int = 0

    def result(self) -> SearchResult:
        plan, options = self.plan, self.plan.options
        began = plan.clock.monotonic()
        deadline = None
        if options.deadline_seconds is not None:
            deadline = began + options.deadline_seconds
        start = max(plan.start_offset, options.start or 0)
        stop = plan.end_offset if options.stop is None else min(plan.end_offset, options.stop)
        if start < stop:
            self._search_all(start, stop, deadline)
        found = tuple(self._fetched(deadline))
        reasons = sorted(self.missing)
        if options.require_complete and reasons:
            raise UnavailableError(_incomplete(plan, reasons))
        spans = coverage.merged(self.searched)
        holes = [span for span, _ in reasons]
        return SearchResult(
            hits=found,
            total=self.total,
            total_is_exact=not reasons,
            coverage=(
                Coverage(
                    searched=tuple(part for span in spans for part in coverage.gaps(holes, *span)),
                    missing=tuple(holes),
                    partition=plan.partition,
                    reasons=tuple(reason for _, reason in reasons),
                ),
            ),
            unknown_paths=self._unknown_paths(),
            elapsed_seconds=0.0,
        )

    def _search_all(self, start: int, stop: int, deadline: float | None) -> None:
        """Newest first, so that a deadline leaves out what is least asked for; oldest if asked."""
        plan = self.plan
        newest = plan.options.order != "oldest"
        refs = [ref for ref in plan.bundles if ref.base_offset < stop and ref.end_offset > start]
        refs.sort(key=lambda ref: ref.base_offset, reverse=newest)
        holes = coverage.gaps([(ref.base_offset, ref.end_offset) for ref in refs], start, stop)
        now = plan.clock.monotonic()
        # The tail may take all the time there is; the bundles keep half of it.
        half = deadline if deadline is None or not refs else now + (deadline - now) / 2
        _release(plan)
        if newest:
            self._search_unindexed(holes, "not indexed yet", half)
        unread: list[tuple[Range, str]] = []
        for ref in refs:
            span = max(ref.base_offset, start), min(ref.end_offset, stop)
            reason = self._search_bundle(ref, span, deadline)
            if reason is not None:
                unread.append((span, reason))
        if not newest:
            self._search_unindexed(holes, "not indexed yet", deadline)
        stand_ins: list[Range] = []
        for span, reason in unread:
            if deadline is None or plan.clock.monotonic() < deadline:
                stand_ins.append(span)
            self._search_unindexed([span], reason, deadline)
        plan.tail.stand_in(stand_ins)

    @property
    def _wanted(self) -> dict[str, Any]:
        """Of the hits of an index, but for their offsets."""
        options = self.plan.options
        return {
            "since_us": options.since_us,
            "until_us": options.until_us,
            "limit": options.limit,
            "order": options.order,
        }

    def _search_bundle(self, ref: BundleRef, span: Range, deadline: float | None) -> str | None:
        """Search one bundle; the reason if it could not be."""
        plan, options, info = self.plan, self.plan.options, ref.info
        self.known.update(info.json_paths)
        self.some_unknown |= info.json_paths_truncated
        if _outside(options, info.min_timestamp_us, info.max_timestamp_us) or (
            not info.json_paths_truncated
            and not may_match(plan.query.tree, frozenset(info.json_paths))
        ):
            self.searched.append(span)
            return None
        if deadline is not None and plan.clock.monotonic() >= deadline:
            return "deadline"
        left = None if deadline is None else lambda: deadline - plan.clock.monotonic()
        try:
            with plan.cache.lease(ref, left) as search:
                found = search.search(
                    plan.query.tree,
                    start=span[0],
                    stop=span[1],
                    **self._wanted,
                )
        except LogClosedError:
            raise
        except ChronikError as error:
            return str(error)
        self._take(found, [span])
        return None

    def _search_unindexed(
        self, spans: Iterable[Range], reason: str, deadline: float | None
    ) -> None:
        """Search ranges without a usable bundle through the tail, feeding it first."""
        plan = self.plan
        for start, stop in spans:
            with plan.tail.holding((start, stop)):
                found, searched, why = self._in_tail(start, stop, reason, deadline)
            self._take(found, searched)
            self.missing += [(hole, why) for hole in coverage.gaps(searched, start, stop)]
        paths, truncated = plan.tail.paths()
        self.known.update(paths)
        self.some_unknown |= truncated

    def _in_tail(
        self, start: int, stop: int, reason: str, deadline: float | None
    ) -> tuple[IndexHits, tuple[Range, ...], str]:
        """What the tail has of a range, where it looked, and why not elsewhere."""
        plan = self.plan
        try:
            why = self._feed(start, stop, reason, deadline)
            found, searched = plan.tail.search(
                plan.query.tree,
                start=start,
                stop=stop,
                **self._wanted,
            )
        except LogClosedError:
            raise
        except ChronikError as error:
            return IndexHits([], 0), (), str(error)
        return found, searched, why

    def _feed(self, start: int, stop: int, reason: str, deadline: float | None) -> str:
        """Bring the tail up to date in a range; why it may have holes afterwards."""
        plan = self.plan
        for low, high in coverage.gaps(plan.tail.covered(), start, stop):
            if deadline is not None and plan.clock.monotonic() >= deadline:
                return reason if reason != "not indexed yet" else f"{reason}: deadline"
            try:
                reached = plan.tail.feed(plan.read_batches(low, high), deadline=deadline)
            except LogClosedError:
                raise
            except ChronikError as error:
                return str(error)
            if reached < high:
                late = deadline is not None and plan.clock.monotonic() >= deadline
                return f"{reason}: {'deadline' if late else plan.tail.full}"
        return reason

    def _take(self, found: IndexHits, searched: Iterable[Range]) -> None:
        self.hits += found.hits
        if len(self.hits) > 2 * self.plan.options.limit:  # not each time: that is quadratic
            self._keep_best()
        self.total += found.total
        self.searched += searched

    def _keep_best(self) -> None:
        options = self.plan.options
        self.hits = ordered(self.hits, options.order)[: options.limit]

    def _fetched(self, deadline: float | None) -> Iterable[SearchHit]:
        """The hits with their records. One whose record is out of reach becomes a missing range;
        so do those behind one that had to be waited for beyond the deadline, or that is the last
        for which there is room.
        """
        plan, read_bytes = self.plan, 0
        self._keep_best()
        for count, (offset, score) in enumerate(self.hits, 1):
            began = plan.clock.monotonic()
            try:
                record = plan.fetch(offset)
            except LogClosedError:
                raise
            except ChronikError as error:
                self.total -= 1
                if isinstance(error, OffsetOutOfRangeError):
                    self.dropped_below = max(self.dropped_below, offset + 1, error.first_offset)
                else:
                    self.missing.append(((offset, offset + 1), str(error)))
            else:
                read_bytes += _size(record)
                yield SearchHit(record, offset, score, plan.topic, plan.partition)
            reason = self._ends_answer(read_bytes, plan.clock.monotonic(), began, deadline)
            if reason is not None:
                self._leave_unread([offset for offset, _ in self.hits[count:]], reason)
                return

    def _leave_unread(self, offsets: Sequence[int], reason: str) -> None:
        """These hits are missing: as one range where they stand together, since a limit may be
        large.
        """
        self.total -= len(offsets)
        spans = [(offset, offset + 1) for offset in offsets]
        if offsets and self.plan.options.order != "score":
            spans = [(min(offsets), max(offsets) + 1)]
        self.missing += [(span, reason) for span in coverage.merged(spans)]

    def _ends_answer(
        self, read_bytes: int, now: float, began: float, deadline: float | None
    ) -> str | None:
        """Why the next record is not read."""
        bytes_max = self.plan.options.bytes_max
        if bytes_max is not None and read_bytes >= bytes_max:
            return (
                f"the answer is full: its records have {read_bytes} bytes (search_answer_bytes is "
                f"{bytes_max}); ask with a smaller limit"
            )
        if deadline is not None and now >= deadline and now - began >= _SLOW_SECONDS:
            return "deadline"
        return None

    def _unknown_paths(self) -> tuple[str, ...]:
        """The paths of the query that occur nowhere; none is claimed where some are not listed."""
        if self.some_unknown:
            return ()
        return tuple(path for path in self.plan.query.paths if path not in self.known)


def _size(record: StoredRecord) -> int:
    headers = sum(len(name) + len(value) for name, value in record.headers)
    return len(record.value) + len(record.key or b"") + headers


def _release(plan: SearchPlan) -> None:
    """Have the tail give up what bundles have taken over: a reader has nobody else who does, and
    what is new needs the room.
    """
    covered = plan.tail.covered()
    if covered:
        low, high = covered[0][0], covered[-1][1]
        refs = [ref for ref in plan.bundles if ref.base_offset < high and ref.end_offset > low]
        plan.tail.retain(unindexed(refs, plan.cache, plan.start_offset, _EVERYTHING))


def _outside(options: SearchOptions, low_us: int, high_us: int) -> bool:
    """No record with a time in [low_us, high_us] is asked for."""
    return (options.since_us is not None and high_us < options.since_us) or (
        options.until_us is not None and low_us >= options.until_us
    )


def _incomplete(plan: SearchPlan, missing: Sequence[tuple[Range, str]]) -> str:
    shown = "; ".join(f"[{low}, {high}): {why}" for (low, high), why in missing[:5])
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return (
        f"{plan.topic}/{plan.partition}: not all of it can be searched now: {shown}{more}; "
        "ask again, give more time, or take an incomplete answer"
    )
