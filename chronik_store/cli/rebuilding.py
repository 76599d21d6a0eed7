"""`chronik rebuild-index`: search bundles anew, out of the segments they are derived from.

Place: a verb. Promise: until a new bundle is listed the old one stays; records are never touched;
it ends, whatever keeps the pipeline from building.
"""

from __future__ import annotations

import click

from chronik_store.cli import exits
from chronik_store.cli.options import partition_option, pass_session, verb
from chronik_store.cli.session import PartitionBundles, Session, lanes_of
from chronik_store.cli.terminal import progress, say
from chronik_store.errors import UnavailableError
from chronik_store.model import BUNDLE_KEYS_MAX


@verb(
    "rebuild-index",
    "chronik rebuild-index",
    "chronik rebuild-index events -p 0",
    "chronik rebuild-index events --all",
    "chronik -s 127.0.0.1:7411 rebuild-index events",
)
@click.argument("topic", required=False)
@partition_option
@click.option("--all", "everything", is_flag=True, help="Also those that are sound.")
@pass_session
def command(session: Session, topic: str | None, partition: int | None, everything: bool) -> int:
    """Build the search bundles anew that are lost or damaged in the bucket.

    With -s the leader of each partition does it.
    """
    total = 0
    with session.writing_store(pipeline_enabled=False) as store:
        topics = [info.name for info in store.topics()] if topic is None else [topic]
        for name in topics:
            for number, log in lanes_of(store, name, partition):
                bundles, where = session.bundles_of(store, log), f"{name}/{number}"
                end = log.watermarks.tiered
                built = _rebuild(bundles, where, end, everything=everything)
                total += built
                if session.as_json:
                    session.output.json({"topic": name, "partition": number, "rebuilt": built})
    say(f"{total} search bundles built anew")
    return exits.DONE


def _rebuild(bundles: PartitionBundles, where: str, end_offset: int, *, everything: bool) -> int:
    """How many were built. UnavailableError as soon as nothing more comes of asking on.

    end_offset: about where the bundles end.
    """
    waiting = _wanted(bundles, where, end_offset, everything=everything)
    wanted, built = len(waiting), 0
    with progress(where, wanted, unit="bundles") as bar:
        # Until none of them waits: segments that had no index yet may come first.
        while waiting:
            asked, later = waiting[:BUNDLE_KEYS_MAX], waiting[BUNDLE_KEYS_MAX:]
            found = bundles.rebuild(asked)
            left = [*found.waiting, *later]
            built += found.rebuilt
            bar.advance(len(waiting) - len(left))
            if found.errors and (not left or len(left) == len(waiting)):
                raise UnavailableError(f"{where}: {built} of {wanted} rebuilt: {found.errors[0]}")
            waiting = left
    if built < wanted:
        say(f"{where}: {built} of {wanted} rebuilt: the others' segments are dropped by now")
    return built


def _wanted(
    bundles: PartitionBundles, where: str, end_offset: int, *, everything: bool
) -> list[str]:
    keys: list[str] = []
    offset: int | None = 0
    with progress(f"look at {where}", end_offset, unit="records") as bar:
        while offset is not None:
            found = bundles.find(offset, everything=everything)
            keys += found.keys
            offset = found.next_offset
            bar.at(end_offset if offset is None else offset, end_offset)
    return keys
