"""The demo's writing process: appends lines at full speed until it is done, or killed.

Place: started by `acts` as `python -m chronik_store.cli.demo.writer TASK`, TASK a file of JSON.
Promise: it prints a count only after those records were acknowledged, and goes on where the log
that it finds ends. One JSON object a line: opened, then how far it is, then done.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from typing import Any

from chronik_store.cli.demo.source import Source
from chronik_store.config import LogConfig
from chronik_store.errors import BackpressureError
from chronik_store.format.record_batch import RecordBatch
from chronik_store.log_store import LogStore
from chronik_store.model import AppendResult
from chronik_store.partition_log import PartitionLog

TOPIC = "lines"
RECORDS_PER_BATCH = 500
IN_FLIGHT = 16
REPORT_SECONDS = 0.05


def config_of(segment_bytes: int) -> LogConfig:
    """Small segments, a busy pipeline: what takes half an hour in service passes in seconds."""
    return LogConfig(
        segment_bytes=segment_bytes,
        wal_file_bytes=max(segment_bytes, 1 << 20),
        pipeline_interval_seconds=0.5,
    )


class Reporter:
    """Tells the parent how far the log is, a few times a second."""

    def __init__(self, log: PartitionLog) -> None:
        self._log = log
        self._last = 0.0

    def acknowledged(self, end_offset: int) -> None:
        """Everything below `end_offset` has been acknowledged."""
        now = time.monotonic()
        if now - self._last >= REPORT_SECONDS:
            self._last = now
            report(event="acknowledged", end=end_offset, line=self.line())

    def wait_for_the_end(self) -> None:
        """A small input is written before anybody can kill: stay here until it happens."""
        while True:
            report(event="acknowledged", end=self._log.watermarks.committed, line=self.line())
            time.sleep(REPORT_SECONDS)

    def line(self) -> list[int]:
        """The plot line."""
        limits = self._log.watermarks
        return [limits.start, limits.indexed, limits.tiered, limits.sealed, limits.committed,
                limits.durable, limits.end]  # fmt: skip


def report(**event: Any) -> None:
    """One line to the parent."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Open, say what was recovered, append the rest, move everything to the bucket."""
    task = json.loads(Path(sys.argv[1]).read_text())
    files = tuple(Path(name) for name in task["files"])
    source = Source(Path(task["root"]), files, task["hold_at"] or task["limit"])
    begun = time.monotonic()
    store = LogStore.open(
        task["directory"], object_store=task["bucket"], config=config_of(task["segment_bytes"])
    )
    with store:
        store.create_topic(TOPIC, exist_ok=True)
        log = store.partition(TOPIC)
        reporter = Reporter(log)
        end = log.watermarks.end
        report(event="opened", end=end, verdict=log.recovery.verdict, line=reporter.line(),
               seconds=time.monotonic() - begun)  # fmt: skip
        _append(log, source, end, reporter)
        if task["hold_at"] is not None:
            reporter.wait_for_the_end()
        report(event="written", end=log.watermarks.end, line=reporter.line())
        _tier(store, log, reporter)
        report(event="done", end=log.watermarks.end, line=reporter.line())


def _append(log: PartitionLog, source: Source, start: int, reporter: Reporter) -> None:
    window: deque[Future[AppendResult]] = deque()
    for batch in _batches(source, start):
        while True:
            try:
                window.append(log.append_nowait(batch))
                break
            except BackpressureError:
                reporter.acknowledged(window.popleft().result().end_offset)
        while len(window) > IN_FLIGHT or (window and window[0].done()):
            reporter.acknowledged(window.popleft().result().end_offset)
    for future in window:
        reporter.acknowledged(future.result().end_offset)


def _batches(source: Source, start: int) -> Iterator[RecordBatch]:
    records = source.records(start)
    while chunk := list(islice(records, RECORDS_PER_BATCH)):
        keys, values = zip(*chunk, strict=True)
        yield RecordBatch.build(values, keys=keys)


def _tier(store: LogStore, log: PartitionLog, reporter: Reporter) -> None:
    """Seal the rest and run the pipeline until the search index has everything."""
    log.seal()
    while log.watermarks.indexed < log.watermarks.end:
        done = store.run_pipeline_once()
        if done.errors:
            raise SystemExit(f"the pipeline stalls: {done.errors[0]}")
        reporter.acknowledged(log.watermarks.end)
        if done.idle:
            time.sleep(REPORT_SECONDS)


if __name__ == "__main__":
    main()
