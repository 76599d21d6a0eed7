"""`chronik status`: where every record is, and what stands still.

Place: a verb; reads only. Promise: the numbers of one line belong together; a store that stalls
says so here (`last_error`, notes), and nothing printed holds a secret.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import click

from chronik_store.cli import exits
from chronik_store.cli.options import FiniteRange, pass_session, verb
from chronik_store.cli.overview import overview, tell
from chronik_store.cli.plot import bar_of
from chronik_store.cli.rendering import count_text, size_text
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import Output, say
from chronik_store.errors import ChronikError, TopicNotFoundError, UnavailableError
from chronik_store.log_status import CUT, LOST
from chronik_store.model import LogStatus, StoreStatus, TopicInfo

BAR_CELLS = 48


@verb(
    "status",
    "chronik status",
    "chronik status events --watch",
    "chronik status --json | jq .watermarks",
    "chronik -d s3://bucket/prefix status events",
)
@click.argument("topic", required=False)
@click.option("-w", "--watch", is_flag=True, help="Draw it anew every second.")
@click.option(
    "--interval",
    type=FiniteRange(min=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often --watch draws.",
)
@pass_session
def command(session: Session, topic: str | None, watch: bool, interval: float) -> int | None:
    """Show each partition's plot line: where its records are."""
    if session.in_bucket:
        return _bucket_status(session, topic)
    with session.reading_store() as store:
        while True:
            infos = store.topics() if session.is_remote else ()
            status = store.status()
            parts = [part for part in status.partitions if topic in {None, part.topic}]
            failures: list[str | ChronikError] = [*status.unavailable]
            if not failures and (missing := _missing(infos, parts, topic)):
                failures.append(UnavailableError(f"no node that answers has {missing}"))
            if topic is not None and not parts and not failures:
                raise TopicNotFoundError(f"no topic {topic!r} in {status.path}", topic=topic)
            output = session.output
            if watch and output.terminal and not output.as_json:
                output.text("\x1b[H\x1b[2J")
            _show(output, status, parts, is_all=not failures)
            output.flush()
            tell(failures, as_json=output.as_json)
            if not watch:
                return _code_of(status, is_all=not failures)
            session.clock.sleep(interval)


def _missing(infos: Iterable[TopicInfo], parts: Iterable[LogStatus], topic: str | None) -> str:
    """Which partitions of these topics nobody has told of; "" for none."""
    told = {(part.topic, part.partition) for part in parts}
    return ", ".join(
        f"{info.name}/{number}"
        for info in infos
        if topic in {None, info.name}
        for number in range(info.partitions)
        if (info.name, number) not in told
    )


def _code_of(status: StoreStatus, *, is_all: bool) -> int:
    """Of a directory and of a server alike: damage weighs most. A reader shows what is good of a
    log that its server cannot open: that is damage to both.
    """
    notes = [note for part in status.partitions for note in part.notes]
    if status.damaged or any(note == LOST or note.startswith(CUT) for note in notes):
        return exits.CORRUPTION
    return exits.DONE if is_all else exits.UNAVAILABLE


def _bucket_status(session: Session, topic: str | None) -> int:
    found = overview(session, topic)
    for each in found.topics:
        for part in each.parts:
            _show_partition(session.output, part)
    if not found.topics:
        say(f"chronik: no topic of {session.place} has published a segment yet")
    return found.outcome(found.topics, session.output)


def _show(output: Output, status: StoreStatus, parts: list[LogStatus], *, is_all: bool) -> None:
    if output.as_json:
        for part in parts:
            output.json(_json_of(part))
        return
    free = size_text(status.disk_free_bytes)
    output.line(
        f"{status.path}  store {status.store_id[:8]}  {free} free  -> {status.object_store}"
    )
    if not parts and is_all:
        say("chronik: no topics yet; `chronik produce NAME` makes one")
    for part in parts:
        _show_partition(output, part)


def _show_partition(output: Output, part: LogStatus) -> None:
    if output.as_json:
        output.json(_json_of(part))
        return
    line = part.watermarks
    output.line()
    output.drawn(output.styled(f"{part.topic}/{part.partition}", "1") + f"  {_facts(part)}")
    output.drawn(f"  {bar_of(line, BAR_CELLS, colour=output.colour)}")
    output.line(f"  {line}")
    for name, offset in sorted(part.cursors.items()):
        behind = max(0, line.committed - offset)  # of a bucket it may be past what that has
        output.line(f"  cursor {name} at {offset}, {behind} behind")
    for note in (*part.notes, *(() if part.last_error is None else (part.last_error,))):
        output.drawn("  " + output.styled(f"! {note}", "31"))


def _facts(part: LogStatus) -> str:
    facts = [f"wal {size_text(part.wal_bytes)} in {count_text(part.wal_files, 'file')}"]
    if part.local_segment_bytes:
        facts.append(f"local segments {size_text(part.local_segment_bytes)}")
    segments = count_text(part.segments, "segment")
    facts.append(f"bucket {size_text(part.segment_bytes)} in {segments}")
    facts.append(f"{part.bundles} search index{'' if part.bundles == 1 else 'es'}")
    return ", ".join(facts)


def _json_of(part: LogStatus) -> dict[str, Any]:
    value = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    value["watermarks"] = dataclasses.asdict(part.watermarks)
    value["cursors"] = dict(part.cursors)
    return value
