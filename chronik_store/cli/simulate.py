"""`chronik simulate`: the real store on virtual time, over disks and a bucket that fail on purpose.

Place: a verb; the worlds are those of the test kit, which is loaded when the verb is called and
is the one thing of the kit that a program uses (docs/decisions/0015); those of --cluster and
--servers are of the server's kit, which `main.more_worlds` brings (0021, 0032). Promise: equal
seeds play equal worlds, so what is found can be played again; exit 1 if anything was violated.
Nothing but memory is used: no disk, no bucket, no network, no clock of this machine.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

from chronik_store.cli import exits
from chronik_store.cli.options import FiniteRange, pass_session, verb
from chronik_store.cli.rendering import duration_text
from chronik_store.cli.session import Session
from chronik_store.cli.terminal import progress, say

if TYPE_CHECKING:
    from chronik_store.testing.worlds.playing import Played
    from chronik_store.testing.worlds.repertoire import Repertoire

WORLDS = 100
SEEDS = 1 << 32
_VERDICTS = ("clean", "torn", "suspect")
_LOGGERS = ("chronik_store", "chronik_server")


@verb(
    "simulate",
    "chronik simulate",
    "chronik simulate --seed 7 --seeds 20",
    "chronik simulate --minutes 0.1",
    "chronik simulate --planted acknowledge-before-sync",
    "chronik simulate --seed 42 --json",
    "chronik simulate --cluster --minutes 1",
    "chronik simulate --servers --seed 42",
)
@click.option(
    "--cluster",
    "is_cluster",
    is_flag=True,
    help="Play clusters of 2 to 5 nodes instead of one machine: see above.",
)
@click.option(
    "--servers",
    "is_servers",
    is_flag=True,
    help="Play clusters of 1 to 5 whole server processes: see above.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    help="The first world; without --seeds and --minutes, that one alone. Default: drawn.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    metavar="COUNT",
    help=f"How many worlds, one a seed. [default: {WORLDS}]",
)
@click.option(
    "--minutes",
    type=FiniteRange(min=0, min_open=True),
    metavar="M",
    help="As many as can be played in this time, at least one.",
)
@click.option(
    "--planted",
    "bug",
    metavar="NAME",
    help="Put a known bug into the store first, and stop when it is found: the worlds must find "
    "it. `list` names them.",
)
@pass_session
def command(
    session: Session,
    is_cluster: bool,
    is_servers: bool,
    seed: int | None,
    seeds: int | None,
    minutes: float | None,
    bug: str | None,
) -> int:
    """Play the store's own code in simulated worlds, and check that nothing acknowledged is lost.

    Each world has machines that lose power or are killed, disks that tear and fail writes, a
    bucket that goes away or answers and is not heard, clocks that jump; clients remember every
    answer, and after each crash all of it must still be true.

    In one of eight (seed % 8 == 5) bits flip and files vanish on the disk between its lives, and
    objects in the bucket are damaged: the directory opens with everything, or is refused and not
    changed; then what `chronik repair` and `restore` promise must be so.

    In one of eight (seed % 8 == 7) the store has up to three partitions and is watched: by a
    reader process on the same disk, one of the bucket alone, followers and, in half of them,
    searches. What any of them was shown must be so for ever, no follower misses a record or sees
    one twice, and searches and look-ups by time agree with a scan.

    In another (seed % 8 == 6) the bucket changes hands: it is restored into new directories on
    other machines while the old owner lives, or comes back later, and topics are made and deleted.
    What the claim of a restore covers is the new log's, the old owner keeps all that it had and
    publishes nothing more, nothing that is listed is ever deleted, and readers of the bucket see
    one history or the next.

    With --cluster, the replicated log of one partition: the server's own Raft roles over the
    store's own log, on 2 to 5 nodes. Nodes lose power (alone, all at once, or inside a disk call),
    are killed, meet failing syncs, damaged and lost disks; messages are lost, repeated, late and
    out of order, partitions cut both ways or one; leaders hand over, members come and go, logs are
    pruned and sent as snapshots, and whoever leads uploads, publishes and collects, over a bucket
    that is late, away, or not heard. Judged at every step: one leader for a term, no vote twice or
    taken back, equal logs, one entry for an index for ever, nothing committed or answered before it
    is on disk (of a quorum), no commit undone, reads that miss nothing; in the end every
    acknowledged entry on every member or in the bucket, nothing deleted that anybody lists, and a
    group that commits again. Not played there: the network protocol and its clients, the metadata,
    search, and more than one partition.

    With --servers, all of that: 1 to 5 nodes, each of them all that `chronik serve` runs, with
    clients that append, read, follow, search and keep cursors, and an operator who makes and
    deletes topics, hands over leaders, and lets nodes join and leave. Connections are late, cut and
    broken; nodes lose power, are killed, stopped and paused; disks fill up or fail. No client gets
    an answer that contradicts an earlier one, no error that its call does not have, and none that
    says more than is known; in the end every partition works, everything acknowledged is on each
    node that should have it and once in the bucket, and what was deleted is nowhere.
    """
    if is_cluster and is_servers:
        raise click.UsageError("--cluster and --servers are two kinds of worlds: choose one")
    worlds = _repertoire("cluster" if is_cluster else "servers" if is_servers else None)
    return _simulate(session, worlds, seed, seeds, minutes, bug)


def _simulate(
    session: Session,
    worlds: Repertoire,
    seed: int | None,
    seeds: int | None,
    minutes: float | None,
    bug: str | None,
) -> int:
    if bug == "list":
        return _list_bugs(session, worlds)
    _check_bug(bug, worlds)
    first = random.randrange(SEEDS) if seed is None else seed  # noqa: S311 (which worlds, no more)
    if seeds is None and minutes is None:
        seeds = WORLDS if seed is None else 1
    played: list[Played] = []
    began = time.monotonic()
    with (
        _stopped_by_signals() as stopped,
        _quiet(),
        progress("simulate", seeds, unit="worlds") as bar,
    ):
        for each in _play(worlds, first, seeds, minutes, bug):
            played.append(each)
            bar.advance(1)
            if each.violation:
                is_first = not any(other.violation for other in played[:-1])
                _show(session, each, _replay(worlds, each.seed, bug), in_full=is_first)
            if stopped() or (bug is not None and each.violation):
                break
    _summarise(session, worlds, played, time.monotonic() - began, bug)
    session.output.flush()
    if stopped():
        raise exits.Interrupted(f"interrupted; worlds played: {len(played)}")
    return exits.NOTHING if any(each.violation for each in played) else exits.DONE


def _repertoire(kind: str | None) -> Repertoire:
    """What is to be played. UsageError when it cannot; ConfigError: raftos is missing."""
    if not __debug__:
        raise click.UsageError("simulate checks by assertions, which python -O leaves out")
    if importlib.util.find_spec("greenlet") is None:
        raise click.UsageError('simulate needs greenlet: pip install "chronik[testing]"')
    if kind is not None:
        from chronik_store.cli import main

        if kind not in main.more_worlds:
            raise click.UsageError(f"--{kind} plays the server's code, which is not here")
        found: Repertoire = main.more_worlds[kind]()
        return found
    from chronik_store.testing.worlds.repertoire import store_worlds

    return store_worlds()


def _list_bugs(session: Session, worlds: Repertoire) -> int:
    for name, plant in worlds.bugs.items():
        text = " ".join((plant.__doc__ or "").split())
        if session.as_json:
            session.output.json({"bug": name, "what": text})
        else:
            session.output.line(f"{name:37}  {text}")
    return exits.DONE


def _check_bug(bug: str | None, worlds: Repertoire) -> None:
    if bug is not None and bug not in worlds.bugs:
        raise click.UsageError(
            f"no bug is named {bug!r}; `chronik simulate{worlds.flag} --planted list`"
        )


def _play(
    worlds: Repertoire, first: int, seeds: int | None, minutes: float | None, bug: str | None
) -> Iterator[Played]:
    """At least one, however short the time."""
    end = None if minutes is None else time.monotonic() + minutes * 60
    for seed in itertools.count(first):
        yield worlds.play(seed, bug=bug)
        if seed + 1 - first == seeds or (end is not None and time.monotonic() >= end):
            return


def _replay(worlds: Repertoire, seed: int, bug: str | None) -> str:
    return f"chronik simulate{worlds.flag} --seed {seed}" + (f" --planted {bug}" if bug else "")


def _show(session: Session, world: Played, again: str, *, in_full: bool) -> None:
    if session.as_json:
        session.output.json(
            {
                "seed": world.seed,
                "violation": world.violation,
                "replay": again,
                "trace_hash": world.trace_hash,
            }
        )
        return
    if in_full:
        say(world.details)
    say(f"chronik: seed {world.seed} is violated: {world.violation}")
    say(f"         again: {again}")


def _summarise(
    session: Session, worlds: Repertoire, played: list[Played], seconds: float, bug: str | None
) -> None:
    from chronik_store.testing.worlds.playing import total_of

    total = total_of(played)
    violated = [each.seed for each in played if each.violation]
    faults = {name: total.events[name] for name in worlds.shown}
    opens = {verdict: total.events[f"opens: {verdict}"] for verdict in _VERDICTS}
    if session.as_json:
        session.output.json(
            {
                "worlds": total.worlds,
                "of": worlds.of,
                "first_seed": total.seed,
                "planted": bug,
                "elapsed_seconds": seconds,
                "virtual_seconds": total.virtual_seconds,
                "steps": total.steps,
                "events": faults,
                "opens": opens,
                "records_acknowledged": total.acknowledged,
                worlds.compared.replace(" ", "_"): total.compared,
                "violations": len(violated),
                "violated_seeds": violated,
                "trace_hash": total.trace_hash,
            }
        )
        return
    line = session.output.line
    which = f"1 world, seed {total.seed}"
    if total.worlds != 1:
        which = f"{total.worlds} worlds, seeds {total.seed} to {played[-1].seed}"
    line(f"{which}, in {duration_text(seconds)}")
    rows = {"virtual time": f"{_time_text(total.virtual_seconds)}, {total.steps:,} steps"}
    rows |= {name: f"{count:,}" for name, count in faults.items()}
    if any(opens.values()):
        rows["recoveries"] = ", ".join(f"{count:,} {verdict}" for verdict, count in opens.items())
    rows["records acknowledged"] = f"{total.acknowledged:,}"
    rows[worlds.compared] = f"{total.compared:,}"
    rows["violations"] = str(len(violated))
    if total.trace_hash:
        rows["trace"] = f"{total.trace_hash[:16]} (equal seeds, equal traces)"
    for name, value in rows.items():
        line(f"  {name:21}  {value}")
    if bug is not None and not violated:
        line(f"  {bug} was not found in these worlds")


def _time_text(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 360 else f"{seconds:.1f} s"


@contextmanager
def _quiet() -> Iterator[None]:
    """What the product says of the faults of its worlds is of use only to those who asked (-v)."""
    is_verbose = click.get_current_context().find_root().params["verbose"]
    ours = logging.getLogger(_LOGGERS[0])
    with ExitStack() as stack:
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            stack.callback(setattr, logger, "handlers", logger.handlers)
            logger.setLevel(ours.level if is_verbose else logging.CRITICAL + 1)
            logger.handlers = ours.handlers
        yield


@contextmanager
def _stopped_by_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C ends the run behind the world that is being played: in the middle of one it would be
    taken for something that the store has done.
    """
    heard: list[int] = []

    def hear(number: int, _: Any) -> None:
        heard.append(number)

    heeded = [
        each
        for each in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(each) is not signal.SIG_IGN
    ]
    former = {each: signal.signal(each, hear) for each in heeded}
    try:
        yield lambda: bool(heard)
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)
