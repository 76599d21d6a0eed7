"""Worker threads that run steps: at least once after each notify, never two at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from chronik_store.commit import rounds as rounds_module
from chronik_store.commit.committer import Committer
from chronik_store.commit.rounds import Rounds
from chronik_store.threads import SystemThreads
from tests.store.tasks import CtrlC, Task, at_each_step


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


class Scarce:
    """Threads that cannot be started while `left` is 0."""

    lock = staticmethod(threading.Lock)
    condition = staticmethod(threading.Condition)
    event = staticmethod(threading.Event)

    def __init__(self, left: int = 0) -> None:
        self.left = left

    def spawn(self, target: Callable[[], None], *, name: str) -> threading.Thread:
        if not self.left:
            raise RuntimeError("can't start new thread")
        self.left -= 1
        return SystemThreads.spawn(target, name=name)


class Groups:
    """A target with some groups pending."""

    def __init__(self, pending: int) -> None:
        self.pending = pending
        self.threads: list[threading.Thread] = []

    def commit_group(self) -> bool:
        self.threads.append(threading.current_thread())
        self.pending -= 1
        return self.pending > 0


def test_where_no_thread_can_be_had_the_caller_commits_and_later_a_thread_does() -> None:
    threads, target = Scarce(), Groups(3)
    committer = Committer(threads, 2)

    committer.notify(target)
    assert target.pending == 0
    threads.left = 1
    target.pending = 1
    committer.notify(target)
    committer.close()

    assert target.pending == 0
    assert [threading.current_thread()] * 3 == target.threads[:3]
    assert threading.current_thread() not in target.threads[3:]


def test_a_running_worker_takes_over_from_one_that_cannot_be_started() -> None:
    scarce = Rounds(Scarce(1), 4, "scarce")
    gate, arrived, done = threading.Event(), threading.Event(), threading.Event()

    def blocks() -> bool:
        arrived.set()
        gate.wait(10)
        return False

    def quick() -> bool:
        done.set()
        return False

    assert scarce.notify(blocks) == ()
    assert arrived.wait(5)
    assert scarce.notify(quick) == ()
    assert not done.is_set()
    gate.set()

    assert done.wait(5)
    scarce.close()


def test_a_step_that_nobody_runs_is_the_callers_and_may_be_asked_for_again() -> None:
    threads, done = Scarce(), threading.Event()
    scarce = Rounds(threads, 1, "scarce")

    def step() -> bool:
        done.set()
        return False

    assert scarce.notify(step) == (step,)
    assert not done.is_set()
    threads.left = 1
    assert scarce.notify(step) == ()

    assert done.wait(5)
    scarce.close()


def test_a_group_that_fails_in_the_callers_thread_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def commit_group(self) -> bool:
            raise MemoryError("injected")

    Committer(Scarce(), 1).notify(Broken())

    assert "injected" in caplog.text


class Meanwhile(SystemThreads):
    """While a thread is being started, another one asks for `step`, and then Ctrl-C comes, which
    is before or `after` the start; unless it comes elsewhere.
    """

    def __init__(self, ctrl_c: CtrlC | None, *, after: bool = True) -> None:
        self.ctrl_c, self.after = ctrl_c, after
        self.rounds: Rounds | None = None
        self.step = threading.Event()

    def run(self) -> bool:
        self.step.set()
        return False

    def spawn(self, target: Callable[[], None], *, name: str) -> threading.Thread:  # type: ignore[override]
        rounds, self.rounds = self.rounds, None
        if rounds is not None:
            Task(lambda: rounds.notify(self.run)).outcome()
            if self.ctrl_c is None:
                if self.after:
                    SystemThreads.spawn(target, name=name)
                raise KeyboardInterrupt
        return SystemThreads.spawn(target, name=name)


def ask(rounds: Rounds) -> None:
    rounds.notify(lambda: False)


@pytest.mark.parametrize("after", [False, True])
def test_ctrl_c_while_a_worker_is_started_takes_nobody_elses_step_with_it(after: bool) -> None:
    """Another log's group, which relied on that worker, was in nobody's hands: futures were never
    resolved.
    """
    threads = Meanwhile(None, after=after)
    interrupted = threads.rounds = Rounds(threads, 1, "interrupted")
    with pytest.raises(KeyboardInterrupt):
        ask(interrupted)
    assert threads.step.wait(5)
    interrupted.close()
    assert not any(each.name.startswith("interrupted") for each in threading.enumerate())


def test_ctrl_c_at_any_step_of_a_notification_takes_nobody_elses_step_with_it() -> None:
    for ctrl_c in at_each_step(rounds_module):
        threads = Meanwhile(ctrl_c)
        interrupted = threads.rounds = Rounds(threads, 1, "interrupted")
        with ctrl_c:
            ask(interrupted)
        if threads.rounds is not None:  # it came before any start
            threads.rounds = None
            interrupted.notify(threads.run)
        assert threads.step.wait(5)
        interrupted.close()
