"""The simulator: what a program does wrong ends its run, with words that say where."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from chronik_store.environment import Environment
from chronik_store.testing.virtual_time import (
    DeadlockError,
    LockHeldError,
    Machine,
    OutOfTimeError,
    Simulation,
    SimulationError,
    SpinningError,
    ThreadFailedError,
)

ROOT = Path(__file__).parents[3]


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
    assert f"waits for lock 1 of simulation.1 (made at {Path(__file__).name}:" in report
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
