"""`chronik restore`: a data directory out of a bucket.

Place: a verb over `chronik_store.restore`. Promise: what came back, and what is known not to have,
is said for each partition; cut off anywhere, the same command line goes on. An --until that is an
age means another time then: the time that it meant, which goes on, is said before anything is done.
"""

from __future__ import annotations

import dataclasses
import sys

import click

from chronik_store.cli.moments import is_age, moment_us
from chronik_store.cli.options import pass_session, verb
from chronik_store.cli.rendering import count_text, time_text
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import is_terminal, progress, say
from chronik_store.data_directory import absolute_path
from chronik_store.errors import ConfigError
from chronik_store.restore import RestoreReport, restore
from chronik_store.restore.takeover import RestoredLog


@verb(
    "restore",
    "chronik restore s3://bucket/prefix ./data",
    "chronik restore file:///mnt/backup ./data --until 2026-01-31T12:00:00Z",
    "chronik restore s3://bucket/prefix ./data --until-offset 1000 --yes",
)
@click.argument("bucket", metavar="BUCKET")
@click.argument("directory", metavar="DIR")
@click.option("--until", metavar="TIME", help="Leave out what came later: 15m (ago), or ISO 8601.")
@click.option(
    "--until-offset",
    type=click.IntRange(min=0),
    metavar="OFFSET",
    help="End each partition here at the latest.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def command(
    session: Session,
    bucket: str,
    directory: str,
    until: str | None,
    until_offset: int | None,
    yes: bool,
) -> None:
    """Take the bucket over: make data directory DIR of it, and fence whoever wrote there.

    Only to read, no restore is needed: chronik -d BUCKET consume TOPIC. What the old directory
    held and had not uploaded is not in the bucket; use that directory itself if it still exists.
    """
    _must_be_a_path(directory)
    if not yes:
        if not is_terminal(sys.stdin):
            raise click.UsageError(
                "it fences whoever writes there, and nobody is to ask: say --yes"
            )
        cut = "" if until is None and until_offset is None else (
            " What came later is left out for good: no later restore brings it back."
        )  # fmt: skip
        click.confirm(
            f"Take {bucket} over? A store that still writes there will upload nothing more.{cut}",
            abort=True, err=True,
        )  # fmt: skip
    until_us = None if until is None else moment_us(until, session.now_us)
    if until is not None and until_us is not None and is_age(until):
        time = time_text(until_us)
        say(f"chronik: until {time}; if this is cut off, go on with --until {time}")
    with progress("restore", None, unit="partitions") as bar:
        report = restore(
            bucket, directory, until_offset=until_offset, until_us=until_us,
            config=session.config(), progress=lambda _, done, total: bar.at(done, total),
        )  # fmt: skip
    _show(session, report)


def _must_be_a_path(directory: str) -> None:
    """ConfigError before the bucket is taken over, which fences its owner for good: an empty text
    (of a variable that is not set) would be the directory that this runs in, a URL one below it.
    """
    if "://" in directory:
        raise ConfigError(
            f"{directory} cannot be a data directory: it is a URL; the BUCKET comes first, then "
            "the path of the directory"
        )
    absolute_path(directory)


def _show(session: Session, report: RestoreReport) -> None:
    for log in report.logs:
        if session.as_json:
            session.output.json(dataclasses.asdict(log))
        else:
            session.output.line(_line(log))
    if report.was_complete:
        say(f"{report.path} had been restored from {report.url} already: nothing was to do")
        return
    if not report.logs:
        say("chronik: the bucket holds no topics")
    say(
        f"restored {count_text(len(report.logs), 'partition')} from {report.url} into {report.path}"
    )


def _line(log: RestoredLog) -> str:
    name = f"{log.topic}/{log.partition}"
    if log.old_log_id is None:
        return f"{name}: nothing was in the bucket"
    segments = count_text(log.segments, "segment")
    text = f"{name}: offsets {log.start_offset} to {log.end_offset - 1}, {segments}"
    if log.start_offset == log.end_offset:
        text = f"{name}: empty"
    if log.cut_offsets:
        text += f"; {log.cut_offsets} left out as asked"
    for start, end in log.missing:
        text += f"; NOT in the bucket: offsets {start} to {end - 1}"
    if log.cursors_moved:
        text += f"; cursors moved back: {', '.join(log.cursors_moved)}"
    return text
