"""The engine finds what a scan finds, in the order and the bounds that were asked for."""

from __future__ import annotations

import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronik_store.errors import QueryError, UnavailableError
from chronik_store.format.record_batch import RecordBatch
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.model import Record
from chronik_store.search import engine
from chronik_store.search.documents import HEADERS_MAX, JSON_BYTES_MAX
from chronik_store.search.engine import IndexBuilder, IndexSearch
from chronik_store.search.query import check_query
from tests.store.search import reference
from tests.store.search.reference import Clause

EVERYTHING = 2**63 - 1


def index(log: list[Record], base_offset: int = 0) -> IndexSearch:
    builder = IndexBuilder(None, heap_bytes=engine.HEAP_BYTES_MIN)
    for batch in reference.batches_of(log, base_offset):
        for _ in builder.add(batch, 0, EVERYTHING):
            pass
    builder.commit()
    builder.rest()
    return builder.search()


def offsets(search: IndexSearch, query: str, **options: object) -> list[int]:
    bounds: dict[str, object] = {"start": 0, "stop": EVERYTHING, "limit": 1000, "order": "oldest"}
    found = search.search(check_query(query).tree, **(bounds | options))  # type: ignore[arg-type]
    return [offset for offset, _ in found.hits]


@given(log=reference.logs, clauses=st.lists(reference.queries, min_size=1, max_size=8))
def test_a_query_finds_exactly_what_a_scan_finds(log: list[Record], clauses: list[Clause]) -> None:
    stored = reference.stored(log)
    search = index(log)
    for clause in clauses:
        expected = reference.expected_offsets(stored, clause)
        assert expected == offsets(search, clause.text), clause.text


@given(
    log=reference.logs,
    clause=reference.queries,
    start=st.integers(0, 12),
    stop=st.integers(0, 14),
    since=st.one_of(st.none(), reference.times),
    until=st.one_of(st.none(), reference.times),
    limit=st.integers(0, 5),
    newest=st.booleans(),
)
def test_bounds_limit_and_order_are_those_of_a_scan(
    log: list[Record],
    clause: Clause,
    start: int,
    stop: int,
    since: int | None,
    until: int | None,
    limit: int,
    newest: bool,
) -> None:
    matching = [
        record.offset
        for record in reference.stored(log)
        if clause.matches(record)
        and start <= record.offset < stop
        and (since is None or record.timestamp_us >= since)
        and (until is None or record.timestamp_us < until)
    ]
    tree = check_query(clause.text).tree

    found = index(log).search(
        tree,
        start=start,
        stop=stop,
        since_us=since,
        until_us=until,
        limit=limit,
        order="newest" if newest else "oldest",
    )

    expected = sorted(matching, reverse=newest)[:limit]
    assert expected == [offset for offset, _ in found.hits]
    assert len(matching) == found.total


def test_order_score_puts_the_record_that_says_it_more_often_first() -> None:
    search = index([Record(b"disk and other words here"), Record(b"disk disk disk")])

    found = search.search(check_query("disk").tree, start=0, stop=9, limit=9, order="score")

    assert [1, 0] == [offset for offset, _ in found.hits]
    assert found.hits[0][1] > found.hits[1][1] > 0


def test_a_boost_raises_its_term_in_score_order() -> None:
    search = index([Record(b"alpha"), Record(b"beta")])

    for boosted, first in (("alpha^5 beta", 0), ("alpha beta^5", 1)):
        found = search.search(check_query(boosted).tree, start=0, stop=9, limit=9, order="score")
        assert first == found.hits[0][0]


def test_bounds_do_not_change_the_score() -> None:
    search = index([Record(b"alpha", timestamp_us=5), Record(b"beta", timestamp_us=7)])
    tree = check_query("alpha").tree

    plain = search.search(tree, start=0, stop=EVERYTHING, order="score")
    bounded = search.search(tree, start=0, stop=2, since_us=1, until_us=9, order="score")

    assert plain.hits == bounded.hits


