"""`chronik repair`: what can be saved of a damaged WAL, and, when told to, saving it.

Place: a verb. Promise: without --apply nothing is changed. With it, each partition goes on from
the last entry that is proved; the damaged file is kept in quarantine, not deleted. Damage in the
bucket is not for this verb: nothing here could bring those bytes back.
"""

from __future__ import annotations

import dataclasses

import click

from chronik_store.cli import exits
from chronik_store.cli.options import pass_session, verb
from chronik_store.cli.session import Session, lanes_of
from chronik_store.cli.terminal import say
from chronik_store.errors import CorruptionError
from chronik_store.log_store import LogStore
from chronik_store.model import RecoveryReport


@verb("repair", "chronik repair", "chronik repair --apply", "chronik repair --json")
@click.option("--apply", is_flag=True, help="Go on from what is proved; give up the rest.")
@pass_session
def command(session: Session, apply: bool) -> int:
    """Show what a damaged write-ahead log still holds; with --apply, go on from there.

    A log that a power cut merely tore needs no repair: it opens by itself. If the bucket has more
    than the disk, `chronik restore` into a new directory gives back more than this does.
    """
    if not apply:
        with session.reading_store(accept_suspect=True) as store:
            damaged = _report(session, store)
        if damaged:
            say(f"{damaged} damaged, nothing changed; `chronik repair --apply` goes on from there")
        return exits.NOTHING if damaged else exits.DONE
    with session.writing_store(accept_suspect=True, pipeline_enabled=False) as store:
        damaged = _report(session, store)
    say(f"{damaged} repaired" if damaged else "nothing to repair")
    return exits.DONE


def _report(session: Session, store: LogStore) -> int:
    damaged = 0
    for info in store.topics():
        for number in range(info.partitions):
            try:
                ((_, log),) = lanes_of(store, info.name, number)
            except CorruptionError as error:
                session.output.line(f"{info.name}/{number}: {error}")
                damaged += 1
                continue
            damaged += log.recovery.verdict == "suspect"
            _show(session, f"{info.name}/{number}", log.recovery)
    return damaged


def _show(session: Session, name: str, report: RecoveryReport) -> None:
    output = session.output
    if output.as_json:
        output.json({"partition": name} | dataclasses.asdict(report))
        return
    style = "31" if report.verdict == "suspect" else "32"
    output.line(
        f"{name}: {output.styled(report.verdict, style)}, {report.files} files, "
        f"{report.entries} entries, end {report.end_offset}, committed {report.committed_offset}"
    )
    for finding in report.findings:
        output.line(f"  {finding}")
