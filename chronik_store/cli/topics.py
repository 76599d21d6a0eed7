"""`chronik topic list|create|describe|delete`.

Place: a verb group. Promise: `delete` asks first on a terminal, and without one wants --yes.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from chronik_store.cli.options import pass_session, subverb, topic_argument
from chronik_store.cli.rendering import count_text, size_text
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import is_terminal, say
from chronik_store.errors import ConfigError, TopicExistsError, TopicNotFoundError
from chronik_store.model import LogStatus


@click.group("topic")
def command() -> None:
    """List, create, describe and delete topics."""


@subverb(command, "list", "chronik topic list", "chronik topic list --json")
@pass_session
def list_(session: Session) -> None:
    """The topics, with their size."""
    rows = []
    for topic in _bucket_topics(session) if session.in_bucket else _topics(session):
        if session.as_json:
            session.output.json(topic)
        size = size_text(topic["bytes"])
        rows.append((topic["topic"], str(topic["partitions"]), str(topic["records"]), size))
    if not session.as_json:
        session.output.table(("TOPIC", "PARTITIONS", "RECORDS", "SIZE"), rows)


def _topics(session: Session) -> list[dict[str, Any]]:
    with session.reading_store() as store:
        topics = store.topics()
        parts = store.status().partitions
    return [
        _summary(
            topic.name, topic.topic_id, topic.partitions,
            [part for part in parts if part.topic == topic.name],
        )
        for topic in topics
    ]  # fmt: skip


def _bucket_topics(session: Session) -> list[dict[str, Any]]:
    with session.every_lane() as topics:
        status = [(name, [log.status() for _, log in lanes]) for name, lanes in topics]
    return [_summary(name, parts[0].topic_id, len(parts), parts) for name, parts in status]


def _summary(name: str, topic_id: str, partitions: int, parts: list[LogStatus]) -> dict[str, Any]:
    lines = [part.watermarks for part in parts]
    return {
        "topic": name,
        "topic_id": topic_id,
        "partitions": partitions,
        "records": sum(line.committed - line.start for line in lines),
        "bytes": sum(part.wal_bytes + part.segment_bytes for part in parts),
    }


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
    help="How many; --exist-ok adds to them later, except in a cluster.",
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
    help="No error if it is there; partitions that it lacks are added (a cluster refuses that).",
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
            if exist_ok:  # it is there, with another number of partitions
                raise
            raise TopicExistsError(
                f"topic {topic!r} exists; --exist-ok accepts that", topic=topic
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
def describe(session: Session, topic: str) -> None:
    """One line for each partition of TOPIC."""
    if session.in_bucket:
        with session.reading_lanes(topic, None) as lanes:
            parts = [log.status() for _, log in lanes]
    else:
        with session.reading_store() as store:
            status = store.status()
        parts = [part for part in status.partitions if part.topic == topic]
        if not parts:
            raise TopicNotFoundError(f"no topic {topic!r} in {status.path}", topic=topic)
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
