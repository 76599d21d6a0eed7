"""Queries over many bundles: the first of each kind, which unpacks bundles, and those after it.

A million log lines in ten segments in a bucket directory, each with its search index. Every total
is compared with a scan of the same lines in Python, and every hit with the line at its offset.
Then the same query again and again where only a part of the bundles may stay unpacked.
"""

from __future__ import annotations

import os
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.harness import begin, parse, percentile, scratch
from benchmarks.workload import TOPIC, quiet_config
from chronik_store import PartitionLog, SearchResult, open_bucket
from chronik_store.config import LogConfig
from chronik_store.objectstore.local import LocalObjectStore

BUNDLES = 10
CACHES = ((1, 2), (1, 4))
PASSES = 5
GROUP = 1000
_LEVELS = ("debug", "info", "info", "info", "info", "info", "info", "warning", "error")
_ACTS = ("connection refused", "connection closed", "request served", "cache miss", "disk full")


def lines_of(count: int) -> list[bytes]:
    """Lines as servers write them, about 100 bytes each; number i ends in its own id."""
    chance = random.Random(17)
    hosts = [f"web-{number:03}" for number in range(200)]
    return [
        (
            f"{chance.choice(hosts)} {chance.choice(_LEVELS)} {chance.choice(_ACTS)} user "
            f"u{chance.randrange(20_000)} after {chance.randrange(3000)} ms "
            f"session {chance.getrandbits(40):010x} id{number:07}"
        ).encode()
        for number in range(count)
    ]


@dataclass(frozen=True)
class Query:
    """A query, and the pattern that finds the same lines."""

    what: str
    text: str
    pattern: bytes
    order: str = "newest"


def queries(count: int) -> list[Query]:
    """What people ask of logs."""
    return [
        Query("one record by its id", f"id{count // 3:07}", rb"id%07d" % (count // 3)),
        Query("a term in two lines of five", "connection", rb"connection"),
        Query("two terms", "error AND refused", rb" error connection refused "),
        Query("a phrase", '"disk full"', rb"disk full"),
        Query("a user, by score", "u1234", rb"\bu1234\b", "score"),
        Query("a regular expression", "value:/u123./", rb"\bu123\d\b"),
        Query("nothing", "nosuchword", rb"nosuchword"),
    ]


def fill(path: str, lines: list[bytes]) -> float:
    """The lines as indexed segments in the bucket; documents indexed a second."""
    config = quiet_config()
    size = len(lines) // BUNDLES
    seconds = 0.0
    with PartitionLog.open(path, topic=TOPIC, config=config) as log:
        for bundle in range(BUNDLES):
            for start in range(bundle * size, (bundle + 1) * size, GROUP):
                log.append(lines[start : start + GROUP])
            log.seal()
            started = time.perf_counter()
            report = log.run_pipeline_once()
            seconds += time.perf_counter() - started
            if report.errors or report.indexed != 1:
                raise AssertionError(f"bundle {bundle} was not made: {report}")
    return len(lines) / seconds


def check(query: Query, found: SearchResult, lines: list[bytes], total: int) -> None:
    """The total is a scan's, each hit matches and is the line at its offset."""
    if found.total != total or not found.total_is_exact:
        raise AssertionError(f"{query.text}: {found.total} hits, a scan finds {total}")
    if len(found.hits) != min(10, total):
        raise AssertionError(f"{query.text}: {len(found.hits)} hits of {total} were returned")
    for hit in found.hits:
        if hit.record.value != lines[hit.offset] or not re.search(query.pattern, lines[hit.offset]):
            raise AssertionError(f"{query.text}: {hit.offset} is no hit: {hit.record!r:.100}")


@contextmanager
def fetches_counted() -> Iterator[list[str]]:
    """The key of each bundle that is fetched."""
    keys: list[str] = []
    original = LocalObjectStore.get_range

    def counting(store: LocalObjectStore, key: str, start: int, length: int) -> bytes:
        if start == 0 and key.endswith(".tar.gz"):
            keys.append(key)
        return original(store, key, start, length)

    LocalObjectStore.get_range = counting  # type: ignore[method-assign]
    try:
        yield keys
    finally:
        LocalObjectStore.get_range = original  # type: ignore[method-assign]


def in_a_small_cache(url: str, cache_bytes: int, lines: list[bytes]) -> tuple[int, float]:
    """(bundles fetched, median of the seconds) of a query that was made before."""
    query = queries(len(lines))[1]
    total = sum(1 for line in lines if re.search(query.pattern, line))
    config = LogConfig(search_cache_bytes=cache_bytes)
    seconds = []
    with fetches_counted() as keys, open_bucket(url, topic=TOPIC, config=config) as log:
        for number in range(PASSES + 1):
            if number == 1:
                keys.clear()
            started = time.perf_counter()
            found = log.search(query.text, deadline_seconds=60)
            seconds.append(time.perf_counter() - started)
            check(query, found, lines, total)
        return len(keys), percentile(seconds[1:], 50)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(__doc__.splitlines()[0], argv, repetitions=20)
    report = begin("Search", options, "none needed: reads of bundles that were verified")
    lines = lines_of(options.scaled(1_000_000, 200_000))
    totals = {
        query.what: sum(1 for line in lines if re.search(query.pattern, line))
        for query in queries(len(lines))
    }
    with scratch(options) as directory:
        path = os.path.join(directory, "log")
        rate = fill(path, lines)
        url = f"file://{path}/object_store"
        with open_bucket(url, topic=TOPIC, config=LogConfig()) as log:
            for number, query in enumerate(queries(len(lines))):
                seconds = []
                for _ in range(options.repetitions + 1):
                    started = time.perf_counter()
                    found = log.search(query.text, order=query.order, deadline_seconds=60)  # type: ignore[arg-type]
                    seconds.append(time.perf_counter() - started)
                    check(query, found, lines, totals[query.what])
                if number == 0:
                    report.figure(f"the first query: {BUNDLES} bundles fetched", "s", seconds[:1])
                report.figure(
                    f"{query.what}: {query.text}",
                    "ms",
                    [percentile(seconds[1:], 50) * 1e3],
                    f"{totals[query.what]:,} hits",
                )
            unpacked = log._search._bundles.open_bytes
        for above, below in CACHES:
            fetched, took = in_a_small_cache(url, unpacked * above // below, lines)
            report.figure(
                f"again, with room for {above} of {below} bundles",
                "ms",
                [took * 1e3],
                f"{fetched / PASSES:.1f} of {BUNDLES} bundles fetched each time",
            )
    report.figure("indexed with one thread (upload and publication too)", "documents/s", [rate])
    report.notes.append(
        f"{len(lines):,} lines of {sum(map(len, lines)) / len(lines):.0f} bytes; medians of "
        f"{options.repetitions}; each query returns its first ten hits and counts all"
    )
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
