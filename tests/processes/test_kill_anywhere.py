"""Killed and stopped at bad moments: while it recovers, while it uploads, while others read.

Beside test_processes.py: here the bucket is a directory of its own, and everything is asked of it
too.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import chronik_store as chronik
from tests.depth import share
from tests.processes.children import CONFIG, open_log, value

Start = Callable[..., Any]


def check_prefix(records: list[Any]) -> int:
    """Every offset once, in order, with the value that was written there; how many."""
    assert list(range(len(records))) == [record.offset for record in records]
    assert [value(number) for number in range(len(records))] == [each.value for each in records]
    return len(records)


def recovered(path: Path) -> int:
    store, log = open_log(str(path))
    with store:
        assert log.recovery.verdict in {"clean", "torn"}, log.recovery
        return check_prefix(list(log.scan()))


def in_bucket(url: str) -> int:
    """How many records the bucket alone has; 0 while nothing is published."""
    try:
        with chronik.open_bucket(url, topic="t") as log:
            return check_prefix(list(log.scan()))
    except chronik.TopicNotFoundError:
        return 0


@pytest.mark.parametrize(
    "rounds",
    [4, pytest.param(share(15, every=40), marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_killed_while_it_appends_recovers_and_uploads(
    start: Start, tmp_path: Path, rounds: int, seed: int
) -> None:
    rng = random.Random(seed)
    path, bucket = tmp_path / "d", tmp_path / "bucket"
    url = f"file://{bucket}"
    chronik.LogStore.open(path, object_store=url, config=CONFIG).close()
    acknowledged, tiered_before = 0, 0
    for _ in range(rounds):
        # Often before it has recovered, now and then after many a segment.
        child = start("append", path)
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0.0, 0.6))
        else:
            child.wait_for("acked", rng.choice([1, 300, 800]))
            time.sleep(rng.uniform(0.0, 0.1))
        child.end(signal.SIGKILL)
        acknowledged = max([acknowledged, *child.said("acked")])
        now = in_bucket(url)
        assert now >= tiered_before, "what was published stays published"
        tiered_before = now
    count = recovered(path)
    assert count >= acknowledged
    store, log = open_log(str(path))
    with store:
        log.seal()
        for _ in range(500):
            if log.run_pipeline_once().idle:
                break
        assert count == log.watermarks.tiered
        assert () == log.verify(bucket=True, deep=True).findings
    assert count == in_bucket(url)


def test_killed_again_and_again_in_the_middle_of_recovery(start: Start, tmp_path: Path) -> None:
    first = start("send", tmp_path)
    first.wait_for("acked", 2000)
    first.end(signal.SIGKILL)
    acknowledged = max(first.said("acked"))
    for step in range(12):
        child = start("hold", tmp_path)
        deadline = time.monotonic() + 30
        while holder_of(tmp_path) != child.process.pid:  # it is about to recover
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(step * 0.004)
        child.end(signal.SIGKILL)
    assert recovered(tmp_path) > acknowledged


def holder_of(path: Path) -> int | None:
    """Who the lock file says has the directory; the lock itself is not touched."""
    try:
        pid: int = json.loads((path / "LOCK").read_bytes())["pid"]
    except ValueError:
        return None  # it is being written
    return pid


def locked(path: Path) -> bool:
    try:
        chronik.LogStore.open(path, config=CONFIG).close()
    except chronik.DirectoryLockedError:
        return True
    return False


def test_stopped_for_a_while_it_goes_on_as_if_nothing_was(start: Start, tmp_path: Path) -> None:
    writer = start("append", tmp_path)
    writer.wait_for("acked", 50)
    follower = start("follow", tmp_path, 10_000_000)
    for _ in range(4):
        follower.wait_for("saw", len(follower.said("saw")) + 20)
        writer.process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        quiet = writer.said("acked")[-1]
        time.sleep(0.1)
        assert quiet == writer.said("acked")[-1], "it was not stopped"
        with pytest.raises(chronik.DirectoryLockedError):
            open_log(str(tmp_path))
        # A reader beside it sees what it has; the last group may wait for a mark.
        _, reader = open_log(str(tmp_path), read_only=True)
        assert check_prefix(list(reader.scan())) <= quiet + 2
        writer.process.send_signal(signal.SIGCONT)
        writer.wait_for("acked", len(writer.said("acked")) + 20)
    writer.end(signal.SIGKILL)
    acknowledged = writer.said("acked")
    assert list(range(len(acknowledged))) == acknowledged
    seen = follower.said("saw")
    assert list(range(len(seen))) == seen
    assert recovered(tmp_path) >= len(acknowledged)


def test_a_follower_sees_every_record_through_pruning_and_tiering(
    start: Start, tmp_path: Path
) -> None:
    writer = start("append", tmp_path)
    writer.wait_for("acked", 10)
    followers = [start("follow", tmp_path, 10_000_000) for _ in range(2)]
    for follower in followers:
        follower.wait_for("saw", 1)
    followers[0].process.send_signal(signal.SIGSTOP)  # one falls behind all that is pruned
    oldest = first_file(tmp_path)
    deadline = time.monotonic() + 60
    while (first_file(tmp_path) <= oldest + 1 or tiered(tmp_path) < 1000) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert tiered(tmp_path) >= 1000
    followers[0].process.send_signal(signal.SIGCONT)
    goal = len(writer.said("acked"))
    for follower in followers:
        follower.wait_for("saw", goal, seconds=60)
        seen = follower.said("saw")
        assert list(range(len(seen))) == seen
        assert follower.process.poll() is None
    writer.end(signal.SIGKILL)


def first_file(path: Path) -> int:
    return min(int(name[4:-4]) for name in os.listdir(path / "wal/t/0") if name.endswith(".log"))


def tiered(path: Path) -> int:
    names = [each.name for each in (path / "object_store").rglob("*.seg")]
    return max((int(name.split("-")[1]) for name in names), default=0)


def test_a_killed_writers_lock_is_gone_at_once(start: Start, tmp_path: Path) -> None:
    for _ in range(3):
        holder = start("hold", tmp_path)
        holder.wait_for("open")
        assert locked(tmp_path)
        holder.process.kill()
        holder.process.wait()
        assert not locked(tmp_path)
