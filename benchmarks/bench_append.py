"""Durable appends from one thread: groups of 100 records, and one at a time, against a raw loop.

The raw loop joins the same values and does what any log must at the least: one write and one
fdatasync a group, into a file whose zeros were written before its clock started.

bursts: the log and the raw file stand open side by side and take turns, a short burst each; between
bursts the log's filler gets its work done, so a burst mostly meets zeros that are there. What it
says is what an append costs.
ahead: the same bursts by `append_nowait`, with up to 32 groups whose futures are not done yet: each
is acknowledged as before, and those that wait share a write and a sync.
sustained: a fresh log and a fresh raw file, one after the other, without a pause: the log writes
its zeros while it appends, and "zeros counted" adds to the raw loop the time that its own took.

Both are warm: the log's memory tail is full and recycles, as in any process that has run for a
second. Everything is read back and compared.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.harness import (
    Options,
    Report,
    begin,
    in_turns,
    parse,
    percentile,
    ratios,
    scratch,
)
from benchmarks.machine import Usage, thread_usage, written_bytes
from benchmarks.workload import ONE_KB, TOPIC, RawFile, Values, check_log, quiet_config
from chronik_store import AppendResult, PartitionLog

GROUP = 100
WARM_GROUPS = 700
"""More than the memory tail of a log holds (`tail_bytes_max`, 64 MiB)."""
BURST_GROUPS = 50
BURST_SINGLES = 500
AHEAD = 32
NOT_WAITED_FOR = f"chronik, {AHEAD} ahead"
QUIET_SECONDS = 0.02


@dataclass
class Sample:
    """Groups appended in a row: seconds each; what the appending thread used, CPU seconds of the
    others, bytes that the process wrote.
    """

    each: list[float] = field(default_factory=list)
    thread: Usage = field(default_factory=Usage)
    others: float = 0.0
    written: int = 0
    preparing: float = 0.0

    @property
    def total(self) -> float:
        """Seconds."""
        return sum(self.each)


def measure(
    append: Callable[[list[bytes]], object],
    work: list[list[bytes]],
    drain: Callable[[], object] = list,
) -> Sample:
    """Append all groups of `work`, one after the other. drain: what is left to wait for then."""
    sample = Sample()
    thread = thread_usage()
    others = time.process_time() - time.thread_time()
    written = written_bytes()
    clock = time.perf_counter
    before = clock()
    for group in work:
        append(group)
        now = clock()
        sample.each.append(now - before)
        before = now
    drain()
    sample.each[-1] += clock() - before
    sample.written = written_bytes() - written
    sample.others = time.process_time() - time.thread_time() - others
    sample.thread = thread_usage() - thread
    return sample


@contextmanager
def opened_log(
    directory: str, values: Values, size: int
) -> Iterator[tuple[PartitionLog, Callable[[list[bytes]], object]]]:
    """A fresh log, warmed up, and how to append `size` records at once to it."""
    path = os.path.join(directory, "log")
    with PartitionLog.open(path, topic=TOPIC, config=quiet_config()) as log:
        for group in values.groups(WARM_GROUPS, GROUP):
            log.append(group)
        yield log, log.append if size > 1 else lambda group: log.append(group[0])
    shutil.rmtree(path)


class Ahead:
    """Appends that are waited for when so many others have been begun."""

    def __init__(self, log: PartitionLog) -> None:
        self._log = log
        self._begun: deque[Future[AppendResult]] = deque()

    def append(self, group: list[bytes]) -> None:
        if len(self._begun) == AHEAD:
            self._begun.popleft().result()
        self._begun.append(self._log.append_nowait(group))

    def drain(self) -> None:
        """Wait for all."""
        while self._begun:
            self._begun.popleft().result()


def sustained_log(directory: str, values: Values, groups: int) -> Sample:
    """Append to a fresh log without a pause."""
    work = values.groups(groups, GROUP, first=WARM_GROUPS * GROUP)
    with opened_log(directory, values, GROUP) as (log, append):
        sample = measure(append, work)
        check_log(log, values, 0, (WARM_GROUPS + groups) * GROUP)
    return sample


def sustained_raw(directory: str, values: Values, groups: int) -> Sample:
    """The same values by hand."""
    work = values.groups(groups, GROUP)
    started = time.perf_counter()
    raw = RawFile(directory, groups * GROUP * values.size_bytes)
    preparing = time.perf_counter() - started
    sample = measure(raw.append, work)
    sample.preparing = preparing
    raw.check(values)
    raw.close()
    return sample


def bursts(
    directory: str, values: Values, turns: int, groups: int, size: int
) -> dict[str, list[Sample]]:
    """The log and a raw file, a burst of `groups` groups of `size` records each, in turns."""
    first = WARM_GROUPS * GROUP
    with opened_log(directory, values, size) as (log, log_append):
        raw = RawFile(directory, (turns + 1) * groups * size * values.size_bytes)

        def burst(
            append: Callable[[list[bytes]], object], turn: int, *drain: Callable[[], object]
        ) -> Sample:
            _settle()
            start = turn * groups * size
            return measure(append, values.groups(groups, size, first=first + start), *drain)

        ahead = Ahead(log)
        raw_turns, log_turns = itertools.count(), itertools.count()
        cases = {
            "raw": lambda: burst(raw.append, next(raw_turns)),
            "chronik": lambda: burst(log_append, next(log_turns)),
        }
        if size > 1:
            cases[NOT_WAITED_FOR] = lambda: burst(ahead.append, next(log_turns), ahead.drain)
        found = in_turns(cases, turns)
        check_log(log, values, 0, first + next(log_turns) * groups * size)
        raw.check(values, first)
        raw.close()
    return found


def _settle() -> None:
    """Wait until nothing is written in the background."""
    before = -1
    while before != (before := written_bytes()):
        time.sleep(QUIET_SECONDS)


def report_case(
    report: Report, found: dict[str, list[Sample]], title: str, size: int, *, rate: bool
) -> None:
    """The lines of one case, all sides of it."""
    names = tuple(found)
    if rate:
        for name in names:
            rates = [len(sample.each) * size / sample.total for sample in found[name]]
            report.figure(f"{name}, {title}", "records/s", rates)
    if size > 1 and any(sample.preparing for sample in found["raw"]):
        counted = [
            len(sample.each) * size / (sample.total + sample.preparing) for sample in found["raw"]
        ]
        report.figure(f"raw, {title}, zeros counted", "records/s", counted)
    for percent in (50, 99):
        for name in names:
            if name == NOT_WAITED_FOR:
                continue  # the time of a call is not that of its append
            # Of all groups together: one burst has too few for a p99.
            each = [percentile(_all(found[name]), percent) * 1e6]
            report.figure(f"{name}, {title}, p{percent}", "us", each)
    for name in names:
        _report_cost(report, f"{name}, {title}", found[name])


def _report_cost(report: Report, title: str, samples: list[Sample]) -> None:
    groups = [len(sample.each) for sample in samples]
    pairs = list(zip(samples, groups, strict=True))
    report.figure(f"{title}: user CPU", "us", [s.thread.user * 1e6 / n for s, n in pairs])
    report.figure(f"{title}: system CPU", "us", [s.thread.system * 1e6 / n for s, n in pairs])
    report.figure(f"{title}: CPU of other threads", "us", [s.others * 1e6 / n for s, n in pairs])
    report.figure(f"{title}: bytes written", "KiB", [s.written / 1024 / n for s, n in pairs])


def _all(samples: list[Sample]) -> list[float]:
    return [each for sample in samples for each in sample.each]


def _means(samples: list[Sample]) -> list[float]:
    return [sample.total / len(sample.each) for sample in samples]


def _p50s(samples: list[Sample]) -> list[float]:
    return [percentile(sample.each, 50) for sample in samples]


def run(options: Options, report: Report) -> None:
    """All cases."""
    values = Values(ONE_KB)
    turns = options.scaled(40, 12)
    with scratch(options) as directory:
        many = bursts(directory, values, turns, BURST_GROUPS, GROUP)
        one = bursts(directory, values, turns, BURST_SINGLES, 1)
        groups = options.scaled(2000, 700)
        cases = {
            "raw": lambda: sustained_raw(directory, values, groups),
            "chronik": lambda: sustained_log(directory, values, groups),
        }
        steady = in_turns(cases, options.repetitions)
    report_case(report, many, "bursts of 100 x 1 KiB", GROUP, rate=True)
    report_case(report, steady, "sustained 100 x 1 KiB", GROUP, rate=True)
    report_case(report, one, "one of 1 KiB outstanding", 1, rate=False)
    ratio = ratios(_means(many["raw"]), _means(many["chronik"]))
    report.at_least("bursts of 100 x 1 KiB: chronik / raw loop", ratio, 0.8)
    ratio = ratios(_means(many["raw"]), _means(many[NOT_WAITED_FOR]))
    report.figure(f"bursts, {AHEAD} ahead: chronik / raw loop", "x", [ratio])
    ratio = ratios(_means(steady["raw"]), _means(steady["chronik"]))
    report.at_least("sustained 100 x 1 KiB: chronik / raw loop", ratio, 0.8)
    counted = [(sample.total + sample.preparing) / len(sample.each) for sample in steady["raw"]]
    ratio = ratios(counted, _means(steady["chronik"]))
    report.at_least("  the same, the raw loop's zeros counted", ratio, 0.8)
    ratio = ratios(_p50s(one["chronik"]), _p50s(one["raw"]))
    report.at_most("one outstanding, p50: chronik / raw loop", ratio, 1.3)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(__doc__.splitlines()[0], argv)
    report = begin("Append", options, "every append durable when it returns: fdatasync per group")
    run(options, report)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
