"""A second opinion on search: the language as a predicate over plain records, by brute force.

Shares nothing with the product but the record class: words by a regular expression, JSON by a walk
of its own. `Clause` values write themselves as query text and judge records; hypothesis draws them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from chronik_store.format.record_batch import RecordBatch
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.model import Record, StoredRecord

VOCABULARY = ["error", "warn", "disk", "full", "a", "b", "été", "x9", "42", "Disk"]
JSON_PATHS = ["level", "user.name", "user.id", "tags", "deep.er.still", "long"]
HEADERS = ["trace", "content-type", "x.y"]
SEPARATORS = [" ", "-", "_", ", ", "\n", "\ufffd"]


def words_of(text: str) -> list[str]:
    """Lower-cased runs of letters and digits, for the characters that these tests use."""
    return [word.lower() for word in re.findall(r"[^\W_]+", text)]


def stored(records: Sequence[Record], base_offset: int = 0) -> list[StoredRecord]:
    return [
        StoredRecord(
            each.value, each.key, each.timestamp_us or 0, each.headers, base_offset + place
        )
        for place, each in enumerate(records)
    ]


def batches_of(records: Sequence[Record], base_offset: int = 0, size: int = 3) -> list[StoredBatch]:
    """The records as batches of `size`, the first at base_offset."""
    out = []
    for place in range(0, len(records), size):
        batch = RecordBatch.from_records(records[place : place + size], now_us=0)
        out.append(StoredBatch(batch.buffer, base_offset + place, 0))
    return out


def adjacent(texts: Sequence[str], phrase: Sequence[str]) -> bool:
    """The phrase occurs within one of the texts."""
    for text in texts:
        found = words_of(text)
        spans = (found[place : place + len(phrase)] for place in range(len(found)))
        if any(span == list(phrase) for span in spans):
            return True
    return False


def integer(digits: str) -> int | str:
    """A number of at most 64 bits is one; longer ones are words."""
    return digits if len(digits) > 20 else int(digits)


def real(digits: str) -> float | str:
    """The same of one with a point or an exponent."""
    return digits if math.isinf(float(digits)) else float(digits)


def leaves_of(record: StoredRecord) -> dict[str, list[Any]]:
    """What a value that is a JSON object holds, by path."""
    try:
        parsed = json.loads(
            record.value.decode("utf-8", "replace"),
            parse_int=integer, parse_float=real, parse_constant=str,
        )  # fmt: skip
    except ValueError:
        return {}
    out: dict[str, list[Any]] = {}

    def walk(path: str, item: Any) -> None:
        if isinstance(item, dict):
            for name, child in item.items():
                walk(f"{path}.{name}" if path else name, child)
        elif isinstance(item, list) and (item or not path):
            for child in item:
                walk(path, child)
        elif isinstance(item, list):
            out.setdefault(path, [])
        elif path:
            out.setdefault(path, []).append(item)

    if isinstance(parsed, dict):
        walk("", parsed)
    return out


def json_matches(leaves: Sequence[Any], text: str) -> bool:
    strings = [leaf for leaf in leaves if isinstance(leaf, str)]
    if adjacent(strings, words_of(text)):
        return True
    for leaf in leaves:
        if isinstance(leaf, bool):
            if text.lower() == str(leaf).lower():
                return True
        elif isinstance(leaf, int | float):
            try:
                if float(text) == float(leaf):
                    return True
            except ValueError:
                continue
    return False


@dataclass(frozen=True)
class Clause:
    """A query as text and as a predicate. `only_excludes`: alone it would be refused."""

    text: str
    matches: Callable[[StoredRecord], bool]
    only_excludes: bool = False
    atomic: bool = True

    @property
    def wrapped(self) -> str:
        return self.text if self.atomic else f"({self.text})"

    def __repr__(self) -> str:
        return self.text


def value_clause(words: list[str], prefix: str) -> Clause:
    text = f'"{" ".join(words)}"' if len(words) > 1 or words[0].isupper() else words[0]
    phrase = [word.lower() for word in words]
    return Clause(prefix + text, lambda r: adjacent([r.value.decode("utf-8", "replace")], phrase))


def key_clause(word: str) -> Clause:
    return Clause(
        f"key:{word}",
        lambda r: (
            r.key is not None and adjacent([r.key.decode("utf-8", "replace")], [word.lower()])
        ),
    )


def header_clause(name: str, words: list[str]) -> Clause:
    phrase = [word.lower() for word in words]
    return Clause(
        f'header.{name}:"{" ".join(words)}"',
        lambda r: adjacent(
            [v.decode("utf-8", "replace") for n, v in r.headers if n == name], phrase
        ),
    )


def json_clause(path: str, text: str) -> Clause:
    return Clause(f'json.{path}:"{text}"', lambda r: json_matches(leaves_of(r).get(path, []), text))


def pattern_clause(regex: str) -> Clause:
    compiled = re.compile(regex, re.IGNORECASE)
    return Clause(
        f"value:/{regex}/",
        lambda r: any(
            compiled.fullmatch(word) for word in words_of(r.value.decode("utf-8", "replace"))
        ),
    )


def range_clause(
    field: str, opening: str, low: int | None, high: int | None, closing: str
) -> Clause:
    """None: `*`, no bound."""

    def matches(record: StoredRecord) -> bool:
        number = record.offset if field == "offset" else record.timestamp_us
        above = low is None or (number >= low if opening == "[" else number > low)
        below = high is None or (number <= high if closing == "]" else number < high)
        return above and below

    ends = ["*" if end is None else str(end) for end in (low, high)]
    return Clause(f"{field}:{opening}{ends[0]} TO {ends[1]}{closing}", matches)


def bound_clause(field: str, comparison: str, bound: int) -> Clause:
    operators: dict[str, Callable[[int], bool]] = {
        "<": lambda n: n < bound, "<=": lambda n: n <= bound, ">": lambda n: n > bound,
        ">=": lambda n: n >= bound, "": lambda n: n == bound,
    }  # fmt: skip
    return Clause(
        f"{field}:{comparison}{bound}",
        lambda r: operators[comparison](r.offset if field == "offset" else r.timestamp_us),
    )


word = st.sampled_from(VOCABULARY)
phrases = st.lists(word, min_size=1, max_size=2)
times = st.integers(-5, 25)
ranges = st.tuples(
    st.sampled_from("[{"), st.integers(-5, 10), st.integers(2, 20), st.sampled_from("]}")
).filter(lambda r: r[1] + 2 <= r[2] - 2)
atoms = st.one_of(
    st.builds(value_clause, phrases, st.sampled_from(["", "value:"])),
    st.builds(key_clause, word),
    st.builds(header_clause, st.sampled_from(HEADERS), phrases),
    st.builds(
        json_clause,
        st.sampled_from(JSON_PATHS),
        st.one_of(word, st.sampled_from(["error disk", "42", "-7", "1.5", "true", "5.0"])),
    ),
    st.builds(pattern_clause, st.sampled_from(["err.*", "[a-d].*", ".*l", "x[0-9]", "WARN|disk"])),
    st.builds(lambda r: range_clause("time", *r), ranges),
    st.builds(
        lambda r: range_clause("offset", r[0], max(r[1], 0), r[2], r[3]),
        ranges.filter(lambda r: max(r[1], 0) + 2 <= r[2]),
    ),
    st.builds(
        range_clause, st.sampled_from(["offset", "time"]), st.sampled_from("[{"),
        st.one_of(st.none(), st.integers(0, 10)), st.none(), st.sampled_from("]}"),
    ),
    st.builds(
        range_clause, st.sampled_from(["offset", "time"]), st.sampled_from("[{"),
        st.none(), st.integers(1, 20), st.sampled_from("]}"),
    ),
    st.builds(bound_clause, st.just("time"), st.sampled_from(["<", "<=", ">", ">=", ""]), times),
    st.builds(
        bound_clause, st.just("offset"), st.sampled_from(["<", "<=", ">", ">=", ""]),
        st.integers(1, 12),
    ),
)  # fmt: skip


def conjunction(children: list[Clause]) -> Clause:
    return Clause(
        " AND ".join(child.wrapped for child in children),
        lambda r: all(child.matches(r) for child in children),
        only_excludes=all(child.only_excludes for child in children),
        atomic=False,
    )


def disjunction(children: list[Clause]) -> Clause:
    return Clause(
        " OR ".join(child.wrapped for child in children),
        lambda r: any(child.matches(r) for child in children),
        atomic=False,
    )


def negation(child: Clause, sign: str) -> Clause:
    return Clause(sign + child.wrapped, lambda r: not child.matches(r), only_excludes=True)


def clause_list(must: list[Clause], should: list[Clause], must_not: list[Clause]) -> Clause:
    def matches(record: StoredRecord) -> bool:
        if any(child.matches(record) for child in must_not):
            return False
        if must:
            return all(child.matches(record) for child in must)
        return not should or any(child.matches(record) for child in should)

    parts = [f"+{child.wrapped}" for child in must] + [child.wrapped for child in should]
    parts += [f"-{child.wrapped}" for child in must_not]
    return Clause(" ".join(parts), matches, only_excludes=not must and not should, atomic=False)


def positive(clause: Clause) -> Clause:
    """The clause, with something to search for if it only excludes."""
    if not clause.only_excludes:
        return clause
    return conjunction([clause, bound_clause("offset", ">=", 0)])


def compound(children: st.SearchStrategy[Clause]) -> st.SearchStrategy[Clause]:
    plain = children.map(positive)
    some = st.lists(plain, max_size=2)
    negated = st.builds(negation, plain, st.sampled_from(["-", "NOT "]))
    return st.one_of(
        st.builds(conjunction, st.lists(st.one_of(children, negated), min_size=2, max_size=3)),
        st.builds(disjunction, st.lists(st.one_of(children, negated), min_size=2, max_size=3)),
        st.builds(clause_list, st.lists(plain, min_size=1, max_size=2), some, some),
        st.builds(clause_list, st.just([]), st.lists(plain, min_size=1, max_size=2), some),
        st.builds(clause_list, st.just([]), st.just([]), st.lists(plain, min_size=1, max_size=2)),
        st.builds(
            lambda child, factor: Clause(
                f"{child.wrapped}^{factor}", child.matches, child.only_excludes, atomic=False
            ),
            plain,
            st.sampled_from(["2", "0.5"]),
        ),
    )


_clauses = st.recursive(atoms, compound, max_leaves=6)


@st.composite
def _query(draw: st.DrawFn) -> Clause:
    return positive(draw(_clauses))


queries = _query()
"""A composite, and no filter on anything large: hypothesis would write out 40 kB of repr."""


def _text(words: list[str], separator: str) -> str:
    return separator.join(words)


texts = st.builds(_text, st.lists(word, max_size=5), st.sampled_from(SEPARATORS))
scalars = st.one_of(
    texts, st.sampled_from([42, -7, 1.5, 5, 5.0, True, False, None]), st.lists(texts, max_size=2)
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "level": scalars,
        "user": st.fixed_dictionaries({}, optional={"name": scalars, "id": scalars}),
        "user.name": scalars,
        "tags": st.lists(scalars, max_size=3),
        "deep": st.just({"er": {"still": "disk full"}}),
        "": st.fixed_dictionaries({}, optional={"level": scalars, "": scalars}),
    },
)
long_numbers = st.sampled_from(
    [b"7" * 400, b"-" + b"7" * 5000, b"[42, %s]" % (b"7" * 5000), b"[5, -1e400]", b"NaN"]
)
values = st.one_of(
    texts.map(str.encode),
    objects.map(lambda item: json.dumps(item).encode()),
    objects.map(lambda item: json.dumps(item, ensure_ascii=False).encode()),
    st.builds(
        lambda item, number: b'{"long": %s, "user": %s}' % (number, json.dumps(item).encode()),
        objects,
        long_numbers,
    ),
    st.binary(max_size=4).map(lambda junk: b"error " + junk.replace(b"{", b"") + b" disk"),
    texts.map(lambda text: text.encode("latin-1", "replace")),
)
records = st.builds(
    Record,
    values,
    st.one_of(st.none(), texts.map(str.encode)),
    times,
    st.lists(st.tuples(st.sampled_from(HEADERS), texts.map(str.encode)), max_size=2).map(tuple),
)
logs = st.lists(records, min_size=1, max_size=12)


def expected_offsets(log: Sequence[StoredRecord], clause: Clause) -> list[int]:
    return [record.offset for record in log if clause.matches(record)]


def every_leaf_path(log: Sequence[StoredRecord]) -> Iterator[str]:
    for record in log:
        yield from (f"json.{path}" for path in leaves_of(record))
        yield from (f"header.{name}" for name, _ in record.headers)
