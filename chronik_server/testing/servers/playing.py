"""Stories of whole servers played one after the other, by seed, and what came of each.

Place: over `story`; `chronik simulate --servers` prints what is returned here. Promise:
what a client, a judge or the simulator found is a violation, and so is whatever leaves a story as
an exception; only an interrupt passes. Invariant: a story depends on its seed and on nothing that
was played before it.
"""

from __future__ import annotations

import contextlib
import traceback

from chronik_server.testing.servers.planted import BUGS
from chronik_server.testing.servers.story import ServersStory
from chronik_server.testing.servers.world import unheard
from chronik_store.testing.planted import planted
from chronik_store.testing.worlds.playing import EVENTS_SHOWN, Played, in_one_line
from chronik_store.testing.worlds.repertoire import Repertoire


def play(seed: int, *, bug: str | None = None) -> Played:
    """Play the story of this seed; `bug`: one of `BUGS`, put into the server meanwhile."""
    story = ServersStory(seed)
    world, simulation = story.world, story.world.simulation
    raised: list[str] = []
    details = ""
    try:
        with contextlib.nullcontext() if bug is None else planted(bug, BUGS):
            story.run()
    except Exception as error:  # noqa: BLE001  (whatever it is, the product or the kit is at fault)
        raised = [in_one_line(error)]
        details = "".join(traceback.format_exception(error))
        _let_go(error)
    found = [*world.violations, *raised]
    if found:
        shown = simulation.trace[-EVENTS_SHOWN:]
        details += "\n".join([*found, f"the last {len(shown)} events:", *shown])
    return Played(
        seed=seed,
        virtual_seconds=simulation.now,
        steps=simulation.steps,
        acknowledged=story.told.acknowledged,
        compared=story.told.compared,
        events=world.events,
        trace_hash=simulation.trace_hash,
        violation=found[0] if found else "",
        details=details,
    )


def _let_go(error: BaseException | None) -> None:
    """Of the frames that it came through, and of what they hold."""
    with unheard():
        while error is not None:
            error.__traceback__, error = None, error.__cause__ or error.__context__


def server_worlds() -> Repertoire:
    """Clusters of one to five whole servers."""
    return Repertoire(
        flag=" --servers",
        of="servers",
        play=play,
        bugs=BUGS,
        shown=(
            "starts",
            "power losses",
            "deaths in a disk call",
            "kills",
            "orderly ends",
            "ends of all",
            "pauses",
            "failed syncs",
            "full disks",
            "cramped disks",
            "flipped bits",
            "lost logs",
            "conversions",
            "starts: refused",
            "opens: refused",
            "damaged objects",
            "clock jumps",
            "isolations",
            "cuts one way",
            "broken connections",
            "bucket outages",
            "topics made",
            "topics deleted",
            "hand-overs",
            "drops",
            "drops by retention",
            "nodes joining",
            "nodes leaving",
            "calls failed",
            "looks at the bucket",
            "asked ready",
            "asked not ready",
            "reads",
            "stale namesake reads",
            "records followed",
            "searches",
            "cursors moved",
            "stray objects",
        ),
        compared="records compared",
    )
