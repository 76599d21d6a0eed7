"""An event loop in a thread of a simulated machine: asyncio's own semantics on virtual time."""

from __future__ import annotations

import asyncio
import random
from asyncio import tasks
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chronik_server.testing.servers.simulated_loop import SimulatedLoop
from chronik_server.testing.servers.wires import Wires
from chronik_server.testing.servers.world import end_all
from chronik_store.testing.virtual_time import Simulation


class Machines:
    """A simulation whose machines run loops."""

    def __init__(self) -> None:
        self.simulation = Simulation(7)
        self.wires = Wires(random.Random(7), (0.001,))
        self.loops: list[SimulatedLoop] = []

    def loop(self, host: str, owner: Any) -> SimulatedLoop:
        made = SimulatedLoop(self.simulation._scheduler, owner, host, self.wires)
        self.loops.append(made)
        return made

    def start(self, host: str, main: Callable[[], Awaitable[None]]) -> Any:
        """A machine that runs it."""
        machine = self.simulation.machine(host)
        loop = self.loop(host, machine._life)
        machine.spawn(lambda: loop.run_until_complete(main()), name="main")
        return machine

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run it beside the machines, and end everything behind it."""

        def run() -> None:
            self.loop("client", self.simulation._driver).run_until_complete(main())

        try:
            self.simulation.run(run, limit_seconds=1000.0)
        finally:
            end_all(self.simulation, self.loops)


def test_hours_pass_at_once_and_each_loop_is_the_running_one_in_its_own_turns() -> None:
    machines, seen = Machines(), list[tuple[str, float]]()

    def main(host: str, seconds: float) -> Callable[[], Awaitable[None]]:
        async def sleeps() -> None:
            for _ in range(3):
                await asyncio.sleep(seconds)
                loop = asyncio.get_running_loop()
                assert isinstance(loop, SimulatedLoop)
                seen.append((loop.host, loop.time()))
            assert asyncio.current_task() is not None
            assert host == loop.host

        return sleeps

    async def ends() -> None:
        await asyncio.sleep(500)

    machines.start("one", main("one", 100.0))
    machines.start("two", main("two", 60.0))
    machines.run(ends)
    assert seen == [
        ("two", 60.0), ("one", 100.0), ("two", 120.0), ("two", 180.0), ("one", 200.0),
        ("one", 300.0),
    ]  # fmt: skip


def test_a_loop_without_a_running_task_may_be_left_under_python_3_12_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whose `_swap_current_task` raises where no task ran and none shall."""
    swapped = list[bool]()

    def swap(loop: asyncio.AbstractEventLoop, task: Any) -> None:
        if tasks.current_task(loop) is None and task is None:
            raise KeyError(loop)
        swapped.append(task is None)

    async def waits() -> None:
        await asyncio.sleep(1.0)

    async def blocks() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        loop.scheduler.block("a disk", loop.owner, 1.0)

    monkeypatch.setattr(tasks, "_swap_current_task", swap, raising=False)
    Machines().run(waits)
    assert swapped == []
    Machines().run(blocks)
    assert swapped == [True]


def test_a_call_into_a_seam_lets_other_loops_go_on() -> None:
    """As in a real process: a callback that waits for its disk keeps up its own loop alone."""
    machines, order = Machines(), list[str]()

    async def slow() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        loop.call_later(0.1, order.append, "late")
        loop.scheduler.block("a disk", loop.owner, 1.0)
        order.append("written")
        await asyncio.sleep(0.01)

    async def quick() -> None:
        await asyncio.sleep(0.5)
        order.append("quick")

    async def ends() -> None:
        await asyncio.sleep(5)

    machines.start("slow", slow)
    machines.start("quick", quick)
    machines.run(ends)
    assert order == ["quick", "written", "late"]


def test_the_executor_has_so_many_threads_and_hands_over_results_and_errors() -> None:
    machines, at_work, most = Machines(), 0, 0

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)

        def work(number: int) -> int:
            nonlocal at_work, most
            at_work += 1
            most = max(most, at_work)
            loop.scheduler.block("a bucket", loop.owner, 1.0)
            at_work -= 1
            if number == 5:
                raise ValueError("five")
            return number

        found = await asyncio.gather(
            *(loop.run_in_executor(None, work, number) for number in range(8)),
            return_exceptions=True,
        )
        assert ["five" if isinstance(each, ValueError) else each for each in found] == [
            0, 1, 2, 3, 4, "five", 6, 7,
        ]  # fmt: skip
        assert loop.time() == 2.0

    machines.run(main)
    assert most == 6


def test_what_waits_on_a_dead_machine_never_goes_on_and_is_closed_in_the_end() -> None:
    machines, seen = Machines(), list[str]()

    async def waits() -> None:
        try:
            await asyncio.sleep(1.0)
            seen.append("slept")
            await asyncio.sleep(1.0)
            seen.append("slept again")
        finally:
            seen.append("closed")

    async def main() -> None:
        await asyncio.sleep(1.5)
        machine.crash()
        await asyncio.sleep(5.0)
        assert seen == ["slept"]

    machine = machines.start("one", waits)
    machines.run(main)
    assert seen == ["slept", "closed"]


def test_who_dies_in_its_own_callback_ends_there() -> None:
    machines, seen = Machines(), list[str]()

    async def dies() -> None:
        seen.append("before")
        machine.crash()
        seen.append("behind")

    async def main() -> None:
        await asyncio.sleep(1.0)

    machine = machines.start("one", dies)
    machines.run(main)
    assert seen == ["before"]


def test_what_nobody_catches_is_noted() -> None:
    machines = Machines()

    async def main() -> None:
        def fails() -> None:
            raise ValueError("nobody")

        asyncio.get_running_loop().call_soon(fails)
        await asyncio.sleep(0.1)

    machines.run(main)
    (fault,) = machines.loops[0].faults
    assert "nobody" in fault
