"""`chronik produce`: lines, or JSON lines, into a partition.

Place: a verb. Promise: what is counted as acknowledged is on disk; Ctrl-C, or a bad line, stops
reading, waits for what was handed over, and says how many records were acknowledged. Lines that
arrive slowly are appended as they come; files are appended in batches of about a mebibyte, with
several in flight.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field

import click

from chronik_store.cli import exits
from chronik_store.cli.lines import Line, parser_of
from chronik_store.cli.options import pass_session, topic_argument, verb
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import Progress, progress, say
from chronik_store.config import LogConfig
from chronik_store.errors import (
    BackpressureError,
    ChronikError,
    ConfigError,
    FencedError,
    LogClosedError,
    RecordTooLargeError,
    UnavailableError,
)
from chronik_store.model import AppendResult, Record, Watermarks
from chronik_store.partition_log import PartitionLog

READ_BYTES = 1 << 20
RECORDS_PER_BATCH = 5_000
IN_FLIGHT = 8
PROGRESS_SECONDS = 0.5
JSON_GROWTH = 12
"""A record as a line of --records has at most so many times its own bytes: a control character
takes 6 for one, and a header with neither name nor value 23 for two.
"""
JSON_BESIDE_BYTES = 1024
"""What stands on such a line beside the record: topic, partition, offset, time."""


@dataclass
class Tally:
    """What has been acknowledged so far, and what is still under way."""

    records: int = 0
    base_offset: int | None = None
    end_offset: int | None = None
    window: deque[Future[AppendResult]] = field(default_factory=deque)

    def settle_one(self) -> None:
        """Wait for the oldest append; its error, if it failed."""
        self.window[0].exception()  # Ctrl-C while waiting leaves it where it is
        result = self.window.popleft().result()
        self.records += result.end_offset - result.base_offset
        if self.base_offset is None:
            self.base_offset = result.base_offset
        self.end_offset = result.end_offset

    def settle(self) -> None:
        """Wait for all and count them; then the first error, if one failed."""
        first: ChronikError | None = None
        while self.window:
            try:
                self.settle_one()
            except ChronikError as error:
                first = first or error
        if first is not None:
            raise first

    def __str__(self) -> str:
        if self.base_offset is None:
            return "0 records acknowledged"
        return (
            f"{self.records} records acknowledged, offsets "
            f"{self.base_offset} to {(self.end_offset or 1) - 1}"
        )


@verb(
    "produce",
    "chronik produce events < lines.txt",
    "journalctl -f -o json | chronik produce journal --jsonl --key-field _HOSTNAME",
    "chronik produce events --key-sep : -p 2 a.txt b.txt",
    "chronik consume events --json | chronik -d elsewhere produce events --records",
    "chronik produce events --seal --object-store s3://bucket/prefix < lines.txt",
)
@topic_argument
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "-p",
    "--partition",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="The partition to append to.",
)
@click.option("--key-sep", metavar="TEXT", help="The key stands before the first TEXT of a line.")
@click.option("--jsonl", is_flag=True, help="Each line is a JSON object; it is stored as it is.")
@click.option("--key-field", metavar="NAME", help="With --jsonl: this field is the key.")
@click.option(
    "--time-field",
    metavar="NAME",
    help="With --jsonl: this field is the time, ISO 8601 or seconds since 1970.",
)
@click.option(
    "--records",
    is_flag=True,
    help="Lines as `consume --json` and `export` write them: key, value, time, headers; all of "
    "them into this partition.",
)
@click.option(
    "--seal",
    is_flag=True,
    help="All of the partition is in the bucket, and its search index, before this ends; without "
    "it what fills no segment waits here until it is 30 minutes old.",
)
@pass_session
def command(
    session: Session,
    topic: str,
    files: tuple[str, ...],
    partition: int,
    key_sep: str | None,
    jsonl: bool,
    key_field: str | None,
    time_field: str | None,
    records: bool,
    seal: bool,
) -> None:
    """Append each line of FILES, or of stdin, as one record.

    The topic is created if it is missing. A line's newline is not part of the record.
    """
    if (key_field or time_field) and not jsonl:
        raise click.UsageError("--key-field and --time-field need --jsonl")
    if key_sep == "":
        raise click.UsageError("--key-sep is empty: the key stands before a text")
    if sum(map(bool, (key_sep, jsonl, records))) > 1:
        raise click.UsageError("--key-sep, --jsonl and --records exclude each other")
    if seal and session.is_remote:
        raise click.UsageError("--seal: a server seals by itself")
    parse = parser_of(
        key_separator=key_sep, jsonl=jsonl, records=records,
        key_field=key_field, time_field=time_field,
    )  # fmt: skip
    tally = Tally()
    with session.writing_store(make=True) as store:
        if all(info.name != topic for info in store.topics()):
            store.create_topic(topic, partitions=partition + 1)
            say(f"created topic {topic}")
        log = store.partition(topic, partition)
        limit_bytes = _line_bytes_max(session.config(), records=records)
        with progress("produce", _size_of(files)) as bar:
            _append_all(log, files or ("-",), parse, limit_bytes, tally, bar)
        # Said before the store is closed, which may take long and changes nothing about it.
        if session.as_json:
            session.output.json(
                {"topic": topic, "partition": partition, "records": tally.records,
                 "base_offset": tally.base_offset, "end_offset": tally.end_offset}
            )  # fmt: skip
            session.output.flush()
        else:
            say(str(tally))
        if seal:
            log.seal()
        if not session.as_json:
            say_what_is_left(session, log)
        if not session.is_remote and session.config().pipeline_enabled:
            run_pipeline(log, session.config())
        if seal:
            _check_nothing_waits(session.config(), log)


def _check_nothing_waits(config: LogConfig, log: PartitionLog) -> None:
    """It was asked for, and is not so; the log has said why. FencedError: and never will be."""
    waiting = _waiting(config, log.watermarks)
    if not waiting:
        return
    if log.status().fenced:
        raise FencedError(
            f"{waiting} records are sealed and will never be in the bucket, which another store "
            "has taken over: they are in this directory only; write to the one that was restored "
            "from the bucket"
        )
    raise UnavailableError(
        f"{waiting} records are sealed and not in the bucket, or not in its search index: they are "
        "safe here, and the next writer goes on with them"
    )


def say_what_is_left(session: Session, log: PartitionLog) -> None:
    """What comes then may take as long as a whole segment does."""
    config, marks = session.config(), log.watermarks
    if not session.has_copies and (status := log.status()).fenced:
        note = next((note for note in status.notes if note.startswith("fenced")), "fenced")
        say(
            f"chronik: warning: {status.topic}/{status.partition} is {note}: what is written here "
            "stays in this directory and reaches no bucket; write to the directory that was "
            "restored from it"
        )
        return
    if session.is_remote:
        return  # a server goes on by itself
    waiting = _waiting(config, marks)
    if config.pipeline_enabled and waiting:
        say(
            f"offsets {marks.sealed - waiting} to {marks.sealed - 1} are not in the bucket yet, or "
            "not in its search index: that comes first (Ctrl-C leaves it to the next writer)"
        )


def _waiting(config: LogConfig, marks: Watermarks) -> int:
    """How many sealed records the pipeline has not done with."""
    return marks.sealed - (marks.indexed if config.indexing_enabled else marks.tiered)


def run_pipeline(log: PartitionLog, config: LogConfig) -> None:
    """Until what is sealed is in the bucket and its index, or a run comes no further; once in any
    case. What produces may be all that ever writes to a directory: nothing of it would be sealed
    by its age, or uploaded, and readers of the bucket would index all of it for each search.

    On a thread, which Ctrl-C leaves alone: closing ends it where its log can be left. Raises what
    the run does, a log that ended among it; the bucket's errors are logged.
    """
    outcome: Future[object] = Future()

    def run() -> None:
        try:
            report = log.run_pipeline_once()
            while _waiting(config, log.watermarks) and not (report.errors or report.idle):
                report = log.run_pipeline_once()
            outcome.set_result(None)
        except BaseException as error:  # noqa: BLE001 (it is the caller's)
            outcome.set_exception(error)

    left = _waiting(config, log.watermarks)
    with progress("bucket and index", left, unit="records") as bar:
        threading.Thread(target=run, name="chronik-produce", daemon=True).start()
        while not wait([outcome], timeout=PROGRESS_SECONDS).done:
            before, left = left, _waiting(config, log.watermarks)
            bar.advance(max(0, before - left))
    with suppress(LogClosedError):  # closed meanwhile: the rest is the next writer's
        outcome.result()


def _append_all(
    log: PartitionLog,
    files: Iterable[str],
    parse: Callable[[Line], Record | bytes],
    limit_bytes: int,
    tally: Tally,
    bar: Progress,
) -> None:
    """Hand everything over, then wait. However it ends, the tally says what was acknowledged."""
    try:
        try:
            for name in files:
                for lines, size_bytes in _lines_of(name, limit_bytes):
                    for base in range(0, len(lines), RECORDS_PER_BATCH):
                        part = lines[base : base + RECORDS_PER_BATCH]
                        _hand_over(log, [parse(line) for line in part], tally)
                    bar.advance(size_bytes)
        finally:
            tally.settle()  # its error says more than the one that ended the reading
    except KeyboardInterrupt:
        raise exits.Interrupted(f"interrupted; {tally}") from None
    except Exception:
        say(str(tally))
        raise


def _hand_over(log: PartitionLog, records: list[Record | bytes], tally: Tally) -> None:
    while True:
        try:
            tally.window.append(log.append_nowait(records))
            break
        except BackpressureError:
            if not tally.window:
                raise
            tally.settle_one()
    while len(tally.window) > IN_FLIGHT or (tally.window and tally.window[0].done()):
        tally.settle_one()


def _line_bytes_max(config: LogConfig, *, records: bool) -> int:
    """No record is on a longer line: lest one without an end fills the memory. Whether a shorter
    one is a record that the log takes, `append` knows.
    """
    if records:
        return JSON_GROWTH * config.record_bytes_max + JSON_BESIDE_BYTES
    return config.record_bytes_max


def _lines_of(name: str, limit_bytes: int) -> Iterator[tuple[list[Line], int]]:
    """(lines, bytes) of a file as they arrive: what one read call returned, cut at newlines."""
    number = 0
    shown = "stdin" if name == "-" else name
    rest = bytearray()
    descriptor = None
    try:
        descriptor = _stdin() if name == "-" else os.open(name, os.O_RDONLY)
        while chunk := os.read(descriptor, READ_BYTES):
            rest += chunk
            if b"\n" in chunk:
                *parts, tail = bytes(rest).split(b"\n")
                lines = [Line(data, shown, number + at) for at, data in enumerate(parts, 1)]
                number += len(parts)
                rest = bytearray(tail)
                yield lines, len(chunk)
            if len(rest) > limit_bytes:
                raise RecordTooLargeError(
                    f"{shown}:{number + 1} is longer than {limit_bytes} bytes",
                    size_bytes=len(rest),
                    limit_bytes=limit_bytes,
                )
        if rest:
            yield [Line(bytes(rest), shown, number + 1)], len(rest)
    except IsADirectoryError:
        raise ConfigError(f"{shown} is a directory") from None
    except OSError as error:
        raise UnavailableError(
            f"cannot read {shown} behind line {number}: {error.strerror}; the lines before are "
            "appended"
        ) from error
    finally:
        if descriptor is not None and name != "-":
            os.close(descriptor)


def _stdin() -> int:
    """Its descriptor. ConfigError when the caller has closed it."""
    if sys.stdin is None:
        raise ConfigError("there is no standard input (it is closed): name a file")
    return sys.stdin.fileno()


def _size_of(files: tuple[str, ...]) -> int | None:
    """All bytes to come, if they are known."""
    total = 0
    for name in files or ("-",):
        status = os.fstat(_stdin()) if name == "-" else os.stat(name)
        if not stat.S_ISREG(status.st_mode):
            return None
        total += status.st_size
    return total
