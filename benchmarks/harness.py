"""What all benchmarks share: options, the machine, repetitions in turns, tables, targets.

Place: under every `bench_*`. Promise: a figure is the median of repetitions that alternate with
those it is compared to, so a neighbour's noise meets all of them; a target is judged by the ratio
within one run, never against a figure of another day. Invariant: nothing is printed that was not
measured in this process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any, Literal, TypeVar

from benchmarks.machine import Machine, OtherWork, describe

T = TypeVar("T")
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Figure:
    """One line of the table: a median over repetitions, with the least and the greatest."""

    name: str
    unit: str
    median: float
    least: float
    greatest: float
    repetitions: int
    note: str = ""


@dataclass(frozen=True)
class Target:
    """What was asked for, and what this run says. `measured` and `bound` are in `unit`."""

    text: str
    unit: str
    measured: float
    bound: float
    better: Better

    @property
    def met(self) -> bool:
        """Whether the bound is kept."""
        if self.better == "higher":
            return self.measured >= self.bound
        return self.measured <= self.bound


@dataclass
class Options:
    """The command line of a benchmark."""

    directory: str
    quick: bool
    as_json: bool
    repetitions: int
    extra: argparse.Namespace

    def scaled(self, full: int, quick: int) -> int:
        """How many of something to do."""
        return quick if self.quick else full


def parse(
    title: str,
    argv: Sequence[str] | None,
    *,
    repetitions: int = 5,
    add: Callable[[argparse.ArgumentParser], None] | None = None,
) -> Options:
    """The common options, and those that `add` adds."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument(
        "--dir", type=directory, default=".", help="a directory on the disk to measure"
    )
    parser.add_argument("--quick", action="store_true", help="shorter runs, rougher figures")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--repetitions", type=count, help="of each case, in turns")
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="ask the kernel for SCHED_FIFO (root): less disturbed by other processes",
    )
    if add is not None:
        add(parser)
    args = parser.parse_args(argv)
    end_on_sigterm()
    if args.realtime:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    return Options(
        directory=os.path.abspath(args.dir),
        quick=args.quick,
        as_json=args.json,
        repetitions=args.repetitions or (3 if args.quick else repetitions),
        extra=args,
    )


def count(text: str) -> int:
    """A number of repetitions, from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def directory(text: str) -> str:
    """A directory that is there."""
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no directory")
    return text


def end_on_sigterm() -> None:
    """As Ctrl-C does, once: what was started is ended, and what was written removed."""

    def interrupt(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@dataclass
class Report:
    """Figures and targets of one program, printed at the end."""

    title: str
    options: Options
    durability: str
    machine: Machine
    figures: list[Figure] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    others: OtherWork = field(default_factory=OtherWork)

    def figure(self, name: str, unit: str, values: Sequence[float], note: str = "") -> float:
        """Add a figure; returns its median."""
        median = statistics.median(values)
        self.figures.append(Figure(name, unit, median, min(values), max(values), len(values), note))
        return median

    def at_least(self, text: str, measured: float, bound: float, unit: str = "x") -> None:
        """A target that wants more."""
        self.targets.append(Target(text, unit, measured, bound, "higher"))

    def at_most(self, text: str, measured: float, bound: float, unit: str = "x") -> None:
        """A target that wants less."""
        self.targets.append(Target(text, unit, measured, bound, "lower"))

    def finish(self) -> int:
        """Print everything; 0, whether targets are met or not: a benchmark measures."""
        busy = self.others.percent()
        if self.options.as_json:
            document: dict[str, Any] = {
                "title": self.title,
                "durability": self.durability,
                "machine": asdict(self.machine),
                "other_processes_cpu_percent": round(busy, 1),
                "figures": [asdict(figure) for figure in self.figures],
                "targets": [{**asdict(target), "met": target.met} for target in self.targets],
                "notes": self.notes,
            }
            print(json.dumps(document), flush=True)
            return 0
        print(f"\n{self.title}")
        print(f"  {self.machine.line()}")
        print(f"  durability: {self.durability}")
        print(f"  other processes took {busy:.0f} % of the CPUs meanwhile\n")
        width = max((len(figure.name) for figure in self.figures), default=0)
        for figure in self.figures:
            spread = f"{short(figure.least)} - {short(figure.greatest)}"
            print(
                f"  {figure.name:{width}}  {short(figure.median):>10} {figure.unit:10}"
                f" ({spread}, {figure.repetitions} x) {figure.note}".rstrip()
            )
        if self.targets:
            print()
        width = max((len(target.text) for target in self.targets), default=0)
        for target in self.targets:
            sign = ">=" if target.better == "higher" else "<="
            verdict = "met" if target.met else "MISSED"
            print(
                f"  {target.text:{width}}  {short(target.measured):>10} {target.unit}, "
                f"wanted {sign} {short(target.bound)}: {verdict}"
            )
        for note in self.notes:
            print(f"  note: {note}")
        sys.stdout.flush()
        return 0


def begin(title: str, options: Options, durability: str) -> Report:
    """Look at the machine and start counting what others do on it."""
    return Report(title, options, durability, describe(options.directory))


def in_turns(
    cases: Mapping[str, Callable[[], T]], repetitions: int, *, warm: bool = True
) -> dict[str, list[T]]:
    """Run every case `repetitions` times, taking turns; the first turn is thrown away if `warm`.

    The order changes from turn to turn, so that none always runs behind the same other.
    """
    names = list(cases)
    results: dict[str, list[T]] = {name: [] for name in names}
    for turn in range(-1 if warm else 0, repetitions):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            result = cases[name]()
            if turn >= 0:
                results[name].append(result)
    return results


def ratios(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the ratios turn by turn: both of a pair met the same neighbours."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


@contextmanager
def scratch(options: Options) -> Iterator[str]:
    """A directory on the measured disk, removed at the end."""
    path = tempfile.mkdtemp(prefix="chronik-bench-", dir=options.directory)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def timed(work: Callable[[], object]) -> float:
    """Seconds that it took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def short(value: float) -> str:
    """Four digits that a person can read."""
    if value >= 10_000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
