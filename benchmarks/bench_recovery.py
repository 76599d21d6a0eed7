"""Recovery: how long opening takes after the writing process was killed.

A child process appends and dies without closing; the parent opens the log, which scans and verifies
every byte of the WAL, and compares what is there with what was acknowledged. Cold: the files are
dropped from the page cache before.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks.harness import begin, parse, scratch
from benchmarks.workload import ONE_KB, TOPIC, Values, check_log, quiet_config
from chronik_store import PartitionLog

GROUP = 100


def write_and_die(path: str, append: Callable[[PartitionLog], int]) -> int:
    """Let a child append and be killed; returns how many records it had acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        log = PartitionLog.open(path, topic=TOPIC, config=quiet_config())
        os.write(writing, append(log).to_bytes(8, "big"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writing)
    acknowledged = int.from_bytes(os.read(reading, 8), "big")
    os.close(reading)
    os.waitpid(child, 0)
    return acknowledged


def forget_pages(path: str) -> None:
    """Drop all files below `path` from the page cache."""
    os.sync()
    for folder, _, names in os.walk(path):
        for name in names:
            descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def recover(path: str, values: Values, count: int, *, cold: bool) -> tuple[float, int]:
    """(seconds to open, bytes scanned); everything is compared."""
    if cold:
        forget_pages(path)
    started = time.perf_counter()
    with PartitionLog.open(path, topic=TOPIC, config=quiet_config()) as log:
        seconds = time.perf_counter() - started
        check_log(log, values, 0, count)
        return seconds, log.recovery.bytes_scanned


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(__doc__.splitlines()[0], argv, repetitions=3)
    report = begin("Recovery", options, "the writer was killed; every byte is verified")
    large, small = Values(ONE_KB), Values(100)
    groups = options.scaled(10_300, 1030)
    singles = options.scaled(100_000, 20_000)

    def append_groups(log: PartitionLog) -> int:
        for group in large.groups(groups, GROUP):
            log.append(group)
        return log.watermarks.committed

    def append_singles(log: PartitionLog) -> int:
        pending = [log.append_nowait(small[number]) for number in range(singles)]
        return max(each.result().end_offset for each in pending)

    with scratch(options) as directory:
        for name, values, append in (
            (f"{GROUP} x 1 KiB a batch", large, append_groups),
            ("1 x 100 B a batch", small, append_singles),
        ):
            path = os.path.join(directory, name.replace(" ", "-"))
            count = write_and_die(path, append)
            times, scanned = [], 0
            for _ in range(options.repetitions):
                seconds, scanned = recover(path, values, count, cold=False)
                times.append(seconds)
            note = f"{scanned / 1e6:.0f} MB, {count:,} records"
            median = report.figure(f"open, {name}, cached", "s", times, note)
            cold = [recover(path, values, count, cold=True)[0] for _ in times]
            report.figure(f"open, {name}, cold", "s", cold, note)
            if values is large:
                rate = median / scanned * 1e9
                report.at_most("1 GB of WAL, batches of 100 x 1 KiB", rate, 3.0, "s")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
