"""An asyncio event loop in a thread of a simulated machine.

Place: under `world`, over the store's simulator and `wires`. Promise: callbacks, timers, threads
of the executor and connections are asyncio's own semantics on virtual time; a call into a seam from
inside a callback lets other machines and threads go on meanwhile, as in a real process. Invariant:
a loop runs in one thread of one life of its machine, and ends with that life.

What asyncio keeps for each thread of the operating system (which loop runs, which task) is kept for
each greenlet here: it is put in place at each of its turns, and taken away behind it.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import events, tasks
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from chronik_store.testing.scheduler import Incarnation, Scheduler, Task

if TYPE_CHECKING:
    from chronik_server.testing.servers.wires import Wires

T = TypeVar("T")
EXECUTOR_THREADS = 6
"""Of the default executor, as on a machine with two CPUs."""


class _Waiting:
    """Stands where asyncio waits for sockets: the thread waits for whoever wakes the loop."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop.wait(timeout)
        return []


class SimulatedLoop(asyncio.BaseEventLoop):
    """See the module. host: by which name others connect to what listens here."""

    def __init__(self, scheduler: Scheduler, owner: Incarnation, host: str, wires: Wires) -> None:
        super().__init__()
        self.scheduler, self.owner, self.host = scheduler, owner, host
        self._wires = wires
        self._selector = _Waiting(self)
        self._thread: Task | None = None
        self._current: Any = None
        self._is_to_stop = False
        self._is_asleep = False
        self._was_woken = False
        self._kept: set[asyncio.Task[Any]] = set()
        self._jobs: list[Callable[[], None]] = []
        self._workers = 0
        self.faults: list[str] = []
        """What nobody caught."""
        self.set_exception_handler(self._note)
        self.set_task_factory(self._make_task)

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.faults.append(f"{context['message']}: {error!r}")

    def _make_task(self, _loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        """Kept until it is done: a task of a machine that has died is never collected in the middle
        of another one's step, whose seams it would reach.
        """
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=self, **options)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        return task

    # --- turns -----------------------------------------------------------------------------------

    def run_forever(self) -> None:
        """In the thread that calls; until `stop`."""
        self._check_closed()  # type: ignore[attr-defined] # of BaseEventLoop, like what follows
        thread = self.scheduler.running
        assert thread is not None, "a loop runs in a thread of the simulation"
        assert thread.around is None, "a thread runs one loop at a time"
        self._thread = thread
        self._thread_id = threading.get_ident()
        thread.around = (self._enter, self._leave)
        self._enter()
        try:
            while not self._is_to_stop:
                self._run_once()  # type: ignore[attr-defined]
        finally:
            self._is_to_stop = False
            self._thread_id = None  # type: ignore[assignment]
            if self.owner.is_alive:
                thread.around = None
                self._leave()

    def stop(self) -> None:
        """At the end of this turn."""
        self._is_to_stop = True

    def _enter(self) -> None:
        events._set_running_loop(self)
        self._swap(self._current)

    def _leave(self) -> None:
        self._current = self._swap(None)
        events._set_running_loop(None)

    def _swap(self, task: Any) -> Any:
        """Have `task` be the one that runs; the one before it. Python 3.11 swaps none, and early
        releases of 3.12 raise KeyError where there was none and shall be none.
        """
        before = tasks.current_task(self)
        if before is not task and hasattr(tasks, "_swap_current_task"):
            tasks._swap_current_task(self, task)
        return before

    def wait(self, timeout: float | None) -> None:
        """Until somebody wakes the loop, or so many seconds have passed."""
        if self._was_woken or (timeout is not None and timeout <= 0):
            self._was_woken = False
            self.scheduler.give_way(self.owner)
            return
        self._is_asleep = True
        try:
            self.scheduler.block("something to happen", self.owner, timeout)
        finally:
            self._is_asleep = False
        self._was_woken = False

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list, "there are no sockets"

    def _write_to_self(self) -> None:
        self._was_woken = True
        if self._is_asleep and self._thread is not None:
            self.scheduler.wake(self._thread)

    def time(self) -> float:
        """Of the simulation."""
        return self.scheduler.now

    def from_outside(self, callback: Callable[..., Any], *arguments: Any) -> None:
        """Call it in a turn of this loop, if its machine still lives."""
        if self.owner.is_alive and not self.is_closed():
            self.call_soon_threadsafe(callback, *arguments)

    def forget(self) -> None:
        """Close it, and what its tasks have open: the machine is dead, and its seams refuse."""
        self.set_exception_handler(lambda *_: None)
        events._set_running_loop(self)  # else what they begin would be begun on another
        while self._kept:  # their ends may begin others, which end here, too
            task = self._kept.pop()
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine = cast("Any", task.get_coro())
            try:
                coroutine.close()
            except BaseException:  # noqa: BLE001, S112  (nobody is left to tell)
                continue
        events._set_running_loop(None)
        self._thread_id = None  # type: ignore[assignment]
        self.close()

    # --- threads ---------------------------------------------------------------------------------

    def run_in_executor(  # type: ignore[override] # typeshed names its type variables
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """In a thread of the machine; of those of the default executor there are only so many."""
        self._check_closed()  # type: ignore[attr-defined]
        future: asyncio.Future[T] = self.create_future()

        def job() -> None:
            try:
                result = func(*args)
            except BaseException as error:  # noqa: BLE001  (told to whoever waits)
                self.from_outside(_fail, future, error)
            else:
                self.from_outside(_succeed, future, result)

        if executor is not None:
            self.scheduler.start_task(self.owner, job, "pool")
            return future
        self._jobs.append(job)
        if self._workers < EXECUTOR_THREADS:
            self._workers += 1
            self.scheduler.start_task(self.owner, self._work, "executor")
        return future

    def _work(self) -> None:
        while self._jobs:
            self._jobs.pop(0)()
        self._workers -= 1

    # --- connections -----------------------------------------------------------------------------

    async def create_server(  # type: ignore[override] # what the product asks for
        self, protocol_factory: Any, host: str, port: int, *, start_serving: bool = True, **_: Any
    ) -> Any:
        """Listen under this machine's name."""
        listener = self._wires.listener(self, protocol_factory, host, port)
        if start_serving:
            await listener.start_serving()
        return listener

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Any, host: str, port: int, *, ssl: Any = None, **_: Any
    ) -> Any:
        """Connect to what listens there. OSError."""
        assert ssl is None, "TLS is not played"
        return await self._wires.connect(self, protocol_factory, host, port)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
