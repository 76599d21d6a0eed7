"""Tantivy: the only module that imports it, on first use.

Place: above `documents` and `query_tree`, below everything else in `search`. One schema for bundles
and tail: offset (u64) and ts (i64 microseconds, may be negative) as fast fields, value and key as
words, header and json as words, numbers and booleans by path. Nothing is stored: a hit is
(offset, score). Promise: queries are compiled from the checked tree, never parsed by Tantivy;
its ValueErrors, RuntimeErrors and panics become typed errors. Tantivy releases the GIL while it
waits for its indexing thread and while it searches (tests/store/search/test_engine.py).
Invariant: all indexes that one build of this module opens have the same schema, so a query is
compiled without an index.

Directories are real ones: Tantivy opens, maps and syncs files by itself, past `fs`. Only scratch
may be given to it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from chronik_store.errors import ChronikError, DiskFullError, QueryError, UnavailableError
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.search.documents import DocumentMaker
from chronik_store.search.query_fields import TIME_MAX, TIME_MIN
from chronik_store.search.query_tree import Boosted, Interval, Node, Pattern, Words
from chronik_store.search.tokenizer import WORDS, cut_long_words

if TYPE_CHECKING:
    import tantivy

_log = logging.getLogger("chronik_store.search")
Order = Literal["newest", "oldest", "score"]
HEAP_BYTES_MIN: Final = 15_000_000
"""Tantivy's own least budget of one indexing thread."""
_THREADS: Final = 1  # that index: more would make more, and smaller, pieces to merge

_STATED: Final = re.compile(r"v?(\d+\.\d+\.\d+), index_format v?(\d+)")
_IDENTITY: Final = re.compile(r"tantivy \S+ format (\d+) (\S+)")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")
_NO_SPACE: Final = ("No space left", "os error 28")


class IndexHits(NamedTuple):
    """What one index found. hits: (offset, score), at most as many as asked for, in order; the
    score is 0.0 unless the order is "score". total: all records that match.
    """

    hits: list[tuple[int, float]]
    total: int


def ordered(hits: list[tuple[int, float]], order: Order) -> list[tuple[int, float]]:
    """Hits of several indexes in one order; equal scores by offset, newest first."""
    if order == "score":
        return sorted(hits, key=lambda hit: (hit[1], hit[0]), reverse=True)
    return sorted(hits, reverse=order == "newest")


class UnreadableIndexError(UnavailableError):
    """An index of another Tantivy or another word scheme. It counts as not indexed: rebuild it."""

    retriable = False


@cache
def _library() -> Any:
    import tantivy

    return tantivy


@cache
def _schema() -> tantivy.Schema:
    builder = _library().SchemaBuilder()
    builder.add_unsigned_field("offset", indexed=True, fast=True)
    builder.add_integer_field("ts", indexed=True, fast=True)
    builder.add_text_field("value", tokenizer_name=WORDS)
    builder.add_text_field("key", tokenizer_name=WORDS)
    # Dots in names count as levels, so {"a.b": 1} and {"a": {"b": 1}} are both json.a.b.
    builder.add_json_field("header", tokenizer_name=WORDS, expand_dots_enabled=True)
    builder.add_json_field("json", tokenizer_name=WORDS, expand_dots_enabled=True)
    return builder.build()  # type: ignore[no-any-return]


@cache
def _analyzer(*, lower: bool) -> tantivy.TextAnalyzer:
    library = _library()
    builder = library.TextAnalyzerBuilder(library.Tokenizer.simple())
    return (builder.filter(library.Filter.lowercase()) if lower else builder).build()  # type: ignore[no-any-return]


def split(text: str) -> list[str]:
    """The words of a text in their own case, uncut."""
    return _analyzer(lower=False).analyze(text)


def words(text: str) -> list[str]:
    """The words of a text as they are indexed: cut, lower case."""
    return _analyzer(lower=True).analyze(cut_long_words(text, split))


@cache
def identity() -> str:
    """Engine, index format and word scheme, as a bundle records them."""
    stated = _STATED.search(_library().__version__)
    version, index_format = stated.groups() if stated else ("unknown", "0")
    return f"tantivy {version} format {index_format} {WORDS}"


def can_read(recorded: str) -> bool:
    """True if an index of this recorded identity means here what it meant when it was written."""
    theirs, ours = _IDENTITY.fullmatch(recorded), _IDENTITY.fullmatch(identity())
    return theirs is not None and ours is not None and theirs.groups() == ours.groups()


def check(tree: Node) -> None:
    """Compile a query for nothing; QueryError if Tantivy refuses a part of it."""
    _compile(tree)


