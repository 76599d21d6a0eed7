"""Collect: delete the objects that the log no longer names as alive.

Place: after retain. Promise: an object is deleted only when a committed *and published* entry made
it garbage and `garbage_seconds` have passed, so that readers of an older manifest had time; then
COLLECTED takes it off the list. A crash between the two deletes it again, which is no error.
Invariant: nothing that the manifest lists as a segment, a bundle or an intent is ever deleted,
whatever the garbage list says. Objects that nothing names are not touched, but for those that this
very process put too late; `verify` lists the others.

Too late: it was stopped between its last look at the log and its put, and meanwhile another leader
listed, dropped and collected the object under that key. The put made it again, and no log names it.
Each key was named when it was put, and folds only go forward. So one that is named no more was
COLLECTED, hence published as garbage, and its range is sealed no more: no leader will put it again.
(A bundle's key may come back, from this process alone, in a later run of the same lane.)

Old manifests: the newest `MANIFESTS_KEPT` numbers stay; lower ones go, including one that a late
writer created again.
"""

from __future__ import annotations

from chronik_store.format.control import Collected
from chronik_store.format.manifest_file import Manifest
from chronik_store.lineage import PAGE, manifest_numbers
from chronik_store.manifest.keys import announced_keys, live_keys, named_keys
from chronik_store.objectstore.layout import manifest_key
from chronik_store.pipeline.turn import Turn

KEYS_PER_RUN = 500
MANIFESTS_KEPT = 64


def collect(turn: Turn) -> None:
    """Delete published garbage whose time has come, then old manifests."""
    _take_back(turn)
    if turn.term is None or turn.manifest.fenced is not None:
        return
    keys = collectable(turn.manifest, turn.now_us(), turn.tiering.config.garbage_seconds)
    if keys:
        turn.ready()
        turn.check()
        turn.tiering.store.delete(keys[:KEYS_PER_RUN])
        turn.propose(Collected(keys=tuple(keys[:KEYS_PER_RUN])))
        turn.done["collected_objects"] += len(keys[:KEYS_PER_RUN])
    _sweep_manifests(turn)


def _take_back(turn: Turn) -> None:
    """Delete what this process put after the log was done with it; leader or not."""
    if not turn.lane.put or turn.manifest.fenced is not None:
        return
    late = sorted(turn.lane.put - named_keys(turn.manifest))
    if late:
        turn.tiering.store.delete(late)
        turn.lane.put.difference_update(late)
        turn.done["collected_objects"] += len(late)


def collectable(manifest: Manifest, now_us: int, garbage_seconds: float) -> list[str]:
    """Keys that may be deleted now, oldest first. Pure."""
    alive = live_keys(manifest) | announced_keys(manifest)
    return [
        item.key
        for item in manifest.garbage
        if item.generation <= manifest.published_folded_to
        and (now_us - item.since_us) / 1e6 >= garbage_seconds
        and item.key not in alive
    ]


def _sweep_manifests(turn: Turn) -> None:
    manifest = turn.manifest
    newest = manifest.published_number
    oldest_kept = newest - MANIFESTS_KEPT + 1
    if oldest_kept <= 1 or turn.lane.swept_number == newest:
        return
    turn.ready()
    who = (manifest.topic, manifest.partition, manifest.log_id)
    old = [each for each in manifest_numbers(turn.tiering.store, *who) if each < oldest_kept]
    if old:
        turn.check()
        turn.tiering.store.delete([manifest_key(*who, number) for number in old[:PAGE]])
    turn.lane.swept_number = newest
