"""`chronik export`: a topic, or a part of it, as one file of JSON lines or Parquet.

Place: a verb; reads only. Promise: the file appears under its name only when it is whole; JSON
lines can be put back with `produce --records`, and lose nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import click

from chronik_store.cli.moments import first_offset, moment_us, offset_of
from chronik_store.cli.options import (
    partition_option,
    pass_session,
    since_option,
    topic_argument,
    until_option,
    verb,
)
from chronik_store.cli.rendering import count_text, json_of
from chronik_store.cli.session import Lanes, Session
from chronik_store.cli.terminal import Progress, json_line, progress, say
from chronik_store.cli.whole_file import whole_file
from chronik_store.errors import ConfigError
from chronik_store.model import StoredRecord

ROWS_PER_GROUP = 50_000
BYTES_PER_GROUP = 32 << 20
"""A group is built in memory, some six times over."""
Row = tuple[int, StoredRecord]


@verb(
    "export",
    "chronik export events --to events.jsonl",
    "chronik export events --to day.parquet --since 1d",
    "chronik -d s3://bucket/prefix export events --to events.jsonl",
)
@topic_argument
@click.option(
    "--to",
    "target",
    required=True,
    metavar="FILE",
    help="NAME.jsonl or NAME.parquet; the latter needs the extra `arrow`.",
)
@partition_option
@click.option("--from", "place", metavar="PLACE", help="earliest (default), an offset, or -N.")
@since_option
@until_option
@pass_session
def command(
    session: Session,
    topic: str,
    target: str,
    partition: int | None,
    place: str | None,
    since: str | None,
    until: str | None,
) -> int:
    """Write the records of TOPIC to a file."""
    kind = Path(target).suffix
    if kind not in {".jsonl", ".parquet"}:
        raise click.UsageError(f"--to {target}: the name must end in .jsonl or .parquet")
    now_us = session.now_us
    since_us = None if since is None else moment_us(since, now_us)
    until_us = None if until is None else moment_us(until, now_us)
    with session.reading_lanes(topic, partition) as lanes:
        ranges = {
            number: (first_offset(log, place, since_us), _stop(log, until_us))
            for number, log in lanes
        }
        total = sum(max(0, stop - start) for start, stop in ranges.values())
        with whole_file(target) as file, progress("export", total, unit="records") as bar:
            rows = _rows(lanes, ranges, bar)
            count = (_jsonl if kind == ".jsonl" else _parquet)(file, rows, topic)
        outcome = session.outcome(lanes)
    if session.as_json:
        session.output.json({"topic": topic, "records": count, "file": target})
    else:
        say(f"{count_text(count, 'record')} in {target}")
    return outcome


def _stop(log: Any, until_us: int | None) -> int:
    end: int = log.watermarks.committed
    at = None if until_us is None else offset_of(log, until_us)
    return end if at is None else at


def _rows(lanes: Lanes, ranges: dict[int, tuple[int, int]], bar: Progress) -> Iterator[Row]:
    for number, log in lanes:
        start, stop = ranges[number]
        for record in log.scan(start, max(start, stop)):
            yield number, record
            bar.advance(1)


def _jsonl(file: IO[bytes], rows: Iterable[Row], topic: str) -> int:
    count = 0
    for number, record in rows:
        file.write(json_line(json_of(record, topic, number)).encode())
        count += 1
    return count


def _parquet(file: IO[bytes], rows: Iterable[Row], topic: str) -> int:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ConfigError('Parquet needs an extra: pip install "chronik[arrow]"') from None
    header = pa.struct([("name", pa.string()), ("value", pa.binary())])
    schema = pa.schema(
        [
            ("partition", pa.int32()),
            ("offset", pa.int64()),
            ("time", pa.timestamp("us", tz="UTC")),
            ("key", pa.binary()),
            ("value", pa.binary()),
            ("headers", pa.list_(header)),
        ],
        metadata={"chronik.topic": topic},
    )
    count = 0
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(rows):
            columns = list(zip(*map(_cells, group), strict=True))
            arrays = [
                pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(group)
    return count


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    size_bytes = 0
    for row in rows:
        group.append(row)
        record = row[1]
        size_bytes += len(record.value) + len(record.key or b"")
        size_bytes += sum(len(value) for _, value in record.headers)
        if len(group) == ROWS_PER_GROUP or size_bytes >= BYTES_PER_GROUP:
            yield group
            group, size_bytes = [], 0
    if group:
        yield group


def _cells(row: Row) -> tuple[Any, ...]:
    number, record = row
    headers = [{"name": name, "value": value} for name, value in record.headers]
    return number, record.offset, record.timestamp_us, record.key, record.value, headers
