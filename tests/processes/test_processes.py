"""Real processes over real files: kill -9, followers, locks, Ctrl-C, fork."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chronik_store import LogStore, open_bucket
from chronik_store.errors import DirectoryLockedError
from tests.depth import share
from tests.processes.children import CONFIG, open_log, value

Start = Callable[..., Any]
MANY_ROUNDS = share(15, every=40)


def recovered(path: Path) -> list[bytes]:
    store, log = open_log(str(path))
    with store:
        assert log.recovery.verdict in {"clean", "torn"}
        return [record.value for record in log.scan()]


@pytest.mark.parametrize(
    ("verb", "rounds"),
    [
        ("append", 3),
        ("send", 3),
        pytest.param("append", MANY_ROUNDS, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
        pytest.param("send", MANY_ROUNDS, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def test_what_was_acknowledged_survives_kill_nine_again_and_again(
    start: Start, tmp_path: Path, verb: str, rounds: int, seed: int
) -> None:
    rng = random.Random(seed)
    total = 0
    for _ in range(rounds):
        child = start(verb, tmp_path)
        child.wait_for("acked", rng.choice((1, 20, 400)))
        time.sleep(rng.random() * 0.2)
        child.end(signal.SIGKILL)
        acked = child.said("acked")
        assert acked == sorted(acked)
        values = recovered(tmp_path)
        assert values == [value(number) for number in range(len(values))]
        assert len(values) > max(acked)
        assert len(values) >= total
        total = len(values)
    with LogStore.open(tmp_path, config=CONFIG) as store:
        log = store.partition("t")
        log.seal()
        for _ in range(200):
            if log.run_pipeline_once().idle:
                break
        assert () == log.verify(bucket=True, deep=True).findings


def test_a_second_process_follows_while_the_first_writes_and_dies(
    start: Start, tmp_path: Path
) -> None:
    writer = start("append", tmp_path)
    writer.wait_for("acked", 5)
    followers = [start("follow", tmp_path, 10_000_000) for _ in range(2)]
    for follower in followers:
        follower.wait_for("saw", 300)
    writer.end(signal.SIGKILL)
    acked = max(writer.said("acked"))
    again = start("append", tmp_path)
    again.wait_for("acked", 100)
    for follower in followers:
        # Those that the killed writer had acknowledged without a mark come with the next one's.
        follower.wait_for("saw", acked + 50)
        seen = follower.said("saw")
        assert seen == list(range(len(seen)))
        assert follower.process.poll() is None
    again.end(signal.SIGKILL)


def test_a_follower_sees_the_last_record_without_waiting_for_the_next(
    start: Start, tmp_path: Path
) -> None:
    store, log = open_log(str(tmp_path))
    with store:
        follower = start("follow", tmp_path, 3)
        follower.wait_for("open")
        for number in range(3):
            log.append(value(number))
            follower.wait_for("saw", number + 1)
        assert 0 == follower.finish()


def test_a_directory_has_one_writer_among_processes(start: Start, tmp_path: Path) -> None:
    holder = start("hold", tmp_path)
    holder.wait_for("open")
    with pytest.raises(DirectoryLockedError) as caught:
        open_log(str(tmp_path))
    assert holder.said("open") == [caught.value.pid]
    assert os.uname().nodename == caught.value.host
    assert "read_only" in str(caught.value)
    holder.process.send_signal(signal.SIGSTOP)  # a writer that stands still still holds it
    with pytest.raises(DirectoryLockedError):
        open_log(str(tmp_path))
    holder.process.send_signal(signal.SIGCONT)
    holder.end(signal.SIGKILL)
    store, log = open_log(str(tmp_path))
    with store:
        assert 0 == log.append(value(0)).base_offset


def test_ctrl_c_in_the_middle_of_an_append_loses_nothing(start: Start, tmp_path: Path) -> None:
    for _ in range(3):
        child = start("interrupted", tmp_path)
        child.wait_for("acked", 50)
        child.process.send_signal(signal.SIGINT)
        assert 0 == child.finish(), child.process.stderr.read()
        assert [line for line in child.lines if line[0] == "closed"]
        values = recovered(tmp_path)
        assert values == [value(number) for number in range(len(values))]
        assert len(values) > max(child.said("acked"))
        assert {"not_durable"} >= {line[1] for line in child.lines if line[0] == "refused"}


def test_a_fork_with_appends_in_flight_harms_nobody(start: Start, tmp_path: Path) -> None:
    child = start("forked", tmp_path)
    assert 0 == child.finish(), child.process.stderr.read()
    assert [8] == child.said("child")
    assert list(range(150)) == child.said("acked")
    assert [value(number) for number in range(150)] == recovered(tmp_path)


def bucket_of(path: Path) -> str:
    """A bucket with a topic `t` of two records, indexed."""
    config = CONFIG.replace(indexing_enabled=True, pipeline_enabled=False)
    with LogStore.open(path / "data", config=config) as store:
        store.create_topic("t")
        log = store.partition("t")
        log.append([b"one fish", b"two fish"])
        log.seal()
        assert 1 == log.run_pipeline_once().indexed
    return (path / "data" / "object_store").as_uri()


def test_what_a_killed_search_had_unpacked_goes_with_the_next_and_a_live_one_keeps_its_own(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, temporary = bucket_of(tmp_path), tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    live = start("search", url)
    live.wait_for("found")
    [kept] = temporary.iterdir()
    killed = start("search", url)
    killed.wait_for("found")
    [left] = set(temporary.iterdir()) - {kept}
    assert [path for path in left.rglob("*") if path.name == "meta.json"]
    killed.end(signal.SIGKILL)
    assert left.exists()

    later = start("search", url)
    later.wait_for("found")

    assert not left.exists()
    assert kept.exists()
    assert 2 == len(list(temporary.iterdir()))
    said = len(live.said("found"))
    live.wait_for("found", said + 10)
    assert {2} == set(live.said("found"))


def test_many_searches_that_come_and_go_and_are_killed_take_nothing_from_each_other(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, temporary = bucket_of(tmp_path), tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    children = [start("search_in_turn", url) for _ in range(4)]
    for child in children:
        child.wait_for("found", 5)
    for child in children[:3]:
        child.end(signal.SIGKILL)
        children[3].wait_for("found", len(children[3].said("found")) + 5)
    children[3].end(signal.SIGKILL)

    for child in children:
        assert {2} == set(child.said("found"))
        assert [] == child.said("missing")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with open_bucket(url, topic="t") as log:
        assert 2 == log.search("fish").total
        assert 1 == len(list(temporary.iterdir()))
    assert [] == list(temporary.iterdir())
