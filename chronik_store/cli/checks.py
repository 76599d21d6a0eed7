"""`chronik verify`: every invariant that can be checked from here.

Place: a verb; reads only. Promise: exit 0 when nothing worse than a note was found, 1 for
warnings, 4 for corruption; each finding names its place.
"""

from __future__ import annotations

import dataclasses

import click

from chronik_store.cli import exits
from chronik_store.cli.options import partition_option, pass_session, verb
from chronik_store.cli.rendering import duration_text, size_text
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import Output, progress, say
from chronik_store.errors import (
    ChronikError,
    CorruptionError,
    ReadOnlyError,
    UnavailableError,
)
from chronik_store.model import Finding, VerifyReport
from chronik_store.partition_log import PartitionLog

STYLES = {"note": "36", "warning": "33", "corruption": "31"}
UNOPENED = (CorruptionError, UnavailableError, ReadOnlyError)
"""Behind a partition that is damaged, or cannot be read, the others are checked all the same; the
last is a directory in which this process may not look.
"""


@verb(
    "verify",
    "chronik verify",
    "chronik verify events --bucket",
    "chronik verify --bucket --deep --json",
    "chronik -d s3://bucket/prefix verify events --bucket",
)
@click.argument("topic", required=False)
@partition_option
@click.option("--bucket", is_flag=True, help="Also: every object is there, with its size.")
@click.option("--deep", is_flag=True, help="Also: read and hash every byte.")
@pass_session
def command(
    session: Session, topic: str | None, partition: int | None, bucket: bool, deep: bool
) -> int:
    """Check the data directory, and with --bucket the bucket too. Changes nothing."""
    reports = []

    def check(name: str, number: int, log: PartitionLog) -> VerifyReport:
        with progress(f"verify {name}/{number}", None) as bar:
            return log.verify(bucket=bucket, deep=deep, progress=bar.at)

    for name, number, found in session.ask(check, topic, partition, reasons=UNOPENED):
        report = found if isinstance(found, VerifyReport) else _unopened(found, name, number)
        _show(session.output, f"{name}/{number}", report)
        reports.append(report)
    if not reports:
        say(f"chronik: there is no topic in {session.place}: nothing was checked")
    worst = {finding.severity for report in reports for finding in report.findings}
    if "corruption" in worst:
        return exits.CORRUPTION
    return exits.NOTHING if "warning" in worst else exits.DONE


def _unopened(error: ChronikError, topic: str, partition: int) -> VerifyReport:
    where = f"{topic}/{partition}"
    if isinstance(error, CorruptionError):
        finding = Finding("corruption", error.path or where, str(error))
    else:
        finding = Finding("warning", where, f"could not be checked: {error}")
    return VerifyReport(findings=(finding,))


def _show(output: Output, name: str, report: VerifyReport) -> None:
    if output.as_json:
        output.json({"partition": name, "ok": report.ok} | dataclasses.asdict(report))
        return
    verdict = output.styled("ok", "32") if report.ok else output.styled("NOT ok", "31")
    output.drawn(
        output.shown(name) + f": {verdict}  "
        f"{report.files_checked} files, {report.objects_checked} objects, "
        f"{report.entries_checked} entries, {size_text(report.bytes_checked)} "
        f"in {duration_text(report.elapsed_seconds)}"
    )
    for finding in report.findings:
        _show_finding(output, finding)
    output.flush()


def _show_finding(output: Output, finding: Finding) -> None:
    severity = output.styled(finding.severity, STYLES[finding.severity])
    message = finding.message.removeprefix(f"{finding.where}: ")  # an error names its place, too
    output.drawn(f"  {severity}: " + output.shown(f"{finding.where}: {message}"))
