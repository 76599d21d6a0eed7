"""`consume --follow`: what comes while it runs."""

from __future__ import annotations

import threading

import pytest

from chronik_server.cli_remote import session
from chronik_server.client import Client
from chronik_store.cli import consume, options
from chronik_store.clock import SystemClock
from chronik_store.log_store import LogStore
from tests.cli.test_over_a_server import served


def _grow_in_a_directory(_place: str) -> None:
    with LogStore.open("data") as store:
        store.create_topic("events", partitions=4, exist_ok=True)
        store.partition("events", 3).append([b"new a", b"new b"])
        store.partition("events", 0).append(b"old")


def _grow_at_a_server(place: str) -> None:
    with Client(place) as client:
        client.create_topic("events", partitions=4, exist_ok=True)
        client.append("events", [b"new a", b"new b"], partition=3)
        client.append("events", b"old")


@pytest.fixture(autouse=True)
def _whole_command_line(monkeypatch):
    """As `chronik_server.cli.main` puts it together."""
    monkeypatch.setattr(options, "remote_session", session)


@pytest.mark.parametrize(
    ("grow", "more"),
    [
        (_grow_in_a_directory, []),
        (_grow_in_a_directory, ["--from", "latest"]),
        (_grow_at_a_server, []),
        (_grow_at_a_server, ["--from", "latest"]),
        (_grow_at_a_server, ["--cursor", "a"]),
    ],
)
def test_who_follows_a_topic_reads_partitions_that_it_gets_later(
    chronik, tmp_path, monkeypatch, grow, more
):
    """`chronik consume --follow` had to be started again, and nobody said so."""
    at_a_server = grow is _grow_at_a_server
    assert 0 == chronik("topic", "create", "events", "--partitions", "2").code
    plain, sleeps = SystemClock.sleep, 0
    monkeypatch.setattr(consume, "LOOK_SECONDS", 0.0)

    def follow(place: str, *where: str) -> list[str]:
        def sleep(clock: SystemClock, seconds: float) -> None:
            nonlocal sleeps
            if threading.current_thread() is not threading.main_thread():
                plain(clock, seconds)
                return
            sleeps += 1
            assert sleeps < 5, "what is there is not read"
            if sleeps == 1:
                grow(place)

        monkeypatch.setattr(SystemClock, "sleep", sleep)
        shown = chronik(*where, "consume", "events", "-f", "-n", "3", "--format", r"%p %v\n", *more)
        assert 0 == shown.code, shown.err
        return shown.lines

    if at_a_server:
        with served(tmp_path / "data") as address:
            found = follow(address, "-s", address)
            if more[:1] == ["--cursor"]:
                with Client(address) as client:
                    assert 2 == client.cursor_offset("events", "a", partition=3)
    else:
        found = follow("")
    assert ["0 old", "3 new a", "3 new b"] == sorted(found)
