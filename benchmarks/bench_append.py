"""Durable appends from one thread: groups of 100 records, and one at a time, against a raw loop.

Each repetition writes into a fresh log and a fresh file, both warmed up, and reads both back. The
raw file's zeros are written before its clock starts; "zeros counted" adds the time they took, for
somebody has to write them: the log does it while it runs.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness import begin, in_turns, parse, percentile, ratios, scratch
from benchmarks.workload import ONE_KB, TOPIC, RawFile, Values, check_log, quiet_config
from chronik_store import PartitionLog

GROUP = 100
WARM_GROUPS = 50


@dataclass(frozen=True)
class Sample:
    """One repetition: how long all took together, and each alone. Seconds."""

    total: float
    each: list[float]
    preparing: float = 0.0


def log_append(directory: str, values: Values, groups: int, size: int) -> Sample:
    """Append to a fresh log."""
    path = os.path.join(directory, "log")
    work = values.groups(groups, size, first=WARM_GROUPS * size)
    with PartitionLog.open(path, topic=TOPIC, config=quiet_config()) as log:
        for group in values.groups(WARM_GROUPS, size):
            log.append(group)
        each = []
        started = before = time.perf_counter()
        for group in work:
            log.append(group if size > 1 else group[0])
            now = time.perf_counter()
            each.append(now - before)
            before = now
        total = before - started
        check_log(log, values, 0, (WARM_GROUPS + groups) * size)
    shutil.rmtree(path)
    return Sample(total, each)


def raw_append(directory: str, values: Values, groups: int, size: int) -> Sample:
    """The same values by hand."""
    work = values.groups(groups, size, first=WARM_GROUPS * size)
    started = time.perf_counter()
    raw = RawFile(directory, (WARM_GROUPS + groups) * size * values.size_bytes)
    preparing = time.perf_counter() - started
    for group in values.groups(WARM_GROUPS, size):
        raw.append(group)
    each = []
    started = before = time.perf_counter()
    for group in work:
        raw.append(group)
        now = time.perf_counter()
        each.append(now - before)
        before = now
    total = before - started
    raw.check(values)
    raw.close()
    return Sample(total, each, preparing)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(__doc__.splitlines()[0], argv)
    report = begin("Append", options, "every append durable when it returns: fdatasync per group")
    values = Values(ONE_KB)
    groups = options.scaled(2000, 300)
    singles = options.scaled(4000, 600)
    with scratch(options) as directory:
        many = in_turns(
            {
                "raw": lambda: raw_append(directory, values, groups, GROUP),
                "chronik": lambda: log_append(directory, values, groups, GROUP),
            },
            options.repetitions,
        )
        one = in_turns(
            {
                "raw": lambda: raw_append(directory, values, singles, 1),
                "chronik": lambda: log_append(directory, values, singles, 1),
            },
            options.repetitions,
        )
    records = groups * GROUP
    rate = {name: [records / sample.total for sample in many[name]] for name in many}
    counted = [records / (sample.total + sample.preparing) for sample in many["raw"]]
    report.figure("raw loop, 100 x 1 KiB", "records/s", rate["raw"])
    report.figure("raw loop, its zeros counted", "records/s", counted)
    report.figure("chronik, 100 x 1 KiB", "records/s", rate["chronik"])
    for percent in (50, 99):
        for name in ("raw", "chronik"):
            spread = [percentile(sample.each, percent) * 1e6 for sample in many[name]]
            report.figure(f"{name}, 100 x 1 KiB, p{percent}", "us", spread)
    report.at_least("100 x 1 KiB: chronik / raw loop", ratios(rate["chronik"], rate["raw"]), 0.8)
    for percent in (50, 99):
        times = {
            name: [percentile(sample.each, percent) * 1e6 for sample in one[name]] for name in one
        }
        for name in ("raw", "chronik"):
            report.figure(f"{name}, one of 1 KiB outstanding, p{percent}", "us", times[name])
        if percent == 50:
            ratio = ratios(times["chronik"], times["raw"])
            report.at_most("one outstanding, p50: chronik / raw loop", ratio, 1.3)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
