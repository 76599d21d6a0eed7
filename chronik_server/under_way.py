"""What one connection has asked for, until it is answered.

Place: under `session`, which gives it requests and takes its answers; over `handlers`. Promise:
every request gets exactly one answer, unless whoever asked is gone: waits end then, and what was
told without asking for an answer goes on. A producer's batches keep the order in which it sent
them. Invariant: an untyped error is logged with its traceback and answered as InternalError, never
as success.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from chronik_server.answer_room import Room, Share
from chronik_server.errors import code_of, hide
from chronik_server.handlers import COUNTED
from chronik_server.protocol.data import Produce, Produced
from chronik_server.protocol.events import NO_REQUEST, Failure, Request, Response, Told
from chronik_server.request_room import Requests
from chronik_store.errors import ChronikError, UnavailableError
from chronik_store.format.checksum import Buffer
from chronik_store.model import AppendResult

if TYPE_CHECKING:
    from chronik_server.server import Server

logger = logging.getLogger("chronik_server.session")

REQUEST_COST_BYTES = 512
"""What a request weighs beside its bytes."""


class UnderWay:
    """See the module. Belongs to the server's event loop.

    room: where answers are counted; requests: where what is asked is. send: takes an answer, and
    further parts of its payload. ended: called after each.
    """

    def __init__(
        self,
        server: Server,
        room: Room,
        requests: Requests,
        *,
        send: Callable[[Response | Failure, Sequence[Buffer]], None],
        ended: Callable[[], None],
    ) -> None:
        self.last_ended = server.loop.time()
        self._server = server
        self._room = room
        self._requests = requests
        self._send = send
        self._on_ended = ended
        self._tasks: dict[asyncio.Task[None], Request | Told] = {}
        self._slow_appends = 0  # produce requests among the tasks
        self._appends = 0  # those without one
        self._no_appends: asyncio.Future[None] | None = None
        self._has_left = False
        self._left: set[asyncio.Task[None]] = set()  # what is seen through all the same

    @property
    def is_empty(self) -> bool:
        """Nothing is."""
        return not (self._tasks or self._appends)

    def run(self, event: Request | Told) -> None:
        """Begin it."""
        self._requests.begin(_size(event))
        appends = type(event.message) is Produce
        if appends and not self._slow_appends and type(event) is Request and self._append(event):
            return
        task = self._server.loop.create_task(self._answer(event))
        self._tasks[task] = event
        self._slow_appends += appends
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        event = self._tasks.pop(task)
        if task in self._left:
            self._left.remove(task)
            self._server.left_bytes -= _size(event)
        self._slow_appends -= type(event.message) is Produce
        self._ended(event)

    def _ended(self, event: Request | Told) -> None:
        self.last_ended = self._server.loop.time()
        self._requests.end(_size(event))
        self._on_ended()

    def _append(self, event: Request) -> bool:
        """An append without a task: most of all requests. Not while one with a task may wait for
        its turn: a producer's batches keep the order in which it sent them.
        """
        begun = self._server.loop.time()

        def done(outcome: AppendResult | BaseException) -> None:
            answer: Response | Failure
            if isinstance(outcome, BaseException):
                answer = self._failure(event, outcome)
            else:
                answer = Response(event.request_id, Produced(*outcome))
            self._server.metrics.by_verb[event.verb].note(self._server.loop.time() - begun)
            self._send(answer, ())
            self._ended(event)
            self._appends -= 1
            if not self._appends and self._no_appends is not None:
                self._no_appends.set_result(None)

        self._appends += 1
        try:
            begins = self._server.handlers.append(event.message, event.payload, done)
        except Exception as error:  # noqa: BLE001 (answered, and logged if it has no type of ours)
            done(error)
            return True
        self._appends -= not begins
        return begins

    async def _answer(self, event: Request | Told) -> None:
        loop, metrics = self._server.loop, self._server.metrics
        begun = loop.time()
        outcome: Response | Failure
        more: Sequence[Buffer] = ()
        room: Share | None = None
        number = event.request_id if isinstance(event, Request) else NO_REQUEST
        try:
            if type(event.message) in COUNTED:
                room = Share(self._room)
            handler = self._server.handlers.by_message[type(event.message)]
            message, payload = await handler(event.message, room or event.payload)
            if isinstance(payload, list):
                outcome, more = Response(number, message), payload
            else:
                outcome = Response(number, message, payload)
        except asyncio.CancelledError:
            if self._has_left or not self._server.stopping:
                raise
            outcome = self._failure(event, UnavailableError("this node is stopping; ask another"))
        except Exception as error:  # noqa: BLE001 (the same)
            outcome = self._failure(event, error)
        finally:
            if room is not None:
                loop.call_soon(room.close)  # counted until it is queued, after this turn's last
        metrics.by_verb[event.verb].note(loop.time() - begun)
        if isinstance(event, Request):
            self._send(outcome, more)

    def _failure(self, event: Request | Told, error: BaseException) -> Failure:
        """What the asker gets; what is no typed error is logged."""
        if not isinstance(error, ChronikError):
            logger.error("%s failed", event.verb.name, exc_info=error)
        found = hide(error)
        self._server.metrics.failures.labels(event.verb.name.lower(), code_of(found)).inc()
        number = event.request_id if isinstance(event, Request) else NO_REQUEST
        return Failure(number, found)

    # --- the end ---------------------------------------------------------------------------------

    def leave(self) -> None:
        """Nobody waits for an answer any more. What was told without asking for one goes on: nobody
        will say it again. Of all who have left, as much as one connection may have in flight.
        """
        if self._has_left:
            return
        self._has_left = True
        self._send, self._on_ended = _unsent, _nothing  # which hold the connection
        for task, event in self._tasks.items():
            left = self._server.left_bytes + _size(event)
            if isinstance(event, Request) or left > self._server.config.in_flight_bytes_max:
                task.cancel()
            else:
                self._server.left_bytes = left
                self._left.add(task)

    def end_waits(self) -> list[asyncio.Future[None]]:
        """The server stops: readers that only wait are told so; appends, which are returned, are
        seen through.
        """
        for task, event in self._tasks.items():
            if not isinstance(event.message, Produce):
                task.cancel()
        waits: list[asyncio.Future[None]] = list(self._tasks)
        if self._appends:
            self._no_appends = self._server.loop.create_future()
            waits.append(self._no_appends)
        return waits


def _size(event: Request | Told) -> int:
    return len(event.payload) + event.header_bytes + REQUEST_COST_BYTES


def _unsent(_answer: Response | Failure, _more: Sequence[Buffer]) -> None:
    """Nobody is there to take it."""


def _nothing() -> None:
    """Nor to be read from."""
