"""Reads the pieces of a query, one after another, and knows where it is.

Place: below `query`, which knows what the pieces mean. Promise: every piece is read whole or a
QueryError says where and how to write it; a backslash makes the next character plain. Invariant:
`position` is the place, in characters from 0, that the next piece is read from.
"""

from __future__ import annotations

import math
import re
from typing import Final

from chronik_store.errors import QueryError

_SHOWN_MAX: Final = 120
_ENDS_WORD: Final = '()"^'
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_DIGITS: Final = re.compile(r"[0-9]{1,6}")
_FUZZY: Final = re.compile(r"~[0-9.]*\Z")
_BOUNDS: Final = re.compile(r"\s*(\S+)\s+TO\s+(\S+)\s*\Z")
_COMPARISON: Final = re.compile(r"[<>]=?")
_BETWEEN_SLASHES: Final = re.compile(r"/.*[^\\]/", re.DOTALL)


class Scanner:
    """A query text and a place in it. Not thread-safe: one per query."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def error(self, what: str, advice: str, position: int | None = None) -> QueryError:
        """A QueryError to raise: what is wrong, where (default: here), what to write."""
        where = self.position if position is None else position
        shown = self.text
        if len(shown) > _SHOWN_MAX:
            shown = f"...{shown[max(where - _SHOWN_MAX // 2, 0) : where + _SHOWN_MAX // 2]}..."
        return QueryError(f"{what} (at position {where} of {shown!r}): {advice}")

    def skip_space(self) -> None:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1

    def at_end(self) -> bool:
        """Nothing but space is left; the space is skipped."""
        self.skip_space()
        return self.position >= len(self.text)

    def space_follows(self) -> bool:
        """The next character is a space, or there is none."""
        return self.position >= len(self.text) or self.text[self.position].isspace()

    def peek(self) -> str:
        """The next character, "" at the end."""
        return self.text[self.position : self.position + 1]

    def take(self) -> str:
        """The next character, taken."""
        character = self.peek()
        self.position += 1
        return character

    def take_word(self, word: str) -> bool:
        """Take the operator `word` if it comes next as a word of its own."""
        self.skip_space()
        end = self.position + len(word)
        if not self.text.startswith(word, self.position):
            return False
        if end < len(self.text) and not self.text[end].isspace() and self.text[end] not in "()":
            return False
        self.position = end
        return True

    def field_name(self) -> tuple[str, int] | None:
        """The name before an unescaped colon and the place behind that colon; takes nothing."""
        if self.peek() in tuple("[{'"):
            return None
        name: list[str] = []
        place = self.position
        while place < len(self.text):
            character = self.text[place]
            if character == ":":
                return "".join(name), place + 1
            if character.isspace() or character in _ENDS_WORD:
                return None
            if character == "\\":
                place += 1
                character = self.text[place : place + 1]
            name.append(character)
            place += 1
        return None

    def word(self, wildcard_advice: str) -> str:
        """A word up to the next space, parenthesis, quote or boost; escapes resolved."""
        start = self.position
        letters: list[str] = []
        while not self.space_follows() and self.peek() not in _ENDS_WORD:
            character = self.take()
            if character == "\\":
                character = self._escaped()
            elif character == "*":
                prefix = "".join(letters).lower()
                advice = wildcard_advice.format(prefix=prefix if prefix.isalnum() else "err")
                raise self.error("'*' is not a wildcard here", advice, self.position - 1)
            letters.append(character)
        fuzzy = _FUZZY.search(self.text, start, self.position)
        if fuzzy and not self._is_escaped(fuzzy.start(), start) and fuzzy.start() > start:
            raise self.error(
                "'~' behind a word asks for a fuzzy search, which is not offered",
                "write the word alone, or a pattern such as value:/err(or)?/",
                fuzzy.start(),
            )
        return "".join(letters)

    def quoted(self) -> str:
        """What stands between two equal quotes, escapes resolved."""
        opened = self.position
        quote = self.take()
        letters: list[str] = []
        while self.position < len(self.text):
            character = self.take()
            if character == quote:
                if self.peek() == "*":
                    raise self.error(
                        "a phrase with an open end is not offered",
                        "leave out the '*' (Tantivy would stop at 50 endings in silence)",
                    )
                return "".join(letters)
            letters.append(self._escaped() if character == "\\" else character)
        raise self.error(f"{quote} is never closed", f"add {quote}, or write \\{quote}", opened)

    def is_between_slashes(self, start: int) -> bool:
        """What was read since `start` is written like a pattern."""
        return _BETWEEN_SLASHES.fullmatch(self.text, start, self.position) is not None

    def pattern(self) -> str:
        """A regular expression between slashes, its own escapes kept."""
        opened = self.position
        self.take()
        letters: list[str] = []
        while self.position < len(self.text):
            character = self.take()
            if character == "/":
                if not self.space_follows() and self.peek() not in ")^":
                    break
                return "".join(letters)
            letters.append(character)
            if character == "\\":
                letters.append(self._escaped())
        raise self.error(
            "a pattern is not closed by '/'", 'close it, or quote a text: key:"/a/b"', opened
        )

    def slop(self, most: int) -> int:
        """The N of a phrase's ~N; 0 without."""
        if self.peek() != "~":
            return 0
        self.take()
        found = _DIGITS.match(self.text, self.position)
        if found is None or int(found.group()) > most:
            raise self.error("'~' behind a phrase needs a distance", f"write ~0 to ~{most}")
        self.position = found.end()
        return int(found.group())

    def boost(self, most: float) -> float | None:
        """The N of ^N; None without."""
        if self.peek() != "^":
            return None
        self.take()
        found = _NUMBER.match(self.text, self.position)
        factor = math.nan if found is None else float(found.group())
        if found is None or not 0 < factor <= most:
            raise self.error("'^' needs a factor", f"write a number above 0, at most {most:g}")
        self.position = found.end()
        return factor

    def bounds(self) -> tuple[str, str, str, str]:
        """A range in brackets: opening bracket, low, high, closing bracket."""
        opened = self.position
        opening = self.take()
        ends = [place for place in map(self._find, "]}") if place >= 0]
        inner = _BOUNDS.match(self.text[self.position : min(ends)]) if ends else None
        if inner is None:
            raise self.error(
                "a range is not complete", "write [LOW TO HIGH], {LOW TO HIGH} or >=LOW", opened
            )
        self.position = min(ends) + 1
        low, high = inner.groups()
        return opening, low, high, self.text[self.position - 1]

    def comparison(self) -> str:
        """One of < <= > >=, or "" if none comes next."""
        found = _COMPARISON.match(self.text, self.position)
        if found is None:
            return ""
        self.position = found.end()
        return found.group()

    def scalar(self) -> str:
        """What stands in quotes, or the characters up to the next space or closing parenthesis, as
        they are.
        """
        if self.peek() in tuple("\"'"):
            return self.quoted()
        start = self.position
        while not self.space_follows() and self.peek() not in tuple("()^"):
            self.position += 1
        return self.text[start : self.position]

    def end_of_term(self) -> None:
        """Nothing may stick to the term that was read."""
        if not self.space_follows() and self.peek() != ")":
            raise self.error(
                f"{self.peek()!r} directly behind a term", "put a space between, or quote the text"
            )

    def _escaped(self) -> str:
        if self.position >= len(self.text):
            raise self.error("a backslash at the end", "write \\\\ or remove it")
        return self.take()

    def _is_escaped(self, place: int, start: int) -> bool:
        before = self.text[start:place]
        return (len(before) - len(before.rstrip("\\"))) % 2 == 1

    def _find(self, character: str) -> int:
        return self.text.find(character, self.position)
