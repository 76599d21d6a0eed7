"""Many asyncio tasks, each with one append of one record outstanding.

Every `await log.append(value)` returns when its record is durable; records of tasks that wait
together share a sync. Everything is read back and compared at the end.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.harness import begin, in_turns, parse, percentile, scratch
from benchmarks.workload import TOPIC, Values, quiet_config
from chronik_store.aio import AsyncPartitionLog

SIZE = 100
APPENDERS = (1, 8, 64, 256)


@dataclass(frozen=True)
class Sample:
    """One repetition: records, seconds, seconds of each append, CPU seconds of the process."""

    records: int
    total: float
    each: list[float]
    cpu: float


async def append_all(directory: str, values: Values, appenders: int, count: int) -> Sample:
    """`appenders` tasks append `count` records in all; then all are compared."""
    path = os.path.join(directory, "log")
    each: list[float] = []
    placed: dict[int, int] = {}
    todo = iter(range(count))
    async with AsyncPartitionLog.open(path, topic=TOPIC, config=quiet_config()) as log:
        await log.append(values[0])

        async def appender() -> None:
            clock = time.perf_counter
            for number in todo:
                before = clock()
                result = await log.append(values[number])
                each.append(clock() - before)
                placed[result.base_offset] = number

        cpu = time.process_time()
        started = time.perf_counter()
        await asyncio.gather(*(appender() for _ in range(appenders)))
        total = time.perf_counter() - started
        cpu = time.process_time() - cpu
        if len(placed) != count:
            raise AssertionError(f"{count} appends, {len(placed)} different offsets")
        async for record in log.scan(1):
            if record.value != values[placed.pop(record.offset)]:
                raise AssertionError(f"offset {record.offset} holds another record")
        if placed:
            raise AssertionError(f"{len(placed)} records did not come back")
    shutil.rmtree(path)
    return Sample(count, total, each, cpu)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(__doc__.splitlines()[0], argv)
    report = begin("asyncio", options, "every awaited append is durable: fdatasync per group")
    values = Values(SIZE)
    with scratch(options) as directory:

        def case(appenders: int) -> Sample:
            count = min(options.scaled(200_000, 20_000), appenders * 4000)
            return asyncio.run(append_all(directory, values, appenders, count))

        found = in_turns(
            {str(number): partial(case, number) for number in APPENDERS},
            options.repetitions,
        )
    for name, samples in found.items():
        rates = [sample.records / sample.total for sample in samples]
        median = report.figure(f"{name} appenders, {SIZE} B each", "records/s", rates)
        p50 = [percentile(sample.each, 50) * 1e6 for sample in samples]
        report.figure(f"{name} appenders, p50", "us", p50)
        cpu = [sample.cpu / sample.total for sample in samples]
        report.figure(f"{name} appenders, CPU", "cores", cpu)
        if name == "64":
            report.at_least("64 appenders, one record each", median, 80_000, "/s")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
