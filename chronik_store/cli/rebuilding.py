"""`chronik rebuild-index`: search bundles anew, out of the segments they are derived from.

Place: a verb. Promise: until a new bundle is listed the old one stays; records are never touched;
it ends, whatever keeps the pipeline from building.
"""

from __future__ import annotations

import click

from chronik_store.cli import exits
from chronik_store.cli.options import partition_option, pass_session, verb
from chronik_store.cli.session import Session, lanes_of
from chronik_store.cli.terminal import progress, say
from chronik_store.errors import ConfigError, UnavailableError
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
    if not session.config().indexing_enabled:
        raise ConfigError(
            "indexing is off, so none would be built: unset CHRONIK_WAL_INDEXING_ENABLED"
        )
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
    """How many were built. UnavailableError as soon as nothing more comes of running on."""
    keys = None
    if not everything:
        findings = log.verify(bucket=True, deep=True).findings
        keys = [each.where for each in findings if parse_bundle_key(each.where) is not None]
    wanted = store.rebuild_indexes(topic, partition, keys=keys)
    done = 0
    with progress(f"{topic}/{partition}", wanted, unit="bundles") as bar:
        # Until nothing is left to do: segments that had no index yet may come first.
        while wanted:
            report = log.run_pipeline_once()
            bar.advance(report.indexed)
            done += report.indexed
            if report.errors:
                raise UnavailableError(f"{done} of {wanted} rebuilt: {report.errors[0]}")
            if report.idle:
                break
    if done < wanted:
        _explain(log, done, wanted)
    return min(done, wanted)


def _explain(log: PartitionLog, done: int, wanted: int) -> None:
    """Why the pipeline comes to rest before all are built. UnavailableError if they are needed."""
    status = log.status()
    if status.fenced or status.last_error:
        why = "; ".join((*status.notes, status.last_error or "")).strip("; ")
        raise UnavailableError(f"{done} of {wanted} rebuilt: {why}")
    say(f"{done} of {wanted} rebuilt: the others' segments are dropped by now")
