"""The tail index: a local search index of what has no bundle yet.

Place: beside `bundle`, above `engine`; one per partition. Made of parts, each a small index of its
own over one run of offsets, so that what has been bundled goes by whole parts, without deletions or
rewrites. Normally there is one run, from `indexed` to `committed`; a bundle that cannot be read
makes another. Promise: nothing exists before the first `feed` (an idle partition costs nothing),
and between feeds no thread and no heap; a search sees whole commits, and exactly `covered()`.
Invariant: parts are disjoint and sorted; `_lock` guards the list of parts and is never held over
Tantivy or the disk; one thread feeds at a time, any number search meanwhile.

Derived data on scratch: the directory is emptied at the first feed, whatever it held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from chronik_store.clock import Clock
from chronik_store.errors import CorruptionError, LogClosedError
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.fs.base import FileSystem
from chronik_store.search import coverage
from chronik_store.search.coverage import Range
from chronik_store.search.engine import (
    HEAP_BYTES_MIN,
    IndexBuilder,
    IndexHits,
    IndexSearch,
    Order,
    ordered,
)
from chronik_store.search.query_tree import Node
from chronik_store.search.scratch import Room, disk, empty_directory, remove_tree
from chronik_store.threads import Threads

PART_TEXT_BYTES: Final = 32 << 20
"""Bytes of values after which a part takes no further batch: what bounds its merges."""

_RECORD_BYTES: Final = 32  # of a record's own in an index, besides its text: offset, time, scores
_COMMIT_BYTES: Final = 64 << 10  # at most, of what each commit writes besides the records' own
_WHAT: Final = "the tail index"


@dataclass(eq=False, slots=True)
class _Part:
    """One index over [start, stop), and [stop, taken) on its way to the next commit."""

    builder: IndexBuilder
    directory: str | None
    start: int
    stop: int
    taken: int
    search: IndexSearch | None = None
    text_bytes: int = 0
    uncommitted_bytes: int = 0
    weight_committed: int = 0
    paths: tuple[tuple[str, ...], bool] = field(default=((), False))

    @property
    def weight(self) -> int:
        """About the bytes of its files, once all that was taken is committed."""
        return self.text_bytes + (self.taken - self.start) * _RECORD_BYTES


class TailIndex:
    """Searches records that no bundle holds. Thread-safe.

    directory: scratch on real disk, or None to index in memory. heap_bytes: Tantivy's budget while
    feeding. commit_bytes: of values between two commits. text_bytes_max: of values in all parts;
    a feed beyond it stops, and what was not fed is missing from answers, as after a deadline. So
    does a feed that would take what `scratch.Room` keeps for the log: reserve_bytes.
    """

    def __init__(
        self,
        clock: Clock,
        threads: Threads,
        *,
        fs: FileSystem,
        directory: str | None,
        heap_bytes: int = HEAP_BYTES_MIN,
        commit_bytes: int = 16 << 20,
        text_bytes_max: int = 1 << 30,
        reserve_bytes: int = 0,
    ) -> None:
        self._clock = clock
        self._fs = fs
        self._directory = directory
        self._heap = heap_bytes
        self._commit_bytes = commit_bytes
        self._text_max = text_bytes_max
        self._room = Room(fs, reserve_bytes)
        self._lock = threads.condition()
        self._parts: tuple[_Part, ...] = ()
        self._active: _Part | None = None
        self._turn: object | None = None  # of the one that feeds
        self._closed = self._is_short = False
        self._numbered = 0
        self._held: list[Range] = []
        self._stand_ins: tuple[Range, ...] = ()

    def covered(self) -> tuple[Range, ...]:
        """The ranges of offsets that a search sees, sorted and disjoint; empty before any feed."""
        return coverage.merged((part.start, part.stop) for part in self._parts)

    @property
    def document_count(self) -> int:
        """Records held."""
        return sum(part.stop - part.start for part in self._parts)

    def paths(self) -> tuple[frozenset[str], bool]:
        """The JSON paths and headers that occur, and whether some are left out."""
        listed = [part.paths for part in self._parts]
        found = frozenset(path for paths, _ in listed for path in paths)
        return found, any(truncated for _, truncated in listed)

    @property
    def full(self) -> str:
        """Why the last feed stopped before its end, when it was not late."""
        if self._is_short and self._directory is not None:
            return str(self._room.is_short(self._directory, _WHAT))
        return "the tail index is full"

    def feed(self, batches: Iterable[StoredBatch], *, deadline: float | None = None) -> int:
        """Index batches that follow each other; the offset reached: all below it is searchable.

        They may start anywhere; what is covered already is skipped. deadline: on
        `clock.monotonic`, looked at between records; then what was taken is committed. Waits for
        another feed, up to the deadline; -1 if nothing was looked at. Raises DiskFullError and
        UnavailableError (the part being fed is given up), LogClosedError, CorruptionError for a gap
        between batches, and what `batches` raises (what came before it is kept).
        """
        turn = object()
        reached = -1
        try:  # Ctrl-C may come before the turn is known to be taken
            if not self._begin(turn, deadline):
                return -1
            self._is_short = False
            self._settle()  # what an interrupted feed took counts as covered, not as missing
            for batch in batches:
                if reached not in (-1, batch.base_offset):
                    raise CorruptionError(
                        f"records from {batch.base_offset} on where {reached} comes next",
                        offset_range=(reached, batch.base_offset),
                    )
                reached = self._take(batch, deadline)
                if reached < batch.end_offset or self._late(deadline):
                    break
        finally:
            try:
                if self._turn is turn:
                    self._settle()
            finally:  # no call before the lock: Ctrl-C could come where it begins
                with self._lock:
                    if self._turn is turn:
                        self._turn = None
                        self._lock.notify_all()
        return reached

    def search(
        self,
        tree: Node,
        *,
        start: int,
        stop: int,
        since_us: int | None = None,
        until_us: int | None = None,
        limit: int = 10,
        order: Order = "newest",
    ) -> tuple[IndexHits, tuple[Range, ...]]:
        """Hits in [start, stop) of all parts, in order, and the ranges of it that were searched.

        Scores are comparable within one part only. UnavailableError as `IndexSearch.search`.
        """
        with self._lock:
            views = [(part.start, part.stop, part.search) for part in self._parts]
        hits: list[tuple[int, float]] = []
        searched: list[Range] = []
        total = 0
        for part_start, part_stop, search in views:
            low, high = max(part_start, start), min(part_stop, stop)
            if low >= high or search is None:
                continue
            found = search.search(
                tree,
                start=low,
                stop=high,
                since_us=since_us,
                until_us=until_us,
                limit=limit,
                order=order,
            )
            hits += found.hits
            total += found.total
            searched.append((low, high))
        return IndexHits(ordered(hits, order)[:limit], total), coverage.merged(searched)

    def retain(self, ranges: Iterable[Range]) -> None:
        """Give up the parts that share no offset with these ranges, nor with what is held or
        stands in for a bundle; they may be fed again.
        """
        ranges = tuple(ranges)
        with self._lock:
            wanted = coverage.merged([*ranges, *self._held, *self._stand_ins])
            gone = tuple(
                part
                for part in self._parts
                if part is not self._active and not coverage.covered(wanted, part.start, part.stop)
            )
            self._parts = tuple(part for part in self._parts if part not in gone)
        self._remove(gone)

    @contextmanager
    def holding(self, span: Range) -> Iterator[None]:
        """Meanwhile `retain` gives up nothing in this range: another search may know of a bundle
        that has taken it over since this one was planned.
        """
        with self._lock:
            self._held.append(span)
        try:
            yield
        finally:
            with self._lock:
                self._held.remove(span)

    def stand_in(self, ranges: Iterable[Range]) -> None:
        """These ranges have bundles that are out of reach: `retain` keeps them until the next call,
        or each search of an outage would index them anew.
        """
        self._stand_ins = tuple(ranges)

    def close(self) -> None:
        """Give up everything; waits for a feed under way, which ends soon. Idempotent."""
        with self._lock:
            self._closed = True
            while self._turn is not None:
                self._lock.wait(1.0)
            self._parts = ()
        if self._directory is not None and self._numbered:
            remove_tree(self._fs, self._directory)

    # --- feeding: everything below is called by the one feeder ------------------------------------

    def _begin(self, turn: object, deadline: float | None) -> bool:
        with self._lock:
            while self._turn is not None and not self._closed:
                left = 1.0 if deadline is None else deadline - self._clock.monotonic()
                if left <= 0:
                    return False
                self._lock.wait(left)
            if self._closed:
                raise LogClosedError("the log is closed: its tail is indexed no more")
            self._turn = turn
            return True

    def _late(self, deadline: float | None) -> bool:
        return self._closed or (deadline is not None and self._clock.monotonic() >= deadline)

    def _take(self, batch: StoredBatch, deadline: float | None) -> int:
        """Index what of the batch is not covered; the offset up to which it now is."""
        first, end = batch.base_offset, batch.end_offset
        for low, high in coverage.gaps(self.covered(), first, end):
            held = sum(part.text_bytes for part in self._parts if part is not self._active)
            held += self._active.text_bytes if self._active else 0
            if held >= self._text_max or self._late(deadline):
                return low
            if not self._has_room(batch):
                self._is_short = True
                return low
            part = self._part_at(low)
            try:
                for offset in part.builder.add(batch, low, high):
                    part.taken = offset + 1
                    if self._late(deadline):  # one of a megabyte may have taken long
                        break
            except CorruptionError:  # of the batch: the index is sound, and keeps what it took
                raise
            except BaseException:
                self._give_up(part)
                raise
            ends = batch.value_offsets
            size = ends[part.taken - first] - ends[low - first]
            part.text_bytes += size
            part.uncommitted_bytes += size
            if part.uncommitted_bytes >= self._commit_bytes:
                self._commit(part)
            if part.taken < high:
                return part.taken
        return end

    def _has_room(self, batch: StoredBatch) -> bool:
        """For the next commit of the active part with this batch, and for its merges, which write
        once more what is there.
        """
        if self._directory is None:
            return True
        weight = len(batch.value_data) + batch.record_count * _RECORD_BYTES
        if self._active is not None:
            weight += self._active.weight
        return self._room.left(self._directory) >= 2 * weight + _COMMIT_BYTES

    def _part_at(self, offset: int) -> _Part:
        """The part that goes on at `offset`, made the active one; a new one if there is none."""
        part = self._active
        if part is not None and part.taken == offset and part.text_bytes < PART_TEXT_BYTES:
            return part
        self._settle()
        with self._lock:
            for part in self._parts:
                if part.stop == offset and part.text_bytes < PART_TEXT_BYTES:
                    self._active = part
                    return part
        part = _Part(*self._new_index(), start=offset, stop=offset, taken=offset)
        with self._lock:
            self._active = part
        return part

    def _new_index(self) -> tuple[IndexBuilder, str | None]:
        directory = None
        if self._directory is not None:
            directory = f"{self._directory}/part_{self._numbered:06}"
            with disk(self._directory):
                if self._numbered == 0:
                    empty_directory(self._fs, self._directory)
                self._fs.make_directories(directory)
        self._numbered += 1
        return IndexBuilder(directory, heap_bytes=self._heap), directory

    def _commit(self, part: _Part) -> None:
        """Let searches see what was taken."""
        try:
            if part.directory is not None:  # others may have taken the room meanwhile
                self._room.need(part.directory, part.weight - part.weight_committed, _WHAT)
            part.builder.commit()
            search = part.builder.search()
        except BaseException:
            self._give_up(part)
            raise
        paths = part.builder.paths.listed()
        with self._lock:
            part.search, part.paths, part.uncommitted_bytes = search, paths, 0
            part.weight_committed = part.weight
            part.stop = part.taken
            if part not in self._parts and part.stop > part.start:
                parts = (*self._parts, part)
                self._parts = tuple(sorted(parts, key=lambda each: each.start))

    def _settle(self) -> None:
        """Commit the active part, let its merges end, and give back its threads and heap."""
        part = self._active
        if part is None:
            return
        if part.taken > part.stop:
            self._commit(part)
        try:
            part.builder.rest()
        except BaseException:
            self._give_up(part)
            raise
        with self._lock:
            self._active = None

    def _give_up(self, part: _Part) -> None:
        """After an error in its index: what it held counts as not indexed, and may be fed again."""
        with self._lock:
            self._active = None
            self._parts = tuple(each for each in self._parts if each is not part)
        part.builder.abandon()
        self._remove((part,))

    def _remove(self, parts: Iterable[_Part]) -> None:
        # Searches under way keep their files mapped: on POSIX they outlive their names.
        for part in parts:
            if part.directory is not None:
                remove_tree(self._fs, part.directory)
