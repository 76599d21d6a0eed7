"""Bugs of the reading side: what is shown, cached, found, and what is said when it cannot be.

Place: see the package. Promise: each function puts one bug in, and its docstring names it.
Invariant: a bug replaces what a good function does, never where it is called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from chronik_store import lineage
from chronik_store.errors import CorruptionError, UnavailableError
from chronik_store.log_core import LogCore
from chronik_store.objectstore import disk_blocks
from chronik_store.objectstore.cache import BlockCache, CachedObject
from chronik_store.read_chain.chain import ReadChain
from chronik_store.read_chain.planner import Planner
from chronik_store.search import searcher
from chronik_store.wal.replay import Replay

_Put = Callable[[Any, str, Any], None]


def show_what_is_not_committed(put: _Put) -> None:
    """Readers are shown all that is in the log, committed or not."""

    def everything(self: Any) -> Any:
        return self.wal.position_after(self.wal.last_index)

    put(LogCore, "committed", property(everything))


def keep_what_a_failed_read_left(put: _Put) -> None:
    """A short answer of the bucket is filled up with zeros and kept in the cache."""

    def fetch(self: Any, start: int, length: int) -> bytes:
        data: bytes = self._store.get_range(self.key, start, length)
        return data.ljust(length, b"\0")

    put(CachedObject, "_fetch", fetch)


def forget_who_waits(put: _Put) -> None:
    """A fetch that fails wakes the reader that made it, and none of those who wait for it."""
    land = BlockCache._land

    def land_quietly(self: Any, key: str, flight: Any) -> None:
        if flight.error is None:
            land(self, key, flight)

    put(BlockCache, "_land", land_quietly)


def trust_blocks_on_disk(put: _Put) -> None:
    """The disk cache's blocks are handed out without comparing their checksums."""
    put(disk_blocks, "checksum", lambda _data: 0)


def damage_is_absence(put: _Put) -> None:
    """A segment that cannot be read is passed over: readers go on behind it."""
    fetch = Planner.fetch

    def pass_over(self: Any, place: Any, budget: Any) -> Any:
        try:
            return fetch(self, place, budget)
        except (CorruptionError, UnavailableError):
            for segment in self.manifest().segments:
                if segment.base_offset > place.offset:
                    return fetch(self, place._replace(offset=segment.base_offset, index=-1), budget)
            raise

    put(Planner, "fetch", pass_over)


def unknown_is_empty(put: _Put) -> None:
    """A bucket that does not answer is taken for one that holds nothing."""
    newest = lineage._newest_numbers

    def or_none(store: Any, topic: str, partition: int) -> dict[str, int]:
        try:
            return newest(store, topic, partition)
        except UnavailableError:
            return {}

    put(lineage, "_newest_numbers", or_none)


def coverage_that_lies(put: _Put) -> None:
    """A search that left ranges out says that it has looked everywhere."""
    result = searcher._Run.result

    def boast(self: Any) -> Any:
        found = result(self)
        whole = tuple(
            dataclasses.replace(part, searched=part.searched + part.missing, missing=(), reasons=())
            for part in found.coverage
        )
        return dataclasses.replace(found, coverage=whole, total_is_exact=True)

    put(searcher._Run, "result", boast)


def damaged_bundles_are_empty(put: _Put) -> None:
    """A bundle that cannot be opened has no hits, and counts as searched."""
    search = searcher._Run._search_bundle

    def forgive(self: Any, ref: Any, span: Any, deadline: Any) -> str | None:
        if search(self, ref, span, deadline) is not None:
            self.searched.append(span)
        return None

    put(searcher._Run, "_search_bundle", forgive)


def forget_the_tail(put: _Put) -> None:
    """Only what a bundle covers is searched."""

    def nothing(self: Any, spans: Any, _reason: str, _deadline: Any) -> None:
        self.searched += list(spans)

    put(searcher._Run, "_search_unindexed", nothing)


def committed_is_what_is_there(put: _Put) -> None:
    """Who opens beside the writer takes all that the files hold for committed."""
    put(Replay, "committed", property(lambda self: self.table.last_index))


def end_where_a_read_fails(put: _Put) -> None:
    """A scan that meets what it cannot read ends there, as if the log did."""
    scan = ReadChain.scan_batches

    def end_quietly(self: Any, *args: Any, **options: Any) -> Any:
        try:
            yield from scan(self, *args, **options)
        except (CorruptionError, UnavailableError):
            return

    put(ReadChain, "scan_batches", end_quietly)
