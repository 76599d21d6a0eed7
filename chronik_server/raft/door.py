"""How the pipeline's threads reach a log whose entries go through consensus.

Place: put into the log's control path when its group is added. Promise: `propose` returns when the
command is committed and folded here, in the term that the caller acts for, or raises. Invariant:
called from any thread but the event loop's, which it would wait for.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Sequence
from typing import Protocol

from chronik_server.raft.consensus import Payload, Proposed
from chronik_server.raft.errors import NotLeaderError, OutcomeUnknownError
from chronik_store.control_path import StaleTermError
from chronik_store.format.control import Command
from chronik_store.threads import Threads

ANSWER_SECONDS = 30.0
"""A thread waits no longer: others have work for it, of groups that can commit."""


class Proposer(Protocol):
    """What the door leads to."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def term(self) -> int: ...
    @property
    def is_ready(self) -> bool: ...
    def propose(
        self, payloads: Sequence[Payload], *, term: int | None = None
    ) -> asyncio.Future[Proposed]: ...


class ConsensusDoor:
    """A `CommandDoor`. Thread-safe."""

    def __init__(self, consensus: Proposer, threads: Threads) -> None:
        self._consensus = consensus
        self._threads = threads

    def leader_term(self) -> int | None:
        """The term in which this node may seal, upload and publish; None: it may not."""
        # Two reads of one event loop's values: a term that has passed by then is refused below.
        return self._consensus.term if self._consensus.is_ready else None

    def propose(self, command: Command, *, term: int | None) -> int:
        """Its index. StaleTermError when `term` has passed; OutcomeUnknownError."""
        loop = self._consensus.loop
        answer: concurrent.futures.Future[Proposed] = asyncio.run_coroutine_threadsafe(
            self._ask(command, term), loop
        )
        try:
            return self._outcome(answer).index
        except NotLeaderError as error:
            raise StaleTermError(str(error)) from error

    def _outcome(self, answer: concurrent.futures.Future[Proposed]) -> Proposed:
        answered = self._threads.event()
        answer.add_done_callback(lambda _: answered.set())
        if not answered.wait(ANSWER_SECONDS):
            answer.cancel()
            raise OutcomeUnknownError(
                f"no quorum has it after {ANSWER_SECONDS:g} s; it may be committed yet"
            )
        return answer.result(0)

    async def _ask(self, command: Command, term: int | None) -> Proposed:
        return await self._consensus.propose([command], term=term)
