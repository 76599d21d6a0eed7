"""What a run of `chronik simulate` plays: one kind of world, its bugs, and how to speak of it.

Place: between the verb and the kits: the one here plays stores, `chronik_server.testing` clusters.
Promise: whoever plays `play` seed by seed learns all that there is to say from `Played`. Invariant:
values only; nothing is loaded or played by making one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from chronik_store.testing.planted import BUGS, Plant
from chronik_store.testing.worlds import playing


class Play(Protocol):
    """Plays the world of a seed, with a known bug or without one."""

    def __call__(self, seed: int, *, bug: str | None = None) -> playing.Played: ...


@dataclass(frozen=True)
class Repertoire:
    """flag: what the verb is told to play this. of: what is played. shown: the kinds of events that
    are counted out, besides the verdicts of recoveries. compared: what has been compared with what
    was known.
    """

    flag: str
    of: str
    play: Play
    bugs: Mapping[str, Plant]
    shown: tuple[str, ...]
    compared: str


def store_worlds() -> Repertoire:
    """One machine with its disk, its bucket and its clients; in some worlds with readers, too, or
    with other owners of the bucket.
    """
    return Repertoire(
        flag="",
        of="stores",
        play=playing.play,
        bugs=BUGS,
        shown=(
            "power losses",
            "imagined power losses",
            "kills",
            "orderly ends",
            "disk errors",
            "bucket outages",
            "lost replies",
            "clock jumps",
            "flipped bits",
            "vanished files",
            "damaged objects",
            "refusals to open",
            "repairs",
            "restores",
            "readers opened",
            "readers killed",
            "records followed",
            "look-ups by time",
            "searches",
            "restores",
            "restores cut off",
            "restores overtaken",
            "looks at the bucket",
            "strays found",
            "topics created",
            "topics deleted",
        ),
        compared="records compared",
    )
