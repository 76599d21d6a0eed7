"""`chronik consume`: records of a topic to stdout.

Place: a verb. Promise: a cursor is committed only past records that have left this process, so a
crash or a signal repeats records and loses none. Partitions are merged by time; within one the
order is the log's. Who follows all of a topic gets the records of partitions that come later, too,
from their start.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import click

from chronik_store.cli import exits
from chronik_store.cli.moments import first_offset, moment_us
from chronik_store.cli.options import (
    partition_option,
    pass_session,
    since_option,
    topic_argument,
    verb,
)
from chronik_store.cli.rendering import FORMAT_HELP, format_of, json_of
from chronik_store.cli.session import Lanes, Look, Session, lanes_of
from chronik_store.cursor import Cursor
from chronik_store.errors import ChronikError
from chronik_store.model import StoredRecord
from chronik_store.partition_log import PartitionLog

COMMIT_SECONDS = 1.0
POLL_SECONDS = 0.2
LOOK_SECONDS = 30.0
"""Between looks whether a topic that is followed has more partitions by now."""
Numbered = tuple[int, StoredRecord]
"""(partition, record)"""


class Delivery:
    """Prints records, counts them, and moves the cursors behind what has been printed."""

    def __init__(
        self, session: Session, show: Callable[[Numbered], None], cursors: dict[int, Cursor]
    ) -> None:
        self._session = session
        self._show = show
        self._cursors = cursors
        self._next: dict[int, int] = {}
        self._last = session.clock.monotonic()
        self.count = 0

    def deliver(self, item: Numbered) -> None:
        """Print one record; now and then also what `settle` does."""
        self._show(item)
        self.count += 1
        if self._cursors:
            self._next[item[0]] = item[1].offset + 1
            if self._session.clock.monotonic() - self._last > COMMIT_SECONDS:
                self.settle()

    def settle(self) -> None:
        """Flush, and only then commit: delivered at least once."""
        self._session.output.flush()
        if self._session.output.is_cut:
            return  # what came after the last commit is printed again
        for partition, offset in self._next.items():
            self._cursors[partition].commit(offset)
        self._next.clear()
        self._last = self._session.clock.monotonic()

    def report_interrupted(self) -> str:
        """The last line after Ctrl-C."""
        if not self._session.output.is_cut:
            return f"interrupted; {self.count} records printed"
        again = ": the cursor has not moved past them, they come again" if self._cursors else ""
        return f"interrupted amid output; the last records are not all there{again}"


@verb(
    "consume",
    "chronik consume events",
    "chronik consume events --from -10 --follow",
    "chronik consume events --since 15m --format '%o %t %k %v\\n'",
    "chronik consume events --cursor billing --json | ./bill",
    "chronik -d s3://bucket/prefix consume events -n 5",
)
@topic_argument
@partition_option
@click.option(
    "--from",
    "place",
    metavar="PLACE",
    help="earliest (default), latest, an offset, or -N for the last N records. Beside --since: the "
    "later of the two, in each partition.",
)
@since_option
@click.option("-n", "--count", type=click.IntRange(min=0), metavar="MAX", help="Stop after MAX.")
@click.option("-f", "--follow", is_flag=True, help="Wait for more, until interrupted.")
@click.option(
    "--cursor",
    "cursor_name",
    metavar="NAME",
    help="Go on where NAME stands and move it along. Opens the directory for writing.",
)
@click.option(
    "--linearizable",
    is_flag=True,
    help="With -s: a quorum confirms the leader before each answer, so that nothing that was "
    "acknowledged before is missing.",
)
@click.option(
    "--format", "pattern", metavar="FORMAT", default="%v\\n", show_default=True, help=FORMAT_HELP
)
@pass_session
def command(
    session: Session,
    topic: str,
    partition: int | None,
    place: str | None,
    since: str | None,
    count: int | None,
    follow: bool,
    cursor_name: str | None,
    linearizable: bool,
    pattern: str,
) -> int:
    """Print the records of TOPIC, oldest first."""
    if linearizable:
        session.confirm_reads()
    if cursor_name is not None and (place is not None or since is not None):
        raise click.UsageError(
            "--cursor says where to begin: leave out --from and --since, or "
            "move it with `chronik cursor set`"
        )
    cursors: dict[int, Cursor] = {}
    since_us = None if since is None else moment_us(since, session.now_us)

    def start_of(number: int, log: PartitionLog, place: str | None) -> int:
        if cursor_name is None:
            return first_offset(log, place, since_us)
        cursors[number] = log.cursor(cursor_name)
        return cursors[number].offset

    with ExitStack() as stack:
        if cursor_name is None:
            look = stack.enter_context(session.looking_at(topic, partition))
        else:
            store = stack.enter_context(session.writing_store())
            look = partial(lanes_of, store, topic, partition)
        lanes = look(())
        reading = _Reading(session, lanes, {at: start_of(at, log, place) for at, log in lanes})
        delivery = Delivery(session, _printer(session, topic, pattern), cursors)
        records = reading.records()
        if follow:
            begin = partial(start_of, place=None)
            records = itertools.chain(records, reading.follow(delivery, look, begin))
        try:
            # islice counts to sys.maxsize at the most, and refuses more.
            for item in itertools.islice(
                records, None if count is None else min(count, sys.maxsize)
            ):
                delivery.deliver(item)
            delivery.settle()
        except KeyboardInterrupt:
            delivery.settle()
            raise exits.Interrupted(delivery.report_interrupted()) from None
        except ChronikError:
            delivery.settle()  # what was read before it counts as read
            raise
        return exits.DONE if delivery.count == count else session.outcome(lanes)


def _printer(session: Session, topic: str, pattern: str) -> Callable[[Numbered], None]:
    output = session.output
    if session.as_json:
        return lambda item: output.json(json_of(item[1], topic, item[0]))
    text = format_of(pattern, for_terminal=output.terminal)
    return lambda item: output.text(text(item[1], item[0]))


class _Reading:
    """The partitions that are read, and how far."""

    def __init__(self, session: Session, lanes: Lanes, starts: dict[int, int]) -> None:
        self._session = session
        self._lanes = lanes
        self._starts = starts
        self._ends = {number: log.watermarks.committed for number, log in lanes}

    def records(self) -> Iterator[Numbered]:
        """What is there now, merged by time."""
        streams = [
            _stream(number, log, self._starts[number], self._ends[number])
            for number, log in self._lanes
        ]
        yield from heapq.merge(*streams, key=lambda item: item[1].timestamp_us)

    def follow(
        self, delivery: Delivery, look: Look, begin: Callable[[int, PartitionLog], int]
    ) -> Iterator[Numbered]:
        """What comes behind that, as it comes."""
        clock, ends = self._session.clock, self._ends
        looked_at = clock.monotonic()
        while True:
            delivery.settle()
            self._session.output.check_reader()
            if clock.monotonic() - looked_at >= LOOK_SECONDS:
                looked_at = clock.monotonic()
                for number, log in look(ends):
                    self._lanes.append((number, log))
                    ends[number] = begin(number, log)
            moved = False
            wait_seconds = POLL_SECONDS if len(self._lanes) == 1 else 0.0
            for number, log in self._lanes:
                fetched = log.read(ends[number], wait_seconds=wait_seconds)
                yield from ((number, record) for record in fetched)
                moved |= fetched.next_offset > ends[number]
                ends[number] = fetched.next_offset
            if not moved and len(self._lanes) > 1:
                clock.sleep(POLL_SECONDS)


def _stream(number: int, log: PartitionLog, start: int, stop: int) -> Iterator[Numbered]:
    return ((number, record) for record in log.scan(start, stop))
