"""`-s HOST:PORT`: the embedded verbs, with the same flags and the same output, over a server."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chronik_server import cli_node, cli_remote
from chronik_server.cli import VERBS as SERVER_VERBS
from chronik_server.cli_remote import RemoteLog, RemoteStore, session
from chronik_server.client import Client
from chronik_server.errors import CertificateError
from chronik_server.protocol.cluster import ClusterDescription, NodeInfo, StatusFound
from chronik_server.protocol.topics import PartitionPlace, TopicDescription
from chronik_store.cli import main, options
from chronik_store.errors import TopicExistsError, TopicNotFoundError, UnavailableError
from chronik_store.log_store import LogStore
from chronik_store.model import FetchResult, StoredRecord, TopicInfo, Watermarks
from chronik_store.partition_log import PartitionLog
from tests.server.serving import LOG, serving

EVENTS = [
    {
        "level": "info" if number % 5 else "error",
        "number": number,
        "key": f"k{number % 3}",
        "time": 1_700_000_000 + number,
    }
    for number in range(40)
]
ALIKE = [
    ["consume", "events"],
    ["--json", "consume", "events"],
    ["consume", "events", "--from", "35", "--format", r"%o %t %k %v\n"],
    ["consume", "events", "--from", "-3"],
    ["consume", "events", "--since", "2023-11-14T22:13:50Z", "-n", "4"],
    ["search", "events", "json.level:error"],
    ["--json", "search", "events", "error", "--order", "oldest", "-n", "3"],
    ["search", "events", "error", "-C", "1", "-n", "2"],
    ["search", "events", "error", "-c"],
    ["search", "events", "nothing"],
    ["search", "events", "colour:red"],
    ["consume", "events", "--from", "99"],
    ["consume", "nobody"],
    ["topic", "list"],
    ["topic", "create", "events"],
    ["topic", "create", "../x"],
    ["cursor", "set", "events", "a", "7"],
    ["cursor", "list", "events"],
    ["consume", "events", "--cursor", "a", "-n", "2"],
    ["--json", "cursor", "list", "events"],
    ["cursor", "delete", "events", "a"],
    ["cursor", "list", "events"],
]
LOCAL = [
    *("verify", "repair", "inspect x", "doctor", "bench", "demo", "restore x y"),
    "simulate",
]


@contextmanager
def served(path: Path) -> Iterator[str]:
    """A server of a data directory, on a loop in another thread."""
    address: list[str] = []
    ready, loop = threading.Event(), asyncio.new_event_loop()
    done = asyncio.Event()

    async def serve() -> None:
        async with serving(path) as (_, where):
            address.append(where)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(20)
        assert not thread.is_alive()
        loop.close()


@pytest.fixture(autouse=True)
def _whole_command_line(monkeypatch):
    """As `chronik_server.cli.main` puts it together."""
    monkeypatch.setattr(main, "VERBS", {**main.VERBS, **SERVER_VERBS})
    monkeypatch.setattr(options, "remote_session", session)


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("".join(f"{json.dumps(event)}\n" for event in EVENTS))
    return path


def without_sizes(shown: str) -> str:
    """A log that is open has zeros ahead of its end on a disk, and none in memory."""
    return re.sub(r" +(SIZE|[0-9.]+ KiB)$", "", shown, flags=re.MULTILINE)


def test_verbs_answer_alike_with_a_directory_and_a_server(chronik, tmp_path, lines):
    produce = ["produce", "events", lines, "--jsonl", "--key-field", "key", "--time-field", "time"]
    with served(tmp_path / "there") as address:
        for place in (["-d", "here"], ["-s", address]):
            ran = chronik(*place, *produce)
            assert (0, "40 records acknowledged, offsets 0 to 39") == (
                ran.code,
                ran.err.splitlines()[-1],
            )
        for arguments in ALIKE:
            here = chronik("-d", "here", *arguments)
            there = chronik("-s", address, *arguments)
            assert here.code == there.code, arguments
            assert without_sizes(here.out) == without_sizes(there.out), arguments
            assert here.err == there.err or here.code != 0, arguments


def flip(file: Path) -> None:
    with file.open("r+b") as found:
        found.write(b"\xff" * 300)


def take_away(file: Path) -> None:
    file.unlink()
    file.mkdir()  # no rights would keep root from reading it


@pytest.mark.parametrize(("harm", "code"), [(flip, 4), (take_away, 3)])
@pytest.mark.parametrize("topic", [[], ["bad"]])
def test_status_ends_alike_with_a_directory_and_a_server(chronik, tmp_path, harm, code, topic):
    """4 is for damage, which a retry does not cure, and only for that."""
    for name in ("good", "bad"):
        lines = tmp_path / name
        lines.write_text("x" * 1000)
        assert 0 == chronik("-d", "here", "produce", name, lines).code
    for file in Path("here/wal/bad").rglob("wal_*"):
        harm(file)
    here = chronik("-d", "here", "status", *topic)
    with served(tmp_path / "here") as address:
        there = chronik("-s", address, "status", *topic)
    assert (code, code) == (here.code, there.code), (here.err, there.err)
    assert there.err.startswith("chronik: error: ")


def test_an_export_over_a_server_is_the_same_file(chronik, tmp_path, lines):
    with served(tmp_path / "there") as address:
        chronik("-d", "here", "produce", "events", lines)
        chronik("-s", address, "produce", "events", lines)
        assert 0 == chronik("-d", "here", "export", "events", "--to", "here.jsonl").code
        assert 0 == chronik("-s", address, "export", "events", "--to", "there.jsonl").code

    def values(name: str) -> list[object]:
        found = [json.loads(line) for line in Path(name).read_text().splitlines()]
        return [(each["offset"], each["value"]) for each in found]

    assert 40 == len(values("here.jsonl"))
    assert values("here.jsonl") == values("there.jsonl")


def test_a_search_bundle_is_built_anew_alike_with_a_directory_and_a_server(chronik, tmp_path):
    """The same words, objects and codes: one that is lost, none, all, and what is not there."""
    for number in range(3):
        lines = tmp_path / str(number)
        lines.write_text(f"needle {number}\n")
        with PartitionLog.open("here", topic="events", config=LOG) as log:
            log.append(lines.read_bytes())
            log.seal()
            assert () == log.run_pipeline_once().errors
    shutil.copytree("here", "there")
    runs = (
        ["rebuild-index"], ["--json", "rebuild-index", "events", "-p", "0"],
        ["rebuild-index", "--all", "--json"], ["rebuild-index", "nobody"],
        ["rebuild-index", "events", "-p", "3"],
    )  # fmt: skip
    seen = []
    with served(tmp_path / "there") as address:
        for run in runs:
            for place in ("here", "there"):
                next(Path(place, "object_store", "indexes").rglob("*.tar.gz")).unlink()
            here = chronik("-d", "here", *run)
            there = chronik("-s", address, *run)
            assert (here.code, here.out) == (there.code, there.out), run
            assert here.err == there.err or here.code != 0, run
            seen.append((there.code, [each["rebuilt"] for each in there.objects if there.out]))
        assert ["3"] == chronik("-s", address, "search", "events", "needle", "-c").lines
    assert [(0, []), (0, [1]), (0, [3]), (2, []), (2, [])] == seen


def test_a_rebuild_over_a_server_takes_the_server_of_the_environment(chronik, monkeypatch):
    monkeypatch.setenv("CHRONIK_SERVER", "127.0.0.1:1")
    monkeypatch.setattr(cli_remote, "RETRY_SECONDS", 0.1)
    assert "cannot connect to 127.0.0.1:1" in chronik("rebuild-index").err


def test_what_happened_to_a_topic_is_seen_on_both_sides(chronik, tmp_path):
    with served(tmp_path / "there") as address:
        assert 0 == chronik("-s", address, "topic", "create", "t", "--partitions", "3").code
        assert 0 == chronik("-s", address, "topic", "create", "t", "--exist-ok").code
        shown = chronik("-s", address, "--json", "topic", "list")
        assert [("t", 3)] == [(each["topic"], each["partitions"]) for each in shown.objects]
        states = chronik("-s", address, "--json", "status", "t").objects
        assert [0, 1, 2] == sorted(each["partition"] for each in states)
        assert 0 == chronik("-s", address, "topic", "delete", "t", "--yes").code
        gone = chronik("-s", address, "topic", "describe", "t")
        assert 2 == gone.code
        assert "no topic 't'" in gone.err


def test_partitions_are_added_and_one_that_adds_none_is_quoted(chronik, tmp_path, monkeypatch):
    def refuses(*_, **__):
        raise TopicExistsError("it exists with 2 partitions, and that is that", topic="t")

    with served(tmp_path / "there") as address:
        create = ("-s", address, "topic", "create", "t", "--exist-ok", "--partitions")
        assert "topic t, 2 partitions" in chronik(*create, "2").err
        assert "topic t, 4 partitions" in chronik(*create, "4").err
        assert "topic t, 4 partitions" in chronik(*create, "1").err
        monkeypatch.setattr(Client, "create_topic", refuses)
        assert "that is that" in chronik(*create, "5").err


@pytest.mark.parametrize("is_there", [True, False])
def test_a_partition_that_one_node_has_not_heard_of_is_asked_of_who_knows(is_there):
    """It was added a moment ago, and a node that had just started was asked."""
    there = TopicNotFoundError("topic 't' has partitions 0 to 1, not 2", topic="t")

    class Stale:
        def describe_topic(self, _):
            return TopicDescription("t", "aa" * 16, (PartitionPlace(0), PartitionPlace(1)))

        def watermarks(self, _, *, partition):
            if not is_there:
                raise there
            return Watermarks(0, 0, 0, 0, 0, 0, 0)

    store = RemoteStore(Stale())  # type: ignore[arg-type]
    if is_there:
        assert 2 == store.partition("t", 2).partition
    else:
        with pytest.raises(TopicNotFoundError) as caught:
            store.partition("t", 2)
        assert there is caught.value


@pytest.mark.parametrize("verb", LOCAL)
def test_a_verb_about_files_takes_no_server(chronik, verb, monkeypatch):
    said = chronik("-s", "127.0.0.1:1", *verb.split())
    assert 2 == said.code
    assert "works on files of this machine" in said.err
    # A server that only the environment names is not meant.
    monkeypatch.setenv("CHRONIK_SERVER", "127.0.0.1:1")
    assert "not through a server" not in chronik(*verb.split(), "--help").err


@pytest.mark.parametrize("words", [["status"], ["status", "events"], ["--json", "status", "lost"]])
def test_a_partition_of_which_no_node_tells_is_not_left_out_in_silence(
    chronik, monkeypatch, tmp_path, words
):
    """Its nodes are away, or not believed. The others' lines looked as if they were all, and a
    topic whose nodes are all away was said not to be there.
    """
    with LogStore.open(tmp_path / "d") as store:
        store.create_topic("events")
        told = store.status()

    class Client:
        def topics(self):
            return TopicInfo("events", "0" * 32, 2), TopicInfo("lost", "1" * 32, 1)

        def status(self, topic=None):
            return StatusFound(told, (), "1")

        def cluster(self):
            nodes = NodeInfo("1", "10.0.0.1:7411"), NodeInfo("2", "10.0.0.2:7411")
            return ClusterDescription("c", "1", nodes, "1")

    @contextmanager
    def remote_client(*_):
        yield Client()

    class Unbelieved(Client):
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def status(self, topic=None):
            raise CertificateError("it has run out")

    monkeypatch.setattr(cli_remote, "remote_client", remote_client)
    monkeypatch.setattr(cli_remote, "Client", Unbelieved)
    found = chronik("-s", "10.0.0.1:7411", *words)
    assert 3 == found.code
    missing = {"status": "events/1, lost/0", "events": "events/1", "lost": "lost/0"}[words[-1]]
    assert f"no node that answers has {missing}" in found.err
    assert ("events/0" in found.out) == (words[-1] != "lost")
    assert "no topics yet" not in found.err


def test_nodes_are_listed_with_who_is_away(chronik, tmp_path, monkeypatch):
    """One that has been down for a week looked as all others."""
    with served(tmp_path / "data") as address:
        nodes = (
            *(NodeInfo("1", address), NodeInfo("2", "127.0.0.1:1")),
            *(NodeInfo("3", "127.0.0.1:1", None, "removed"), NodeInfo("4", address)),
        )

        class Cluster:
            def cluster(self):
                return ClusterDescription("c", "1", nodes, "1")

        @contextmanager
        def remote_client(_):
            yield Cluster()

        monkeypatch.setattr(cli_node, "remote_client", remote_client)
        listed = chronik("-s", address, "--json", "node", "list")
        shown = chronik("-s", address, "node", "list")
    answers = {each["node_id"]: each["answers"] for each in listed.objects}
    assert {"1": True, "2": False, "3": None, "4": False} == answers
    assert [["1", address, "member", "yes", "yes"], ["2", "127.0.0.1:1", "member", "no"]] == [
        line.split() for line in shown.lines[1:3]
    ]
    assert ["3", "127.0.0.1:1", "removed"] == shown.lines[3].split()
    away, other = shown.err.splitlines()
    assert "node 2 does not answer here: cannot connect to 127.0.0.1:1" in away
    assert f"node 4 does not answer here: somebody else is at {address}" in other


def test_who_waits_for_a_node_to_leave_asks_none_that_left_before(chronik, monkeypatch):
    """At its address there may be another cluster's node by now."""
    asked, left = [], ["leaving"]

    class Cluster:
        def remove_node(self, node_id):
            assert "2" == node_id

        def cluster(self):
            states = {"1": "member", "2": left[-1], "3": "removed", "4": "joining"}
            left.append("removed")
            nodes = tuple(NodeInfo(n, f"10.0.0.{n}:7411", None, s) for n, s in states.items())
            return ClusterDescription("c", "1", nodes, "1")

    @contextmanager
    def remote_client(_, *others):
        asked.append(others)
        yield Cluster()

    monkeypatch.setattr(cli_node, "remote_client", remote_client)
    assert 0 == chronik("-s", "10.0.0.2:7411", "node", "remove", "2", "--yes").code
    assert [(), ("10.0.0.1:7411", "10.0.0.4:7411")] == asked


