"""A partition as the searcher sees it: a log, bundles of parts of it, a tail, and faults."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from chronik_store.clock import SystemClock
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.fs.posix import PosixFileSystem
from chronik_store.model import Record, SearchResult, StoredRecord
from chronik_store.search.bundle import build_bundle
from chronik_store.search.bundle_cache import BundleCache
from chronik_store.search.query import check_query
from chronik_store.search.searcher import BundleRef, SearchOptions, SearchPlan, execute
from chronik_store.search.tail import TailIndex
from chronik_store.threads import SystemThreads
from tests.store.search import reference


def log_of(count: int) -> list[Record]:
    return [Record(b"word%d disk" % number, timestamp_us=number * 10) for number in range(count)]


def offsets(result: SearchResult) -> list[int]:
    return [hit.offset for hit in result]


class Partition:
    """`bad` bundles have wrong bytes, `lost` records and `read_error` raise; counts `opened`."""

    def __init__(self, directory: Path, log: list[Record], base: int = 0) -> None:
        self.directory = directory
        self.fs = PosixFileSystem()
        self.base = base
        self.log = log
        self.stored = reference.stored(log, base)
        self.start = base
        self.end = base + len(log)
        self.bundles: list[BundleRef] = []
        self.opened: list[int] = []
        self.bad: set[int] = set()
        self.clock = SystemClock()
        self.threads = SystemThreads()
        self.cache = BundleCache(self.fs, lambda: f"{directory}/cache", self.threads)
        self.tail = TailIndex(self.clock, self.threads, fs=self.fs, directory=None)
        self.read: list[tuple[int, int]] = []
        self.read_error: Exception | None = None
        self.lost: dict[int, Exception] = {}

    def bundle(self, start: int, stop: int) -> BundleRef:
        records = self.log[start - self.base : stop - self.base]
        built = build_bundle(
            reference.batches_of(records, start),
            fs=self.fs,
            directory=f"{self.directory}/build",
            base_offset=start,
            end_offset=stop,
        )
        data = Path(built.path).read_bytes()
        built.discard()

        def read_range(position: int, length: int) -> bytes:
            if position == 0:
                self.opened.append(start)
            if start in self.bad:
                return bytes(min(length, len(data) - position))
            return data[position : position + length]

        info = dataclasses.replace(built.info, key=f"bundle-{start}")
        self.bundles.append(BundleRef(start, stop, info, read_range))
        return self.bundles[-1]

    def read_batches(self, start: int, stop: int) -> Iterable[StoredBatch]:
        self.read.append((start, stop))
        if self.read_error is not None:
            raise self.read_error
        first = self.base + (start - self.base) // 3 * 3
        batches = reference.batches_of(self.log[first - self.base : stop - self.base], first)
        return iter(batches)

    def fetch(self, offset: int) -> StoredRecord:
        if offset in self.lost:
            raise self.lost[offset]
        return self.stored[offset - self.base]

    def plan(self, query: str, **options: object) -> SearchPlan:
        return SearchPlan(
            query=check_query(query),
            options=SearchOptions(**({"limit": 1000} | options)),  # type: ignore[arg-type]
            bundles=self.bundles,
            cache=self.cache,
            tail=self.tail,
            read_batches=self.read_batches,
            fetch=self.fetch,
            clock=self.clock,
            start_offset=self.start,
            end_offset=self.end,
            topic="logs",
            partition=2,
        )

    def search(self, query: str, **options: object) -> SearchResult:
        return execute(self.plan(query, **options))
