"""One accepted connection: who is there, what comes in, what goes out, and its limits.

Place: between a socket (asyncio) and `under_way`, which runs what is asked; the bytes are
`protocol.connection`'s. Promise: no peer makes this side hold more than its limits say: a frame's
size, bytes in flight (then nothing more is read), what was read for answers and not taken (then
what asks for more waits), time to greet, to finish a frame, to take an answer. Invariant: nothing
is said behind the last word.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from chronik_server.answer_room import Room
from chronik_server.errors import ProtocolError, UnauthenticatedError, code_of, hide
from chronik_server.protocol.connection import ENDED, Connection, Limits
from chronik_server.protocol.events import (
    NO_REQUEST,
    Closed,
    Event,
    Failure,
    Request,
    Response,
    Told,
    Unreadable,
)
from chronik_server.protocol.frames import READ_BYTES, VERSION
from chronik_server.protocol.greeting import Hello, PeerIdentity
from chronik_server.protocol.states import Side, State
from chronik_server.protocol.verbs import Verb
from chronik_server.protocol.writing import write_all
from chronik_server.reader_pace import ReaderPace
from chronik_server.request_room import Requests
from chronik_server.under_way import UnderWay
from chronik_store.errors import ChronikError, UnavailableError
from chronik_store.format.checksum import Buffer

if TYPE_CHECKING:
    from chronik_server.server import Server

T = TypeVar("T")
logger = logging.getLogger("chronik_server.session")


class Session(asyncio.BufferedProtocol):
    """One connection of a listener. Belongs to the server's event loop."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._config = server.config
        limits = Limits(self._config.frame_bytes_max, self._config.in_flight_requests_max)
        self._connection = Connection(Side.SERVER, limits, server.read_buffer)
        self._transport: asyncio.Transport | None = None
        self._peer: PeerIdentity | None = None
        self._requests = Requests(server.requests, self._config.in_flight_bytes_max, self._steer)
        self._out: list[Buffer] = []
        self._room = Room(server.answers, self._config.in_flight_bytes_max, self._untaken)
        self.under_way = UnderWay(
            server, self._room, self._requests, send=self._send, ended=self._go_on
        )
        self._reading = True
        self._writable = True
        self._is_closing = False
        now = server.loop.time()
        self._heard = self._began = now
        self._pace = ReaderPace(now)

    # --- asyncio's side --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted; within the number of connections or refused."""
        self._transport = cast("asyncio.Transport", transport)
        server = self._server
        if server.is_full(len(server.sessions)):
            self._hang_up(server.refused_as_full())
            return
        server.sessions[self] = None
        server.metrics.connections.inc()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever asked is gone: waits end, writes go on."""
        self._server.forget(self)
        self.under_way.leave()
        self._transport = None
        self._room.end()
        self._requests.leave()
        if self._peer is not None:
            self._server.backend.lost(self._peer, self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where bytes are read to: those of a long frame to where they stay."""
        return self._connection.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        self._heard = self._server.loop.time()
        if not self._connection.pending_bytes:
            self._began = self._heard
        self._server.metrics.received_bytes += nbytes
        self._server.turn.run(self._take, self._connection.buffer_updated, nbytes)
        arriving = self._connection.pending_bytes
        if arriving > READ_BYTES or self._requests.arriving:
            self._requests.arrived(arriving)
            self._steer()

    def eof_received(self) -> None:
        """The other side has hung up; asyncio closes the transport then."""
        self._take(self._connection.receive_data, b"")

    def pause_writing(self) -> None:
        """The reader over there is slower than its answers: it asks nothing more for now."""
        self._writable = False
        self._pace.begin(self._server.loop.time(), self._unsent)
        self._room.moved()
        self._steer()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._writable = True
        self._room.moved()
        self._steer()

    # --- requests --------------------------------------------------------------------------------

    def _take(self, receive: Callable[[T], list[Event]], new: T) -> None:
        try:
            events = receive(new)
            if events:
                self._began = self._heard
            for event in events:
                self._on_event(event)
        except ChronikError as error:
            self._server.metrics.refused.labels("protocol").inc()
            self._hang_up(error)
        except Exception:
            logger.exception("a connection failed")
            self.abort()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Request):
            if event.verb is Verb.HELLO:
                self._greet(event)
            elif self._server.stopping:
                error = UnavailableError(
                    "this node is stopping; ask another", durability="not_durable"
                )
                self._refuse(event.request_id, error)
            else:
                self._run(event)
        elif isinstance(event, Told):
            if self._peer is not None and event.verb is not Verb.PRODUCE:
                self._server.backend.told(self._peer, self, event.message, event.payload)
            elif event.verb is Verb.PRODUCE:
                self._run(event)
            else:
                raise ProtocolError("only nodes say that")
        elif isinstance(event, Unreadable):
            self._refuse(event.request_id, event.error)
        elif isinstance(event, Closed):
            self.under_way.leave()

    def _greet(self, event: Request) -> None:
        hello: Hello = event.message
        try:
            if VERSION not in hello.versions:
                raise ProtocolError(f"this server speaks version {VERSION} only")
            if not self._config.takes_token(hello.token):
                raise UnauthenticatedError("the token is missing or not the right one")
            peer = None if hello.peer is None else self._server.backend.greet(hello.peer, self)
            if peer is None:
                self._server.admit(self, hello.node_id)
        except ChronikError as error:
            if type(error) is not UnavailableError:  # which was counted as what it is
                self._server.metrics.refused.labels("greeting").inc()
            self._refuse(event.request_id, error)
            self.close()
            return
        self._peer = hello.peer
        self._requests.is_exempt = self.is_of_a_node
        self._server.nodes += self.is_of_a_node
        self._server.metrics.by_verb[event.verb].note(self._server.loop.time() - self._heard)
        self._send(Response(event.request_id, self._server.welcome(peer)))

    def _refuse(self, number: int, error: ChronikError) -> None:
        """Answer what no handler sees; it is counted like what one refuses."""
        verb, metrics = self._connection.in_flight.get(number), self._server.metrics
        known = next((each for each in metrics.by_verb if each == verb), None)
        if known is not None:
            metrics.by_verb[known].note(self._server.loop.time() - self._heard)
        name = "unknown" if known is None else known.name.lower()
        metrics.failures.labels(name, code_of(error)).inc()
        self._send(Failure(number, error))

    def _run(self, event: Request | Told) -> None:
        self.under_way.run(event)
        if self._reading and not self._requests.may_read():
            self._steer()

    def _go_on(self) -> None:
        if not self._reading:
            self._steer()

    # --- answers ---------------------------------------------------------------------------------

    def tell(self, message: Any, payload: Sequence[Buffer] = ()) -> None:
        """Say something one way to the node that called."""
        if self._transport is not None and self._connection.state not in ENDED:
            self._queue(self._connection.tell(message, payload))

    @property
    def is_of_a_node(self) -> bool:
        """Another node of the cluster called."""
        return self._peer is not None

    @property
    def backlog_bytes(self) -> int:
        """What waits to be sent."""
        return sum(map(len, self._out)) + self._unsent

    @property
    def _unsent(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def _untaken(self) -> int:
        return 0 if self._writable and not self._out else self.backlog_bytes

    def _send(self, event: Response | Failure, more: Sequence[Buffer] = ()) -> None:
        """Queue an answer; what one turn of the loop produces goes out in one write."""
        if self._transport is None or self._connection.state in ENDED:
            return
        try:
            buffers = self._connection.send(event, more)
        except ValueError as error:
            # An answer that the wire cannot carry; the question is answered all the same.
            assert isinstance(event, Response)
            logger.exception("an answer does not fit")
            buffers = self._connection.send(Failure(event.request_id, hide(error)))
        self._queue(buffers)

    def _queue(self, buffers: list[Buffer]) -> None:
        if not self._out:
            self._server.turn.speak(self._flush)
        self._out += buffers

    def _flush(self) -> None:
        out, self._out = self._out, []
        # A closing one takes nothing more, and uvloop's says so by raising.
        if out and self._transport is not None and not self._transport.is_closing():
            sent = write_all(self._transport, out)
            self._server.metrics.sent_bytes += sent
            self._pace.sent_bytes += sent
        if self._room.charged:
            self._room.moved()

    # --- limits and the end ----------------------------------------------------------------------

    def _steer(self) -> None:
        """Read on only while answers go out and little enough is in flight."""
        if self._transport is None or self._transport.is_closing():
            return
        wanted = self._requests.may_read() and self._writable
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._heard = self._began = self._server.loop.time()
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def check(self, now: float) -> None:
        """Called about once a second: hang up on whoever is too slow."""
        config = self._config
        slow_seconds = self._pace.seconds(now, self._unsent)
        if not self._writable and slow_seconds > config.write_stall_seconds:
            self._server.metrics.refused.labels("stalled").inc()
            self.abort()
        elif self._transport is not None and self._transport.is_closing():
            # What is left is to be taken, and TLS wants an answer: the peer may do neither, ever.
            if not self._is_closing:
                self._is_closing = True
                self._pace.begin(now, self._unsent)
            elif slow_seconds > config.write_stall_seconds:
                self.abort()
        elif self._connection.state in {State.NEW, State.GREETED}:
            if now - self._began > config.greeting_seconds:
                self._too_slow("greeting", config.greeting_seconds)
        elif not self._reading:
            return
        elif self._connection.pending_bytes and now - self._began > config.frame_seconds:
            self._too_slow("frame", config.frame_seconds)
        elif (
            self.under_way.is_empty
            and now - max(self._heard, self.under_way.last_ended) > config.idle_seconds
        ):
            self._server.metrics.refused.labels("idle").inc()
            self.close()

    def _too_slow(self, what: str, seconds: float) -> None:
        self._server.metrics.refused.labels(what).inc()
        self._hang_up(ProtocolError(f"a {what} was not finished within {seconds:g} s"))

    def _hang_up(self, error: ChronikError) -> None:
        """Say why, if it can still be said, and close."""
        if self._transport is None or self._transport.is_closing():
            return
        # The state machine may be past saying anything; a last word needs none of it.
        farewell = Connection(Side.SERVER).send(Failure(NO_REQUEST, error))
        self._flush()
        self._transport.write(b"".join(farewell))
        self.close()

    def close(self) -> None:
        """Flush and hang up."""
        self._flush()
        # Once: closed again, asyncio's TLS forgets what it closes, and cannot even cut it.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection; what was not sent is lost."""
        if self._transport is not None:
            self._transport.abort()