class IndexBuilder:
    """Writes one index. Not thread-safe; what `search` gave may be searched by others meanwhile.

    directory: an empty or former one of this class, or None for memory. heap_bytes: Tantivy's
    budget, at least HEAP_BYTES_MIN. After any error the builder and what it wrote since the last
    commit are lost; the last commit is not.
    """

    def __init__(self, directory: str | None, *, heap_bytes: int) -> None:
        self._what = f"the search index in {directory or 'memory'}"
        self._heap = max(heap_bytes, HEAP_BYTES_MIN)
        self._index = _index(directory, self._what)
        self._writer: tantivy.IndexWriter | None = None
        self._maker = DocumentMaker(split)
        self.paths = self._maker.paths

    def add(self, batch: StoredBatch, start: int, stop: int) -> Iterator[int]:
        """Index the batch's records in [start, stop); yields each offset once it is taken."""
        with _translated(self._what):
            if self._writer is None:
                self._writer = self._index.writer(self._heap, _THREADS)
            add, make = self._writer.add_document, _library().Document.from_dict
        schema = _schema()
        with _translated(self._what):
            for document in self._maker.documents(batch, start, stop):
                add(make(document, schema))
                yield document["offset"]

    def commit(self) -> None:
        """Make what was added searchable."""
        if self._writer is not None:
            with _translated(self._what):
                self._writer.commit()
                self._index.reload()

    def rest(self) -> None:
        """Wait for merges and give up threads and memory; the next `add` takes them again."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with _translated(self._what):
                writer.wait_merging_threads()
                self._index.reload()

    def abandon(self) -> None:
        """End Tantivy's threads, so that the directory may be removed. Never raises."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                with _translated(self._what):
                    writer.wait_merging_threads()
            except ChronikError as error:  # whoever abandons an index has seen its error already
                _log.debug("%s, abandoned: %s", self._what, error)

    def search(self) -> IndexSearch:
        """A search over the last commit."""
        return IndexSearch(self._index.searcher(), self._what)


def open_index(directory: str) -> IndexSearch:
    """Open a finished index for searching. UnreadableIndexError, or UnavailableError."""
    what = f"the search index in {directory}"
    return IndexSearch(_index(directory, what).searcher(), what)


def _index(directory: str | None, what: str) -> tantivy.Index:
    with _translated(what):
        index: tantivy.Index = _library().Index(_schema(), directory)
        index.register_tokenizer(WORDS, _analyzer(lower=True))
        # By default each open index has a thread that looks for new commits twice a second.
        index.config_reader("manual")
        return index


class IndexSearch:
    """A frozen view of one index. Thread-safe; needs no close: the files go when it does."""

    def __init__(self, searcher: tantivy.Searcher, what: str) -> None:
        self._searcher = searcher
        self._what = what

    @property
    def document_count(self) -> int:
        """Records in the index."""
        return self._searcher.num_docs

    def search(
        self,
        tree: Node,
        *,
        start: int,
        stop: int,
        since_us: int | None = None,
        until_us: int | None = None,
        limit: int = 10,
        order: Order = "newest",
    ) -> IndexHits:
        """Records that match, with start <= offset < stop and since_us <= time < until_us.

        Cannot be interrupted: a deadline is looked at between indexes.
        """
        count = self.document_count
        # A time of a record has 64 bits; Tantivy takes no bound beyond them.
        least = TIME_MIN if since_us is None else max(since_us, TIME_MIN)
        past = TIME_MAX + 1 if until_us is None else min(until_us, TIME_MAX + 1)
        if count == 0 or start >= stop or least >= past:
            return IndexHits([], 0)
        since_us = None if least == TIME_MIN else least
        until_us = None if past > TIME_MAX else past
        library = _library()
        with _translated(self._what):
            query = _within(_compile(tree), start, stop, since_us, until_us)
            # Tantivy panics at 0 and allocates by the limit.
            most = min(max(limit, 1), count)
            if order == "score":
                found = self._searcher.search(query, most)
                places = [place for _, place in found.hits]
                offsets = self._searcher.fast_field_values("offset", places)
                scores = [float(score) for score, _ in found.hits]
            else:
                direction = library.Order.Desc if order == "newest" else library.Order.Asc
                found = self._searcher.search(query, most, order_by_field="offset", order=direction)
                offsets = [offset for offset, _ in found.hits]
                scores = [0.0] * len(offsets)
        hits = [(int(offset or 0), score) for offset, score in zip(offsets, scores, strict=True)]
        return IndexHits(hits[: max(limit, 0)], int(found.count))  # type: ignore[attr-defined]


