"""The simulator: what it promises, shown with small synchronous programs."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import pytest

from chronik_store.environment import Environment
from chronik_store.testing.virtual_time import (
    CrashError,
    DeadlockError,
    LockHeldError,
    Machine,
    OutOfTimeError,
    Simulation,
    SimulationError,
    SpinningError,
    ThreadFailedError,
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


# -------------------------------------------------------------------------------------- crashes


def crash_in(wait: Callable[[Environment], None]) -> list[str]:
    """Crash a machine while a thread of it stands in `wait`; what the thread could still do."""
    reached: list[str] = []
    with Simulation(1) as simulation:
        node = simulation.machine("node")

        def victim(env: Environment) -> None:
            try:
                reached.append("started")
                wait(env)
                reached.append("went on")
            finally:
                reached.append("finally")

        def main() -> list[str]:
            env = node.environment
            env.fs.make_directories("/d")
            job = node.spawn(lambda: victim(env), name="victim")
            simulation.sleep(1)
            assert job.is_alive()
            node.crash()
            assert not job.is_alive()
            job.join()
            gc.collect()
            simulation.sleep(10_000)
            return list(reached)

        return simulation.run(main)


def wait_in_condition(env: Environment) -> None:
    condition = env.threads.condition()
    with condition:
        condition.wait(5)


def wait_for_join(env: Environment) -> None:
    env.threads.spawn(lambda: env.clock.sleep(100), name="sleeper").join()


def wait_in_sync(env: Environment) -> None:
    file = env.fs.create("/d/a")
    while True:
        file.sync_data()


@pytest.mark.parametrize(
    "wait",
    [
        wait_in_condition,
        wait_for_join,
        wait_in_sync,
        pytest.param(lambda env: env.clock.sleep(5), id="sleep"),
        pytest.param(lambda env: env.threads.event().wait(5), id="event"),
    ],
)
def test_a_crash_inside_a_wait_runs_no_finally(wait: Callable[[Environment], None]) -> None:
    assert crash_in(wait) == ["started"]


def test_what_is_unwound_at_the_end_reaches_nothing() -> None:
    with Simulation() as simulation:
        node = simulation.machine("node")

        def victim(env: Environment) -> None:
            file = env.fs.create("/a")
            try:
                env.clock.sleep(100)
            finally:
                for reach in (
                    lambda: file.write_at(0, [b"x"]),
                    lambda: env.fs.rename("/a", "/b"),
                    lambda: env.clock.sleep(1),
                    lambda: env.threads.spawn(lambda: None, name="late"),
                    env.threads.event().set,
                ):
                    with pytest.raises(CrashError):
                        reach()

        def main() -> None:
            env = node.environment
            node.spawn(lambda: victim(env), name="victim")
            simulation.sleep(1)
            node.kill()

        simulation.run(main)
        disk = node.disk
    assert disk.paths() == ["/a"]
    assert disk.peek("/a") == b""


def test_unsynced_bytes_depend_on_the_crash_and_the_next_life_finds_the_rest() -> None:
    with Simulation() as simulation:
        node = simulation.machine("node")

        def first_life() -> None:
            fs = node.environment.fs
            fs.make_directories("/d")
            file = fs.create("/d/a")
            file.write_at(0, [b"synced"])
            file.sync_data()
            fs.sync_directory("/d")
            file.write_at(6, [b" and not"])

        def main() -> list[bytes]:
            node.call(first_life)
            node.kill()
            node.restart()
            seen = [node.call(lambda: node.environment.fs.open("/d/a").read_at(0, 99))]
            node.crash("lost")
            node.restart()
            return [*seen, node.call(lambda: node.environment.fs.open("/d/a").read_at(0, 99))]

        assert simulation.run(main) == [b"synced and not", b"synced"]


def test_a_hook_may_kill_the_machine_in_the_middle_of_a_call() -> None:
    with Simulation() as simulation:
        node = simulation.machine("node")
        node.crash_mode = "kept"

        def die_at_sync(number: int, operation: str, path: str) -> None:
            if operation == "sync_data":
                raise CrashError

        def victim() -> None:
            file = node.environment.fs.create("/a")
            file.write_at(0, [b"x"])
            try:
                file.sync_data()
            finally:
                raise AssertionError("a dead machine does nothing")

        def main() -> bytes:
            node.disk.hook = die_at_sync
            with pytest.raises(CrashError):
                node.call(victim)
            assert not node.is_up
            with pytest.raises(CrashError, match="node is down"):
                _ = node.environment
            node.restart()
            return node.disk.peek("/a")

        assert simulation.run(main) == b"x"


def test_a_client_in_a_call_of_a_machine_that_dies_gets_a_crash_error() -> None:
    with Simulation() as simulation:
        node = simulation.machine("node")
        condition = node.environment.threads.condition()

        def client() -> str:
            try:
                with condition:
                    condition.wait()
            except CrashError:
                return "told"
            return "never"

        def main() -> list[str]:
            simulation.later(3, node.crash)
            return [client(), f"{simulation.now}", client()]

        assert simulation.run(main) == ["told", "3.0", "told"]


def count_in_a_file(env: Environment, told: list[int], forgotten: str) -> None:
    """A counter in a file, replaced by rename; `told` is what its users were told."""
    fs = env.fs
    for number in range(1, 4):
        file = fs.create("/d/tmp")
        file.write_at(0, [b"%d" % number * 600])
        if forgotten != "sync_data":
            file.sync_data()
        file.close()
        fs.rename("/d/tmp", "/d/counter")
        if forgotten != "sync_directory":
            fs.sync_directory("/d")
        told.append(number)


def read_counter(env: Environment) -> int:
    with suppress(FileNotFoundError):
        env.fs.remove("/d/tmp")
    if not env.fs.exists("/d/counter"):
        return 0
    data = env.fs.open("/d/counter").read_at(0, 1000)
    assert data == b"%d" % int(data[:1]) * 600
    return int(data[:1])


def crash_the_counter(step: int, forgotten: str = "") -> tuple[int, int]:
    """Crash it at a step; what it had told, and how many steps there are."""
    told = [0]
    with Simulation(5) as simulation:
        node = simulation.machine("node")
        node.disk.make_directories("/d")
        simulation.at_step(step, lambda: node.crash("any"))

        def main() -> int:
            with suppress(CrashError):
                node.call(lambda: count_in_a_file(node.environment, told, forgotten))
            steps = simulation.steps
            node.crash()
            node.restart()
            left = node.call(lambda: read_counter(node.environment))
            assert told[-1] <= left <= told[-1] + 1
            return steps

        steps = simulation.run(main)
        return told[-1], steps


def test_a_crash_falls_at_every_step_of_a_program() -> None:
    """No crash shows anything but the number last told, or the next one."""
    told, steps = crash_the_counter(step=0)
    seen = {crash_the_counter(step)[0] for step in range(1, steps + 1)}

    assert told == 3
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("forgotten", ["sync_data", "sync_directory"])
def test_a_forgotten_sync_is_found_by_crashing_at_every_step(forgotten: str) -> None:
    _, steps = crash_the_counter(step=0)
    lost = 0
    for step in range(1, steps + 1):
        try:
            with suppress(CrashError):  # a step too late, in the recovery
                crash_the_counter(step, forgotten)
        except (AssertionError, ValueError):
            lost += 1

    assert lost > 0


def test_a_paused_machine_sleeps_through_its_timers() -> None:
    with Simulation() as simulation:
        node = simulation.machine("node")
        ticks: list[float] = []

        def tick() -> None:
            for _ in range(4):
                node.environment.clock.sleep(1)
                ticks.append(simulation.now)

        def main() -> None:
            job = node.spawn(tick, name="ticker")
            simulation.sleep(1.5)
            node.pause(10)
            node.pause(3)
            job.join()

        simulation.run(main)
        assert ticks == [1.0, 11.5, 12.5, 13.5]


# -------------------------------------------------------------------------------------- defects


def run_on_a_node(program: Callable[[Environment], None]) -> Machine:
    with Simulation() as simulation:
        node = simulation.machine("node")
        env = node.environment
        env.fs.make_directories("/d")

        def main() -> None:
            node.spawn(lambda: program(env), name="program").join()

        simulation.run(main)
        return node


@pytest.mark.parametrize(
    "seam",
    [
        lambda env: env.fs.create("/d/a"),
        lambda env: env.fs.exists("/d/a"),
        lambda env: env.clock.sleep(0.1),
        lambda env: env.threads.spawn(lambda: None, name="other"),
        lambda env: env.threads.event().wait(1),
    ],
    ids=["create", "exists", "sleep", "spawn", "event"],
)
def test_a_lock_held_over_a_seam_is_refused(seam: Callable[[Environment], None]) -> None:
    def program(env: Environment) -> None:
        lock = env.threads.lock()
        with suppress(Exception), lock:
            seam(env)

    with pytest.raises(LockHeldError, match=r"node\.1/program#\d+ holds lock 1 of node\.1 \(made"):
        run_on_a_node(program)


def test_a_second_lock_held_over_a_wait_is_refused() -> None:
    def program(env: Environment) -> None:
        lock, condition = env.threads.lock(), env.threads.condition()
        with lock, condition:
            condition.wait(1)

    with pytest.raises(LockHeldError, match=r"holds lock 1 .* over a wait for condition 2"):
        run_on_a_node(program)


def test_nested_locks_and_clocks_under_a_lock_are_allowed() -> None:
    def program(env: Environment) -> None:
        one, two = env.threads.lock(), env.threads.lock()
        for _ in range(50):
            with one, two:
                env.clock.time_us()
                env.entropy.token_bytes(4)

    assert run_on_a_node(program)


def test_a_deadlock_is_told_with_who_waits_for_what_and_where() -> None:
    with Simulation(2, preemption=1.0) as simulation:
        one, two = simulation.threads.lock(), simulation.threads.lock()

        def take_both(first: object, second: object) -> None:
            while True:
                with first, second:  # type: ignore[attr-defined]
                    pass
                simulation.sleep(0.01)

        def main() -> None:
            simulation.spawn(lambda: take_both(one, two), name="left")
            simulation.spawn(lambda: take_both(two, one), name="right").join()

        with pytest.raises(DeadlockError) as caught:
            simulation.run(main)
    report = str(caught.value)
    assert "nothing can run" in report
    assert "simulation.1/left#" in report
    assert "waits for lock 1 of simulation.1 (made at test_virtual_time.py:" in report
    assert f"{__file__}:" in report
    assert "in take_both" in report


def test_a_forgotten_notification_is_a_deadlock() -> None:
    with Simulation() as simulation:
        condition = simulation.threads.condition()

        def main() -> None:
            with condition:
                condition.wait()

        with pytest.raises(DeadlockError, match=r"condition 1 .* to be notified"):
            simulation.run(main)


def test_a_loop_that_waits_for_nothing_is_found() -> None:
    with Simulation() as simulation:

        def main() -> None:
            while True:
                simulation.sleep(0)

        with pytest.raises(SpinningError, match="main"):
            simulation.run(main)


def test_a_program_that_never_ends_runs_out_of_time() -> None:
    with Simulation() as simulation:
        event = simulation.threads.event()

        def main() -> None:
            while not event.wait(10):
                pass

        with pytest.raises(OutOfTimeError, match="main"):
            simulation.run(main, limit_seconds=1000)


def test_an_exception_that_leaves_a_thread_fails_the_run() -> None:
    def program(env: Environment) -> None:
        raise LookupError("boom")

    with pytest.raises(ThreadFailedError, match="boom") as caught:
        run_on_a_node(program)
    assert isinstance(caught.value.__cause__, LookupError)


def test_an_exception_of_main_comes_out_as_it_is() -> None:
    with Simulation() as simulation, pytest.raises(ValueError, match="invalid literal"):
        simulation.run(lambda: int("x"))


def test_an_exception_of_a_called_program_reaches_its_caller() -> None:
    with Simulation() as simulation:
        node = simulation.machine("node")

        def main() -> None:
            with pytest.raises(ValueError, match="invalid literal"):
                node.call(lambda: int("x"))

        simulation.run(main)


@pytest.mark.parametrize(
    ("misuse", "words"),
    [
        (lambda lock, condition: lock.__enter__(), "ended and holds"),
        (lambda lock, condition: condition.notify(), "does not hold condition"),
        (lambda lock, condition: lock.__exit__(None, None, None), "does not hold lock"),
        (lambda lock, condition: (lock.__enter__(), lock.__enter__()), "twice"),
    ],
    ids=["left behind", "notify", "release", "take"],
)
def test_misused_locks_fail_the_run(misuse: Callable[..., object], words: str) -> None:
    with pytest.raises(SimulationError, match=words):
        run_on_a_node(lambda env: misuse(env.threads.lock(), env.threads.condition()) and None)


def test_a_wait_outside_of_a_run_is_refused() -> None:
    with Simulation() as simulation:
        condition = simulation.threads.condition()
        with condition, pytest.raises(RuntimeError, match="only a thread"):
            condition.wait()


def test_a_simulation_that_is_dropped_runs_nothing_when_it_is_collected() -> None:
    code = """
import gc, sys
from chronik_store.testing.virtual_time import Simulation
def forget():
    simulation = Simulation()
    def worker():
        try: simulation.sleep(100)
        finally: print("finally")
    def main():
        simulation.spawn(worker, name="worker")
        simulation.sleep(1)
    simulation.run(main)
forget(); gc.collect(); print("collected", flush=True); import os; os._exit(0)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert ran.stdout == "collected\n"
    assert ran.stderr == ""
