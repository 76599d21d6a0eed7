"""An append on its way, and where its outcome goes.

Place: between `log_core`, which stages and resolves, and the faces (`partition_log`, `aio`) that
hand outcomes to a thread, a future or an event loop. Promise: each append is resolved exactly
once, with a result or an error; outcomes of one group reach one sink in one call, so an event loop
is woken once per group, not once per record. Invariant: delivery happens without a lock.
"""

from __future__ import annotations

import concurrent.futures
from typing import Protocol

from chronik_store.model import AppendResult


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


def deliver(outcomes: list[PendingAppend]) -> None:
    """Hand each outcome to its sink, one call per sink, in order."""
    by_sink: dict[int, list[PendingAppend]] = {}
    for pending in outcomes:
        by_sink.setdefault(id(pending.sink), []).append(pending)
    for group in by_sink.values():
        group[0].sink.deliver(group)


class FutureSink:
    """Resolves `concurrent.futures` futures, the tokens of its appends."""

    @staticmethod
    def deliver(outcomes: list[PendingAppend]) -> None:
        """See `Sink`."""
        for pending in outcomes:
            future: concurrent.futures.Future[AppendResult] = pending.token  # type: ignore[assignment]
            if pending.error is not None:
                future.set_exception(pending.error)
            else:
                future.set_result(pending.result)  # type: ignore[arg-type]


FUTURES = FutureSink()