def _within(
    query: tantivy.Query, start: int, stop: int, since_us: int | None, until_us: int | None
) -> tantivy.Query:
    """The query, among the records of these half-open ranges; the score stays the query's."""
    ranges = [_interval(Interval("offset", start, stop))]
    if since_us is not None or until_us is not None:
        ranges.append(_interval(Interval("time", since_us, until_us)))
    library = _library()
    filters = [library.Query.const_score_query(part, 0.0) for part in ranges]
    return _boolean([(library.Occur.Must, part) for part in [query, *filters]])


def _compile(node: Node) -> tantivy.Query:
    if isinstance(node, Words):
        return _words(node)
    if isinstance(node, Pattern):
        return _pattern(node)
    if isinstance(node, Interval):
        return _interval(node)
    library = _library()
    if isinstance(node, Boosted):
        return library.Query.boost_query(_compile(node.node), node.factor)  # type: ignore[no-any-return]
    occur = library.Occur
    clauses = [(occur.Must, _compile(child)) for child in node.must]
    clauses += [(occur.Should, _compile(child)) for child in node.should]
    clauses += [(occur.MustNot, _compile(child)) for child in node.must_not]
    if not node.must and not node.should:
        # Tantivy finds nothing where everything is excluded from nothing (measured).
        everything = library.Query.const_score_query(library.Query.all_query(), 0.0)
        clauses.append((occur.Must, everything))
    return _boolean(clauses)


def _boolean(clauses: list[tuple[Any, tantivy.Query]]) -> tantivy.Query:
    return _library().Query.boolean_query(clauses)  # type: ignore[no-any-return]


def _words(node: Words) -> tantivy.Query:
    query, schema = _library().Query, _schema()
    name: str = node.field
    if node.path:
        # Each plain dot may end a field's name, to Tantivy: it tries them all, for each word. All
        # belong to the path, and are levels as before (expand_dots_enabled).
        name += "." + node.path.replace(".", "\\.")
    if len(node.tokens) == 1:
        text = query.term_query(schema, name, node.tokens[0])
    elif node.phrases:
        phrases = [query.phrase_query(schema, name, list(each), 0) for each in node.phrases]
        text = _boolean([(_library().Occur.Should, phrase) for phrase in phrases])
    else:
        # Of fewer than two words Tantivy panics (measured).
        text = query.phrase_query(schema, name, list(node.tokens), node.slop)
    scalars = _scalars(node.text) if node.field == "json" else []
    if not scalars:
        return text  # type: ignore[no-any-return]
    parts = [text, *(query.term_query(schema, name, scalar) for scalar in scalars)]
    return _boolean([(_library().Occur.Should, part) for part in parts])


def _scalars(text: str) -> list[bool | int | float]:
    """The JSON boolean or number that a text spells. Tantivy finds 5.0 as 5, and 5 as 5.0."""
    if text.lower() in {"true", "false"}:
        return [text.lower() == "true"]
    if not _NUMBER.match(text):
        return []
    number = float(text)
    if not abs(number) < float("inf"):
        return []
    if text.lstrip("-").isdigit():
        return [int(text)] if -(2**63) <= int(text) < 2**64 else [number]
    return [number]


@lru_cache(maxsize=32)
def _pattern(node: Pattern) -> tantivy.Query:
    """Kept for the indexes that are searched next: it may take half a second, each time, with the
    interpreter's lock held.
    """
    try:
        return _library().Query.regex_query(_schema(), node.field, f"(?i){node.regex}")  # type: ignore[no-any-return]
    except ValueError as error:
        reason = str(error).strip().splitlines()[-1]
        raise QueryError(f"the pattern /{node.regex}/ cannot be used: {reason}") from error


def _interval(node: Interval) -> tantivy.Query:
    library = _library()
    if node.low is None and node.high is None:
        # Tantivy refuses a range without bounds; every record has an offset and a time.
        return library.Query.all_query()  # type: ignore[no-any-return]
    name, kind = "offset", library.FieldType.Unsigned
    if node.field == "time":
        name, kind = "ts", library.FieldType.Integer
    high = None if node.high is None else node.high - 1
    return library.Query.range_query(_schema(), name, kind, node.low, high)  # type: ignore[no-any-return]


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Tantivy's errors as ours. It raises ValueError for nearly everything, and panics."""
    try:
        yield
    except ChronikError:
        raise
    except (ValueError, RuntimeError, OSError) as error:
        raise _typed(what, error) from error
    except BaseException as error:
        # Rust panics arrive as a BaseException that no module exports.
        if type(error).__name__ != "PanicException":
            raise
        raise _typed(what, error) from None


def _typed(what: str, error: BaseException) -> ChronikError:
    text = str(error)
    if any(mark in text for mark in _NO_SPACE):
        return DiskFullError(f"{what}: the disk is full: {text}")
    if "ncompatible" in text:
        return UnreadableIndexError(f"{what}: {text}")
    return UnavailableError(f"{what}: {type(error).__name__}: {text}")
