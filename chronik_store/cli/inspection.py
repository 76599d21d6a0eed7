"""`chronik inspect`: what is inside a file or an object, structure by structure.

Place: a verb; reads one file. Promise: exit 4 when something in it is damaged.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from chronik_store.cli import exits
from chronik_store.cli.anatomy import DAMAGE, items_of, records_of
from chronik_store.cli.options import pass_session, verb
from chronik_store.cli.rendering import time_text
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import Output, say
from chronik_store.environment import Environment
from chronik_store.errors import ConfigError, UnavailableError
from chronik_store.objectstore.open import open_object_store

_KEY = re.compile(r"(.+?)/((?:segments|indexes|manifests)/.+|STORE)")
SHORT_CHARS = 100


@verb(
    "inspect",
    "chronik inspect data/wal/events/0/wal_*.log",
    "chronik inspect --json data/wal/events/0/wal_00000000000000000001.log | jq .index",
    "chronik inspect s3://bucket/prefix/manifests/events/0/LOG/00000000000000000007.cbor",
    "chronik inspect --records wal_*.log | jq -c 'select(.offset >= 340)' > lost.jsonl",
)
@click.argument("places", nargs=-1, required=True, metavar="FILE|URL...")
@click.option(
    "-n",
    "--count",
    type=click.IntRange(min=0),
    metavar="MAX",
    help="Stop after MAX structures of each file.",
)
@click.option(
    "--records",
    is_flag=True,
    help="Only the records of WAL files, behind damage too, as `produce --records` takes them.",
)
@pass_session
def command(session: Session, places: tuple[str, ...], count: int | None, records: bool) -> int:
    """Take apart WAL files, segments, manifests, search bundles and STORE files."""
    damaged = False
    for place in places:
        if records:
            damaged |= _show_records(session, place, count)
            continue
        if len(places) > 1 and not session.as_json:
            session.output.drawn(session.output.styled(place, "1"))
        for number, (what, fields) in enumerate(items_of(_read(session, place), place)):
            if number == count:
                break
            damaged |= what == DAMAGE
            _show(session, place, what, fields)
    return exits.CORRUPTION if damaged else exits.DONE


def _show_records(session: Session, place: str, count: int | None) -> bool:
    """True if something in the file is damaged; that is said on stderr, records are stdout's."""
    damaged, shown = False, 0
    for what, fields in records_of(_read(session, place), place):
        if what == DAMAGE:
            damaged = True
            say(f"damage in {place}: " + "  ".join(f"{n}={_text(n, v)}" for n, v in fields.items()))
        elif count is None or shown < count:
            shown += 1
            session.output.json(fields)
    return damaged


def _read(session: Session, place: str) -> bytes:
    if "://" not in place or place.startswith("file://"):
        try:
            return Path(place.removeprefix("file://")).read_bytes()
        except OSError as error:
            raise UnavailableError(f"cannot read {place}: {error.strerror}") from error
    found = _KEY.fullmatch(place)
    if found is None:
        raise ConfigError(f"{place} names no object: a key has segments/, indexes/ or manifests/")
    store = open_object_store(found[1], env=Environment(), s3=session.config().s3, read_only=True)
    try:
        return store.get(found[2])
    finally:
        store.close()


def _show(session: Session, place: str, what: str, fields: dict[str, Any]) -> None:
    output = session.output
    if session.as_json:
        output.json({"file": place, "structure": what} | fields)
        return
    style = "31" if what == DAMAGE else "36"
    words = [output.styled(what, style)]
    nested: list[tuple[str, Any]] = []
    for name, value in fields.items():
        if isinstance(value, dict | list) and len(str(value)) > SHORT_CHARS:
            nested.append((name, value))
        else:
            words.append(output.shown(f"{name}={_text(name, value)}"))
    output.drawn("  ".join(words))
    for name, value in nested:
        _show_nested(output, name, value, "    ")


def _show_nested(output: Output, name: str, value: Any, indent: str) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    output.line(f"{indent}{name}:")
    for key, item in items:
        if isinstance(item, dict | list) and len(str(item)) > SHORT_CHARS:
            _show_nested(output, str(key), item, indent + "    ")
        else:
            output.line(f"{indent}    {key}: {_text(str(key), item)}")


def _text(name: str, value: Any) -> str:
    if name.endswith("_us") and isinstance(value, int) and value:
        return time_text(value)
    return str(value)
