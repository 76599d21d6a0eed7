"""Which machine this is, how its disk syncs, and who else works on it.

Place: under `harness`. Promise: read from the machine, never from configuration. Linux tells most;
elsewhere what is not known says so.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass, field

_SYNCS = 200
_SYNC_BYTES = 1024


@dataclass(frozen=True)
class Machine:
    """Where figures come from. `sync_p50_us`: 1 KiB into a zero-filled file, with fdatasync."""

    date: str
    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    disk: str
    sync_p50_us: float

    def line(self) -> str:
        """All of it, for people."""
        return (
            f"{self.date}; {self.cores} x {self.cpu}, {self.memory_gib:.0f} GiB; {self.system}; "
            f"Python {self.python}; {self.disk}; 1 KiB + fdatasync p50 {self.sync_p50_us:.0f} us"
        )


@dataclass(frozen=True)
class Usage:
    """CPU seconds in the program and in the kernel."""

    user: float = 0.0
    system: float = 0.0

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.user - other.user, self.system - other.system)


def thread_usage() -> Usage:
    """What the calling thread has used so far (where the system cannot tell: the process)."""
    found = resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF))
    return Usage(found.ru_utime, found.ru_stime)


def written_bytes() -> int:
    """What this process has handed to write calls so far, zeros included; 0 where unknown."""
    for line in _lines("/proc/self/io"):
        name, _, count = line.partition(":")
        if name == "wchar":
            return int(count)
    return 0


def describe(directory: str) -> Machine:
    """This machine, now, and the disk under `directory`."""
    return Machine(
        date=time.strftime("%Y-%m-%d"),
        cpu=_cpu(),
        cores=os.cpu_count() or 0,
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        disk=_file_system(directory),
        sync_p50_us=_sync_p50(directory) * 1e6,
    )


def sync(descriptor: int) -> None:
    """What the log calls: bytes and size on the device."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def _cpu() -> str:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def _file_system(directory: str) -> str:
    best, found = "", "unknown file system"
    path = os.path.realpath(directory)
    for line in _lines("/proc/mounts"):
        device, mount, kind, options, *_ = line.split()
        inside = path == mount or path.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, found = mount, f"{kind} on {device} ({options.split(',')[0]})"
    return found


def _sync_p50(directory: str) -> float:
    descriptor, path = tempfile.mkstemp(prefix="chronik-bench-", dir=directory)
    try:
        os.pwrite(descriptor, bytes(_SYNCS * _SYNC_BYTES), 0)
        os.fsync(descriptor)
        block = os.urandom(_SYNC_BYTES)
        times = []
        for place in range(_SYNCS):
            started = time.perf_counter()
            os.pwrite(descriptor, block, place * _SYNC_BYTES)
            sync(descriptor)
            times.append(time.perf_counter() - started)
        return statistics.median(times)
    finally:
        os.close(descriptor)
        os.unlink(path)


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _busy_seconds() -> float:
    lines = _lines("/proc/stat")
    if not lines:
        return float("nan")
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, lines[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []


@dataclass
class OtherWork:
    """How much CPU everything but this process has taken since this was made."""

    _since: float = field(default_factory=time.monotonic)
    _all: float = field(default_factory=_busy_seconds)
    _own: float = field(default_factory=_own_seconds)

    def percent(self) -> float:
        """Of all cores; the kernel's own threads count. NaN where it cannot be known."""
        busy = _busy_seconds() - self._all - (_own_seconds() - self._own)
        elapsed = (time.monotonic() - self._since) * (os.cpu_count() or 1)
        return max(0.0, 100 * busy / elapsed)
