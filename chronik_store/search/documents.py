"""Records to documents: what of a record is indexed, under which names.

Place: below `engine`, above `format.stored_batch`; plain Python values in, plain dicts out. Indexed
are: value and key as words; up to HEADERS_MAX headers as words under their names; a value that is a
JSON object of up to JSON_BYTES_MAX also by path: strings as words, numbers and booleans as such,
the members of lists each on its own, to JSON_DEPTH_MAX levels, paths up to PATH_CHARACTERS_MAX.
Promise: what is searched by path follows from the text of a value alone, not from how deep or long
a number a parser bears, nor from the stack of who indexes; and nothing that a record may hold makes
Tantivy refuse or kill the writer: it panics or errors on lone surrogates, integers beyond 64 bits
and depth, misreads NUL, U+0001 and backslash in paths, and takes strings that look like RFC 3339
for dates that no word finds (measured); all are replaced here. Invariant: paths are spelled as
`query_fields.clean_path` spells them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from chronik_store.format.stored_batch import StoredBatch
from chronik_store.model import Headers
from chronik_store.search.query_fields import clean_path
from chronik_store.search.tokenizer import Splitter, cut_long_words, may_hold_long_words

JSON_BYTES_MAX: Final = 1 << 20
"""Of a value. Every few bytes may be a path, or an object in memory: 31 MiB of names took 1.5 GiB
and 12 s of a core, with the interpreter's lock held for seconds at a time (measured).
"""
HEADERS_MAX: Final = 1000
"""Of a record, the first: each may be a path of its own, too."""
JSON_DEPTH_MAX: Final = 32
PATH_CHARACTERS_MAX: Final = 1000
PATHS_MAX: Final = 512
PATHS_BYTES_MAX: Final = 16 << 10
PATH_BYTES_MAX: Final = 1024
"""What a bundle's entry in the manifest may hold; beyond it the list counts as truncated."""

_JSON_SPACE: Final = b" \t\r\n"
_NESTED_MAX: Final = 100
"""So many levels are parsed at a time of what is too deep for one: more than any path has."""
_MARKS: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{]++|[\]}]++', re.DOTALL)
_DIGITS_MAX: Final = 20  # of 64 bits; a longer integer is indexed as a word
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_DATE_DASHES: Final = 8  # "2024-01-": what a string needs to look like a date

Document = dict[str, Any]
_Leaves = dict[str, list[Any]]


class PathSet:
    """The JSON paths and headers that occur, spelled as in a query; bounded. Not thread-safe."""

    __slots__ = ("_json", "_names", "truncated")

    def __init__(self) -> None:
        self._json: set[str] = set()
        self._names: set[str] = set()
        self.truncated = False

    def add_json(self, leaves: _Leaves) -> None:
        """Note the paths of one document."""
        if not self.truncated and not self._json.issuperset(leaves):
            self._json.update(leaves)
            self.truncated = len(self._json) > PATHS_MAX

    def add_headers(self, names: _Leaves) -> None:
        """Note the headers of one document."""
        if not self.truncated and not self._names.issuperset(names):
            self._names.update(names)
            self.truncated = len(self._names) > PATHS_MAX

    def listed(self) -> tuple[tuple[str, ...], bool]:
        """The paths in order, as many as a manifest holds, and whether some are left out."""
        listed: list[str] = []
        budget = PATHS_BYTES_MAX
        spelled = [f"json.{path}" for path in self._json]
        spelled += [f"header.{name}" for name in self._names]
        for path in sorted(spelled):
            size = len(path.encode())
            budget -= size
            if size > PATH_BYTES_MAX or budget < 0 or len(listed) >= PATHS_MAX:
                return tuple(listed), True
            listed.append(path)
        return tuple(listed), self.truncated


