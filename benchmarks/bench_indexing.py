"""What an index build costs those who append and read meanwhile, and how far the tail index lags.

One log with a sealed segment in its bucket. In turns: single appends and full sequential reads
alone, and the same beside a thread that builds the segment's search index. Two cores are enough for
both only if the builder rarely holds the interpreter: that is what is measured. Then ingest at a
steady rate on a log that has been searched: each second a query, which first feeds the tail index
what is missing, must find the newest record; its time is the lag that a searcher sees.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.harness import begin, parse, percentile, scratch
from benchmarks.workload import ONE_KB, TOPIC, Values, quiet_config
from chronik_store import LogStore, PartitionLog

GROUP = 100
PACE = 2000
"""Records a second of the ingest that is searched."""
READ_CHUNK = 1 << 20


@contextmanager
def building(log: PartitionLog) -> Iterator[Callable[[], bool]]:
    """The pipeline builds the index of the sealed segment meanwhile; asks whether it still does."""
    errors: list[str] = []
    thread = threading.Thread(target=lambda: errors.extend(log.run_pipeline_once().errors))
    thread.start()
    try:
        yield thread.is_alive
    finally:
        thread.join()
    if errors:
        raise AssertionError(errors)


def append_times(
    log: PartitionLog, values: Values, most: int, going: Callable[[], bool]
) -> list[float]:
    """Seconds of single appends, up to `most` of them, while `going`."""
    times: list[float] = []
    first = log.watermarks.end
    while len(times) < most and going():
        value = values[len(times)]
        started = time.perf_counter()
        log.append(value)
        times.append(time.perf_counter() - started)
    found = [record.value for record in log.scan(first)]
    if found != values.range(0, len(times)):
        raise AssertionError(f"{len(times)} appended, {len(found)} came back, or others")
    return times


def read_rates(log: PartitionLog, most: int, going: Callable[[], bool]) -> list[float]:
    """Records a second of full reads, up to `most` of them, while `going`."""
    rates: list[float] = []
    end = log.watermarks.end
    while len(rates) < most and going():
        started = time.perf_counter()
        count = sum(len(batch.values()) for batch in log.read_batches(0, max_bytes=READ_CHUNK))
        rates.append(count / (time.perf_counter() - started))
        if count != end:
            raise AssertionError(f"{count} of {end} records were read")
    return rates


def always() -> bool:
    """Not ended by anything else."""
    return True


def measure(path: str, values: Values, records: int) -> dict[str, list[float]]:
    """One repetition on a fresh log."""
    quiet = quiet_config(indexing_enabled=False)
    with PartitionLog.open(path, topic=TOPIC, config=quiet) as log:
        for group in values.groups(records // GROUP, GROUP):
            log.append(group)
        log.seal()
        if log.run_pipeline_once().errors or log.watermarks.tiered != records:
            raise AssertionError("the segment is not in the bucket")
    found: dict[str, list[float]] = {}
    with LogStore.open(path, config=quiet_config()) as store:
        log = store.partition(TOPIC)
        found["append alone"] = append_times(log, values, 2000, always)
        found["read alone"] = read_rates(log, 5, always)
        with building(log) as going:
            found["append beside"] = append_times(log, values, 1 << 30, going)
        if log.watermarks.indexed != records:
            raise AssertionError("the segment is not indexed")
        store.rebuild_indexes(TOPIC, 0)
        with building(log) as going:
            found["read beside"] = read_rates(log, 1 << 30, going)
    return found


def freshness(path: str, values: Values, seconds: float) -> tuple[float, list[float]]:
    """(records a second appended, seconds of each query that found the newest record)."""
    times: list[float] = []
    errors: list[Exception] = []
    ended = threading.Event()
    with PartitionLog.open(path, topic=TOPIC, config=quiet_config()) as log:

        def ingest() -> None:
            try:
                append_at_pace()
            except Exception as error:  # noqa: BLE001 (else it counts as a slow one)
                errors.append(error)

        def append_at_pace() -> None:
            number = 0
            while not ended.wait(max(0.0, started + number / PACE - time.perf_counter())):
                log.append(values.range(number, GROUP))
                number += GROUP

        log.append(b"the first one")
        log.search("first")
        started = time.perf_counter()
        thread = threading.Thread(target=ingest)
        thread.start()
        try:
            while time.perf_counter() - started < seconds:
                time.sleep(1)
                mark = f"mark{len(times)}"
                offset = log.append(mark.encode()).base_offset
                asked = time.perf_counter()
                found = log.search(mark, deadline_seconds=60, require_complete=True)
                times.append(time.perf_counter() - asked)
                if [hit.offset for hit in found.hits] != [offset]:
                    raise AssertionError(f"{mark} at {offset}: {found.hits}")
        finally:
            ended.set()
            thread.join()
        if errors:
            raise errors[0]
        rate = log.watermarks.end / (time.perf_counter() - started)
    return rate, times


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(__doc__.splitlines()[0], argv, repetitions=3)
    report = begin("Beside indexing", options, "every append durable when it returns")
    values = Values(ONE_KB)
    records = options.scaled(60_000, 15_000)
    with scratch(options) as directory:
        turns = [
            measure(os.path.join(directory, f"log-{turn}"), values, records)
            for turn in range(options.repetitions)
        ]
        rate, lags = freshness(os.path.join(directory, "fresh"), values, options.scaled(20, 6))
    p99 = {}
    for name in ("append alone", "append beside"):
        for percent in (50, 99):
            p99[name, percent] = report.figure(
                f"one append of 1 KiB, {name.split()[1]}, p{percent}",
                "us",
                [percentile(turn[name], percent) * 1e6 for turn in turns],
            )
    read = {}
    for name in ("read alone", "read beside"):
        read[name] = report.figure(
            f"values in order, {name.split()[1]}",
            "records/s",
            [percentile(turn[name], 50) for turn in turns],
        )
    report.figure(f"ingest beside a query each second, {PACE:,} wanted", "records/s", [rate])
    report.figure("query that finds the newest record", "s", lags)
    report.at_most("query that finds the newest record, the slowest", max(lags), 1, "s")
    report.at_most(
        "append p50: beside a build / alone", p99["append beside", 50] / p99["append alone", 50], 2
    )
    report.at_least("read: beside a build / alone", read["read beside"] / read["read alone"], 0.5)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
