"""`chronik rebuild-index`: search bundles anew, out of the segments they are derived from.

Place: a verb. Promise: until a new bundle is listed the old one stays; records are never touched.
"""

from __future__ import annotations

import click

from chronik_store.cli import exits
from chronik_store.cli.options import partition_option, pass_session, verb
from chronik_store.cli.session import Session, lanes_of
from chronik_store.cli.terminal import progress, say
from chronik_store.errors import UnavailableError
from chronik_store.log_store import LogStore
from chronik_store.objectstore.layout import parse_bundle_key
from chronik_store.partition_log import PartitionLog


@verb(
    "rebuild-index",
    "chronik rebuild-index",
    "chronik rebuild-index events -p 0",
    "chronik rebuild-index events --all",
)
@click.argument("topic", required=False)
@partition_option
@click.option("--all", "everything", is_flag=True, help="Also those that are sound.")
@pass_session
def command(session: Session, topic: str | None, partition: int | None, everything: bool) -> int:
    """Build the search bundles anew that are lost or damaged in the bucket."""
    total = 0
    with session.writing_store(pipeline_enabled=False) as store:
        topics = [info.name for info in store.topics()] if topic is None else [topic]
        for name in topics:
            for number, log in lanes_of(store, name, partition):
                built = _rebuild(store, name, number, log, everything=everything)
                total += built
                if session.as_json:
                    session.output.json({"topic": name, "partition": number, "rebuilt": built})
    say(f"{total} search bundles built anew")
    return exits.DONE


def _rebuild(
    store: LogStore, topic: str, partition: int, log: PartitionLog, *, everything: bool
) -> int:
    keys = None
    if not everything:
        findings = log.verify(bucket=True, deep=True).findings
        keys = [each.where for each in findings if parse_bundle_key(each.where) is not None]
    wanted = store.rebuild_indexes(topic, partition, keys=keys)
    done = 0
    with progress(f"{topic}/{partition}", wanted, unit="bundles") as bar:
        while done < wanted:
            report = log.run_pipeline_once()
            if report.errors:
                raise UnavailableError(f"{done} of {wanted} rebuilt: {report.errors[0]}")
            bar.advance(report.indexed)
            done += report.indexed
    return wanted
