"""Stories of clusters played one after the other, by seed, and what came of each.

Place: over `story`; `chronik simulate --cluster` prints what is returned here. Promise: what the
judge found is a violation, and so is whatever leaves a story as an exception; only an interrupt
passes. Invariant: a story depends on its seed and on nothing that was played before it.
"""

from __future__ import annotations

import contextlib
import traceback

from chronik_server.testing.planted import BUGS
from chronik_server.testing.story import ClusterStory
from chronik_store.testing.planted import planted
from chronik_store.testing.worlds.playing import EVENTS_SHOWN, Played, in_one_line
from chronik_store.testing.worlds.repertoire import Repertoire


def play(seed: int, *, bug: str | None = None) -> Played:
    """Play the story of this seed; `bug`: one of `planted.BUGS`, put into the roles meanwhile."""
    story = ClusterStory(seed)
    world = story.world
    found: list[str] = []
    details = ""
    try:
        with contextlib.nullcontext() if bug is None else planted(bug, BUGS):
            story.run()
    except Exception as error:  # noqa: BLE001  (whatever it is, the product or the kit is at fault)
        found = [in_one_line(error)]
        details = "".join(traceback.format_exception(error))
    found = [*world.violations, *found]
    if found:
        shown = world.trace[-EVENTS_SHOWN:]
        details += "\n".join([*found, f"the last {len(shown)} events:", *shown])
    world.events["elections"] = world.judge.elections
    world.events["stray objects"] = len(world.witness.strays)
    return Played(
        seed=seed,
        virtual_seconds=world.loop.time(),
        steps=world.loop.steps,
        acknowledged=story.acknowledged,
        compared=world.judge.compared,
        events=world.events,
        trace_hash=world.trace_hash,
        violation=found[0] if found else "",
        details=details,
    )


def cluster_worlds() -> Repertoire:
    """Clusters of two to five nodes."""
    return Repertoire(
        flag=" --cluster",
        of="clusters",
        play=play,
        bugs=BUGS,
        shown=(
            "power losses",
            "power losses of all",
            "deaths in a disk call",
            "kills",
            "disk errors",
            "damaged disks",
            "damaged files that segments cover",
            "lost disks",
            "clock jumps",
            "partitions",
            "messages",
            "messages lost",
            "messages late",
            "messages repeated",
            "elections",
            "hand-overs",
            "member changes",
            "snapshots",
            "bucket calls",
            "bucket calls lost",
            "bucket calls late",
            "bucket outages",
            "uploaded",
            "adopted",
            "published",
            "prunes",
            "collected objects",
            "stray objects",
            "reads",
        ),
        compared="entries compared",
    )
