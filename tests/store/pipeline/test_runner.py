"""The loop runs each partition, survives what fails, and ends when told."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from chronik_store.environment import Environment
from chronik_store.errors import LogClosedError, UnavailableError
from chronik_store.model import PipelineReport
from chronik_store.pipeline import PipelineRunner


def partition(name: str) -> Any:
    return SimpleNamespace(identity=SimpleNamespace(topic=name, partition=0))


class Calls:
    def __init__(self, *results: Any) -> None:
        self.results = list(results)
        self.seen: list[str] = []
        self.idle = threading.Event()

    def __call__(self, each: Any) -> PipelineReport:
        self.seen.append(each.identity.topic)
        result = self.results.pop(0) if self.results else PipelineReport()
        if not self.results:
            self.idle.set()
        if isinstance(result, BaseException):
            raise result
        assert isinstance(result, PipelineReport)
        return result


def test_a_poke_runs_every_partition_at_once() -> None:
    calls = Calls(PipelineReport(), PipelineReport())
    runner = PipelineRunner(Environment(), calls, lambda: [partition("a"), partition("b")], 3600.0)
    runner.start()
    runner.poke()
    assert calls.idle.wait(5)
    runner.close()
    assert calls.seen == ["a", "b"]


def test_the_interval_runs_without_a_poke() -> None:
    calls = Calls(PipelineReport())
    runner = PipelineRunner(Environment(), calls, lambda: [partition("a")], 0.01)
    runner.start()
    assert calls.idle.wait(5)
    runner.close()


def test_progress_goes_on_until_idle_and_in_turn() -> None:
    busy = PipelineReport(uploaded=1)
    calls = Calls(busy, busy, busy, PipelineReport(), PipelineReport())
    runner = PipelineRunner(Environment(), calls, lambda: [partition("a"), partition("b")], 3600.0)
    runner.start()
    runner.poke()
    assert calls.idle.wait(5)
    runner.close()
    assert calls.seen == ["a", "b", "a", "b", "a"]


def test_an_error_waits_for_the_next_round_instead_of_spinning() -> None:
    failing = PipelineReport(uploaded=1, errors=("503",))
    calls = Calls(failing)
    runner = PipelineRunner(Environment(), calls, lambda: [partition("a")], 3600.0)
    runner.start()
    runner.poke()
    assert calls.idle.wait(5)
    runner.close()
    assert calls.seen == ["a"]


@pytest.mark.parametrize(
    "error", [UnavailableError("down"), LogClosedError("closed"), ZeroDivisionError("a defect")]
)
def test_the_loop_survives_what_a_partition_raises(error: Exception) -> None:
    calls = Calls(error, PipelineReport())
    runner = PipelineRunner(Environment(), calls, lambda: [partition("a"), partition("b")], 3600.0)
    runner.start()
    runner.poke()
    assert calls.idle.wait(5)
    runner.close()
    assert calls.seen == ["a", "b"]


def test_close_ends_the_thread_and_may_be_called_twice_or_without_start() -> None:
    runner = PipelineRunner(Environment(), Calls(), list, 3600.0)
    runner.start()
    thread = runner._thread
    assert thread is not None
    runner.close()
    runner.close()
    assert not thread.is_alive()
    PipelineRunner(Environment(), Calls(), list, 1.0).close()


def test_nothing_runs_after_close() -> None:
    calls = Calls()
    runner = PipelineRunner(Environment(), calls, lambda: [partition("a")], 3600.0)
    runner.close()
    runner.start()
    runner.poke()
    assert calls.seen == []


@pytest.mark.parametrize("error", [UnavailableError("forked"), ZeroDivisionError("a defect")])
def test_the_loop_survives_a_list_of_partitions_that_cannot_be_made(error: Exception) -> None:
    calls = Calls(PipelineReport())
    lists: list[Any] = [error, [partition("a")]]

    def partitions() -> list[Any]:
        found = lists.pop(0) if lists else []
        if isinstance(found, Exception):
            raise found
        return list(found)

    runner = PipelineRunner(Environment(), calls, partitions, 0.01)
    runner.start()
    assert calls.idle.wait(5)
    runner.close()
    assert calls.seen == ["a"]


class Busy:
    """Partition "busy" always has more to do; others are told when they have been run."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.ran: dict[str, threading.Event] = {name: threading.Event() for name in "abc"}
        self.on_run: Any = lambda: None

    def __call__(self, each: Any) -> PipelineReport:
        name = each.identity.topic
        self.runs.append(name)
        if name == "busy":
            self.on_run()
            return PipelineReport(uploaded=1)
        self.ran[name].set()
        return PipelineReport()


def test_one_busy_partition_does_not_keep_the_interval_from_the_others() -> None:
    busy = Busy()
    partitions = [partition("busy"), partition("a")]
    runner = PipelineRunner(Environment(), busy, lambda: list(partitions), 0.01)
    runner.start()
    assert busy.ran["a"].wait(5)
    busy.ran["a"].clear()
    assert busy.ran["a"].wait(5)
    partitions.append(partition("b"))  # a new topic is seen, too
    assert busy.ran["b"].wait(5)
    runner.close()


def test_a_poke_is_heard_while_a_partition_is_busy() -> None:
    """What was sealed elsewhere does not wait for the backlog to drain."""
    busy = Busy()
    partitions = [partition("busy")]
    begun = threading.Event()
    busy.on_run = begun.set
    runner = PipelineRunner(Environment(), busy, lambda: list(partitions), 3600.0)
    runner.start()
    runner.poke()
    assert begun.wait(5)
    partitions.append(partition("a"))
    runner.poke()
    assert busy.ran["a"].wait(5)
    partitions.remove(partitions[0])  # deleted: it is not run in the next round
    runner.poke()
    busy.ran["a"].clear()
    assert busy.ran["a"].wait(5)
    runner.close()


def test_what_is_busy_still_is_run_on_without_a_pause() -> None:
    """Each run takes longer than the interval."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    busy = Busy()
    often = threading.Event()

    def take_long() -> None:
        clock.now += 5000.0
        if len(busy.runs) > 3:
            often.set()

    busy.on_run = take_long
    env = Environment(clock=clock)
    runner = PipelineRunner(env, busy, lambda: [partition("busy")], 3600.0)
    runner.start()
    runner.poke()
    assert often.wait(5)
    runner.close()
