"""An append on its way, and where its outcome goes.

Place: between `log_core`, which stages and resolves, and the faces (`partition_log`, `aio`) that
hand outcomes to a thread, a future or an event loop. Promise: each append is resolved exactly
once, with a result or an error; outcomes of one group reach one sink in one call, so an event loop
is woken once per group, not once per record. Invariant: delivery happens without a lock; an
interrupted one is made again, so a sink may see an outcome twice, and the second time passes it by.
"""

from __future__ import annotations

import concurrent.futures
import logging
from typing import Protocol

from chronik_store.model import AppendResult
from chronik_store.threads import Lock

logger = logging.getLogger("chronik_store.log")


class Sink(Protocol):
    """Where the outcomes of appends that no thread waits for are delivered."""

    def deliver(self, outcomes: list[PendingAppend]) -> None:
        """Called once per group from the committing thread. Must not block."""
        ...


class PendingAppend:
    """Staged at a place that no thread waits for; resolved once with `result` or `error`."""

    __slots__ = ("error", "index", "place", "result", "sink", "token")

    def __init__(self, index: int, place: AppendResult, sink: Sink, token: object) -> None:
        self.index = index
        self.place = place
        self.sink = sink
        self.token = token
        self.result: AppendResult | None = None
        self.error: BaseException | None = None


class Outbox:
    """Outcomes on their way to their sinks. Thread-safe; `lock`, the log's, guards `resolved`."""

    __slots__ = ("_lock", "resolved")

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self.resolved: list[PendingAppend] = []

    def deliver(self) -> None:
        """Hand each outcome to its sink, one call per sink, in order. A sink that fails is logged
        and costs the others nothing; Ctrl-C passes, and leaves all of them for the next call.
        """
        outcomes: list[PendingAppend] = []
        try:
            with self._lock:
                outcomes, self.resolved = self.resolved, []
            by_sink: dict[int, list[PendingAppend]] = {}
            for pending in outcomes:
                by_sink.setdefault(id(pending.sink), []).append(pending)
            for group in by_sink.values():
                _deliver(group)
        except BaseException:
            with self._lock:
                self.resolved[:0] = outcomes
            raise


def _deliver(group: list[PendingAppend]) -> None:
    try:
        group[0].sink.deliver(group)
    except Exception:
        logger.exception("outcomes of %d appends could not be delivered", len(group))


class FutureSink:
    """Resolves `concurrent.futures` futures, the tokens of its appends."""

    @staticmethod
    def deliver(outcomes: list[PendingAppend]) -> None:
        """See `Sink`."""
        for pending in outcomes:
            future: concurrent.futures.Future[AppendResult] = pending.token  # type: ignore[assignment]
            try:
                if pending.error is not None:
                    future.set_exception(pending.error)
                else:
                    future.set_result(pending.result)  # type: ignore[arg-type]
            except concurrent.futures.InvalidStateError:
                continue  # it has its outcome from before the interruption


FUTURES = FutureSink()
