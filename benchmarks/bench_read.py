"""Reading everything in order, by batches and by records, and single records from memory and file.

The log holds more than its memory tail, so a sequential reader gets most of it from WAL files (in
the page cache, every byte verified), the rest from memory. Each value is compared.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Sequence

from benchmarks.harness import begin, in_turns, parse, percentile, scratch
from benchmarks.workload import TOPIC, Values, quiet_config
from chronik_store import PartitionLog

SMALL = 100
BATCH = 1000
CHUNK = 1 << 20


def read_values(log: PartitionLog) -> tuple[int, float]:
    """(values, seconds): all values as lists of bytes."""
    count = 0
    started = time.perf_counter()
    for batch in log.read_batches(0, max_bytes=CHUNK):
        count += len(batch.values())
    return count, time.perf_counter() - started


def read_records(log: PartitionLog) -> tuple[int, float]:
    """(records, seconds): all StoredRecords."""
    count = 0
    started = time.perf_counter()
    for _ in log.scan():
        count += 1
    return count, time.perf_counter() - started


def read_pages(log: PartitionLog) -> tuple[int, float]:
    """(records, seconds): all, by `read` of 10,000 at a time."""
    offset = 0
    started = time.perf_counter()
    while len(found := log.read(offset, max_records=10_000, max_bytes=4 * CHUNK)):
        offset = found.next_offset
    return offset, time.perf_counter() - started


def read_single(log: PartitionLog, values: Values, first: int, end: int, tier: str) -> list[float]:
    """Seconds of each of 2,000 single reads in [first, end), all of which `tier` must answer."""
    chance = random.Random(3)
    times = []
    for _ in range(2000):
        offset = chance.randrange(first, end)
        started = time.perf_counter()
        found = log.read(offset, max_records=1)
        times.append(time.perf_counter() - started)
        record = found.records[0]
        if record.value != values[offset] or record.offset != offset or found.tier != tier:
            raise AssertionError(f"offset {offset}: {found.tier}, {record!r:.80}")
    return times


def check_values(log: PartitionLog, values: Values, count: int) -> None:
    """Every value, in order, none left out."""
    number = 0
    for record in log.scan():
        if record.offset != number or record.value != values[number]:
            raise AssertionError(f"record {number} came back as {record!r:.80}")
        number += 1
    if number != count:
        raise AssertionError(f"{count} records were appended, {number} came back")


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(__doc__.splitlines()[0], argv)
    report = begin("Read", options, "none needed: reads; from the page cache and memory")
    values = Values(SMALL)
    count = options.scaled(2_000_000, 400_000)
    tail_bytes = options.scaled(64, 16) << 20
    with scratch(options) as directory:
        config = quiet_config(tail_bytes_max=tail_bytes)
        path = os.path.join(directory, "log")
        with PartitionLog.open(path, topic=TOPIC, config=config) as log:
            for group in values.groups(count // BATCH, BATCH):
                log.append(group)
            check_values(log, values, count)
            whole = in_turns(
                {
                    "values": lambda: read_values(log),
                    "records": lambda: read_records(log),
                    "pages": lambda: read_pages(log),
                },
                options.repetitions,
            )
            for name, found in whole.items():
                if any(number != count for number, _ in found):
                    raise AssertionError(f"{name}: {found}")
            hot = count - 10_000
            single = in_turns(
                {
                    "memory": lambda: read_single(log, values, hot, count, "wal_tail"),
                    "file": lambda: read_single(log, values, 0, count // 4, "wal"),
                },
                options.repetitions,
            )
    rate = {name: [number / seconds for number, seconds in whole[name]] for name in whole}
    fast = report.figure(f"values by batches ({SMALL} B, {BATCH} a batch)", "/s", rate["values"])
    records = report.figure("StoredRecords by scan", "/s", rate["records"])
    report.figure("StoredRecords by read", "/s", rate["pages"])
    p50 = {}
    for name, what in (("memory", "one record, from memory"), ("file", "one record, from a file")):
        p50[name] = report.figure(
            f"{what}, p50", "us", [percentile(each, 50) * 1e6 for each in single[name]]
        )
        report.figure(f"{what}, p99", "us", [percentile(each, 99) * 1e6 for each in single[name]])
    report.at_least("values by batches", fast, 3e6, "/s")
    report.at_least("StoredRecords", records, 1e6, "/s")
    report.at_most("point read of a hot record, p50", p50["memory"], 20, "us")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
