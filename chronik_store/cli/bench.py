"""`chronik bench`: how long an append, a read and a search take here, tier by tier.

Place: a verb; works in a temporary data directory beside the one given, so on the same disk, and
with the bucket given. Promise: every record read is compared with what was appended; a difference
ends the run with exit 4. Each line says which tier answered, as the library reported it, and what
the read cache held is never counted as a read from the bucket. Small by design: benchmarks/ has the
real ones.
"""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import statistics
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import click

from chronik_store.bucket_log import open_bucket
from chronik_store.cli.options import pass_session, verb
from chronik_store.cli.rendering import duration_text, size_text
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import progress, say
from chronik_store.config import LogConfig
from chronik_store.errors import CorruptionError, UnavailableError
from chronik_store.format.record_batch import RecordBatch
from chronik_store.model import AppendResult
from chronik_store.objectstore.cache import BLOCK_BYTES
from chronik_store.partition_log import PartitionLog

TOPIC = "bench"
BATCH_RECORDS = 100
IN_FLIGHT = 16
SAMPLES = 200


@dataclass(frozen=True)
class Row:
    """One line of the result. Times in seconds; `note`: a rate, or the tier that answered."""

    what: str
    samples: int
    median_seconds: float
    p99_seconds: float
    note: str


@verb(
    "bench",
    "chronik bench",
    "chronik bench --records 100000 --size 200",
    "chronik -d /mnt/disk/data --object-store s3://bucket/bench bench --json",
)
@click.option("--records", type=click.IntRange(min=1000), default=20_000, show_default=True)
@click.option(
    "--size",
    "size_bytes",
    type=click.IntRange(min=40, max=1 << 20),
    default=1000,
    show_default=True,
    metavar="BYTES",
    help="Of each record's value.",
)
@pass_session
def command(session: Session, records: int, size_bytes: int) -> None:
    """Measure the latencies of the tiers, in a throw-away log that is read back and compared."""
    parent = Path(session.own_directory()).resolve().parent
    directory = tempfile.mkdtemp(prefix="chronik-bench-", dir=parent if parent.is_dir() else None)
    token = Path(directory).name
    url = f"{session.object_store.rstrip('/')}/{token}" if session.object_store else None
    if url is not None:
        say(f"chronik: objects stay below {url}; remove them when you have seen enough")
    try:
        rows = Bench(session.config(object_store=None), directory, url, records, size_bytes).run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if session.as_json:
        for row in rows:
            session.output.json(dataclasses.asdict(row))
        return
    session.output.table(
        ("WHAT", "SAMPLES", "MEDIAN", "P99", ""),
        [
            (row.what, str(row.samples), duration_text(row.median_seconds),
             duration_text(row.p99_seconds), row.note)
            for row in rows
        ],
    )  # fmt: skip


