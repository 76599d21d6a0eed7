"""Worlds played one after the other, by seed, and what came of each.

Place: over `store_world`; `chronik simulate` prints what is returned here. Promise: whatever leaves
a world as an exception is a violation, with the events that led to it; only an interrupt passes.
Invariant: a world depends on its seed and on nothing that was played before it.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from chronik_store.testing.planted import planted
from chronik_store.testing.worlds.damaged_world import DamagedWorld
from chronik_store.testing.worlds.moved_world import MovedWorld
from chronik_store.testing.worlds.store_world import StoreWorld
from chronik_store.testing.worlds.watched_world import WatchedWorld

EVENTS_SHOWN = 25


@dataclass(frozen=True)
class Played:
    """What came of one world, or (`total_of`) of many."""

    seed: int
    worlds: int = 1
    virtual_seconds: float = 0.0
    steps: int = 0
    acknowledged: int = 0
    """Records whose append returned."""
    compared: int = 0
    """Records that a reader was shown, each compared with what was known."""
    events: Counter[str] = field(default_factory=Counter)
    """What befell it, by kind."""
    trace_hash: str = ""
    violation: str = ""
    """The fact that must not be; "" when all is well."""
    details: str = ""
    """Where it was noticed, and the newest events before that."""


def world_of(seed: int) -> StoreWorld:
    """The world of this seed, of one kind or another."""
    if seed % 8 == 5:
        return DamagedWorld(seed)
    if seed % 8 == 6:
        return MovedWorld(seed)
    if seed % 8 == 7:
        return WatchedWorld(seed)
    return StoreWorld(seed)


def play(seed: int, *, bug: str | None = None) -> Played:
    """Play the world of this seed; `bug`: one of `planted.BUGS`, put into the product meanwhile."""
    world = world_of(seed)
    violation = details = ""
    try:
        with contextlib.nullcontext() if bug is None else planted(bug):
            world.run()
    except Exception as error:  # noqa: BLE001  (whatever it is, the product or the kit is at fault)
        violation = in_one_line(error)
        shown = world.simulation.trace[-EVENTS_SHOWN:]
        details = "".join(traceback.format_exception(error)) + "\n".join(
            [f"the last {len(shown)} events:", *shown]
        )
    simulation = world.simulation
    return Played(
        seed=seed,
        virtual_seconds=simulation.now,
        steps=simulation.steps,
        acknowledged=sum(ledger.acked_values for ledger in world.ledgers),
        compared=sum(ledger.compared for ledger in world.ledgers),
        events=world.events,
        trace_hash=simulation.trace_hash,
        violation=violation,
        details=details,
    )


def total_of(played: Iterable[Played]) -> Played:
    """The sum of all; `seed` is the first one's, `violation` the first one found."""
    worlds = list(played)
    return Played(
        seed=worlds[0].seed if worlds else 0,
        worlds=len(worlds),
        virtual_seconds=sum(each.virtual_seconds for each in worlds),
        steps=sum(each.steps for each in worlds),
        acknowledged=sum(each.acknowledged for each in worlds),
        compared=sum(each.compared for each in worlds),
        events=sum((each.events for each in worlds), Counter()),
        trace_hash=worlds[0].trace_hash if len(worlds) == 1 else "",
        violation=next((each.violation for each in worlds if each.violation), ""),
    )


def in_one_line(error: BaseException) -> str:
    """What is wrong: the innermost cause says it, the scheduler only which thread met it."""
    text = " ".join(str(error).split())
    while error.__cause__ is not None:
        error = error.__cause__
        text = f"{text} <- {' '.join(str(error).split())}"
    return f"{type(error).__name__}: {text}"
