"""Which phrases a phrase with slop stands for.

Place: beside `query_patterns`, below `query`; pure. Promise: one of `spread` occurs in a text if
and only if at most `slop` moves make the words of the phrase out of words of the text, each a word
of its own. One move takes one word, or some that stay side by side, one place on.

Tantivy 0.27 does that for two words that differ. For more it counts other moves, and takes one word
of a text for two: "a a"~1 found every text with one "a", "a b c"~1 found "a c a c b", and
"a b c d"~4 did not find "d c b a d" (measured).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SPREAD_MAX: Final = 64
"""Each is a phrase of its own to the engine: of words that are everywhere, 64 take a second for
100,000 records.
"""

Phrase = tuple[tuple[int, str], ...]
"""Words by their places, which begin at 0."""


def spread(words: Sequence[str], slop: int) -> tuple[Phrase, ...] | None:
    """The phrases without slop; None: they are more than SPREAD_MAX."""
    ways: list[tuple[int, ...]] = [(0,)]
    for place in range(1, len(words)):
        ways = [
            (*way, moved)
            for way in ways
            for moved in range(max(way) - slop, min(way) + slop + 1)
            if all(place + moved != taken + by for taken, by in enumerate(way))
        ]
        if len(ways) > SPREAD_MAX:
            return None
    return tuple(sorted({_placed(words, way) for way in ways}))


def slop_max(count: int) -> int:
    """The most slop for so many words."""
    slop = 0
    while spread("?" * count, slop + 1) is not None:
        slop += 1
    return slop


def _placed(words: Sequence[str], way: Sequence[int]) -> Phrase:
    places = [place + moved for place, moved in enumerate(way)]
    return tuple(
        sorted((place - min(places), word) for place, word in zip(places, words, strict=True))
    )
