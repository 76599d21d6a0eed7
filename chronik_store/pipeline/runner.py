"""The background loop: one thread per store that runs the pipeline of every partition.

Place: beside `Pipeline`; the store starts it at open and closes it first. Promise: each partition
is run every `interval_seconds`, jittered so that many stores do not ask one bucket in step, and at
once when poked; what fails is logged and tried again next time; `close` returns when the thread
has ended. Invariant: the loop does not decide anything; all of that is in the stages.

A partition that made progress without an error is run again before the loop sleeps, one run at a
time in turn with the others, so that a backlog drains at full speed. It starves nobody: when the
interval has passed or somebody pokes, a new round begins at once, with every partition that is
open then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from chronik_store.environment import Environment
from chronik_store.errors import ChronikError, LogClosedError, UnavailableError
from chronik_store.model import PipelineReport
from chronik_store.pipeline.contract import Partition
from chronik_store.threads import ThreadHandle

_log = logging.getLogger("chronik_store.pipeline")
JITTER = 0.1
"""A pause is the interval times a factor from [1 - JITTER, 1 + JITTER]."""


class PipelineRunner:
    """Runs the pipeline until closed. Thread-safe.

    Args:
        env: where the thread, the condition and the jitter come from.
        run_once: one bounded pass over one partition.
        partitions: those open now; asked before each round.
        interval_seconds: between two rounds.
    """

    def __init__(
        self,
        env: Environment,
        run_once: Callable[[Partition], PipelineReport],
        partitions: Callable[[], Sequence[Partition]],
        interval_seconds: float,
    ) -> None:
        self._env = env
        self._run_once = run_once
        self._partitions = partitions
        self._interval_seconds = interval_seconds
        self._wake = env.threads.condition()
        self._poked = False
        self._closed = False
        self._thread: ThreadHandle | None = None

    def start(self) -> None:
        """Start the thread. Once. UnavailableError: none can be had."""
        with self._wake:
            if self._closed or self._thread is not None:
                return
        try:
            self._thread = self._env.threads.spawn(self._loop, name="chronik-pipeline")
        except RuntimeError as error:
            raise UnavailableError(
                f"the pipeline has no thread: {error}; let this process have more of them, or open "
                "with pipeline_enabled=False"
            ) from error

    def poke(self) -> None:
        """Run soon: there is something to seal or upload. Never blocks."""
        with self._wake:
            self._poked = True
            self._wake.notify_all()

    def close(self) -> None:
        """End the loop after the call that is under way, and wait for it. Idempotent."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _loop(self) -> None:
        busy = False
        while self._begin_round(at_once=busy):
            busy = self._round()

    def _round(self) -> bool:
        """Every partition once, then those that are busy, until the next round is due or wanted.
        True: some are busy still.
        """
        due = self._env.clock.monotonic() + self._interval_seconds
        busy = [each for each in self._open_now() if self._run(each)]
        while busy and not self._poked and self._env.clock.monotonic() < due:
            busy = [each for each in busy if self._run(each)]
        return bool(busy)

    def _open_now(self) -> list[Partition]:
        try:
            return list(self._partitions())
        except ChronikError as error:
            _log.warning("the pipeline waits: %s", error)
        except Exception:  # noqa: BLE001 (the loop outlives a defect of whoever lists partitions)
            _log.exception("the pipeline waits: the partitions cannot be listed")
        return []

    def _begin_round(self, *, at_once: bool) -> bool:
        """Sleep until the next round is due or wanted, if not `at_once`; False when closed."""
        factor = self._env.entropy.uniform(1 - JITTER, 1 + JITTER)
        deadline = self._env.clock.monotonic() + self._interval_seconds * factor
        with self._wake:
            while not (self._closed or self._poked or at_once):
                remaining = deadline - self._env.clock.monotonic()
                if remaining <= 0 or not self._wake.wait(remaining):
                    break
            self._poked = False
            return not self._closed

    def _run(self, partition: Partition) -> bool:
        """One pass; True if the partition may have more to do right now."""
        if self._closed:
            return False
        try:
            report = self._run_once(partition)
        except LogClosedError:
            return False
        except ChronikError as error:
            _log.warning("the pipeline of %s failed: %s", _name(partition), error)
            return False
        except Exception:  # noqa: BLE001 (the loop outlives one partition)
            # A defect, not an outcome: loud, but the other partitions still need their uploads.
            _log.exception("the pipeline of %s failed unexpectedly", _name(partition))
            return False
        return not report.idle and not report.errors


def _name(partition: Partition) -> str:
    return f"{partition.identity.topic}/{partition.identity.partition}"