class DocumentMaker:
    """Makes the documents of batches and collects the paths they use. Not thread-safe."""

    def __init__(self, split: Splitter) -> None:
        self.paths = PathSet()
        self._split = split

    def documents(self, batch: StoredBatch, start: int, stop: int) -> Iterator[Document]:
        """One document for each record in [start, stop), in offset order."""
        base = batch.base_offset
        rows = zip(batch.values(), batch.keys(), batch.timestamps_us, batch.headers(), strict=True)
        # One pass over the whole column tells that no value needs a closer look; most never do.
        check_long = may_hold_long_words(bytes(batch.value_data))
        for offset, (value, key, time, headers) in enumerate(rows, base):
            if not start <= offset < stop:
                continue
            text = value.decode("utf-8", "replace")
            document: Document = {"offset": offset, "ts": time, "value": text}
            if len(value) <= JSON_BYTES_MAX and (
                value[:1] == b"{" or value.lstrip(_JSON_SPACE)[:1] == b"{"
            ):
                leaves = self._json(text)
                if leaves:
                    document["json"] = leaves
            if check_long:
                document["value"] = cut_long_words(text, self._split)
            if key:
                document["key"] = self._text(key)
            if headers:
                document["header"] = self._headers(headers)
            yield document

    def _text(self, data: bytes) -> str:
        return cut_long_words(data.decode("utf-8", "replace"), self._split)

    def _headers(self, headers: Headers) -> _Leaves:
        names: _Leaves = {}
        for name, data in headers[:HEADERS_MAX]:
            if name and len(name) <= PATH_CHARACTERS_MAX:
                text = _not_a_date(self._text(data))
                names.setdefault(clean_path(name), []).append(text)
        self.paths.add_headers(names)
        return names

    def _json(self, text: str) -> _Leaves | None:
        """The leaves of a JSON object by path; None if the text is not one."""
        try:
            parsed = _parsed(text)
        except (ValueError, RecursionError):  # not JSON, or asked with hardly any stack left
            return None
        if type(parsed) is not dict:
            return None
        escapes = "\\" in text  # only one can bring in what paths and UTF-8 must not hold
        leaves: _Leaves = {}
        try:
            self._walk(parsed, "", JSON_DEPTH_MAX, leaves, escapes)
        except OverflowError:  # too large for a float: as it is written
            leaves = {}
            self._walk(_parsed_in_pieces(text), "", JSON_DEPTH_MAX, leaves, escapes)
        self.paths.add_json(leaves)
        return leaves

    def _walk(self, item: Any, path: str, depth: int, leaves: _Leaves, escapes: bool) -> None:
        kind = type(item)
        if kind is dict:
            for name, child in item.items():
                spelled = clean_path(name) if escapes else name
                below = f"{path}.{spelled}" if path else spelled
                if depth and len(below) <= PATH_CHARACTERS_MAX:
                    self._walk(child, below, depth - 1, leaves, escapes)
        elif kind is list:
            if path and not item:  # the path occurs, as that of a null does
                leaves.setdefault(path, [])
            if depth:
                for child in item:
                    self._walk(child, path, depth - 1, leaves, escapes)
        elif path:  # none: the name at the top is empty, and no query can say it
            found = leaves.setdefault(path, [])
            if kind is str:
                found.append(self._string(item, escapes))
            elif item is not None:
                number = _number(item)
                found.append(self._string(number, False) if isinstance(number, str) else number)

    def _string(self, text: str, escapes: bool) -> str:
        if escapes:
            text = _SURROGATE.sub("\ufffd", text)
        return _not_a_date(cut_long_words(text, self._split))


def _parsed(text: str) -> Any:
    """The value of a JSON text; ValueError if it is none. What lies deeper than any path may be
    None instead, and numbers that 64 bits do not hold may be as they are written.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer of more digits than Python makes one of
        return _parsed_in_pieces(text)
    except RecursionError:
        return _parsed_in_pieces(text)


def _parsed_in_pieces(text: str) -> Any:
    decoder = json.JSONDecoder(parse_int=_integer, parse_float=_real, parse_constant=str)
    parsed: Any = None
    for piece in _pieces(text):
        parsed = decoder.decode(piece)
    return parsed


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of _NESTED_MAX levels, the outermost last; where one was cut out, the one
    around it says null. Each is JSON if the text is.
    """
    around: list[list[str]] = []
    here: list[str] = []
    depth = done = 0
    for mark in _MARKS.finditer(text):
        run, place = mark[0], mark.start()
        if run[0] in "[{":
            first = place + _NESTED_MAX - depth % _NESTED_MAX - 1
            for cut in range(first, mark.end(), _NESTED_MAX):
                here += (text[done:cut], "null")
                around.append(here)
                here, done = [], cut
            depth += len(run)
        elif run[0] in "]}":
            first = place + depth % _NESTED_MAX + 1
            for cut in range(first, mark.end() + 1, _NESTED_MAX):
                if around:
                    yield "".join((*here, text[done:cut]))
                    here, done = around.pop(), cut
            depth -= len(run)
    if around:
        raise ValueError("brackets that nothing closes")
    yield "".join((*here, text[done:]))


def _integer(digits: str) -> int | str:
    return digits if len(digits) > _DIGITS_MAX else int(digits)


def _real(digits: str) -> float | str:
    return number if math.isfinite(number := float(digits)) else digits


def _not_a_date(text: str) -> str:
    # Tantivy files "2024-01-31T..." as a date, which no word finds; a leading space stops it.
    return f" {text}" if text[4:5] == "-" and len(text) > _DATE_DASHES else text


def _number(number: float) -> bool | int | float | str:
    """OverflowError: a float that says nothing about how it was written."""
    if type(number) is int and not -(2**63) <= number < 2**64:
        return str(number)
    if type(number) is float and not math.isfinite(number):
        raise OverflowError(number)
    return number
