"""`chronik cursor list|set|delete`: the named positions of readers.

Place: a verb group. Promise: `list` opens read-only; `set` moves a cursor back only with --reset.
"""

from __future__ import annotations

import click

from chronik_store.cli import exits
from chronik_store.cli.moments import first_offset
from chronik_store.cli.options import partition_option, pass_session, subverb, topic_argument
from chronik_store.cli.overview import overview
from chronik_store.cli.session import Session, lanes_of
from chronik_store.cli.terminal import say
from chronik_store.errors import TopicNotFoundError


@click.group("cursor")
def command() -> None:
    """List, set and delete cursors, the named positions of readers."""


@subverb(command, "list", "chronik cursor list", "chronik cursor list events --json")
@click.argument("topic", required=False)
@pass_session
def list_(session: Session, topic: str | None) -> int:
    """Each cursor, where it stands, and how many records it is behind."""
    found = overview(session, topic)
    if topic is not None and not found.topics:
        raise TopicNotFoundError(f"no topic {topic!r} in {session.place}", topic=topic)
    rows = []
    for part in (part for each in found.topics for part in each.parts):
        for name, offset in sorted(part.cursors.items()):
            behind = max(0, part.watermarks.committed - offset)
            if session.as_json:
                session.output.json(
                    {"topic": part.topic, "partition": part.partition, "cursor": name,
                     "offset": offset, "behind": behind}
                )  # fmt: skip
            rows.append((part.topic, str(part.partition), name, str(offset), str(behind)))
    if not session.as_json and rows:
        session.output.table(("TOPIC", "PARTITION", "CURSOR", "OFFSET", "BEHIND"), rows)
    return found.outcome(found.topics, session.output) or (exits.DONE if rows else exits.NOTHING)


@subverb(
    command, "set",
    "chronik cursor set events billing latest", "chronik cursor set events billing 0 --reset",
)  # fmt: skip
@topic_argument
@click.argument("name")
@click.argument("place")
@partition_option
@click.option("--reset", is_flag=True, help="Also move it back.")
@pass_session
def set_(
    session: Session, topic: str, name: str, place: str, partition: int | None, reset: bool
) -> None:
    """Put cursor NAME of TOPIC at PLACE: earliest, latest, an offset, or -N (after --)."""
    with session.writing_store() as store:
        for number, log in lanes_of(store, topic, partition):
            offset = first_offset(log, place, None)
            log.cursor(name).commit(offset, reset=reset)
            say(f"{topic}/{number}: cursor {name} at {offset}")


@subverb(command, "delete", "chronik cursor delete events billing")
@topic_argument
@click.argument("name")
@partition_option
@pass_session
def delete(session: Session, topic: str, name: str, partition: int | None) -> int:
    """Forget cursor NAME of TOPIC; exit 1 if there is none."""
    found = False
    with session.writing_store() as store:
        for number, log in lanes_of(store, topic, partition):
            cursor = log.cursor(name)
            if cursor.committed_offset is not None:
                cursor.delete()
                found = True
                say(f"{topic}/{number}: cursor {name} deleted")
    return exits.DONE if found else exits.NOTHING
