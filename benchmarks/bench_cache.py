"""The read cache: its bounds under a scan that is larger, one fetch for many readers, read-ahead.

A bucket directory outside the data directory, read through a store with a memory and a disk cache
that are much smaller than the log. Its range reads are counted, and delayed where the latency of a
remote bucket matters. Every record is compared.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from benchmarks.bench_tiering import Peak
from benchmarks.harness import begin, parse, scratch
from benchmarks.tiered import fill, ranges_counted
from benchmarks.workload import ONE_KB, TOPIC, Values, check_log, quiet_config
from chronik_store import LogStore
from chronik_store.config import LogConfig
from chronik_store.objectstore.local import LocalObjectStore

GROUP = 100
MEMORY_BYTES = 16 << 20
DISK_BYTES = 32 << 20
READERS = 32
BESIDE_MB = 40
"""What a scan may hold beside the cache: 8 MiB ahead, as they came and as blocks; 1 MiB in hand, as
blocks, joined, and as values; the footers; what the allocator has not given back."""


def cache_files_bytes(path: str) -> int:
    """What the disk cache takes now, roughly: it changes while it is looked at."""
    total = 0
    for name in os.listdir(f"{path}/cache"):
        with suppress(FileNotFoundError):
            total += os.stat(f"{path}/cache/{name}").st_size
    return total


def scan_bounds(path: str, config: LogConfig, values: Values, records: int) -> dict[str, float]:
    """Two scans of everything: the memory they take at most, and the sizes of the caches after."""
    with LogStore.open(path, config=config) as store:
        log = store.partition(TOPIC)
        disk = 0
        with Peak() as peak:
            for _ in range(2):
                number = 0
                for batch in log.read_batches(0):
                    for value in batch.values():
                        if value != values[number]:
                            raise AssertionError(f"record {number} is not what was appended")
                        number += 1
                    if number % 10_000 < GROUP:
                        disk = max(disk, cache_files_bytes(path))
                if number != records:
                    raise AssertionError(f"{number} of {records} records came")
        status = store.status()
        return {
            "resident": peak.resident,
            "memory": status.cache_memory_bytes,
            "disk": max(disk, status.cache_disk_bytes),
        }


def single_flight(path: str, config: LogConfig, values: Values, records: int) -> float:
    """Range reads of the bucket for each cold block that many threads want at once."""
    places = range(records // 16, records, records // 8)
    with (
        LogStore.open(path, config=config) as store,
        ranges_counted(LocalObjectStore, 0.02) as lengths,
    ):
        log = store.partition(TOPIC)
        for place in places:
            log.read(place, max_records=1)  # footers
        lengths.clear()
        failures: list[str] = []
        together = threading.Barrier(READERS)

        def read() -> None:
            try:
                for place in places:
                    together.wait()
                    found = log.read(place + 2000, max_records=1)
                    if found.records[0].value != values[place + 2000]:
                        failures.append(f"record {place + 2000} is not what was appended")
            except Exception as error:  # noqa: BLE001 (the others would wait for this one)
                failures.append(repr(error))
                together.abort()

        threads = [threading.Thread(target=read) for _ in range(READERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise AssertionError(failures[0])
        return len(lengths) / len(places)


def remote_scan(
    path: str, config: LogConfig, values: Values, records: int, latency_seconds: float
) -> tuple[float, int]:
    """(MB/s, range reads) of a scan from a bucket that far away."""
    with (
        LogStore.open(path, config=config) as store,
        ranges_counted(LocalObjectStore, latency_seconds) as lengths,
    ):
        started = time.perf_counter()
        check_log(store.partition(TOPIC), values, 0, records)
        return records * ONE_KB / (time.perf_counter() - started) / 1e6, len(lengths)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(__doc__.splitlines()[0], argv, repetitions=3)
    report = begin("Read cache", options, "none needed: reads of objects that were verified")
    values = Values(ONE_KB)
    records = options.scaled(400_000, 100_000)
    config = quiet_config(cache_memory_bytes=MEMORY_BYTES, cache_disk_bytes=DISK_BYTES)
    with scratch(options) as directory:
        path = os.path.join(directory, "log")
        fill(path, f"file://{directory}/bucket", values, records, segments=4, group=GROUP)
        bounds = scan_bounds(path, config, values, records)
        flights = single_flight(path, config, values, records)
        for latency_ms in (0, 30):
            scans = [
                remote_scan(path, quiet_config(), values, records, latency_ms / 1e3)
                for _ in range(options.repetitions)
            ]
            report.figure(
                f"scan of a bucket {latency_ms} ms away",
                "MB/s",
                [rate for rate, _ in scans],
                f"{scans[-1][1]} range reads",
            )
    mb = records * ONE_KB / 1e6
    report.notes.append(
        f"a log of {mb:.0f} MB; caches of {MEMORY_BYTES / 1e6:.0f} MB in memory and "
        f"{DISK_BYTES / 1e6:.0f} MB on disk; the scans with a latency have the default caches"
    )
    report.at_most("memory cache / its bound", bounds["memory"] / MEMORY_BYTES, 1)
    # Its files hold no more than the bound, except while one is being written.
    report.at_most("disk cache beyond its bound", (bounds["disk"] - DISK_BYTES) / 1e6, 4.2, "MB")
    report.at_most(
        "two scans: resident beyond the memory cache",
        (bounds["resident"] - MEMORY_BYTES) / 1e6,
        BESIDE_MB,
        "MB",
    )
    report.at_most(f"fetches for a block that {READERS} threads want", flights, 2, "")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
