"""The language: what it means, and that what it cannot mean is refused with a place and advice."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronik_store.errors import QueryError
from chronik_store.search.query import CLAUSES_MAX, DEPTH_MAX, QUERY_CHARACTERS_MAX, check_query
from chronik_store.search.query_tree import (
    Boosted,
    CheckedQuery,
    Group,
    Interval,
    Node,
    Pattern,
    Words,
    may_match,
)

DAY = 86_400_000_000


def value(*tokens: str, slop: int = 0) -> Words:
    return Words("value", "", tokens, slop=slop)


def json_words(path: str, text: str, *tokens: str) -> Words:
    return Words("json", path, tokens or (text,), text=text)


A, B, C = value("a"), value("b"), value("c")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("Error", value("error")),
        ("  a  ", A),
        ("connection-reset", value("connection", "reset")),
        ('"disk full"', value("disk", "full")),
        ("'disk full'", value("disk", "full")),
        ('"disk full"~3', value("disk", "full", slop=3)),
        ('json.m:"disk full"~3', Words("json", "m", ("disk", "full"), text="disk full", slop=3)),
        ("don't", value("don", "t")),
        ("<b>", B),
        ("value:a", A),
        ("key:user-7", Words("key", "", ("user", "7"))),
        ("header.trace:x", Words("header", "trace", ("x",))),
        ("header.content-type:text/plain", Words("header", "content-type", ("text", "plain"))),
        ("json.level:error", json_words("level", "error")),
        ("json.user.id:42", json_words("user.id", "42")),
        ("json.at:12:30", json_words("at", "12:30", "12", "30")),
        ("json.path:/api/users", json_words("path", "/api/users", "api", "users")),
        ('json.path:"/api/users/"', json_words("path", "/api/users/", "api", "users")),
        ("json.path:\\/api/users/", json_words("path", "/api/users/", "api", "users")),
        ('json.a\\ b:"x y"', json_words("a b", "x y", "x", "y")),
        ("value:/err.*/", Pattern("value", "err.*")),
        ("value:/\\w*err\\w*/", Pattern("value", "\\w*err\\w*")),
        ("key:/[a-c]{2,3}(x|y)?/", Pattern("key", "[a-c]{2,3}(x|y)?")),
        ("value:/(?:a|b)+\\d/", Pattern("value", "(?:a|b)+\\d")),
        ("offset:7", Interval("offset", 7, 8)),
        ("offset:[3 TO 5]", Interval("offset", 3, 6)),
        ("offset:{3 TO 5}", Interval("offset", 4, 5)),
        ("offset:[3 TO 5}", Interval("offset", 3, 5)),
        ("offset:[3 TO *]", Interval("offset", 3, None)),
        ("offset:[* TO 5}", Interval("offset", None, 5)),
        ("offset:[* TO *]", Interval("offset", None, None)),
        ("time:{* TO *}", Interval("time", None, None)),
        ("offset:>3", Interval("offset", 4, None)),
        ("offset:<=3", Interval("offset", None, 4)),
        ("time:>=-5", Interval("time", -5, None)),
        ("time:<1970-01-02T00:00:00Z", Interval("time", None, DAY)),
        ("time:[1970-01-02T01:00:00+01:00 TO *]", Interval("time", DAY, None)),
        ("time:1970-01-02T00:00:00.000001Z", Interval("time", DAY + 1, DAY + 2)),
        ('time:"1970-01-02T00:00:00Z"', Interval("time", DAY, DAY + 1)),
        ("a b", Group(should=(A, B))),
        ("a OR b", Group(should=(A, B))),
        ("a AND b", Group(must=(A, B))),
        ("a or b", Group(should=(A, value("or"), B))),
        ('"AND"', value("and")),
        ("+a b", Group(must=(A,), should=(B,))),
        ("a -b", Group(should=(A,), must_not=(B,))),
        ("a NOT b", Group(should=(A,), must_not=(B,))),
        ("+a -b", Group(must=(A,), must_not=(B,))),
        ("a AND NOT b", Group(must=(A,), must_not=(B,))),
        ("a AND -b AND +c", Group(must=(C, A), must_not=(B,))),
        ("a OR NOT b", Group(should=(A, Group(must_not=(B,))))),
        ("a OR b AND c", Group(should=(A, Group(must=(B, C))))),
        ("(a OR b) AND c", Group(must=(Group(should=(A, B)), C))),
        ("a AND (b -c)", Group(must=(A, Group(should=(B,), must_not=(C,))))),
        ("value:(a b)", Group(should=(A, B))),
        (
            "json.level:(error OR warn)",
            Group(should=(json_words("level", "error"), json_words("level", "warn"))),
        ),
        ("a^2", Boosted(A, 2.0)),
        ('"a b"^0.5', Boosted(value("a", "b"), 0.5)),
        ("(a b)^3 c", Group(should=(Boosted(Group(should=(A, B)), 3.0), C))),
        ("a\\:b", value("a", "b")),
        ("err\\*", value("err")),
        ("\\(a", A),
        ("\ud800a", A),
        ("json.\udcffb:a", Words("json", "\ufffdb", ("a",), text="a")),
        ('offset:"3"', Interval("offset", 3, 4)),
        ("offset:>='3'", Interval("offset", 3, None)),
        ("time:'1970-01-01 00:00:01Z'", Interval("time", 1_000_000, 1_000_001)),
        ("a\\~1", value("a", "1")),
    ],
)
def test_a_query_means(text: str, tree: Node) -> None:
    assert tree == check_query(text).tree


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (" \t\n", "empty"),
        ('""', "no letter or digit"),
        ("---", "no letter or digit"),
        ("a && b", "no letter or digit"),
        ('a OR "..."', "no letter or digit"),
        ("-a", "only excludes"),
        ("NOT a", "only excludes"),
        ("-a -b", "only excludes"),
        ("NOT a AND NOT b", "only excludes"),
        ("(-a)", "only excludes"),
        ("err*", r"value:/err\.\*/"),
        ("ERR*", r"value:/err\.\*/"),
        ("*", "wildcard"),
        ("e*r", "wildcard"),
        ("value:err*", r"value:/err\.\*/"),
        ("key:err*", r"key:/err\.\*/"),
        ("json.level:err*", "patterns work on value: and key: only"),
        ("/err.*/", "wildcard"),
        ('"a b"*', "open end"),
        ("a~1", "fuzzy"),
        ("a~", "fuzzy"),
        ("a\\\\~1", "fuzzy"),
        ('"a b"~', "distance"),
        ('"a b"~999', "distance"),
        ('"a b c"~6', "could mean too many phrases .*at most ~5"),
        ('key:"a a"~33', "could mean too many phrases .*at most ~32"),
        (f'"{"a " * 65}"~1', "could mean too many phrases .*leave it out"),
        ('json.m:"a b c"~1', "works on value: and key: only"),
        ('header.m:"a a"~1', "works on value: and key: only"),
        ("level:error", r"value:, key:, header\.NAME:, json\.PATH:, offset:, time:.*json\.level:"),
        ("vlaue:x", "did you mean value:"),
        ("Key:x", "did you mean key:"),
        ("headers.trace:x", r"did you mean header\.trace:"),
        ("jsn.level:x", r"did you mean json\.level:"),
        ("timestamp:5", "did you mean time:"),
        ("http://x", "quote the text"),
        ("12:30", "there is no field '12'"),
        (":x", "there is no field ''"),
        ("a:b:c", "there is no field 'a'"),
        ("json:x", "needs a name"),
        ("json.:x", "needs a name"),
        (f"json.{'a.' * 500}b:x", r"the path of json\. has 1001 characters"),
        (f"header.{'a' * 1001}:x", r"the path of header\. has 1001 characters"),
        ("header:x", "needs a name"),
        ("value:", "nothing after value:"),
        ("value: a", "nothing after value:"),
        ("key:(a value:b)", "inside the parentheses of key:"),
        ("(a", r"'\(' is never closed \(at position 0"),
        ("a (b", r"'\(' is never closed \(at position 2"),
        ("a)", r"'\)' closes nothing \(at position 1"),
        ("()", "nothing to search for"),
        ("a ()", "nothing to search for"),
        ('a "b', r'" is never closed \(at position 2'),
        ("'a", "' is never closed"),
        ('a"b"', "directly behind a term"),
        ("f(x)", "directly behind a term"),
        ('"a"b', "directly behind a term"),
        ("a^2^3", "directly behind a term"),
        ("a\\", "backslash at the end"),
        ("a AND", "missing at the end"),
        ("a OR", "missing at the end"),
        ("NOT", "missing at the end"),
        ("AND a", "AND lacks a term"),
        ("OR", "OR lacks a term"),
        ("a AND AND b", "AND lacks a term"),
        ("NOT NOT a", "NOT lacks a term"),
        ("a AND OR b", "OR lacks a term"),
        ("a - b", "sign without a term"),
        ("+", "sign without a term"),
        ("a OR +b", "contradict"),
        ("a^", "factor"),
        ("a^x", "factor"),
        ("a^0", "factor"),
        ("a^-1", "factor"),
        ("a^9999", "factor"),
        ("[a TO b]", "starts a range"),
        ("[error] x", "starts a range"),
        ('{"a": 1}', "starts a range"),
        ("value:[a TO b]", "ranges work on offset: and time: only"),
        ("json.n:>5", "ranges work on offset: and time: only"),
        ("key:<5", "ranges work on offset: and time: only"),
        ("key:[* TO *]", "ranges work on offset: and time: only"),
        ("json.n:[* TO *]", "ranges work on offset: and time: only"),
        ("offset:x", "not an offset"),
        ("offset:1.5", "not an offset"),
        ("offset:-1", "out of range"),
        ("offset:99999999999999999999", "out of range"),
        ("offset:[5 TO 3]", "range is empty"),
        ("offset:{5 TO 6}", "range is empty"),
        ("offset:<0", "range is empty"),
        ("offset:[1 TO", "not complete"),
        ("offset:[1 2]", "not complete"),
        ("offset:[1 to 2]", "not complete"),
        ("offset:(1 2)", "one value or range"),
        ("offset:3'", "not an offset"),
        ('offset:"3', "never closed"),
        ("time:>='5", "never closed"),
        ("time:yesterday", "not a time"),
        ("time:2024-01-31", "names no time zone"),
        ("time:>=2024-01-31T00:00:00", "names no time zone"),
        ("time:[2024-01-02T00:00:00Z TO 2024-01-01T00:00:00Z]", "range is empty"),
        ("value:/a", "not closed by '/'"),
        ("key:/a/b", "not closed by '/'"),
        ("value://", "empty pattern"),
        ("value:/a-b/", "matches nothing"),
        ("value:/a b/", "matches nothing"),
        ("value:/a_b/", "matches nothing"),
        ("value:/a\\.b/", "matches nothing"),
        ("value:/^a$/", "whole word"),
        ("value:/(a/", "cannot be used"),
        ("value:/a*?/", "cannot be used"),
        ("value:/\\ba/", "cannot be used"),
        ("value:/[z-a]/", "cannot be used"),
        ("value:/((a{1,500}){1,500}){1,500}/", "cannot be used"),
        ("value:/.{150}/", "cannot be used: .*1000 states"),
        ("value:/(a{1,100}){1,100}/", "too long to compile"),
        ("key:/(.{1,20}){1,20}/", "too long to compile"),
        ("value:/\\w?\\w?\\w?/", "too long to compile"),
        ("value:/(\\D?){15}/", "too long to compile"),
        ("value:/[\\p{L}-]+/ OR value:/\\pN+/ OR value:/[\\w]+/", "too long to compile"),
        ("value:/err\udcff/", "matches nothing"),
        ("roam~0.8", "fuzzy"),
        ("json.level:/err.+/", "patterns work on value: and key: only"),
        ("header.a:(b /err[0-9]/)", "patterns work on value: and key: only"),
        ("json.path:/api/users/", "quote it to search for the text"),
        ("b !a", "write -term"),
        ("b value:!a", "write -term"),
        ("b AND !(a)", "write -term"),
        ("b NOT -a", "two signs"),
        ("b +-a", "two signs"),
        ("b --a", "two signs"),
        ("b AND NOT +a", "two signs"),
        ("value:/(a{ 1,100 }){ 1,100 }/", "begins no count"),
        ("value:/(a{0000000001,0000000100}){1,100}/", "begins no count"),
        ("value:/(?i)(?sx:a)/", "the flag x"),
        ("value:/[A-[](a{1,100}){1,100}]]/", "too long to compile"),
        ("value:/([[a-z][0-9]]{1,30}){1,30}/", "too long to compile"),
        ("value:/([a\\D]{1,15}){1,15}/", "too long to compile"),
    ],
)
def test_a_query_that_cannot_be_meant_is_refused(text: str, says: str) -> None:
    with pytest.raises(QueryError, match=says):
        check_query(text)


def test_size_depth_and_clauses_are_bounded() -> None:
    check_query("(" * DEPTH_MAX + "a" + ")" * DEPTH_MAX)
    check_query(" ".join(["a"] * CLAUSES_MAX))
    check_query("a" * QUERY_CHARACTERS_MAX)
    check_query(f"json.{'a.' * 499}bc:x")

    with pytest.raises(QueryError, match="parentheses deep"):
        check_query("(" * (DEPTH_MAX + 1) + "a" + ")" * (DEPTH_MAX + 1))
    with pytest.raises(QueryError, match="terms"):
        check_query(" ".join(["a"] * (CLAUSES_MAX + 1)))
    with pytest.raises(QueryError, match="terms"):
        check_query(" ".join(['"a b c"~5'] * (CLAUSES_MAX // 64 + 1)))
    with pytest.raises(QueryError, match="characters"):
        check_query("a" * (QUERY_CHARACTERS_MAX + 1))


def test_a_refusal_of_a_long_query_shows_the_place_only() -> None:
    with pytest.raises(QueryError) as refused:
        check_query("word " * 500 + "level:x " + "word " * 500)

    assert "level:x" in str(refused.value)
    assert "position 2500" in str(refused.value)
    assert len(str(refused.value)) < 500


def test_text_only() -> None:
    with pytest.raises(TypeError, match="not bytes"):
        check_query(b"error")  # type: ignore[arg-type]


def test_paths_are_listed_as_they_are_written() -> None:
    checked = check_query("json.b:x OR (header.a:y -json.a.c:z) OR json.b:1")

    assert ("header.a", "json.a.c", "json.b") == checked.paths


def test_a_checked_query_pickles_copies_and_compares() -> None:
    checked = check_query('+"disk full"~2 -json.level:/x OR (time:>=5 value:/a+/)^2')

    assert checked == pickle.loads(pickle.dumps(checked)) == copy.deepcopy(checked)


def answered_or_refused(text: str) -> CheckedQuery | str:
    try:
        return check_query(text)
    except QueryError as refused:
        return str(refused)


@given(st.text(st.sampled_from("abAB01 \"'()[]{}+-*?~^:\\/<>=.&|!\t\ud800é"), max_size=30))
def test_any_text_is_answered_or_refused(text: str) -> None:
    assert answered_or_refused(text)


@given(
    st.lists(
        st.sampled_from(
            ["a", "AND", "OR", "NOT", "(", ")", "+", "-", '"a b"', "value:", "json.x:", "/a/", "^2"]
        ),
        max_size=12,
    ),
    st.sampled_from(["", " "]),
)
def test_any_pieces_are_answered_or_refused(pieces: list[str], glue: str) -> None:
    assert answered_or_refused(glue.join(pieces))


@pytest.mark.parametrize(
    ("text", "paths", "may"),
    [
        ("json.a:x", {"json.a"}, True),
        ("json.a:x", {"json.b"}, False),
        ("json.a:x OR y", set(), True),
        ("json.a:x AND y", set(), False),
        ("json.a:x header.b:y", {"header.b"}, True),
        ("json.a:x header.b:y", {"header.a"}, False),
        ("y -json.a:x", set(), True),
        ("+y json.a:x", set(), True),
        ("(json.a:x)^2", set(), False),
        ("time:>5", set(), True),
        ("time:[* TO *]", set(), True),
        ("y AND (json.a:1 OR -json.a:2)", set(), True),
    ],
)
def test_paths_rule_an_index_out(text: str, paths: set[str], may: bool) -> None:
    assert may is may_match(check_query(text).tree, frozenset(paths))
