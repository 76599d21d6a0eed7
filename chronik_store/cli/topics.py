"""`chronik topic list|create|describe|delete`.

Place: a verb group. Promise: `delete` asks first on a terminal, and without one wants --yes.
"""

from __future__ import annotations

import sys

import click

from chronik_store.cli.options import pass_session, subverb, topic_argument
from chronik_store.cli.overview import overview
from chronik_store.cli.rendering import count_text, size_text
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import is_terminal, say
from chronik_store.errors import ConfigError, TopicExistsError, TopicNotFoundError


@click.group("topic")
def command() -> None:
    """List, create, describe and delete topics."""


@subverb(command, "list", "chronik topic list", "chronik topic list --json")
@pass_session
def list_(session: Session) -> int:
    """The topics, with their size; "+" where some of it could not be looked at."""
    found = overview(session)
    rows = []
    for topic in found.topics:
        lines = [part.watermarks for part in topic.parts]
        partitions = len(topic.parts) + len(topic.missing)
        records = sum(line.committed - line.start for line in lines)
        size = sum(part.wal_bytes + part.segment_bytes for part in topic.parts)
        if session.as_json:
            session.output.json(
                {"topic": topic.name, "topic_id": topic.topic_id, "partitions": partitions,
                 "records": records, "bytes": size, "missing": topic.missing}
            )  # fmt: skip
        more = "+" if topic.missing else ""
        rows.append((topic.name, str(partitions), f"{records}{more}", f"{size_text(size)}{more}"))
    if not session.as_json:
        session.output.table(("TOPIC", "PARTITIONS", "RECORDS", "SIZE"), rows)
    return found.outcome(found.topics, session.output)


@subverb(
    command, "create", "chronik topic create events", "chronik topic create events --partitions 3"
)
@topic_argument
@click.option(
    "--partitions",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many; --exist-ok adds to them later.",
)
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    metavar="N",
    help="In a cluster: copies of each partition.  [default: 3, or as many as there are nodes]",
)
@click.option(
    "--exist-ok",
    is_flag=True,
    help="No error if it is there; partitions that it lacks are added.",
)
@pass_session
def create(
    session: Session, topic: str, partitions: int, replicas: int | None, exist_ok: bool
) -> None:
    """Create TOPIC, and the data directory with it."""
    if replicas is not None and not session.has_copies:
        raise ConfigError("--replicas is for topics of a cluster: name a node with -s HOST:PORT")
    copies = {} if replicas is None else {"replicas": replicas}
    with session.writing_store(make=True) as store:
        try:
            info = store.create_topic(topic, partitions=partitions, exist_ok=exist_ok, **copies)
        except TopicExistsError as error:
            if exist_ok:  # with fewer partitions, at a cluster of an older version: it adds none
                raise
            raise TopicExistsError(
                f"topic {topic!r} exists; --exist-ok accepts that, and adds partitions it lacks",
                topic=topic,
            ) from error
    if session.as_json:
        session.output.json(
            {"topic": info.name, "topic_id": info.topic_id, "partitions": info.partitions}
        )
    else:
        count = count_text(info.partitions, "partition")
        say(f"topic {info.name}, {count}, id {info.topic_id}")


@subverb(command, "describe", "chronik topic describe events")
@topic_argument
@pass_session
def describe(session: Session, topic: str) -> int:
    """One line for each partition of TOPIC."""
    found = overview(session, topic)
    if not found.topics:
        raise TopicNotFoundError(f"no topic {topic!r} in {session.place}", topic=topic)
    parts = found.topics[0].parts
    heads = ("PARTITION", "START", "INDEXED", "TIERED", "SEALED", "COMMITTED", "LOCAL", "BUCKET")
    rows = []
    for part in parts:
        line = part.watermarks
        limits = (line.start, line.indexed, line.tiered, line.sealed, line.committed)
        if session.as_json:
            session.output.json(
                {"topic": topic, "topic_id": part.topic_id, "partition": part.partition,
                 "log_id": part.log_id, "start": line.start, "indexed": line.indexed,
                 "tiered": line.tiered, "sealed": line.sealed, "committed": line.committed,
                 "local_bytes": part.wal_bytes + part.local_segment_bytes,
                 "bucket_bytes": part.segment_bytes}
            )  # fmt: skip
        local = size_text(part.wal_bytes + part.local_segment_bytes)
        bucket = size_text(part.segment_bytes)
        rows.append((str(part.partition), *map(str, limits), local, bucket))
    if not session.as_json:
        session.output.table(heads, rows)
    return found.outcome(found.topics, session.output)


@subverb(command, "delete", "chronik topic delete events --yes")
@topic_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def delete(session: Session, topic: str, yes: bool) -> None:
    """Delete TOPIC: its records here and in the bucket."""
    if not yes:
        if not is_terminal(sys.stdin):
            raise click.UsageError("nobody to ask: say --yes")
        click.confirm(
            f"Delete all records of {topic}, here and in the bucket?", abort=True, err=True
        )
    with session.writing_store() as store:
        store.delete_topic(topic)
    say(f"deleted {topic}")
