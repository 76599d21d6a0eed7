"""Worker threads that run steps: at least once after each notify, never two at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from chronik_store.commit.committer import Committer
from chronik_store.commit.rounds import Rounds
from chronik_store.threads import SystemThreads


@pytest.fixture
def rounds() -> Iterator[Rounds]:
    made = Rounds(SystemThreads(), 3, "test")
    yield made
    made.close()


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def test_no_thread_starts_before_it_is_needed() -> None:
    before = threading.active_count()
    idle = Rounds(SystemThreads(), 4, "idle")

    assert threading.active_count() == before
    idle.close()


def test_a_step_that_has_more_to_do_runs_again(rounds: Rounds) -> None:
    left = [5]

    def step() -> bool:
        left[0] -= 1
        return left[0] > 0

    rounds.notify(step)

    assert until(lambda: left[0] == 0)


def test_busy_steps_take_turns() -> None:
    single = Rounds(SystemThreads(), 1, "single")
    order: list[str] = []
    gate = threading.Event()

    def step(name: str) -> Callable[[], bool]:
        def run() -> bool:
            gate.wait(5)
            order.append(name)
            return order.count(name) < 3

        return run

    for name in "abc":
        single.notify(step(name))
    gate.set()

    assert until(lambda: len(order) == 9)
    assert order == list("abcabcabc")
    single.close()


def test_a_step_never_runs_twice_at_a_time_and_no_notify_is_lost(rounds: Rounds) -> None:
    inside, overlaps, seen, wanted = [0], [0], [0], [0]

    def step() -> bool:
        inside[0] += 1
        overlaps[0] += inside[0] > 1
        seen[0] = wanted[0]
        time.sleep(0.0001)
        inside[0] -= 1
        return False

    def notify() -> None:
        for _ in range(300):
            wanted[0] += 1
            rounds.notify(step)

    threads = [threading.Thread(target=notify) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert until(lambda: seen[0] == wanted[0])
    assert overlaps == [0]


def test_other_steps_run_while_one_blocks(rounds: Rounds) -> None:
    gate, done = threading.Event(), threading.Event()

    def blocks() -> bool:
        gate.wait(10)
        return False

    def quick() -> bool:
        done.set()
        return False

    rounds.notify(blocks)
    rounds.notify(quick)

    assert done.wait(5)
    gate.set()


def test_a_step_that_fails_does_not_end_its_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    single = Rounds(SystemThreads(), 1, "single")
    done = threading.Event()

    def broken() -> bool:
        raise RuntimeError("a defect")

    def good() -> bool:
        done.set()
        return False

    single.notify(broken)
    single.notify(good)

    assert done.wait(5)
    assert "a defect" in caplog.text
    single.close()


def test_close_runs_what_is_queued_and_then_ends_the_threads() -> None:
    before = threading.active_count()
    committer = Committer(SystemThreads(), 2)

    class Target:
        groups = 0

        def commit_group(self) -> bool:
            time.sleep(0.01)
            self.groups += 1
            return self.groups < 3

    target = Target()
    committer.notify(target)
    committer.close()

    assert target.groups == 3
    assert threading.active_count() == before
    committer.notify(target)
    committer.close()
