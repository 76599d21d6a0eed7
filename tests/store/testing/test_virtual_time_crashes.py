"""The simulator: a crash falls inside any wait, and reaches nothing of the dead."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress

import pytest

from chronik_store.environment import Environment
from chronik_store.testing.virtual_time import (
    CrashError,
    Simulation,
)


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


def test_a_pause_ends_with_the_life_that_it_stopped() -> None:
    """A shorter one of the next life waited for the end of it, and nobody ended that."""
    woken: list[float] = []
    with Simulation(seed=1) as simulation:
        node = simulation.machine("node")

        def work() -> None:
            node.environment.clock.sleep(1)
            woken.append(simulation.now)

        def main() -> None:
            node.pause(10)
            node.kill()
            node.restart()
            node.spawn(work)
            node.pause(3)
            simulation.sleep(20)

        simulation.run(main)
    assert woken == [4.0]


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
