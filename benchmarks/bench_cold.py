"""One record out of S3: the first fetch, a cold one, a repeated one; and the requests of each.

Needs `--s3` (see `bucket`). The yardstick is one signed range GET of the same bytes with botocore,
in turns with the fetches. Each cold fetch is of blocks that nothing has read before; every record
is compared.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Sequence

from benchmarks.bucket import S3Server, add_s3, server_of
from benchmarks.harness import Report, begin, parse, percentile, scratch
from benchmarks.tiered import fill, ranges_counted
from benchmarks.workload import ONE_KB, TOPIC, Values
from chronik_store import PartitionLog, open_bucket
from chronik_store.config import LogConfig
from chronik_store.format.manifest_file import SegmentInfo
from chronik_store.objectstore.cache import BLOCK_BYTES
from chronik_store.objectstore.fsspec_s3 import S3ObjectStore
from chronik_store.testing.fault_proxy import FaultProxy

GROUP = 20
"""Records a batch: 20 KiB, so that a block of the segment holds three batches."""


def fetch(log: PartitionLog, values: Values, offset: int, tier: str = "object_store") -> float:
    """Seconds of one read of one record, which is compared."""
    started = time.perf_counter()
    found = log.read(offset, max_records=1)
    seconds = time.perf_counter() - started
    record = found.records[0]
    if record.offset != offset or record.value != values[offset] or found.tier != tier:
        raise AssertionError(f"offset {offset}: {found.tier}, {record!r:.80}")
    return seconds


def cold_offsets(count: int, wanted: int) -> list[int]:
    """Offsets so far apart that no two are in the same or in neighbouring blocks, shuffled."""
    step = 6 * BLOCK_BYTES // ONE_KB
    places = list(range(step, count - step, step))
    random.Random(11).shuffle(places)
    return places[:wanted]


def cold(
    server: S3Server, values: Values, segments: Sequence[SegmentInfo], count: int, reads: int
) -> dict[str, list[float]]:
    """Seconds of each kind of fetch, in turns, each cold one at a place that nobody has read.

    The bare GET asks for as many bytes as the fetch before it did.
    """
    seconds: dict[str, list[float]] = {"cold": [], "bare": [], "again": []}
    config = LogConfig(s3=server.options)
    offsets = cold_offsets(count, 2 * reads)
    with (
        ranges_counted(S3ObjectStore) as lengths,
        open_bucket(server.url("cold"), topic=TOPIC, config=config) as log,
    ):
        for segment in segments:
            fetch(log, values, segment.base_offset)  # the footer
        # A short log (--quick) may have an odd number of such places.
        for offset, other in zip(offsets[::2], offsets[1::2], strict=False):
            lengths.clear()
            seconds["cold"].append(fetch(log, values, offset))
            (length,) = lengths
            seconds["bare"].append(bare(server, segments, other, length))
            seconds["again"].append(fetch(log, values, offset))
    return seconds


def bare(server: S3Server, segments: Sequence[SegmentInfo], offset: int, length: int) -> float:
    """Seconds of one GET of `length` bytes around where the record `offset` is."""
    segment = next(each for each in segments if offset < each.end_offset)
    share = (offset - segment.base_offset) / (segment.end_offset - segment.base_offset)
    start = min(
        int(share * segment.size_bytes) // BLOCK_BYTES * BLOCK_BYTES, segment.size_bytes - length
    )
    started = time.perf_counter()
    found = server.range(server.key("cold", segment.key), start, length)
    seconds = time.perf_counter() - started
    if len(found) != length:
        raise AssertionError(f"{len(found)} bytes came, not {length}")
    return seconds


def first(server: S3Server, values: Values, segments: Sequence[SegmentInfo]) -> tuple[float, float]:
    """(seconds to open the bucket, seconds of the first fetch), nothing cached."""
    started = time.perf_counter()
    with open_bucket(server.url("cold"), topic=TOPIC, config=LogConfig(s3=server.options)) as log:
        opening = time.perf_counter() - started
        return opening, fetch(log, values, segments[-1].base_offset + 1000)


def count_requests(
    server: S3Server, values: Values, segments: Sequence[SegmentInfo], count: int
) -> dict[str, list[str]]:
    """The request lines that each step causes, seen by a proxy in between."""
    host, _, port = (server.options.endpoint or "").removeprefix("http://").rpartition(":")
    lines: dict[str, list[str]] = {}
    with FaultProxy(host, int(port)) as proxy:
        options = type(server.options)(
            endpoint=proxy.url,
            region=server.options.region,
            access_key=server.options.access_key,
            secret_key=server.options.secret_key,
        )

        def note(step: str) -> None:
            lines[step] = [line.split(" ")[0] for line in proxy.requests]
            proxy.requests.clear()

        with open_bucket(server.url("cold"), topic=TOPIC, config=LogConfig(s3=options)) as log:
            note("open")
            fetch(log, values, segments[0].base_offset)
            note("first fetch")
            (offset,) = cold_offsets(count // 2, 1)
            fetch(log, values, offset)
            note("cold fetch")
            fetch(log, values, offset)
            note("repeated fetch")
    return lines


def show(report: Report, name: str, seconds: list[float], parts: int) -> None:
    """p50 and p99 of some parts of the run."""
    size = max(1, len(seconds) // parts)
    pieces = [seconds[at : at + size] for at in range(0, size * parts, size)]
    for percent in (50, 99):
        values = [percentile(piece, percent) * 1e3 for piece in pieces]
        report.figure(f"{name}, p{percent}", "ms", values)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(__doc__.splitlines()[0], argv, add=add_s3)
    server = server_of(options.extra)
    if server is None:
        print("a cold fetch is measured against a real server: --s3 ENDPOINT", file=sys.stderr)
        return 2
    report = begin("Cold fetch", options, "none needed: reads of objects that were verified")
    values = Values(ONE_KB)
    count = options.scaled(300_000, 60_000)
    reads = options.scaled(600, 120)
    with scratch(options) as directory:
        path, url = os.path.join(directory, "log"), server.url("cold")
        segments = fill(path, url, values, count, segments=2, group=GROUP, s3=server.options)
    lines = count_requests(server, values, segments, count)
    fresh = [first(server, values, segments) for _ in range(options.repetitions)]
    seconds = cold(server, values, segments, count, reads)
    report.figure("opening the bucket", "ms", [opening * 1e3 for opening, _ in fresh])
    report.figure("first fetch, footer not cached", "ms", [found * 1e3 for _, found in fresh])
    show(report, "cold fetch of one record, footer cached", seconds["cold"], options.repetitions)
    show(report, "bare range GET of as many bytes", seconds["bare"], options.repetitions)
    show(report, "the same record again", seconds["again"], options.repetitions)
    for step, seen in lines.items():
        report.notes.append(f"{step}: {len(seen)} requests ({' '.join(seen)})")
    report.notes.append(f"segments of {segments[0].size_bytes / 1e6:.0f} MB, 1 KiB a record")
    ratio = statistics.median(seconds["cold"]) / statistics.median(seconds["bare"])
    report.at_most("cold fetch / bare range GET, p50", ratio, 1.2)
    report.at_most("requests of a cold fetch", len(lines["cold fetch"]), 1, "")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