class Bench:
    """One run: its log, its samples, its rows."""

    def __init__(
        self, config: LogConfig, directory: str, url: str | None, records: int, size_bytes: int
    ) -> None:
        # One segment, kept locally as well, so that each tier can be asked for the same records.
        self._config = config.replace(
            pipeline_enabled=False,
            indexing_enabled=True,
            local_segment_bytes=1 << 40,
            segment_bytes=512 << 20,
            retention_bytes=None,
            retention_seconds=None,
        )
        self._directory = directory
        self._url = url or f"file://{directory}/bucket"
        self._records = records
        self._size_bytes = size_bytes
        self._chance = random.Random(1)  # noqa: S311 (which offsets are read, the same each time)
        self._rows: list[Row] = []

    def run(self) -> list[Row]:
        """All measurements, hottest tier first."""
        with progress("bench", 4, unit="steps") as bar:
            for step in (self._raw, self._hot, self._reopened, self._cold):
                step()
                bar.advance(1)
        return self._rows

    def _value(self, offset: int) -> bytes:
        return (b"%012d word%d " % (offset, offset % 97)).ljust(self._size_bytes, b".")

    def _open(self) -> PartitionLog:
        return PartitionLog.open(
            f"{self._directory}/data", topic=TOPIC, object_store=self._url, config=self._config
        )

    # --- steps -----------------------------------------------------------------------------------

    def _raw(self) -> None:
        """What the disk itself takes: the same bytes, written and synced one after the other."""
        sync = getattr(os, "fdatasync", os.fsync)
        descriptor = os.open(f"{self._directory}/raw", os.O_RDWR | os.O_CREAT)
        data = self._value(0)
        try:
            # Zero-filled first, as the WAL does: a growing file would pay for its size as well.
            os.pwrite(descriptor, bytes(SAMPLES * len(data)), 0)
            os.fsync(descriptor)

            def write(at: int) -> str:
                os.pwrite(descriptor, data, at * len(data))
                sync(descriptor)
                return "for comparison, without Chronik"

            self._measure("raw write and sync", range(SAMPLES), write)
        finally:
            os.close(descriptor)

    def _hot(self) -> None:
        with self._open() as log:

            def append(offset: int) -> str:
                assert log.append(self._value(offset)).base_offset == offset
                return "one caller"

            self._measure("append 1 record", range(SAMPLES), append)
            self._fill(log, SAMPLES)
            self._read("read, newest", log, range(self._records - SAMPLES, self._records))

    def _fill(self, log: PartitionLog, start: int) -> None:
        begun = time.perf_counter()
        window: deque[tuple[float, Future[AppendResult]]] = deque()
        took = []
        for base in range(start, self._records, BATCH_RECORDS):
            end = min(base + BATCH_RECORDS, self._records)
            batch = RecordBatch.build([self._value(offset) for offset in range(base, end)])
            window.append((time.perf_counter(), log.append_nowait(batch)))
            while len(window) > IN_FLIGHT or (window and end == self._records):
                sent, future = window.popleft()
                future.result()
                took.append(time.perf_counter() - sent)
        rate = (self._records - start) / (time.perf_counter() - begun)
        note = (
            f"{rate:,.0f} records/s, {size_text(rate * self._size_bytes)}/s, {IN_FLIGHT} in flight"
        )
        self._add(f"append {BATCH_RECORDS} records", took, note)

    def _reopened(self) -> None:
        with self._open() as log:
            self._read("read, older", log, self._anywhere())
            log.seal()
            report = log.run_pipeline_once()
            while log.watermarks.indexed < self._records and not report.errors:
                report = log.run_pipeline_once()
            if report.errors:
                raise UnavailableError(f"the pipeline stalls: {report.errors[0]}")
            self._read("read, sealed", log, self._anywhere())

    def _cold(self) -> None:
        with closing(open_bucket(self._url, topic=TOPIC, config=self._config)) as log:
            first, *others = self._far_apart()
            self._read("read from the bucket, first", log, [first])
            if others:
                self._read("read from the bucket, cold", log, others)
            self._read("the same again, cached", log, [first, *others])
            self._search("search, first", log, range(1))
            self._search("search", log, range(1, 51))

    def _anywhere(self) -> Sequence[int]:
        return [self._chance.randrange(self._records) for _ in range(SAMPLES)]

    def _far_apart(self) -> Sequence[int]:
        """Offsets no two of which one fetch could bring, so that none is found in the cache."""
        batch_bytes = BATCH_RECORDS * self._size_bytes
        apart = 2 * (batch_bytes + 2 * BLOCK_BYTES) // self._size_bytes
        offsets = list(range(0, self._records, apart))
        self._chance.shuffle(offsets)
        return offsets[: SAMPLES + 1]

    # --- measuring -------------------------------------------------------------------------------

    def _read(self, what: str, log: PartitionLog, offsets: Iterable[int]) -> None:
        def read(offset: int) -> str:
            fetched = log.read(offset, max_records=1)
            if [record.value for record in fetched] != [self._value(offset)]:
                raise CorruptionError(f"offset {offset} was not read back as it was appended")
            return fetched.tier

        self._measure(what, offsets, read)

    def _search(self, what: str, log: PartitionLog, words: Iterable[int]) -> None:
        def search(word: int) -> str:
            found = log.search(f"word{word}", limit=5)
            expected = len(range(word, self._records, 97))
            if found.total != expected:
                raise CorruptionError(f"word{word}: {found.total} matches, not {expected}")
            return "from the bucket, 5 hits"

        self._measure(what, words, search)

    def _measure(self, what: str, items: Iterable[int], call: Callable[[int], str]) -> None:
        took, notes = [], Counter[str]()
        for item in items:
            begun = time.perf_counter()
            note = call(item)
            took.append(time.perf_counter() - begun)
            notes[note] += 1
        self._add(what, took, ", ".join(note for note, _ in notes.most_common()))

    def _add(self, what: str, took: list[float], note: str) -> None:
        ordered = sorted(took)
        p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        self._rows.append(Row(what, len(took), statistics.median(ordered), p99, note))
