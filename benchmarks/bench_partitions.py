"""Many partitions: how fast when all are busy, and what they cost when all are idle.

Busy: one thread keeps a number of appends outstanding, spread evenly over the partitions; each is
acknowledged when its own partition's group is on disk. Twice: with one number for all, so that many
partitions share what one has alone (their groups are small then), and with at least so many for
each. Idle: a process opens a store of 1,000 partitions that hold records, and does nothing.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial

from benchmarks.harness import Options, begin, in_turns, parse, scratch
from benchmarks.workload import ONE_KB, TOPIC, Values, check_log, quiet_config
from chronik_store import AppendResult, LogConfig, LogStore, PartitionLog

PARTITIONS = (1, 8, 64, 256)
OUTSTANDING = 256
EACH_OUTSTANDING = 16
GROUP = 100
IDLE_PARTITIONS = 1000


def busy(
    directory: str, values: Values, partitions: int, appends: int, size: int, each: int
) -> float:
    """Records per second of `appends` batches of `size` records over all partitions, `each` of
    which has at least that many outstanding.
    """
    most = max(OUTSTANDING, each * partitions)
    path = os.path.join(directory, "store")
    with LogStore.open(path, config=quiet_config()) as store:
        store.create_topic(TOPIC, partitions=partitions)
        logs = [store.partition(TOPIC, number) for number in range(partitions)]
        groups = values.groups((appends + partitions) // partitions, size)
        for log in logs:
            log.append(groups[0])
        outstanding: deque[Future[AppendResult]] = deque()
        started = time.perf_counter()
        for number in range(appends):
            if len(outstanding) == most:
                outstanding.popleft().result()
            group = groups[number // partitions]
            outstanding.append(logs[number % partitions].append_nowait(group))
        for future in outstanding:
            future.result()
        seconds = time.perf_counter() - started
        for number, log in enumerate(logs):
            count = len(range(number, appends, partitions))
            check_log(log, values, size, count * size)
    shutil.rmtree(path)
    return appends * size / seconds


def fill_idle(path: str, values: Values) -> None:
    """A store of many partitions with a record in each."""
    with LogStore.open(path, config=quiet_config()) as store:
        store.create_topic(TOPIC, partitions=IDLE_PARTITIONS)
        for number in range(IDLE_PARTITIONS):
            store.partition(TOPIC, number).append(values[number])


def idle(path: str, values: Values, seconds: float) -> dict[str, float]:
    """What a store costs that only lies open: run in a process of its own."""
    with LogStore.open(path, config=LogConfig()) as store:
        store.partition(TOPIC, 0)
        gc.collect()
        before = _resident_bytes()
        started = time.perf_counter()
        logs = [store.partition(TOPIC, number) for number in range(IDLE_PARTITIONS)]
        opening = time.perf_counter() - started
        gc.collect()
        resident = _resident_bytes() - before
        for number, log in enumerate(logs):
            check_log_of_one(log, values, number)
        time.sleep(1)
        cpu = time.process_time()
        time.sleep(seconds)
        cpu = time.process_time() - cpu
        return {
            "opening": opening,
            "core_percent": 100 * cpu / seconds,
            "bytes": resident / IDLE_PARTITIONS,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": len(os.listdir("/proc/self/task")),
        }


def check_log_of_one(log: PartitionLog, values: Values, number: int) -> None:
    """The one record of partition `number` is there."""
    if [record.value for record in log.scan()] != [values[number]]:
        raise AssertionError(f"partition {number} does not hold its record")


def disk_bytes(path: str) -> int:
    """Blocks taken by everything below `path`."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_blocks * 512
        for folder, folders, files in os.walk(path)
        for name in (*folders, *files)
    )


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_idle(options: Options, path: str) -> dict[str, float]:
    """`idle` in a fresh process, so that nothing else is in its memory."""
    seconds = options.scaled(40, 5)
    command = [sys.executable, "-m", "benchmarks.bench_partitions", "--idle", path, str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["--idle"]:
        print(json.dumps(idle(arguments[1], Values(ONE_KB), float(arguments[2]))))
        return 0
    options = parse(__doc__.splitlines()[0], argv, repetitions=3)
    report = begin("Partitions", options, "every acknowledged append durable: fdatasync per group")
    values = Values(ONE_KB)
    with scratch(options) as directory:
        many = options.scaled(16384, 4096)
        loads = (
            (GROUP, options.scaled(2048, 512), 0),
            (1, many, 0),
            (1, many, EACH_OUTSTANDING),
        )
        for size, appends, each in loads:
            load = f"{size} x 1 KiB" + (f", {each} for each" if each else "")
            rates = in_turns(
                {
                    f"{number}": partial(busy, directory, values, number, appends, size, each)
                    for number in PARTITIONS
                },
                options.repetitions,
                warm=False,
            )
            median = {
                name: report.figure(f"{name} partitions, {load}", "records/s", found)
                for name, found in rates.items()
            }
            report.at_least(f"64 partitions / 1, {load}", median["64"] / median["1"], 0.5)
        report.notes.append(f"at least {OUTSTANDING} appends are outstanding in all")
        path = os.path.join(directory, "idle")
        fill_idle(path, values)
        report.figure(
            "an idle partition, on disk", "KiB", [disk_bytes(path) / IDLE_PARTITIONS / 1024]
        )
        found = run_idle(options, path)
    report.figure("opening 1,000 partitions", "s", [found["opening"]])
    report.at_most("1,000 idle partitions: of a core", found["core_percent"], 1, "%")
    report.at_most("an idle partition, resident", found["bytes"] / 1024, 20, "KiB")
    report.at_most("descriptors of the process", found["descriptors"], 100, "")
    report.figure("threads of the process", "", [found["threads"]])
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
