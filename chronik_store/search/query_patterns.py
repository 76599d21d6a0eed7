"""The regular expressions of a query: which can match a word, and what they cost to compile.

Place: beside `query_fields`, below `query`. Promise: a pattern that can match no word is refused;
`weight` tells from the text how long Tantivy would compile it. Invariant: nothing is compiled here,
and what a letter is the analyzer says, as for records: to Python the vowels of Thai and of Hindi,
which are marks, are none.

Tantivy compiles a pattern to an automaton with the interpreter's lock held, so that a server
answers nobody meanwhile, and finds only then that it is too large. It takes some half a millisecond
for each unit of weight: 28 s for `(a{1,100}){1,100}`, of 10,000 (measured).
"""

from __future__ import annotations

import re
from typing import Final

from chronik_store.search import engine
from chronik_store.search.query_scanner import Scanner

WEIGHT_MAX: Final = 2500
"""Of all patterns of a query: a second or two. `\\w*err\\w*` has 2003."""

_FLAGS: Final = re.compile(r"\(\?[^:)>]{0,99}[:)>]")
_LOOSE: Final = re.compile(r"\(\?[A-Za-z-]{0,20}x[A-Za-z-]{0,20}[:)]")  # each flag once
_ONE: Final = r"\\[pPxuU]\{[^}]*\}|\\[pP].|\\."
_ESCAPED: Final = re.compile(_ONE, re.DOTALL)
_COUNT: Final = re.compile(r"\{([0-9]{1,9})(?:,([0-9]{0,9}))?\}")
_PIECE: Final = re.compile(rf"{_ONE}|{_FLAGS.pattern}|{_COUNT.pattern}|.", re.DOTALL)
_IN_CLASS: Final = re.compile(
    rf"(?P<opens>\[\^?(?:-+|\]?))|(?P<closes>\])|&&|--|~~|(?:{_ONE}|.)(?:-(?![\]-])(?:{_ONE}|.))?",
    re.DOTALL,
)
_OF_MANY_SCRIPTS: Final = re.compile(r"\\[pPwW]")
_ALL_BUT_SOME: Final = re.compile(r"\\[DS]|\[\^[^\\]*\\")
_BEYOND_ASCII: Final = re.compile(r"\\|[^\x00-\x7f]|\.\Z|\[\^")


def check_pattern(regex: str, scan: Scanner, start: int) -> str:
    """Refuse what can match no word, though Tantivy would take it: it looks at single words."""
    place = 0
    while place < len(regex):
        character = regex[place]
        if character in "^$":
            raise scan.error(
                f"{character!r} in a pattern", "leave it out: a pattern matches a whole word", start
            )
        escaped = _ESCAPED.match(regex, place)
        if character == "[":
            place = _behind_class(regex, place)
            continue
        if character == "{":
            place = _behind_count(regex, place, scan, start)
            continue
        if regex.startswith("(?", place):
            place = _behind_flags(regex, place, scan, start)
            continue
        if escaped:
            character = regex[place + 1]
        if escaped or character not in ".*+?()|}]":
            _check_letter(character, scan, start)
        place = escaped.end() if escaped else place + 1
    if not regex:
        raise scan.error("an empty pattern", "write one between the slashes", start)
    return regex


def _check_letter(character: str, scan: Scanner, start: int) -> None:
    indexed = "".join(engine.words(character))
    if len(indexed) == 1:
        return
    advice = 'words hold letters and digits only; quote a text with others: value:"a-b"'
    if indexed:  # the I with a dot, alone of all letters, becomes two
        advice = f"in lower case, as words are, it is {len(indexed)} characters; write two dots"
    raise scan.error(f"{character!r} in a pattern matches nothing", advice, start)


def _behind_class(regex: str, place: int) -> int:
    """The place behind a class in brackets and all classes inside of it, read as Tantivy does."""
    depth = 0
    while place < len(regex):
        found = _IN_CLASS.match(regex, place)
        assert found is not None
        place = found.end()
        depth += bool(found["opens"]) - bool(found["closes"])
        if not depth:
            break
    return place


def _behind_count(regex: str, place: int, scan: Scanner, start: int) -> int:
    """Tantivy takes more digits, and spaces around them: a weight that these would hide."""
    count = _COUNT.match(regex, place)
    if count is None:
        raise scan.error(
            "'{' in a pattern that begins no count", "write {2} or {2,5}, without spaces", start
        )
    return count.end()


def _behind_flags(regex: str, place: int, scan: Scanner, start: int) -> int:
    if _LOOSE.match(regex, place):  # spaces would count for nothing, also in classes
        raise scan.error("the flag x in a pattern", "leave it out, and write no spaces", start)
    flags = _FLAGS.match(regex, place)
    return flags.end() if flags else place + 2


def weight(regex: str) -> int:
    """About the steps of its automaton, with all that is counted written out; a class counts for
    the byte sequences of its characters. Of what is malformed it says nothing of use.
    """
    around: list[int] = []
    here = last = place = 0
    while place < len(regex):
        found = _PIECE.match(regex, place)
        assert found is not None
        piece, place = found[0], found.end()
        if piece[0] == "(":
            if piece[-1] != ")":  # else flags, of what follows
                around.append(here)
                here = last = 0
        elif piece == ")":
            last = here + 1
            here = last + (around.pop() if around else 0)
        elif found[1] is not None:
            times = max(1, int(found[1]), int(found[2] or 0))
            here += last * (times - 1)
            last *= times
        elif piece not in "*+?|":
            if piece == "[":
                place = _behind_class(regex, place - 1)
                piece = regex[found.start() : place]
            last = _weight_of(piece)
            here += last
        if here > WEIGHT_MAX:
            break
    return here + sum(around)


def _weight_of(atom: str) -> int:
    if _OF_MANY_SCRIPTS.search(atom):
        return 1000
    if _ALL_BUT_SOME.search(atom):
        return 200
    if _BEYOND_ASCII.search(atom):
        return 10
    return 3 if atom[0] == "[" else 1
