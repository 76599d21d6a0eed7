"""`chronik repair`: what is wrong with a write-ahead log, and, when told to, mending it.

Place: a verb over `chronik_store.repair`. Promise: without --apply nothing is changed, and what
would be done is said with its cost. With it, damaged files are moved into quarantine, never
deleted. Damage in the bucket is not for this verb: nothing here could bring those bytes back.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from chronik_store.cli import exits
from chronik_store.cli.options import pass_session, verb
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import say
from chronik_store.errors import ConfigError
from chronik_store.repair import PartitionRepair, apply_repair, plan_repair

_ACTIONS = {
    "none": "nothing to do",
    "set_aside": "the damage lies in files that the bucket covers: set aside, nothing is lost",
    "go_on": "goes on behind the last good entry; what stood behind it is given up",
    "restore": "its WAL files are gone, or the bucket knows more than they: `chronik restore` "
    "into a new directory",
    "take_out": "where it begins is damaged, and the bucket does not have it: what is left, "
    "`chronik consume {0.topic} -p {0.partition} --json --from {0.first_offset}`, is for "
    "`chronik produce --records` in a new directory",
}
_BY_HAND = {"restore", "take_out"}
"""What this verb leaves alone."""


@verb("repair", "chronik repair", "chronik repair --apply", "chronik repair --json")
@click.option("--apply", is_flag=True, help="Do it; without, only say what would be done.")
@pass_session
def command(session: Session, apply: bool) -> int:
    """Show what is wrong with the write-ahead logs and what can be done; --apply does it.

    A log that a power cut merely tore needs no repair: it opens by itself.
    """
    if session.in_bucket or not Path(session.directory).is_dir():
        raise ConfigError(f"{session.directory!r} is no data directory: give one with -d")
    repair = apply_repair if apply else plan_repair
    plan = repair(session.directory, config=session.config(pipeline_enabled=False))
    for each in plan:
        _show(session, each)
    damaged = [each for each in plan if each.action != "none"]
    left = [each for each in damaged if not apply or each.action in _BY_HAND]
    if not damaged:
        say("nothing to repair")
    elif apply:
        say(f"{len(damaged) - len(left)} repaired, {len(left)} left")
    else:
        able = sum(each.action not in _BY_HAND for each in damaged)
        what = "the above" if able == len(damaged) else f"the above for {able}"
        way = f"`chronik repair --apply` does {what}" if able else "repair can do nothing about it"
        say(f"{len(damaged)} damaged, nothing changed; {way}")
    return exits.NOTHING if left else exits.DONE


def _show(session: Session, each: PartitionRepair) -> None:
    output = session.output
    if output.as_json:
        output.json(dataclasses.asdict(each))
        return
    style = "32" if each.action == "none" else "31"
    output.drawn(
        output.shown(f"{each.topic}/{each.partition}: ") + f"{output.styled(each.verdict, style)}, "
        f"{_ACTIONS[each.action].format(each)}; here from {each.first_offset} to "
        f"{each.end_offset}, in the bucket to {each.tiered_offset}"
    )
    for finding in each.findings:
        output.line(f"  {finding}")
    for name in each.files:
        output.line(f"  to quarantine: {name}")
