"""A query that cannot be answered as written is a QueryError that says how to write it."""

from __future__ import annotations

import asyncio

import pytest

import chronik_store as chronik
from tests.bad_input.kept import CONFIG, values

BAD = {
    "": "", "   ": "", "AND": "", "OR disk": "", "disk AND": "", "NOT": "",
    "(disk": "", "disk)": "", '"disk': "", "[1 TO": "", "/dis(k/": "", "value:/[/": "",
    "err*": "/err", "level:error": "value", "VALUE:x": "value", "_id:1": "value",
    "header:x": "header", "json:x": "json", "key:": "", "disk^^2": "", "value:[a TO b]": "",
    "...": "", "!!!": "", "-disk": "", "ts:1": "value", "offset:x": "offset",
    "offsets:3": "offset", "\0": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("queries") / "d"
    with chronik.LogStore.open(path, config=CONFIG) as store:
        store.create_topic("t", partitions=2)
        for partition in (0, 1):
            log = store.partition("t", partition)
            log.append([b"disk full", b"all well"])
            log.seal()
            log.append([b"disk again"])
        assert not store.run_pipeline_once().errors
        yield store


@pytest.mark.parametrize("query", BAD, ids=ascii)
def test_each_door_refuses_it_and_goes_on(store, query):
    log = store.partition("t")
    face = chronik.aio.AsyncPartitionLog(log)
    doors = {
        "log": lambda: log.search(query),
        "store": lambda: store.search("t", query),
        "aio": lambda: asyncio.run(face.search(query)),
        "complete": lambda: log.search(query, require_complete=True, limit=0),
    }
    said = set()
    for door in doors.values():
        with pytest.raises(chronik.QueryError) as caught:
            door()
        said.add(str(caught.value))
    face._pool.close()

    assert 1 == len(said)
    assert len(min(said)) > 10
    assert BAD[query] in min(said)
    assert 2 == log.search("disk").total
    assert [b"disk full", b"all well", b"disk again"] == values(log)


MONSTERS = [
    "(" * 5000 + "x" + ")" * 5000, "x " * 50_000, "x OR " * 9000 + "x", "NOT " * 9000 + "x",
    '"' + "x " * 50_000 + '"', "\\" * 9999, "value:/(a*)*(b*)*c{1000}{1000}/",
    "value:/.{99999999}/",
]  # fmt: skip


@pytest.mark.parametrize("query", MONSTERS, ids=lambda text: text[:12])
def test_a_monstrous_query_ends_in_an_answer_or_an_error(store, query):
    refused = ""
    try:
        store.search("t", query, deadline_seconds=5)
    except chronik.QueryError as error:
        refused = str(error)
    assert len(refused) < 2000
    assert 2 == store.partition("t").search("disk").total


def test_a_path_that_occurs_nowhere_is_named(store):
    found = store.search("t", "json.levle:error")
    paths = [path.removeprefix("json.") for path in found.unknown_paths]
    assert (0, ["levle"]) == (found.total, paths)


def test_options_that_cannot_be_meant_are_refused(store):
    log = store.partition("t")
    for options in ({"limit": -1}, {"limit": 1 << 40}, {"order": "best"}, {"deadline_seconds": -1}):
        for search, given in ((log.search, ("disk",)), (store.search, ("t", "disk"))):
            with pytest.raises(ValueError, match=next(iter(options))):
                search(*given, **options)
    with pytest.raises(TypeError):
        store.search("t", "disk", no_such_option=1)


def test_no_time_left_says_what_was_not_searched(store):
    log = store.partition("t")
    found = log.search("disk", deadline_seconds=0)
    assert found.total == 2 or not found.complete
    if not found.complete:
        with pytest.raises(chronik.UnavailableError):
            log.search("disk", deadline_seconds=0, require_complete=True)