@pytest.mark.parametrize("field", ["offset", "time"])
@pytest.mark.parametrize("unbounded", ["[* TO *]", "{* TO *}", "[* TO *}"])
def test_a_range_without_bounds_holds_every_record(field: str, unbounded: str) -> None:
    search = index([Record(b"a", timestamp_us=-5), Record(b"b", timestamp_us=7), Record(b"")])
    query = f"{field}:{unbounded}"

    assert [0, 1, 2] == offsets(search, query) == offsets(search, "offset:>=0")
    assert [1] == offsets(search, f"b AND {query}") == offsets(search, f"{query} -a", stop=2)
    assert [] == offsets(search, f"b -{query}")
    scored = [
        search.search(check_query(text).tree, start=0, stop=9, order="score").hits
        for text in (query, "offset:>=0")
    ]
    assert scored[0] == scored[1]


def test_extreme_times_and_offsets_are_found() -> None:
    log = [Record(b"a", timestamp_us=-(2**62)), Record(b"a", timestamp_us=2**62)]
    base = 2**62
    search = index(log, base)

    assert [base] == offsets(search, "time:<0")
    assert [base + 1] == offsets(search, f"offset:{base + 1}")


@pytest.mark.parametrize("length", [40, 41, 64, 200, 255, 256, 1000, 70_000])
def test_a_word_of_any_length_is_found_by_itself(length: int) -> None:
    token = "0123456789abcdef" * (length // 16 + 1)
    token = token[:length]
    json_value = b'{"id": "%s"}' % token.encode()
    log = [
        Record(b"before " + token.encode() + b" after"),
        Record(b"x", key=token.encode(), headers=(("trace", token.encode()),)),
        Record(json_value),
    ]
    search = index(log)
    asked = token[:5000]  # a query is bounded, a value is not

    assert [0, 2] == offsets(search, asked)
    assert [0] == offsets(search, f'"before {asked} after"')
    assert [1] == offsets(search, f"key:{asked}")
    assert [1] == offsets(search, f"header.trace:{asked}")
    assert [2] == offsets(search, f"json.id:{asked}")


def test_long_words_are_cut_alike_whatever_their_case() -> None:
    search = index([Record(("Ⱥ" * 200).encode()), Record(("ⱥ" * 200).encode())])

    assert [0, 1] == offsets(search, "Ⱥ" * 200)
    assert [0, 1] == offsets(search, "ⱥ" * 300)


def test_two_long_words_that_differ_behind_the_cut_are_one() -> None:
    search = index([Record(b"a" * 255 + b"b"), Record(b"a" * 254)])

    assert [0] == offsets(search, "a" * 255 + "c")
    assert [1] == offsets(search, "a" * 254)


def test_bytes_that_are_not_utf_8_are_found_by_their_ascii_words() -> None:
    search = index([Record(b"caf\xe9 open \xff\xfe closed"), Record("café".encode())])

    assert [0] == offsets(search, "open AND closed")
    assert [0] == offsets(search, "caf")
    assert [1] == offsets(search, "café")


@pytest.mark.parametrize(
    "value",
    [
        b'{"\\u0000k": 1, "x": "hit"}',
        b'{"\\u0001": 1, "x": "hit"}',
        b'{"a\\\\b": 1, "x": "hit"}',
        b'{"": 1, "x": "hit"}',
        b'{".": 1, "..": 2, "a.": 3, ".a": 4, "x": "hit"}',
        b'{"\\ud800": "\\udfff", "x": "hit"}',
        b'{"n": 123456789012345678901234567890, "x": "hit"}',
        b'{"n": -9223372036854775809, "x": "hit"}',
        b'{"n": -%s, "x": "hit"}' % (b"7" * 5000),
        b'{"n": NaN, "m": Infinity, "o": 1e999, "x": "hit"}',
        b'{"n": null, "m": [], "o": {}, "p": [null, {}], "x": "hit"}',
        b'{"a": %s1%s, "x": "hit"}' % (b'{"b": ' * 60, b"}" * 60),
        b'{"a": %s1%s, "x": "hit"}' % (b"[" * 300, b"]" * 300),
        b'{"a": %s1%s, "x": "hit"}' % (b"[" * 3000, b"]" * 3000),
        b'{"a": %s"]}"%s, "x": "hit"}' % (b'[{"[\\"": ' * 3000, b"}]" * 3000),
        b'{"a": %s1%s, "x": %s}' % (b"[" * 3000, b"]" * 3000, b'["hit", %s9]' % (b"7" * 5000)),
        b'{"": {"x": "hit"}}',
        b'{"": {"": [{"x": ["hit"]}, "lost"]}}',
        b'{"%s": 1, "x": "hit"}' % (b"p" * 70_000),
        b'{"x": "%s hit"}' % (b"\\u4e2d" * 40_000),
        b'{"x": "lost", "x": "hit"}',
        b'  \n{"x": "hit"}\r\n',
        b'{"x": "hit", "y": "\xff\xfe"}',
    ],
)
def test_no_json_keeps_its_neighbours_from_being_indexed(value: bytes) -> None:
    search = index([Record(b"first"), Record(value), Record(b"last")])

    assert 3 == search.document_count
    assert [1] == offsets(search, "json.x:hit")


@pytest.mark.parametrize("digits", [20, 255, 256, 300, 4300, 4301, 5000])
def test_a_number_of_any_length_is_found_by_its_digits(digits: int) -> None:
    number = ("7" * digits).encode()
    search = index([Record(b'{"n": %s}' % number), Record(b'{"n": [-%s, 1.5]}' % number)])

    assert [0, 1] == offsets(search, f"json.n:{number.decode()}")
    assert [1] == offsets(search, "json.n:1.5")


@pytest.mark.parametrize(
    "written", ["1e400", "1E400", "1e+400", "-1.5e400", "9" * 400 + ".5", "NaN", "Infinity"]
)
def test_a_number_that_64_bits_do_not_hold_is_found_as_it_is_written(written: str) -> None:
    search = index([
        Record(b'{"n": %s}' % written.encode()),
        Record(b'{"n": ["inf", 1e300, 1.5]}'),
        Record(b'{"n": [%s, 1.5], "d": %s}' % (written.encode(), b"[" * 3000 + b"]" * 3000)),
    ])  # fmt: skip

    assert [0, 2] == offsets(search, f"json.n:{written}")
    assert [1] == offsets(search, "json.n:inf")
    assert [1] == offsets(search, "json.n:1e300")
    assert [1, 2] == offsets(search, "json.n:1.5")


@pytest.mark.parametrize("ends", [b"]" * 2999, b"]" * 3001, b"}" * 3000, b',"' + b"]" * 3000])
def test_what_is_deeper_than_a_parser_follows_must_be_json_too(ends: bytes) -> None:
    search = index([Record(b'{"a": %s1%s, "x": "hit"}' % (b"[" * 3000, ends))])

    assert [] == offsets(search, "json.x:hit")


@pytest.mark.parametrize("levels", [30, 31, 150, 980, 990, 3000])
def test_what_is_searched_by_path_does_not_depend_on_who_indexes(levels: int) -> None:
    """Bundles and tails are made by threads whose stacks differ."""
    value = b'{"a": %s"deep"%s, "x": "hit"}' % (b"[" * levels, b"]" * levels)
    found = []

    def at_depth(calls: int) -> None:
        if calls:
            at_depth(calls - 1)
        else:
            search = index([Record(value)])
            found.append((offsets(search, "json.a:deep"), offsets(search, "json.x:hit")))

    at_depth(0)
    at_depth(500)

    assert [([0] if levels <= 31 else [], [0])] * 2 == found


@pytest.mark.parametrize("value", [b"[1, 2]", b'"text"', b"{", b"{} x", b'{"x": hit}', b"[" * 9999])
def test_what_is_not_a_json_object_is_words_only(value: bytes) -> None:
    search = index([Record(value + b" hit")])

    assert [0] == offsets(search, "hit")
    assert [] == offsets(search, "json.x:hit")


@pytest.mark.parametrize(
    "text", ["2024-01-31T12:00:00Z", "2024-01-31t12:00:00+01:00", "2024-01-31 12:00:00Z"]
)
def test_a_string_that_looks_like_a_date_is_found_by_its_words(text: str) -> None:
    """Tantivy would file it as a date, which json.t:2024 does not find."""
    search = index([Record(b'{"t": "%s"}' % text.encode(), headers=(("t", text.encode()),))])

    for query in ("json.t:2024", f'json.t:"{text}"', "header.t:2024", f'header.t:"{text}"'):
        assert [0] == offsets(search, query)


def test_names_with_dots_dashes_and_spaces_are_searchable() -> None:
    log = [
        Record(b'{"a.b": "one", "c-d": "two", "e f": "three", "g:h": "four", "i\\"j": "five"}'),
        Record(b'{"a": {"b": "one"}}', headers=(("content-type", b"text/plain"), ("x y", b"z"))),
    ]
    search = index(log)

    assert [0, 1] == offsets(search, "json.a.b:one")
    assert [0] == offsets(search, "json.c-d:two")
    assert [0] == offsets(search, "json.e\\ f:three")
    assert [0] == offsets(search, "json.g\\:h:four")
    assert [0] == offsets(search, 'json.i\\"j:five')
    assert [1] == offsets(search, "header.content-type:text/plain")
    assert [1] == offsets(search, "header.x\\ y:z")


def test_many_words_on_a_path_of_many_levels_hold_nobody_up() -> None:
    """Each took 20 ms to compile, with the interpreter's lock held, and anew for each index."""
    path = ".".join("a" * 500)
    began = time.process_time()

    check_query(f"json.{path}:({'x ' * 300})")

    assert 1.0 > time.process_time() - began


def test_a_large_value_is_searched_by_its_words_alone() -> None:
    """One of 31 MiB held the interpreter's lock for seconds, and took 1.5 GiB."""
    text = b'{"level":"error","text":"disk %s"}'
    largest = text % (b"a" * (JSON_BYTES_MAX - len(text) + 2))
    assert len(largest) == JSON_BYTES_MAX
    search = index([Record(largest), Record(b" " + largest)])

    assert [0] == offsets(search, "json.level:error")
    assert [0] == offsets(search, "json.text:disk")
    assert [0, 1] == offsets(search, "error disk")


def test_the_first_headers_of_a_record_are_searched() -> None:
    headers = tuple((f"h{number}", b"x") for number in range(HEADERS_MAX + 1))
    search = index([Record(b"", headers=headers)])

    assert [0] == offsets(search, f"header.h{HEADERS_MAX - 1}:x")
    assert [] == offsets(search, f"header.h{HEADERS_MAX}:x")


@pytest.mark.parametrize(
    "regex",
    [
        "[[a-z]&&[^aeiou]]{4}",
        "[a-z--[aeiou]]+",
        "[]d]sks",
        "[\\]d]sks",
        "ds\\u{6b}s|\\u{6771}",
        "[[:alpha:]]{4}",
    ],
)
def test_a_pattern_may_hold_classes_in_classes_and_code_points(regex: str) -> None:
    search = index([Record(b"disk 2"), Record(b"dsks")])

    assert [1] == offsets(search, f"value:/{regex}/ -disk")


@pytest.mark.parametrize("regex", [".*กิน.*", "หิว", "हि.*", "Ⓚ+", "ⓚ+"])
def test_a_pattern_may_hold_every_character_that_words_hold(regex: str) -> None:
    """Vowels of Thai and Hindi are marks, which Python counts neither as letters nor as digits."""
    search = index([Record("ผมกินข้าว หิว".encode()), Record("हिन्दी".encode()), Record("ⓚⓚ".encode())])

    assert len(offsets(search, f"value:/{regex}/")) == 1


def test_the_letter_that_is_two_in_lower_case_is_refused_in_a_pattern() -> None:
    search = index([Record("İstanbul".encode())])

    with pytest.raises(QueryError, match="write two dots"):
        check_query("value:/İstan.*/")
    assert offsets(search, "İSTANBUL") == offsets(search, "value:/..stan.*/") == [0]


def test_a_pattern_is_compiled_once_for_all_indexes() -> None:
    search = index([Record(b"disk full")])
    tree = check_query("value:/once.*|di[r-t]k/").tree
    compiled = engine._pattern.cache_info().misses

    found = [search.search(tree, start=0, stop=1).total for _ in range(3)]

    assert found == [1, 1, 1]
    assert compiled == engine._pattern.cache_info().misses


def test_an_empty_index_finds_nothing() -> None:
    builder = IndexBuilder(None, heap_bytes=engine.HEAP_BYTES_MIN)

    assert [] == offsets(builder.search(), "x")


def test_records_show_at_the_next_commit_only() -> None:
    builder = IndexBuilder(None, heap_bytes=engine.HEAP_BYTES_MIN)
    for batch in reference.batches_of([Record(b"x")]):
        assert [0] == list(builder.add(batch, 0, 9))
    assert 0 == builder.search().document_count
    builder.commit()

    assert 1 == builder.search().document_count


def test_the_writer_can_go_on_after_a_rest() -> None:
    builder = IndexBuilder(None, heap_bytes=engine.HEAP_BYTES_MIN)
    for base in range(3):
        for batch in reference.batches_of([Record(b"x")], base):
            assert [base] == list(builder.add(batch, 0, 9))
        builder.commit()
        builder.rest()

    assert [0, 1, 2] == offsets(builder.search(), "x")


def test_only_the_identity_of_this_engine_and_these_words_is_readable() -> None:
    own = engine.identity()

    assert engine.can_read(own)
    assert engine.can_read(own.replace("tantivy ", "tantivy 9"))  # the format is what counts
    assert not engine.can_read(own.replace("format ", "format 9"))
    assert not engine.can_read(own.replace("words-1", "words-2"))
    assert not engine.can_read("")
    assert not engine.can_read("lucene 9")


def test_a_directory_that_is_not_there_is_a_typed_error(tmp_path: object) -> None:
    with pytest.raises(UnavailableError, match="search index"):
        IndexBuilder(f"{tmp_path}/absent", heap_bytes=0)


def test_another_thread_makes_progress_while_one_indexes() -> None:
    """Appends go on meanwhile: Tantivy lets go of the GIL while its own threads work.

    The interpreter is told not to switch threads by force, so each step of the other thread is one
    that the indexing thread gave it. Counted in steps, not in time: a slow machine cannot fail it.
    """
    text = b" ".join(b"word%d" % number for number in range(200))
    batch = StoredBatch(RecordBatch.build([text] * 2000).buffer, 0, 0)
    builder = IndexBuilder(None, heap_bytes=engine.HEAP_BYTES_MIN)
    phase = ["not begun"]

    def feed() -> None:
        phase[0] = "indexing"
        for _ in builder.add(batch, 0, EVERYTHING):
            pass
        builder.commit()
        phase[0] = "done"

    steps = 0
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        feeder = threading.Thread(target=feed)
        feeder.start()
        while phase[0] != "done" and feeder.is_alive():
            time.sleep(0)
            steps += phase[0] == "indexing"
        feeder.join()
    finally:
        sys.setswitchinterval(interval)

    assert 2000 == builder.search().document_count
    assert steps > 0
