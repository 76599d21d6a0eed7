"""Outcomes reach their sinks once, whatever other sinks make of theirs and whatever interrupts."""

from __future__ import annotations

import concurrent.futures
import threading
from typing import Any

import pytest

import chronik_store as chronik
from chronik_store.append_outcome import FUTURES, Outbox, PendingAppend
from chronik_store.commit.committer import Committer
from chronik_store.errors import LogPoisonedError
from chronik_store.model import AppendResult
from chronik_store.threads import SystemThreads

CONFIG = chronik.LogConfig(pipeline_enabled=False)


class Raises:
    """A sink that fails as often as it is told to."""

    def __init__(self, error: BaseException, times: int = 1) -> None:
        self.error = error
        self.times = times
        self.seen: list[Any] = []

    def deliver(self, outcomes: list[PendingAppend]) -> None:
        if self.times:
            self.times -= 1
            raise self.error
        self.seen += [pending.token for pending in outcomes]


def resolved(index: int, sink: Any, token: Any) -> PendingAppend:
    pending = PendingAppend(index, AppendResult(index, index + 1), sink, token)
    pending.result = pending.place
    return pending


def test_a_sink_that_fails_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox(threading.Lock())
    future: concurrent.futures.Future[AppendResult] = concurrent.futures.Future()
    outbox.resolved += [
        resolved(1, Raises(ValueError("a defect")), "a"),
        resolved(2, FUTURES, future),
    ]

    outbox.deliver()

    assert future.result(0) == (2, 3, False)
    assert "a defect" in caplog.text
    assert outbox.resolved == []


def test_an_interrupted_delivery_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox(threading.Lock())
    future: concurrent.futures.Future[AppendResult] = concurrent.futures.Future()
    sink = Raises(KeyboardInterrupt())
    outbox.resolved += [resolved(1, FUTURES, future), resolved(2, sink, "b")]

    with pytest.raises(KeyboardInterrupt):
        outbox.deliver()
    outbox.resolved.append(resolved(3, sink, "c"))
    outbox.deliver()

    assert future.result(0) == (1, 2, False)
    assert sink.seen == ["b", "c"]
    assert not caplog.records


def test_what_is_durable_is_answered_so_when_its_delivery_was_interrupted(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG)
    log.append(b"0")
    monkeypatch.setattr(Committer, "notify", lambda *_: None)
    future = log.append_nowait(b"1")
    deliver, left = Outbox.deliver, [1]

    def interrupted(outbox: Outbox) -> None:
        if left[0]:
            left[0] -= 1
            raise KeyboardInterrupt
        deliver(outbox)

    monkeypatch.setattr(Outbox, "deliver", interrupted)
    with pytest.raises(KeyboardInterrupt):
        log.append(b"2")

    assert future.result(0) == (1, 2, False)
    with pytest.raises(LogPoisonedError):
        log.append(b"3")
    log.close()


def test_an_append_that_another_thread_resolves_at_once_is_delivered_once(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG)
    log.append(b"0")
    core, sink = log._core, Raises(ValueError(), times=0)
    assert core is not None

    class Leads:
        """The lock, and a leader that is there as soon as it is free."""

        def __enter__(self) -> None:
            core.wal.lock.__enter__()

        def __exit__(self, *error: object) -> None:
            core.wal.lock.__exit__(*error)
            core.wal.lead(core.wal.last_seq)

    monkeypatch.setattr(core.appends, "_lock", Leads())
    batch = core.batching.batch([b"1"])
    assert batch is not None
    core.appends.append_nowait(batch, None, sink, "token")

    assert sink.seen == ["token"]
    log.close()


def test_an_append_is_answered_where_no_thread_can_be_started(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG) as log:
        log.append(b"0")

        def refuse(*_args: Any, **_kwargs: Any) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(SystemThreads, "spawn", refuse)
        assert log.append_nowait(b"1").result(0) == (1, 2, False)
        monkeypatch.undo()
        assert log.append_nowait(b"2").result(10) == (2, 3, False)


def test_an_append_whose_committer_fails_altogether_has_an_outcome(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = chronik.PartitionLog.open(tmp_path / "d", topic="t", config=CONFIG)
    log.append(b"0")
    core, sink = log._core, Raises(ValueError(), times=0)
    assert core is not None
    batch = core.batching.batch([b"1"])
    assert batch is not None

    def refuse(*_args: Any) -> None:
        raise MemoryError("injected")

    monkeypatch.setattr(Committer, "notify", refuse)
    with pytest.raises(MemoryError):
        core.appends.append_nowait(batch, None, sink, "token")

    assert sink.seen == ["token"]
    with pytest.raises(LogPoisonedError):
        log.append(b"2")
    log.close()
