"""Background work of a store: the pipeline's loop, and marks over idle tails.

Place: owned by `log_store`. Promise: two threads at most, both from the seam, both ended by
`close`; a failure in the background is logged and shown by status, never lost. Invariant: a store
with idle partitions only sleeps.

A read-only follower in another process shows a group once a later frame swears to it (protocol 9).
On a busy log the next append does; for the last group before a pause a mark is written here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from chronik_store.config import LogConfig
from chronik_store.environment import Environment
from chronik_store.errors import ChronikError, LogClosedError
from chronik_store.log_assembly import LogAssembly
from chronik_store.log_core import LogCore
from chronik_store.model import PipelineReport
from chronik_store.partition_log import PartitionLog
from chronik_store.pipeline import PipelineRunner
from chronik_store.threads import ThreadHandle

logger = logging.getLogger("chronik_store.store")

SWEAR_SECONDS = 0.1
"""How long a log must be quiet before its last group is sworn to for followers."""
SWEAR_SHARE = 10
"""At least so many times as long as a round of marks took is the pause behind it."""
FEED_SECONDS = 0.25
"""How long the tail index of a searched log is fed at a time."""


class StoreTicker:
    """The background threads of one store."""

    def __init__(
        self,
        env: Environment,
        config: LogConfig,
        assembly: LogAssembly,
        all_logs: Callable[[], list[PartitionLog | ChronikError]],
        open_logs: Callable[[], list[PartitionLog]],
        finish_deletions: Callable[[], None],
        *,
        read_only: bool,
    ) -> None:
        self._env = env
        self._config = config
        self._assembly = assembly
        self._all_logs = all_logs
        self._open_logs = open_logs
        self._finish_deletions = finish_deletions
        self._read_only = read_only
        self._wake = env.threads.condition()
        self._unsworn: dict[int, LogCore] = {}
        self._thread: ThreadHandle | None = None
        self._started = False
        self._closed = False
        self._runner: PipelineRunner | None = None

    def start(self) -> None:
        """Start what the configuration asks for."""
        if self._read_only:
            return
        self._assembly.on_unsworn = self._note_unsworn
        if self._config.pipeline_enabled:
            self._runner = PipelineRunner(
                self._env,
                self._assembly.pipeline.run_once,
                self._cores,
                self._config.pipeline_interval_seconds,
            )
            self._runner.start()
            runner = self._runner
            self._assembly.on_sealed = lambda _core: runner.poke()

    def _cores(self) -> list[LogCore]:
        for waits in self._deletions():
            logger.warning("a deletion waits: %s", waits)
        logs, failures = self._partitions()
        for failure in failures:
            if isinstance(failure, LogClosedError):
                continue  # the store is being closed
            # One partition that cannot be opened must not keep the others from their bucket.
            logger.error("a partition is left out of the pipeline: %s", failure)
        return logs

    def _deletions(self) -> tuple[str, ...]:
        try:
            self._finish_deletions()
        except ChronikError as error:
            return (str(error),)
        return ()

    def _partitions(self) -> tuple[list[LogCore], list[ChronikError]]:
        found = self._all_logs()
        cores = [each._core for each in found if isinstance(each, PartitionLog)]
        failures = [each for each in found if isinstance(each, ChronikError)]
        return [core for core in cores if core is not None], failures

    def run_pipeline_once(self) -> PipelineReport:
        """One bounded step for every partition; one that cannot be opened is an error in it."""
        errors = self._deletions()
        cores, failures = self._partitions()
        report = PipelineReport(errors=(*errors, *(str(failure) for failure in failures)))
        for core in cores:
            report = report + self._assembly.pipeline.run_once(core)
        return report

    def _note_unsworn(self, core: LogCore) -> None:
        """A group was synced; called from the committing thread for every group."""
        key = id(core)
        if key in self._unsworn:
            return
        first = False
        try:
            with self._wake:
                self._unsworn[key] = core
                if not self._started and not self._closed:
                    first = self._started = True
                self._wake.notify_all()
            if first:
                self._thread = self._env.threads.spawn(self._swear_loop, name="chronik-mark")
        except BaseException as error:
            if first:  # The group is on disk whatever becomes of its mark: the next one asks again.
                with self._wake:
                    self._started = False
                    self._unsworn.pop(key, None)
            if not (first and isinstance(error, RuntimeError)):
                raise
            logger.debug("no thread for marks can be started: %s", error)

    def _swear_loop(self) -> None:
        pause_seconds = SWEAR_SECONDS
        while True:
            with self._wake:
                while not self._unsworn and not self._closed:
                    self._wake.wait()
                if not self._closed:
                    self._wake.wait(pause_seconds)  # `close` ends the pause; new work may too
                if self._closed:
                    return
                waiting, self._unsworn = self._unsworn, {}
            started = self._env.clock.monotonic()
            for core in waiting.values():
                self._swear(core)
            # A round over many logs may take long: it must not take the disk from their appends.
            took_seconds = self._env.clock.monotonic() - started
            pause_seconds = max(SWEAR_SECONDS, SWEAR_SHARE * took_seconds)
            for log in self._open_logs():
                if log._core is not None and id(log._core) in waiting:
                    self._feed(log)

    @staticmethod
    def _feed(log: PartitionLog) -> None:
        try:
            log._search.feed_tail(FEED_SECONDS)
        except ChronikError as error:
            # A search feeds what is missing by itself, and reports what it could not.
            logger.info("the tail index of %r waits: %s", log, error)
        except Exception:
            # No memory, or a defect: readers beside the writer need their marks all the same.
            logger.exception("the tail index of %r could not be fed", log)

    def _swear(self, core: LogCore) -> None:
        try:
            if core.quiet():
                core.swear()
            else:
                self._note_unsworn(core)
        except ChronikError as error:
            logger.debug("no mark for %s: %s", core.identity.topic, error)
        except Exception:
            # Of one log; the others get theirs.
            logger.exception("no mark for %s/%d", core.identity.topic, core.identity.partition)

    def close(self) -> None:
        """End both threads and wait for them. Idempotent."""
        try:
            if self._runner is not None:
                self._runner.close()  # may take long; marks are written meanwhile
        finally:
            with self._wake:
                self._closed = True
                self._wake.notify_all()
            if self._thread is not None:
                self._thread.join()
