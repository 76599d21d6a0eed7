"""The simulator: what it promises, shown with small synchronous programs."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from concurrent.futures import Future
from pathlib import Path

import pytest

from chronik_store.testing.virtual_time import (
    Simulation,
)
from chronik_store.threads import Threads

ROOT = Path(__file__).parents[3]


class Mailbox:
    """A bounded queue as one writes it with threads; nothing here knows of the simulator."""

    def __init__(self, threads: Threads, size: int) -> None:
        self._condition = threads.condition()
        self._items: deque[int] = deque()
        self._size = size

    def put(self, item: int) -> None:
        with self._condition:
            while len(self._items) >= self._size:
                self._condition.wait()
            self._items.append(item)
            self._condition.notify_all()

    def take(self) -> int:
        with self._condition:
            while not self._items:
                self._condition.wait()
            item = self._items.popleft()
            self._condition.notify_all()
            return item


def pass_numbers(seed: int, count: int = 60) -> tuple[list[int], str]:
    """Three producers and two consumers on one machine; what arrived, in order, and the trace."""
    arrived: list[int] = []
    with Simulation(seed, preemption=0.3) as simulation:
        node = simulation.machine("node")
        env = node.environment
        mailbox = Mailbox(env.threads, 3)

        def produce(first: int) -> None:
            for number in range(first, count, 3):
                env.clock.sleep(env.entropy.uniform(0, 0.01))
                mailbox.put(number)

        def consume() -> None:
            while True:
                arrived.append(mailbox.take())
                env.clock.sleep(0.001)

        def main() -> None:
            jobs = [node.spawn(lambda n=n: produce(n), name=f"producer{n}") for n in range(3)]
            for number in range(2):
                node.spawn(consume, name=f"consumer{number}")
            for job in jobs:
                job.join()
            simulation.sleep(1.0)

        simulation.run(main)
        return arrived, simulation.trace_hash


# ------------------------------------------------------------------------------ time and turns


def test_producers_and_consumers_lose_nothing_under_any_seed() -> None:
    orders = set()
    for seed in range(30):
        arrived, _ = pass_numbers(seed)
        orders.add(tuple(arrived))
        assert sorted(arrived) == list(range(60))
        assert [number for number in arrived if number % 3 == 0] == list(range(0, 60, 3))

    assert len(orders) > 25


def test_equal_seeds_give_equal_traces() -> None:
    assert pass_numbers(7) == pass_numbers(7)
    assert pass_numbers(7)[1] != pass_numbers(8)[1]


def test_the_trace_does_not_depend_on_the_hash_seed_of_python() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.path.insert(0, '.')\n"
        "from test_virtual_time import pass_numbers; print(pass_numbers(3)[1])"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code, __file__.rpartition("/")[0]],
            cwd=ROOT,
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }

    assert len(hashes) == 1


def test_an_hour_of_waiting_costs_nothing() -> None:
    with Simulation() as simulation:

        def main() -> float:
            simulation.sleep(3600)
            return simulation.now

        assert simulation.run(main) == 3600
        assert simulation.steps < 10


def test_clocks_of_machines_may_be_wrong_and_jump() -> None:
    with Simulation() as simulation:
        good, bad = simulation.machine("good"), simulation.machine("bad")
        bad.clock_skew_seconds = 3600

        def main() -> list[int]:
            ahead = [bad.environment.clock.time_us() - good.environment.clock.time_us()]
            bad.clock_skew_seconds = -3600
            bad.crash()
            clock = bad.restart().clock
            ahead.append(clock.time_us() - good.environment.clock.time_us())
            before = clock.monotonic()
            clock.sleep(2)
            ahead.append(round(clock.monotonic() - before))
            return ahead

        assert simulation.run(main) == [3600_000_000, -3600_000_000, 2]


def test_waits_time_out_at_their_time() -> None:
    with Simulation() as simulation:
        threads = simulation.threads
        condition, event = threads.condition(), threads.event()

        def main() -> list[tuple[bool, float]]:
            seen = []
            with condition:
                seen.append((condition.wait(2.0), simulation.now))
            seen.append((event.wait(3.0), simulation.now))
            simulation.later(1.0, event.set)
            seen.append((event.wait(3.0), simulation.now))
            seen.append((event.wait(3.0), simulation.now))
            event.clear()
            assert not event.is_set()
            return seen

        assert simulation.run(main) == [(False, 2.0), (False, 5.0), (True, 6.0), (True, 6.0)]


def test_notify_wakes_as_many_as_asked_and_timed_out_waiters_do_not_count() -> None:
    for seed in range(20):
        with Simulation(seed) as simulation:
            condition = simulation.threads.condition()
            woken: list[float] = []

            def wait_for(timeout: float | None, condition=condition, woken=woken) -> None:
                with condition:
                    if condition.wait(timeout):
                        woken.append(timeout or 0.0)

            def main(simulation=simulation, condition=condition, woken=woken, wait=wait_for) -> int:
                for timeout in (1.0, 1.0, None, None, None):
                    simulation.spawn(lambda t=timeout: wait(t), name="waiter")
                simulation.sleep(1.0)
                with condition:
                    condition.notify(2)
                simulation.sleep(1.0)
                return len(woken)

            assert simulation.run(main) == 2


def test_join_waits_for_the_end_and_may_time_out() -> None:
    with Simulation() as simulation:

        def main() -> list[object]:
            job = simulation.spawn(lambda: simulation.sleep(5), name="job")
            job.join(1.0)
            seen: list[object] = [simulation.now, job.is_alive()]
            job.join()
            job.join()
            return [*seen, simulation.now, job.is_alive()]

        assert simulation.run(main) == [1.0, True, 5.0, False]


def test_a_future_is_waited_for_on_virtual_time() -> None:
    with Simulation() as simulation:
        good, never = Future[str](), Future[str]()

        def main() -> tuple[str, float]:
            simulation.later(7, lambda: good.set_result("done"))
            result = simulation.result_of(good)
            assert simulation.result_of(good) == result
            with pytest.raises(TimeoutError, match="within 2 s"):
                simulation.result_of(never, 2)
            return result, simulation.now

        assert simulation.run(main) == ("done", 9.0)


def test_a_run_goes_on_where_the_last_one_stopped() -> None:
    with Simulation() as simulation:
        ticks: list[float] = []

        def tick() -> None:
            while True:
                simulation.sleep(1)
                ticks.append(simulation.now)

        simulation.run(lambda: simulation.spawn(tick, name="ticker"))
        simulation.run(lambda: simulation.sleep(2.5))
        assert ticks == [1.0, 2.0]
        simulation.run(lambda: simulation.sleep(1))
        assert ticks == [1.0, 2.0, 3.0]


def test_a_check_outside_the_lock_is_found_out() -> None:
    """Two threads may both pass it: some seed shows the race, and locking cures it."""

    def sold(seed: int, *, careful: bool) -> int:
        with Simulation(seed, preemption=0.5) as simulation:
            lock = simulation.threads.lock()
            tickets = [1]
            sales: list[int] = []

            def buy() -> None:
                if not careful and not tickets:
                    return
                with lock:
                    if careful and not tickets:
                        return
                    sales.append(1)
                    tickets.clear()

            def main() -> int:
                jobs = [simulation.spawn(buy, name="buyer") for _ in range(3)]
                for job in jobs:
                    job.join()
                return len(sales)

            return simulation.run(main)

    assert max(sold(seed, careful=False) for seed in range(20)) > 1
    assert {sold(seed, careful=True) for seed in range(20)} == {1}