def test_nobody_listens_is_unavailable(chronik, monkeypatch):
    monkeypatch.setattr(cli_remote, "RETRY_SECONDS", 0.3)  # a server that starts is waited for
    said = chronik("-s", "127.0.0.1:1", "topic", "list")
    assert 3 == said.code
    assert "127.0.0.1:1" in said.err


@pytest.mark.parametrize("verb", [["topic", "list"], ["consume", "events"], ["produce", "events"]])
def test_who_waits_for_a_server_is_told_for_what(chronik, monkeypatch, verb):
    """For ten seconds nothing was to be seen."""
    monkeypatch.setattr(cli_remote, "RETRY_SECONDS", 0.4)
    monkeypatch.setattr(cli_remote, "SAY_SECONDS", 0.1)
    said = chronik("-s", "127.0.0.1:1", *verb)
    first, last = said.err.splitlines()
    assert "cannot connect to 127.0.0.1:1" in first
    assert first.endswith("; it is asked again, for 0.4 s altogether")
    assert last.startswith("chronik: error: cannot connect to 127.0.0.1:1")
    assert (3, "") == (said.code, said.out)


def test_a_server_and_a_directory_exclude_each_other(chronik):
    assert 2 == chronik("-s", "127.0.0.1:1", "-d", "data", "topic", "list").code


class Shrunk:
    """A client whose partition has ten records for the node asked first, and four for the next."""

    def watermarks(self, topic, *, partition):
        return Watermarks(0, 0, 0, 0, 10, 10, 10)

    def read(self, topic, offset, **_):
        records = tuple(StoredRecord(b"v", None, 0, (), place) for place in range(offset, 4))
        return FetchResult(records, max(offset, 4), "wal_tail", 0.0)


def test_a_scan_does_not_end_where_a_node_that_knows_less_does():
    """What was acknowledged is missing then, and nobody would see it in an export."""
    scan = RemoteLog(Shrunk(), "events", 0).scan()
    assert [0, 1, 2, 3] == [next(scan).offset for _ in range(4)]
    with pytest.raises(UnavailableError, match=r"ends at offset 4 for .* and at 10"):
        next(scan)
    assert 4 == len(list(RemoteLog(Shrunk(), "events", 0).scan(0, 4)))
