"""A queue of steps, served in rounds by a few worker threads.

Place: the engine under `committer` and `filler`. Promise: after `notify(step)` the step runs at
least once, beginning later than the call; a step never runs in two workers at a time; a step that
returns True goes to the back of the queue, so that busy ones take turns; where no thread can be
started, those that run take over its steps, and where none runs, the caller is handed them.
Invariant: workers are started when first needed and wait without a timer; the condition is never
held over a step.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence

from chronik_store.threads import ThreadHandle, Threads

logger = logging.getLogger("chronik_store.commit")

Step = Callable[[], bool]
"""Does a bounded piece of work; True: there is more. Equal steps (a bound method of one object)
are one step."""


class Rounds:
    """Runs steps on worker threads. Thread-safe."""

    def __init__(self, threads: Threads, workers: int, name: str) -> None:
        self._threads = threads
        self._workers = workers
        self._name = name
        self._ready = threads.condition()
        self._queue: deque[Step] = deque()
        self._queued: set[Step] = set()
        self._running: set[Step] = set()
        self._again: set[Step] = set()
        self._idle = 0
        self._started: list[ThreadHandle] = []
        self._starting = 0
        self._serving = 0
        self._short_of_threads = False
        self._closed = False

    def notify(self, step: Step) -> Sequence[Step]:
        """Have `step` run; cheap when it is queued already. Ignored after `close`.

        Returns what nobody will run, since no thread can be started and none is there: the
        caller's to run or to drop. It is out of the queue.
        """
        number = 0
        try:
            with self._ready:
                if self._closed or (step in self._queued and self._starting):
                    return ()
                if step in self._running:
                    self._again.add(step)
                    return ()
                if step not in self._queued:
                    self._queue.append(step)
                    self._queued.add(step)
                if self._idle >= len(self._queue) or self._starting == self._workers:
                    self._ready.notify()
                    return ()
                number = self._starting = self._starting + 1
            return self._start(number)
        except BaseException:
            if number:  # Ctrl-C: others rely on this worker, and it may not have been started
                self._start(number)
            raise

    def _start(self, number: int) -> Sequence[Step]:
        """Start a worker, without the condition: starting one is a seam of its own."""
        try:
            worker = self._threads.spawn(self._serve, name=f"{self._name}-{number}")
        except Exception as error:  # noqa: BLE001 (whatever it is, there is no thread)
            orphans = self._take_orphans()
            if not self._short_of_threads:
                self._short_of_threads = True  # said once, not with each group
                logger.warning("no thread %s-%d can be started: %s", self._name, number, error)
            return orphans
        self._short_of_threads = False
        with self._ready:
            self._started.append(worker)
        return ()

    def _take_orphans(self) -> Sequence[Step]:
        """A worker was not started: the queue, if no other one serves it or is being started."""
        with self._ready:
            self._starting -= 1
            if self._starting:
                self._ready.notify()
                return ()
            orphans = tuple(self._queue)
            self._queue.clear()
            self._queued.clear()
            return orphans

    def close(self) -> None:
        """Run what is queued, then end the workers and wait for them. Idempotent.

        Must not be called from a step.
        """
        with self._ready:
            self._closed = True
            self._ready.notify_all()
            started = list(self._started)
        for worker in started:
            worker.join()
        with self._ready:
            while self._serving:  # one whose start was interrupted is not among them
                self._ready.wait(1.0)

    def _serve(self) -> None:
        with self._ready:
            self._serving += 1
        try:
            self._serve_rounds()
        finally:
            with self._ready:
                self._serving -= 1
                self._ready.notify_all()

    def _serve_rounds(self) -> None:
        while (step := self._next()) is not None:
            more = False
            try:
                more = step()
            except Exception:
                # A step reports its failures itself; one that leaks is a defect, and must not
                # take the other logs' worker with it.
                logger.exception("a step of %s failed", self._name)
            self._done(step, more=more)

    def _next(self) -> Step | None:
        with self._ready:
            while not self._queue:
                if self._closed:
                    return None
                self._idle += 1
                self._ready.wait()
                self._idle -= 1
            step = self._queue.popleft()
            self._queued.discard(step)
            self._running.add(step)
            return step

    def _done(self, step: Step, *, more: bool) -> None:
        with self._ready:
            self._running.discard(step)
            if more or step in self._again:
                self._again.discard(step)
                self._queue.append(step)
                self._queued.add(step)
                if self._idle:
                    self._ready.notify()
