"""The meaning of a query: a small tree of frozen values.

Place: between `query`, which makes it from text, and `engine`, which compiles it. Promise: the tree
says everything; no text is parsed behind it. Invariant: every leaf can match something: a `Words`
has at least one token, an `Interval` is not empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chronik_store.search.query_phrases import Phrase

TextField = Literal["value", "key", "header", "json"]


@dataclass(frozen=True, slots=True)
class Words:
    """Records with these words next to each other, in this order.

    field: where. path: the header's name or the JSON path, "" for value and key. tokens: as
    indexed, lower case. slop: how many moves may bring them next to each other; then phrases, if
    there are any, are what one of must be found. text: as written; on a JSON path it also matches a
    number or a boolean that it spells.
    """

    field: TextField
    path: str
    tokens: tuple[str, ...]
    text: str = ""
    slop: int = 0
    phrases: tuple[Phrase, ...] = ()


@dataclass(frozen=True, slots=True)
class Pattern:
    """Records with a word that this regular expression matches as a whole, in any case."""

    field: Literal["value", "key"]
    regex: str


@dataclass(frozen=True, slots=True)
class Interval:
    """Records whose offset, or time in microseconds, is in [low, high); None: no bound."""

    field: Literal["offset", "time"]
    low: int | None
    high: int | None


@dataclass(frozen=True, slots=True)
class Boosted:
    """The same records; their score counts `factor` times."""

    node: Node
    factor: float


@dataclass(frozen=True, slots=True)
class Group:
    """All of `must`, none of `must_not`, and, where there is no `must`, one of `should`.

    Without `must` and `should`: everything but `must_not`.
    """

    must: tuple[Node, ...] = ()
    should: tuple[Node, ...] = ()
    must_not: tuple[Node, ...] = ()


Node = Words | Pattern | Interval | Boosted | Group


@dataclass(frozen=True, slots=True)
class CheckedQuery:
    """A query that can be answered. Made by `query.check_query` only.

    paths: the JSON paths and headers that it names, spelled "json.level", "header.trace", sorted.
    """

    text: str
    tree: Node
    paths: tuple[str, ...]


def may_match(node: Node, paths: frozenset[str]) -> bool:
    """False: no record matches whose JSON paths and headers are all in `paths`."""
    if isinstance(node, Words):
        return not node.path or f"{node.field}.{node.path}" in paths
    if isinstance(node, Boosted):
        return may_match(node.node, paths)
    if isinstance(node, Group):
        if not all(may_match(child, paths) for child in node.must):
            return False
        bare = not node.must and node.should
        return not bare or any(may_match(child, paths) for child in node.should)
    return True
