"""The fields of a query: which there are, and what their values mean.

Place: beside `query_scanner`, below `query`. Promise: any name that is not a field is refused with
the list of fields and the nearest one; bounds of offsets and times become half-open intervals of
integers. Invariant: JSON paths and header names pass through `clean_path`, here and in
`documents`, so that both sides spell them alike.
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
from dataclasses import dataclass
from typing import Final, Literal

from chronik_store.model import EPOCH
from chronik_store.search.query_scanner import Scanner
from chronik_store.search.query_tree import TextField

FIELDS: Final = "value:, key:, header.NAME:, json.PATH:, offset:, time:"
OFFSET_MAX: Final = 2**63 - 1
TIME_MIN: Final = -(2**63)
TIME_MAX: Final = 2**63 - 1

_ALIASES: Final = {
    "ts": "time", "timestamp": "time", "date": "time", "headers": "header", "body": "value",
}  # fmt: skip
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][\w.-]*\Z")
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}\Z")
_ODD_IN_PATHS: Final = re.compile("[\x00\x01\\\\\ud800-\udfff]")
_MICROSECOND: Final = dt.timedelta(microseconds=1)

Kind = Literal["value", "key", "header", "json", "offset", "time"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field as a query names it. path: the header's name or JSON path. named: it was written."""

    kind: Kind
    path: str = ""
    named: bool = True

    @property
    def text(self) -> str:
        """As it is written in a query."""
        return f"{self.kind}.{self.path}:" if self.path else f"{self.kind}:"

    def text_kind(self) -> TextField:
        """The kind of a field that holds words; offsets and times hold none."""
        if self.kind in {"offset", "time"}:
            raise AssertionError(f"{self.text} holds no words")
        return self.kind  # type: ignore[return-value]

    def wildcard_advice(self) -> str:
        """What to write instead of a trailing `*`; {prefix} stands for the word before it."""
        if self.kind in {"value", "key"}:
            return f"write {self.kind}:/{{prefix}}.*/ (or \\* for the character)"
        return "patterns work on value: and key: only, value:/{prefix}.*/ for one"


EVERYTHING: Final = Field("value", named=False)
"""What a bare term searches."""


def find_field(name: str, scan: Scanner) -> Field:
    """The field of this name. QueryError lists the fields and suggests one."""
    if name in {"value", "key", "offset", "time"}:
        return Field(name)  # type: ignore[arg-type]
    head, _, path = name.partition(".")
    if head in {"header", "json"}:
        if path:
            return Field(head, path)  # type: ignore[arg-type]
        example = "header.trace:" if head == "header" else "json.level:"
        raise scan.error(f"{head}: needs a name behind a dot", f"write for example {example}")
    raise scan.error(
        f"there is no field {name!r}",
        f"the fields are {FIELDS}{_suggestion(name)}; quote the text if the colon belongs to it",
    )


def clean_path(path: str) -> str:
    """A JSON path or header name as it is indexed.

    Tantivy keeps NUL, U+0001 and the backslash for itself, and no lone surrogate is UTF-8; they
    become U+FFFD.
    """
    return _ODD_IN_PATHS.sub("\ufffd", path)


def parse_interval(field: Field, scan: Scanner) -> tuple[int | None, int | None]:
    """A value or range of offsets or times, as [low, high). QueryError if it is empty."""
    start = scan.position
    if scan.peek() in {"[", "{"}:
        opening, lower, upper, closing = scan.bounds()
        low = None if lower == "*" else _number(field, lower, scan, start)
        high = None if upper == "*" else _number(field, upper, scan, start)
        if low is not None and opening == "{":
            low += 1
        if high is not None and closing == "]":
            high += 1
    else:
        comparison = scan.comparison()
        number = _number(field, scan.scalar(), scan, start)
        low = number + (comparison == ">") if comparison in {"", ">", ">="} else None
        high = number + (comparison != "<") if comparison in {"", "<", "<="} else None
    least = 0 if field.kind == "offset" else TIME_MIN
    if high is not None and high <= (least if low is None else low):
        raise scan.error("the range is empty", "write the lower bound first", start)
    return low, high


def _number(field: Field, text: str, scan: Scanner, position: int) -> int:
    if _INTEGER.match(text):
        number = int(text)
    elif field.kind == "time":
        number = _microseconds(text, scan, position)
    else:
        raise scan.error(f"{text!r} is not an offset", "write a whole number", position)
    low, high = (0, OFFSET_MAX) if field.kind == "offset" else (TIME_MIN, TIME_MAX)
    if not low <= number < high:
        raise scan.error(f"{text!r} is out of range", f"write {low} to {high - 1}", position)
    return number


def _microseconds(text: str, scan: Scanner, position: int) -> int:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise scan.error(
            f"{text!r} is not a time",
            "write 2024-01-31T12:00:00Z, or microseconds since 1970 UTC",
            position,
        ) from None
    if moment.tzinfo is None:
        raise scan.error(
            f"{text!r} names no time zone", f"write {moment.isoformat()}Z for UTC", position
        )
    return (moment - EPOCH) // _MICROSECOND


def _suggestion(name: str) -> str:
    head, dot, rest = name.partition(".")
    kinds = ("value", "key", "header", "json", "offset", "time")
    near = difflib.get_close_matches(head.lower(), kinds, n=1, cutoff=0.6)
    meant = _ALIASES.get(head.lower()) or (near[0] if near else "")
    if meant in {"header", "json"}:
        return f"; did you mean {meant}.{rest or 'NAME'}:?"
    if meant and not dot:
        return f"; did you mean {meant}:?"
    if _IDENTIFIER.match(name):
        return f"; did you mean json.{name}:?"
    return ""
