"""One segment on its way to the bucket: how fast, and how much memory it takes at its peak.

Each case is a process of its own that appends one segment of 256 MB, throws the WAL's memory tail
away by opening the log again, notes its resident size, resets the kernel's high-water mark, and
runs the pipeline: seal and upload, and once also the search index (which takes minutes for JSON
with random words, as here). The peak counts everything that
is resident, the mapped pages of the segment file among it; how much of it is anonymous (memory
that no file backs) is sampled meanwhile. The records are read back from the bucket alone and
compared. With `--s3` (see `bucket`) the same against S3.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Self

from benchmarks.bucket import S3Server, add_s3, server_of
from benchmarks.harness import Options, begin, parse, scratch
from benchmarks.workload import ONE_KB, TOPIC, Values, quiet_config
from chronik_store import PartitionLog, open_bucket
from chronik_store.config import LogConfig, S3Options

GROUP = 100
SEGMENT_MB = 256
BESIDE_MB = 32
"""What may be resident beside the segment held once: buffers, the client, the footer."""
_SAMPLE_SECONDS = 0.002


class Peak:
    """The greatest resident and anonymous size of this process while it is open, in bytes."""

    def __init__(self) -> None:
        self.resident = self.anonymous = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # VmHWM starts anew
        before = _status()
        self._before = before["VmRSS"], before["RssAnon"]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.resident = _status()["VmHWM"] - self._before[0]
        self.anonymous -= self._before[1]

    def _sample(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self.anonymous = max(self.anonymous, _status()["RssAnon"])


def _status() -> dict[str, int]:
    found = {}
    with open("/proc/self/status") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in {"VmRSS", "VmHWM", "RssAnon"}:
                found[name] = int(rest.split()[0]) * 1024
    return found


def fill(path: str, url: str | None, config: LogConfig, records: int) -> None:
    """The records of one segment, appended."""
    values = Values(ONE_KB)
    with PartitionLog.open(path, topic=TOPIC, object_store=url, config=config) as log:
        for start in range(0, records, GROUP):
            log.append(values.range(start, GROUP))


def run_case(
    path: str, url: str | None, s3: S3Options, records: int, *, index: bool
) -> dict[str, float]:
    """What one child measures: the segment was appended by another."""
    config = quiet_config(s3=s3, indexing_enabled=False, segment_bytes=512 << 20)
    found: dict[str, float] = {}
    with PartitionLog.open(path, topic=TOPIC, config=config) as log:
        log.append(b"the first write of this open")
        log.seal()
        _stage(log, "upload", found)
        size = sum(each.size_bytes for each in _segments(log))
        if log.watermarks.tiered != records + 1:
            raise AssertionError(f"tiered is {log.watermarks.tiered} of {records + 1}")
    if index:
        config = config.replace(indexing_enabled=True)
        with PartitionLog.open(path, topic=TOPIC, config=config) as log:
            _stage(log, "index", found)
            if log.watermarks.indexed != records + 1:
                raise AssertionError(f"indexed is {log.watermarks.indexed} of {records + 1}")
    values = Values(ONE_KB)
    with open_bucket(url or f"file://{path}/object_store", topic=TOPIC, config=config) as log:
        started = time.perf_counter()
        with Peak() as peak:
            for batch in log.read_batches(0):
                for number, value in enumerate(batch.values(), batch.base_offset):
                    if number < records and value != values[number]:
                        raise AssertionError(f"record {number} is not what was appended")
        found["read"] = time.perf_counter() - started
        found["read_resident"] = peak.resident
    return {**found, "segment": size}


def _segments(log: PartitionLog) -> Any:
    core = log._core
    assert core is not None
    return core.manifest.segments


def _stage(log: PartitionLog, name: str, found: dict[str, float]) -> None:
    started = time.perf_counter()
    with Peak() as peak:
        report = log.run_pipeline_once()
    if report.errors:
        raise AssertionError(f"{name}: {report.errors}")
    found[name] = time.perf_counter() - started
    found[f"{name}_resident"], found[f"{name}_anonymous"] = peak.resident, peak.anonymous


def in_child(*arguments: str) -> dict[str, float]:
    """A step in a process of its own, so that nothing else is in its memory."""
    command = [sys.executable, "-m", "benchmarks.bench_tiering", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout or "{}")
    return result


def measure(
    directory: str, server: S3Server | None, options: Options, turn: int
) -> dict[str, float]:
    """One repetition of one case."""
    records = options.scaled(SEGMENT_MB, 64) * 1_000_000 // ONE_KB // GROUP * GROUP
    path = os.path.join(directory, "log")
    url = "" if server is None else server.url(f"tiering-{turn}")
    endpoint = "" if server is None else str(server.options.endpoint)
    case = [path, url, endpoint, str(records), str(int(server is None and turn == 0))]
    in_child("--fill", *case)
    found = in_child("--case", *case)
    shutil.rmtree(path)
    return found


def child(argv: list[str]) -> int:
    """`--fill` or `--case`, with (path, url, endpoint, records, whether to index)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=["fill", "case"])
    parser.add_argument("arguments", nargs=5)
    options = parser.parse_args([argv[0].removeprefix("--"), *argv[1:]])
    path, url, endpoint, records, index = options.arguments
    s3 = S3Server(endpoint).options if endpoint else S3Options()
    if options.step == "fill":
        config = quiet_config(s3=s3, segment_bytes=512 << 20)
        fill(path, url or None, config, int(records))
    else:
        print(json.dumps(run_case(path, url or None, s3, int(records), index=index == "1")))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] in (["--fill"], ["--case"]):
        return child(arguments)
    options = parse(__doc__.splitlines()[0], argv, repetitions=3, add=add_s3)
    report = begin("Tiering", options, "objects verified in the bucket before they count")
    server = server_of(options.extra)
    if server is None:
        report.notes.append("S3 is not measured: no --s3 ENDPOINT")
    with scratch(options) as directory:
        for name, place in (("directory", None), ("S3", server)):
            if name == "S3" and server is None:
                continue
            found = [
                measure(directory, place, options, turn) for turn in range(options.repetitions)
            ]
            segment = found[0]["segment"]
            for step, what in (
                ("upload", "seal and upload"),
                ("index", "build and upload the index"),
                ("read", "read it back from the bucket"),
            ):
                rates = [each["segment"] / each[step] / 1e6 for each in found if step in each]
                if rates:
                    report.figure(f"{name}: {what}", "MB/s", rates)
            for step, kind in (
                ("upload", "resident"),
                ("upload", "anonymous"),
                ("index", "resident"),
                ("index", "anonymous"),
                ("read", "resident"),
            ):
                peaks = [each[f"{step}_{kind}"] / 1e6 for each in found if step in each]
                if peaks:
                    report.figure(f"{name}: {step}, peak, {kind}", "MB", peaks)
            most = max(each["upload_resident"] for each in found)
            report.at_most(
                f"{name}: peak of seal and upload beyond a segment of {segment / 1e6:.0f} MB",
                (most - segment) / 1e6,
                BESIDE_MB,
                "MB",
            )
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
