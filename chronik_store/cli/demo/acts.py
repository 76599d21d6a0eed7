"""The four acts.

Place: called by `command`; uses the library as any program does, and `writer` as a child process.
Promise: what is claimed was computed here: counts are compared with the input, line by line.
"""

from __future__ import annotations

import datetime as dt
import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self

from chronik_store.bucket_log import open_bucket
from chronik_store.cli.demo.queries import Question, questions_for
from chronik_store.cli.demo.source import Source
from chronik_store.cli.demo.stage import Stage
from chronik_store.cli.demo.writer import TOPIC, config_of
from chronik_store.cli.rendering import duration_text, size_text
from chronik_store.errors import ChronikError
from chronik_store.log_store import LogStore
from chronik_store.model import Watermarks
from chronik_store.partition_log import PartitionLog

SEGMENTS = 8
FRESH_SECONDS = 1.0
FRESH_ROUNDS = 5
HEARTBEATS_PER_BATCH = 50


class ChildFailed(Exception):  # noqa: N818 (the play stops; `command` prints why)
    """The writing process ended with an error of its own."""


@dataclass
class Play:
    """One performance: its input, its places, and what has been found out so far."""

    source: Source
    directory: Path
    stage: Stage
    lines: int
    size_bytes: int
    killed_us: int = 0
    acknowledged: int = 0
    questions: list[Question] = field(default_factory=list)
    child: subprocess.Popen[str] | None = None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    @property
    def bucket(self) -> str:
        """The bucket: here a directory; any s3:// URL works the same."""
        return f"file://{self.directory}/bucket"

    @property
    def segment_bytes(self) -> int:
        """Small enough for several segments."""
        return max(256 << 10, self.size_bytes // SEGMENTS)

    def perform(self) -> None:
        """All acts, in order."""
        self.act_one()
        self.act_two()
        self.act_three()
        self.act_four()

    # --- acts one and two: a child appends and is killed -----------------------------------------

    def act_one(self) -> None:
        """A child process appends at full speed and is killed half-way."""
        stage = self.stage
        stage.act(1, "A process appends lines, each acknowledged only when it is on disk")
        stage.note(f"{self.lines:,} lines, {size_text(self.size_bytes)}, into {self.data}")
        begun = time.monotonic()
        try:
            child = self._start(hold_at=max(1, self.lines * 2 // 3))
            for event in self._events(child):
                if event["event"] == "opened":
                    begun = time.monotonic()
                self.acknowledged = event["end"]
                if event["end"] >= max(1, self.lines // 2):
                    break
            rate = self.acknowledged / max(time.monotonic() - begun, 1e-9)
            self.killed_us = time.time_ns() // 1000
            child.kill()
            # What it had said before it died counts, too.
            for event in self._events(child):
                self.acknowledged = event["end"]
        finally:
            self._end()
        stage.claim("appended, synced and acknowledged", f"{rate:,.0f} lines/s",
                    holds=self.acknowledged > 0)  # fmt: skip

    def act_two(self) -> None:
        """The log is opened again; what was acknowledged is there; the rest follows."""
        stage = self.stage
        stage.act(2, f"kill -9 at line {self.acknowledged:,}; the same log is opened again")
        try:
            child = self._start()
            events = self._events(child)
            opened = next(events)
            stage.claim("acknowledged before the kill", f"{self.acknowledged:,}", holds=True)
            stage.claim("recovered, at least those", f"{opened['end']:,}",
                        holds=opened["end"] >= self.acknowledged)  # fmt: skip
            stage.claim("recovery", f"{duration_text(opened['seconds'])}, {opened['verdict']}",
                        holds=opened["verdict"] in {"clean", "torn"})  # fmt: skip
            last = opened
            for event in events:
                if event["event"] == "written":
                    stage.note(
                        f"the rest is appended: {event['end']:,} lines; the pipeline goes on"
                    )
                last = event
        finally:
            self._end()
        if last["event"] != "done":
            raise ChildFailed("the writing process ended early")
        line = Watermarks(*last["line"])
        stage.claim("in the bucket, with a search index", f"{line.indexed:,} lines",
                    holds=line.indexed == self.lines)  # fmt: skip

    def _start(self, hold_at: int | None = None) -> subprocess.Popen[str]:
        task = {
            "directory": str(self.data),
            "bucket": self.bucket,
            "root": str(self.source.root),
            "files": [str(path) for path in self.source.files],
            "limit": self.source.limit,
            "hold_at": hold_at,
            "segment_bytes": self.segment_bytes,
        }
        path = self.directory / "task.json"
        path.write_text(json.dumps(task))
        command = [sys.executable, "-m", "chronik_store.cli.demo.writer", str(path)]
        # Ctrl-C in the middle of it would leave a child that nobody knows, in a directory that is
        # about to be removed. The child never sees one: it is killed.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self.child = subprocess.Popen(  # noqa: S603 (our own module, our own arguments)
                command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self.child

    def _end(self) -> None:
        """The child is gone when this returns, whatever state the play is in."""
        child, self.child = self.child, None
        if child is None:
            return
        if child.poll() is None:
            child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()

    def _events(self, child: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
        assert child.stdout is not None
        for text in child.stdout:
            if not text.endswith("\n"):
                return  # cut off by the kill
            event = json.loads(text)
            self.stage.move(Watermarks(*event["line"]))
            yield event
        if child.wait() > 0:
            raise ChildFailed(f"the writing process ended with {child.returncode}")

    # --- act three: the directory is lost --------------------------------------------------------

    def act_three(self) -> None:
        """The data directory is gone; the bucket alone is compared with the input."""
        stage = self.stage
        stage.act(3, "The data directory is moved away; the log is opened from the bucket alone")
        lost = self.data.rename(self.directory / "data.lost")
        try:
            sample = (value for _, value in self.source.records())
            self.questions = questions_for(sample, self.killed_us)
            begun = time.monotonic()
            with open_bucket(self.bucket, topic=TOPIC) as log:
                opened = time.monotonic() - begun
                stage.move(log.watermarks)
                same, different = self._compare(log)
            seconds = time.monotonic() - begun
        finally:
            lost.rename(self.data)
        stage.note(f"opened from {self.bucket} in {duration_text(opened)}")
        stage.claim("lines equal to the input, key and value", f"{same:,} of {self.lines:,}",
                    holds=same == self.lines and not different)  # fmt: skip
        stage.claim("read back from the bucket", f"{same / seconds:,.0f} lines/s", holds=True)

    def _compare(self, log: PartitionLog) -> tuple[int, int]:
        same = different = 0
        for record, expected in zip_longest(log.scan(), self.source.records()):
            if record is None or (record.key, record.value) != expected:
                different += 1
                continue
            same += 1
            lowered = record.value.lower()
            for question in self.questions:
                question.see(lowered, record.timestamp_us)
        return same, different

    # --- act four: search ------------------------------------------------------------------------

    def act_four(self) -> None:
        """The directory is back: search while another thread appends."""
        self.stage.act(4, "The directory is back; search while appends go on")
        config = config_of(self.segment_bytes)
        with LogStore.open(self.data, object_store=self.bucket, config=config) as store:
            log = store.partition(TOPIC)
            with _Heartbeat(log) as heartbeat:
                first = _seconds_until_found(log)  # it unpacks the bundles
                waits = sorted(_seconds_until_found(log) for _ in range(FRESH_ROUNDS))
                self.stage.move(log.watermarks)
                self._ask(log)
        if heartbeat.error is not None:
            raise heartbeat.error
        self.stage.note(
            f"the first search, which unpacks the indexes: {duration_text(first)}; "
            f"then the slowest of {FRESH_ROUNDS}: {duration_text(waits[-1])}"
        )
        # The middle one is judged: the slowest is as often that of other work on this machine.
        middle = waits[FRESH_ROUNDS // 2]
        self.stage.claim(
            f"found after its acknowledgement (middle of {FRESH_ROUNDS})",
            duration_text(middle),
            holds=middle <= FRESH_SECONDS,
        )
        self.stage.claim(
            "appended meanwhile", f"{heartbeat.count:,} lines", holds=heartbeat.count > 0
        )

    def _ask(self, log: PartitionLog) -> None:
        for question in self.questions:
            found = log.search(question.query, since=question.since_us, limit=3)
            since = "" if question.since_us is None else f" since {_clock(question.since_us)}"
            exact = "" if found.total_is_exact else " or more"
            self.stage.claim(
                f"{question.name}: {question.query}{since}, as counted",
                f"{found.total:,}{exact} in {duration_text(found.elapsed_seconds)}",
                holds=found.total == question.expected and found.complete,
            )


def _clock(time_us: int) -> str:
    return dt.datetime.fromtimestamp(time_us / 1e6, dt.UTC).strftime("%H:%M:%S")


def _seconds_until_found(log: PartitionLog) -> float:
    """Append one record that nobody has written before; search until it is found."""
    word = "needle" + uuid.uuid4().hex[:12]
    log.append(f"in the haystack: {word}".encode())
    begun = time.monotonic()
    while not log.search(word, limit=1).hits:
        if time.monotonic() - begun > 10 * FRESH_SECONDS:
            break
        time.sleep(0.005)
    return time.monotonic() - begun


class _Heartbeat:
    """A thread that appends while the block runs."""

    def __init__(self, log: PartitionLog) -> None:
        self._log = log
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat")
        self.count = 0
        self.error: ChronikError | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.01):
                batch = [b"heartbeat %d" % (self.count + at) for at in range(HEARTBEATS_PER_BATCH)]
                self._log.append(batch)
                self.count += len(batch)
        except ChronikError as error:
            self.error = error
