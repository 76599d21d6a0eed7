"""What act four asks the search index, and the answers by brute force.

Place: fed by act three, which reads every line anyway. Promise: the expected counts come from the
lines themselves, cut into words as docs/search-language.md says: letters and digits, any case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

WORD = re.compile(r"[^\W_]{4,}")


@dataclass
class Question:
    """One query, and how many of the lines seen match it."""

    name: str
    words: tuple[str, ...]
    since_us: int | None = None
    expected: int = 0
    _pattern: re.Pattern[str] = field(init=False)
    _first: bytes = field(init=False)

    def __post_init__(self) -> None:
        inner = r"[\W_]+".join(map(re.escape, self.words))
        self._pattern = re.compile(rf"(?<![^\W_]){inner}(?![^\W_])", re.IGNORECASE)
        self._first = self.words[0].lower().encode()

    @property
    def query(self) -> str:
        """In the search language."""
        return self.words[0] if len(self.words) == 1 else f'"{" ".join(self.words)}"'

    def see(self, lowered: bytes, timestamp_us: int) -> None:
        """One more line, in lower case."""
        if self._first in lowered and (self.since_us is None or timestamp_us >= self.since_us):
            text = lowered.decode("utf-8", "replace")
            self.expected += self._pattern.search(text) is not None


def questions_for(lines: Iterable[bytes], since_us: int) -> list[Question]:
    """A term, a phrase and a term since a time, all of which occur in the lines."""
    term, phrase, frequent = "deadlock", ("race", "condition"), "import"
    missing = {term, phrase[0], frequent}
    pair: tuple[str, str] | None = None
    for line in lines:
        words = WORD.findall(line.decode("utf-8", "ignore").lower())
        missing.difference_update(words)
        if not missing:
            break
        if pair is None:
            pair = _adjacent(line.decode("utf-8", "ignore").lower())
    if missing and pair is not None:
        term, phrase, frequent = pair[0], pair, pair[1]
    return [
        Question("by term", (term,)),
        Question("by phrase", phrase),
        Question("by term and time", (frequent,), since_us=since_us),
    ]


def _adjacent(text: str) -> tuple[str, str] | None:
    found = re.search(r"(?<![^\W_])([a-z]{5,}) ([a-z]{5,})(?![^\W_])", text)
    return None if found is None else (found[1], found[2])
