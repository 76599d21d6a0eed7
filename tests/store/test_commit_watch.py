"""Looking beside a writer: one thread at a time, and what it found is shared."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import chronik_store as chronik
from chronik_store.clock import SystemClock
from chronik_store.commit_watch import SharedLook
from chronik_store.threads import SystemThreads
from chronik_store.wal import readable
from tests.store.tasks import Interrupted, Task


class Looking:
    """A look that waits for its gate, and counts."""

    def __init__(self) -> None:
        self.begun = 0
        self.inside = 0
        self.overlaps = 0
        self.errors: list[Exception] = []
        self.arrived = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def __call__(self) -> None:
        self.begun += 1
        self.inside += 1
        self.overlaps += self.inside > 1
        self.arrived.release()
        assert self.gate.acquire(timeout=10)
        self.inside -= 1
        if self.errors:
            raise self.errors.pop()


def start(call: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def waiting(shared: SharedLook) -> int:
    return len(shared._done._waiters)  # type: ignore[attr-defined]


def test_who_comes_during_a_look_shares_the_next_one() -> None:
    looking = Looking()
    shared = SharedLook(SystemThreads(), SystemClock(), looking)
    threads = [start(shared.look)]
    assert looking.arrived.acquire(timeout=5)
    threads += [start(shared.look) for _ in range(5)]
    while waiting(shared) < 5:
        pass

    looking.gate.release(2)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()

    assert (looking.begun, looking.overlaps) == (2, 0)


def test_the_error_of_a_look_is_not_taken_for_an_answer() -> None:
    looking = Looking()
    shared = SharedLook(SystemThreads(), SystemClock(), looking)
    outcomes: list[Exception | None] = []

    def look() -> None:
        try:
            shared.look()
        except ValueError as error:
            outcomes.append(error)
        else:
            outcomes.append(None)

    threads = [start(look)]
    assert looking.arrived.acquire(timeout=5)
    threads += [start(look) for _ in range(2)]
    while waiting(shared) < 2:
        pass
    looking.gate.release()
    assert looking.arrived.acquire(timeout=5)
    looking.errors.append(ValueError("the second look"))
    looking.gate.release(2)
    for thread in threads:
        thread.join(10)

    assert looking.begun == 3
    assert sorted(map(repr, outcomes)) == ["None", "None", "ValueError('the second look')"]


def test_threads_that_read_beside_a_writer_see_no_damage(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = chronik.LogConfig(pipeline_enabled=False)
    writer = chronik.PartitionLog.open(tmp_path / "d", topic="t", config=config)
    writer.append(b"0")
    reader = chronik.PartitionLog.open(tmp_path / "d", topic="t", config=config, read_only=True)
    for number in range(1, 4):
        writer.append(b"%d" % number)
    writer.close()
    follow, never, inside = readable.follow, threading.Event(), []

    def gated(*args: Any) -> bool:
        inside.append(1)
        never.wait(0.2)  # another thread, if it may, comes in meanwhile
        inside.pop()
        assert not inside, "two looks at a time"
        return follow(*args)

    monkeypatch.setattr(readable, "follow", gated)
    found: list[Any] = []

    def look() -> None:
        try:
            found.append(reader.watermarks.committed)
        except Exception as error:
            found.append(error)

    threads = [start(look) for _ in range(3)]
    for thread in threads:
        thread.join(10)

    assert found == [4, 4, 4]
    reader.close()


def test_ctrl_c_in_front_of_a_look_leaves_nobody_waiting() -> None:
    """It counted as under way for ever, and every later look waited for it."""
    looks: list[None] = []
    shared = SharedLook(SystemThreads(), SystemClock(), lambda: looks.append(None))
    shared._done = Interrupted(shared._done)
    with pytest.raises(KeyboardInterrupt):
        shared.look()
    Task(shared.look).outcome()
    assert 1 == len(looks)
