"""Appends, callbacks, seals and close take turns in every order that chance finds.

Whatever the order, and whichever sync fails (of a group, or of the zeros ahead): nobody is left
waiting, no two write at a time, and what was acknowledged is there after a power cut.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest

from chronik_store import LogConfig, LogStore, PartitionLog
from chronik_store.errors import ChronikError
from chronik_store.model import AppendResult
from chronik_store.testing.virtual_time import Machine, Simulation, Timing
from chronik_store.wal.active_file import ActiveFile
from chronik_store.wal.group_commit import LOOK_AGAIN_SECONDS

CONFIG = LogConfig(pipeline_enabled=False, group_bytes_max=65536)
ALIKE = Timing(
    write_seconds=1e-6, sync_seconds=1e-6, read_seconds=1e-6, name_seconds=1e-6, slow_probability=0
)
"""Every call takes as long as any other, so that any may be the first."""
LARGE = 40_000
"""Two of these are two groups."""


class Turns:
    """A log, what it has acknowledged, and those who use it at once."""

    def __init__(self, node: Machine) -> None:
        self.store = LogStore.open("/d", config=CONFIG, env=node.environment)
        self.store.create_topic("t")
        self.log: PartitionLog = self.store.partition("t")
        self.acknowledged: list[bytes] = []
        self.futures: list[Future[AppendResult]] = []

    def append(self, value: bytes) -> None:
        try:
            self.log.append(value)
        except ChronikError:
            return
        self.acknowledged.append(value)

    def nowait(self, value: bytes, *, then: bytes = b"") -> None:
        def resolved(future: Future[AppendResult]) -> None:
            if future.exception() is None:
                self.acknowledged.append(value)
            if then:
                self.append(then)

        try:
            future = self.log.append_nowait(value)
        except ChronikError:
            return
        self.futures.append(future)
        future.add_done_callback(resolved)

    def seal(self) -> None:
        try:
            self.log.seal()
            self.log._core.wal.rotate()  # type: ignore[union-attr]
        except ChronikError:
            pass  # the log has ended: that is what some of these stories are about

    def close(self) -> None:
        try:
            self.store.close()
        except ChronikError:
            pass  # the same


STORIES: dict[str, Callable[[Turns], list[Callable[[], Any]]]] = {
    "two appenders and close": lambda log: [
        lambda: log.append(b"a"),
        lambda: log.append(b"b"),
        log.close,
    ],
    "appenders, a seal and a new file": lambda log: [
        lambda: log.append(b"a" * LARGE),
        lambda: log.nowait(b"b" * LARGE),
        log.seal,
    ],
    "futures and close": lambda log: [
        lambda: log.nowait(b"a"),
        lambda: log.nowait(b"b"),
        log.close,
    ],
    "a callback that appends": lambda log: [
        lambda: [log.nowait(each * LARGE, then=each) for each in (b"a", b"b")],
        lambda: [log.append(each * LARGE) for each in (b"c", b"d")],
        lambda: [log.append(each * LARGE) for each in (b"e", b"f")],
    ],
}


@pytest.mark.parametrize("failing", range(4), ids=lambda number: f"sync {number} fails")
@pytest.mark.parametrize("name", STORIES)
def test_4_whatever_the_order_of_turns_nobody_waits_and_nothing_acknowledged_is_lost(
    name: str, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing: list[Any] = []
    for inner in (ActiveFile.write, ActiveFile.create):

        def alone(*arguments: Any, inner: Callable[..., Any] = inner) -> Any:
            assert not writing, "two have the lead"
            writing.append(arguments)
            try:
                return inner(*arguments)
            finally:
                writing.pop()

        monkeypatch.setattr(ActiveFile, inner.__name__, alone)
    for seed in range(25):
        with Simulation(seed, preemption=(0.1, 0.3, 0.6)[seed % 3]) as simulation:
            node = simulation.machine("node", timing=ALIKE)
            simulation.run(partial(play, simulation, node, name, failing), limit_seconds=60.0)
        writing.clear()


def play(simulation: Simulation, node: Machine, name: str, failing: int) -> None:
    turns = node.call(lambda: Turns(node))
    node.call(lambda: turns.append(b"first"))
    syncs = 0

    def hook(_number: int, operation: str, path: str) -> None:
        nonlocal syncs
        syncs += operation == "sync_data"
        if operation == "sync_data" and syncs == failing:
            raise OSError(errno.EIO, "injected", path)

    node.disk.hook = hook
    threads = [node.spawn(call, name=name) for call in STORIES[name](turns)]
    for thread in threads:
        thread.join()
    node.call(turns.close)
    assert simulation.clock.monotonic() < LOOK_AGAIN_SECONDS, "a wake-up was lost"
    assert all(future.done() for future in turns.futures)
    node.disk.hook = None
    node.crash("lost")
    node.restart()

    def left() -> list[bytes]:
        with LogStore.open("/d", config=CONFIG, env=node.environment) as store:
            return [record.value for record in store.partition("t").scan()]

    assert set(turns.acknowledged) <= set(node.call(left))
