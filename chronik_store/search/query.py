"""The search language: text in, CheckedQuery out, or a QueryError that shows how to write it.

Place: the front door of `search`. The syntax is Tantivy's; the reading is ours, because Tantivy
drops things without a word: `err*` means `err`, `x~1` the phrase "x 1", `a AND NOT b` finds
nothing, a clause without a word is left out (measured, docs/search-language.md). Promise: what a
query says is searched, or refused with a position. Invariant: bounded in characters, depth and
clauses before anything is compiled.

    list     chain ...                     any of them; +chain must match, -chain must not
    chain    both (OR both)*
    both     operand (AND operand)*
    operand  [+ | - | NOT] atom
    atom     ( list ) | [FIELD:] word | "phrase" | field:( list ) | FIELD:/regex/ | FIELD:range
             each with ^boost
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal

from chronik_store.errors import QueryError
from chronik_store.search import engine
from chronik_store.search.documents import PATH_CHARACTERS_MAX
from chronik_store.search.query_fields import (
    EVERYTHING,
    Field,
    clean_path,
    find_field,
    parse_interval,
)
from chronik_store.search.query_patterns import WEIGHT_MAX, check_pattern, weight
from chronik_store.search.query_phrases import Phrase, slop_max, spread
from chronik_store.search.query_scanner import Scanner
from chronik_store.search.query_tree import (
    Boosted,
    CheckedQuery,
    Group,
    Interval,
    Node,
    Pattern,
    Words,
)

QUERY_CHARACTERS_MAX: Final = 8192
DEPTH_MAX: Final = 32
CLAUSES_MAX: Final = 512
SLOP_MAX: Final = 64
BOOST_MAX: Final = 1000.0

_SURROGATE: Final = re.compile("[\ud800-\udfff]")

Sign = Literal["", "+", "-"]


def check_query(text: str) -> CheckedQuery:
    """Read a query. QueryError, with the position (from 0) and advice, if it cannot be answered.

    Pure; loads Tantivy on first use (its analyzer decides what a word is).
    """
    if not isinstance(text, str):
        raise TypeError(f"a query is text, not {type(text).__name__}")
    if len(text) > QUERY_CHARACTERS_MAX:
        raise QueryError(
            f"the query has {len(text)} characters; at most {QUERY_CHARACTERS_MAX} are read"
        )
    # Lone surrogates (undecodable command lines) split words, as U+FFFD does in records. A '?'
    # instead, as codecs write, would be an operator of a pattern.
    readable = _SURROGATE.sub("\ufffd", text)
    if not readable.strip():
        raise QueryError("the query is empty; write a word to search for")
    reader = _Reader(readable)
    tree = reader.read()
    if isinstance(tree, Group) and not tree.must and not tree.should:
        raise QueryError(
            f"{text!r} only excludes; add what to search for, for example offset:>=0 for all"
        )
    engine.check(tree)
    return CheckedQuery(text=text, tree=tree, paths=tuple(sorted(reader.paths)))


class _Reader:
    """One query being read. Recursive descent; `depth` bounds the recursion."""

    def __init__(self, text: str) -> None:
        self.scan = Scanner(text)
        self.paths: set[str] = set()
        self._depth = 0
        self._clauses = 0
        self._weight = 0

    def read(self) -> Node:
        tree = self._list(EVERYTHING)
        if not self.scan.at_end():
            raise self.scan.error("')' closes nothing", "remove it, or write \\)")
        return tree

    def _list(self, field: Field) -> Node:
        signed: list[tuple[Sign, Node]] = []
        while not self.scan.at_end() and self.scan.peek() != ")":
            signed.append(self._chain(field))
        if not signed:
            raise self.scan.error("nothing to search for here", "write a word")
        if len(signed) == 1 and signed[0][0] != "-":
            return signed[0][1]
        return Group(
            must=_having("+", signed), should=_having("", signed), must_not=_having("-", signed)
        )

    def _chain(self, field: Field) -> tuple[Sign, Node]:
        first = self._both(field)
        if not self.scan.take_word("OR"):
            return first
        position = self.scan.position
        signed = [first, self._both(field)]
        while self.scan.take_word("OR"):
            signed.append(self._both(field))
        if any(sign == "+" for sign, _ in signed):
            raise self.scan.error(
                "'+' and OR contradict each other", "use AND, or parentheses", position
            )
        return "", Group(should=tuple(_positive(sign, node) for sign, node in signed))

    def _both(self, field: Field) -> tuple[Sign, Node]:
        first = self._operand(field)
        if not self.scan.take_word("AND"):
            return first
        signed = [first, self._operand(field)]
        while self.scan.take_word("AND"):
            signed.append(self._operand(field))
        must = _having("+", signed) + _having("", signed)
        return "", Group(must=must, must_not=_having("-", signed))

    def _operand(self, field: Field) -> tuple[Sign, Node]:
        scan = self.scan
        sign: Sign = ""
        if scan.take_word("NOT"):
            sign = "-"
        elif scan.peek() in {"+", "-"}:
            sign = "+" if scan.take() == "+" else "-"
            if scan.space_follows():
                raise scan.error("a sign without a term", "write it next to the term, or quote it")
        if scan.at_end():
            raise scan.error("a term is missing at the end", "write one, or quote the operator")
        start = scan.position
        node = self._atom(field)
        if sign and scan.text[start] in "+-":  # which was taken for punctuation of a word
            raise scan.error(
                "two signs before one term", 'leave one out, or quote the text: "-x"', start
            )
        return sign, node

    def _atom(self, field: Field) -> Node:
        scan = self.scan
        scan.skip_space()
        self._count_terms(1)
        start = scan.position
        for word in ("AND", "OR", "NOT"):
            if scan.take_word(word):
                advice = f'to search for the word write "{word}"'
                raise scan.error(f"{word} lacks a term beside it", advice, start)
        node = self._term(self._field(field))
        factor = scan.boost(BOOST_MAX)
        scan.end_of_term()
        return node if factor is None else Boosted(node, factor)

    def _field(self, outer: Field) -> Field:
        scan = self.scan
        named = scan.field_name()
        if named is None:
            return outer
        name, behind = named
        field = find_field(name, scan)
        if outer.named:
            raise scan.error(f"{name}: inside the parentheses of {outer.text}", "take it out")
        scan.position = behind
        if scan.space_follows():
            raise scan.error(f"nothing after {name}:", "write the term next to the colon")
        return field

    def _term(self, field: Field) -> Node:
        scan = self.scan
        character = scan.peek()
        if character == "(":
            return self._parentheses(field)
        if field.kind in {"offset", "time"}:
            low, high = parse_interval(field, scan)
            return Interval("offset" if field.kind == "offset" else "time", low, high)
        if character in "[{" or (field.named and character in "<>"):
            raise scan.error(
                f"{character!r} starts a range, and ranges work on offset: and time: only",
                "quote it to search for the text",
            )
        if field.named and character == "/" and field.kind in {"value", "key"}:
            return self._pattern("value" if field.kind == "value" else "key")
        if character in "\"'":
            position = scan.position
            return self._words(field, scan.quoted(), position, scan.slop(SLOP_MAX))
        position = scan.position
        if character == "!":
            raise scan.error("'!' excludes nothing", 'write -term, or quote the text: "!x"')
        text = scan.word(field.wildcard_advice())
        if field.path and scan.is_between_slashes(position):
            raise scan.error(
                "patterns work on value: and key: only", "quote it to search for the text", position
            )
        return self._words(field, text, position, 0)

    def _pattern(self, field: Literal["value", "key"]) -> Node:
        scan, position = self.scan, self.scan.position
        regex = check_pattern(scan.pattern(), scan, position)
        self._weight += weight(regex)
        if self._weight > WEIGHT_MAX:
            raise scan.error(
                "the patterns of this query cannot be used: they take too long to compile",
                "count less inside of what is counted, and write .* instead of \\w*",
                position,
            )
        return Pattern(field, regex)

    def _parentheses(self, field: Field) -> Node:
        scan = self.scan
        if field.kind in {"offset", "time"}:
            raise scan.error(f"{field.text} takes one value or range", "join several with OR")
        opened = scan.position
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise scan.error(f"more than {DEPTH_MAX} parentheses deep", "flatten the query")
        scan.take()
        inner = self._list(field)
        if scan.at_end():
            raise scan.error("'(' is never closed", "add ')', or write \\(", opened)
        scan.take()
        self._depth -= 1
        return inner

    def _words(self, field: Field, text: str, position: int, slop: int) -> Node:
        tokens = tuple(engine.words(text))
        if not tokens:
            raise self.scan.error(
                f"{text!r} has no letter or digit, so no word to search for",
                "remove it; punctuation is not indexed",
                position,
            )
        path = clean_path(field.path)
        if len(path) > PATH_CHARACTERS_MAX:  # nothing is indexed there
            raise self.scan.error(
                f"the path of {field.kind}. has {len(path)} characters",
                f"at most {PATH_CHARACTERS_MAX} are indexed; search value: for the text",
                position,
            )
        if path:
            self.paths.add(f"{field.kind}.{path}")
        kind = field.text_kind()
        text = text if kind == "json" else ""
        phrases = self._spread(field, tokens, slop, position)
        return Words(kind, path, tokens, text=text, slop=slop, phrases=phrases)

    def _spread(
        self, field: Field, tokens: tuple[str, ...], slop: int, position: int
    ) -> tuple[Phrase, ...]:
        """What the engine does not find by itself, nor phrases with gaps on a path."""
        if not slop or len(tokens) == 1 or (len(tokens) == 2 and tokens[0] != tokens[1]):
            return ()
        if field.path:
            raise self.scan.error(
                f"'~' behind {len(tokens)} words works on value: and key: only",
                f"here write two words that differ, or leave out ~{slop}",
                position,
            )
        phrases = spread(tokens, slop)
        if phrases is None:
            most = slop_max(len(tokens))
            raise self.scan.error(
                f"~{slop} behind {len(tokens)} words could mean too many phrases",
                f"write at most ~{most}" if most else "leave it out, or search for fewer words",
                position,
            )
        self._count_terms(len(phrases) - 1)
        return phrases

    def _count_terms(self, more: int) -> None:
        self._clauses += more
        if self._clauses > CLAUSES_MAX:
            raise self.scan.error(f"more than {CLAUSES_MAX} terms", "split the query")


def _having(sign: Sign, signed: Iterable[tuple[Sign, Node]]) -> tuple[Node, ...]:
    return tuple(node for own, node in signed if own == sign)


def _positive(sign: Sign, node: Node) -> Node:
    return Group(must_not=(node,)) if sign == "-" else node
