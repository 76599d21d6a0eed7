"""One connection to one node: many questions in flight, each answered once.

Place: under `routing`; the bytes are `protocol.connection`'s. Promise: `ask` ends with the answer,
with the typed error that the node sent, or with ConnectionLostError: `request_seconds` after its
turn, for what may take longer when its patience has ended (`patience`), or when a ping that is sent
meanwhile has no answer. Invariants: never more questions are in flight than the node said it takes:
others wait for their turn; after a loss the channel stays lost: whoever wants another opens one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from chronik_server.addresses import Address
from chronik_server.client.options import ClientOptions
from chronik_server.client.patience import Watch, patience_seconds
from chronik_server.client.places import Places
from chronik_server.errors import ConnectionLostError, ProtocolError
from chronik_server.protocol.connection import Connection, Limits
from chronik_server.protocol.events import (
    NO_REQUEST,
    Closed,
    Event,
    Failure,
    Request,
    Response,
    Told,
)
from chronik_server.protocol.frames import VERSION
from chronik_server.protocol.greeting import Hello, PeerIdentity, Ping, Welcome
from chronik_server.protocol.states import Side, State
from chronik_server.protocol.table import VERB_OF
from chronik_server.protocol.writing import write_all
from chronik_server.tls import not_believed
from chronik_server.turn import Turn
from chronik_store.errors import ChronikError, ConfigError, RecordTooLargeError
from chronik_store.format.checksum import Buffer
from chronik_store.format.shape import ShapeError

SOFTWARE = "chronik python client"
T = TypeVar("T")


class Channel(asyncio.BufferedProtocol):
    """A connection that has been greeted. Belongs to the event loop that opened it."""

    def __init__(
        self,
        address: Address,
        options: ClientOptions,
        on_told: Callable[[Any, Buffer], None] | None = None,
        turn: Turn | None = None,
    ) -> None:
        self.address = address
        self.on_lost: Callable[[], None] = _nobody
        """Called once when nothing can be asked or heard here any more."""
        self._on_told = on_told
        self.welcome: Welcome | None = None
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._turn = Turn(self._loop) if turn is None else turn
        self._connection = Connection(Side.CLIENT, Limits(options.frame_bytes_max, 1 << 20))
        self._places = Places(self._connection.in_flight, 1)
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[Response]] = {}
        self._lost: ChronikError | None = None
        self._out: list[Buffer] = []
        self._room = asyncio.Event()
        self._room.set()
        self._ended = asyncio.Event()
        self._pinged: asyncio.TimerHandle | None = None

    @classmethod
    async def open(
        cls,
        address: Address,
        options: ClientOptions,
        *,
        peer: PeerIdentity | None = None,
        node_id: str | None = None,
        on_told: Callable[[Any, Buffer], None] | None = None,
        turn: Turn | None = None,
    ) -> Channel:
        """Connect and greet. ConnectionLostError, CertificateError, or what the node says against
        it.

        peer: a node that calls says who it is; on_told then takes what it is told one way. node_id:
        of one that asks as a client. turn: shared with whatever else its owner sends.
        """
        loop = asyncio.get_running_loop()
        context = None if options.tls is None else options.tls.client_context()
        try:
            async with asyncio.timeout(options.connect_seconds):
                transport, channel = await loop.create_connection(
                    lambda: cls(address, options, on_told, turn),
                    address.host,
                    address.port,
                    ssl=context,
                )
        except ssl.SSLCertVerificationError as error:
            # The next attempt would see the same certificate.
            raise not_believed(str(address), error) from error
        except (OSError, TimeoutError, ValueError) as error:
            # ValueError: no name of a host, as far as the resolver is concerned.
            reason = str(error) or f"no answer within {options.connect_seconds:g} s"
            raise ConnectionLostError(f"cannot connect to {address}: {reason}") from error
        if _is_its_own(transport):
            transport.abort()  # while it is there nobody else can listen
            raise ConnectionLostError(f"cannot connect to {address}: nobody listens there")
        hello = Hello((VERSION,), SOFTWARE, options.token, peer, node_id)
        try:
            answer = await channel.ask(hello, timeout_seconds=options.connect_seconds)
        except ConnectionLostError as error:
            channel.close()
            raise ConnectionLostError(
                f"{error}, before it answered a greeting: {_may_want(options)}?"
            ) from error
        except BaseException:
            channel.close()
            raise
        channel.welcomed(answer.message)
        return channel

    def welcomed(self, welcome: Welcome) -> None:
        """The node has said who it is and what it takes."""
        self.welcome = welcome
        self._connection.set_peer_limit(welcome.frame_bytes_max)
        self._places.limit = max(1, welcome.in_flight_max)

    @property
    def is_lost(self) -> bool:
        """Nothing can be asked here any more."""
        return self._lost is not None

    @property
    def in_flight(self) -> int:
        """Questions without an answer yet."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """The node takes no more questions before it has answered one: wait for `turn_to_ask`."""
        return self._lost is None and self._places.is_full

    # --- asking ----------------------------------------------------------------------------------

    async def ask(
        self, message: Any, payload: Buffer = b"", *, timeout_seconds: float | None = None
    ) -> Response:
        """One question, one answer. Typed errors of the node are raised as they are. Who gives up
        the wait leaves a question that still has its place, and its end.
        """
        if timeout_seconds is None:
            timeout_seconds = self._options.request_seconds
            timeout_seconds += patience_seconds(message, self.welcome)
        if self.is_full:
            await self.turn_to_ask(timeout_seconds)
        future = self.post(message, payload)
        watch = Watch(self, future, timeout_seconds, self._options.request_seconds)
        try:
            if not (self._room.is_set() or future.done()):
                await self._room.wait()
            return await future
        finally:
            watch.leave()

    def owes(self, answer: asyncio.Future[Response]) -> bool:
        """The node has not answered this yet, whether or not somebody waits for it."""
        return answer in self._waiting.values()

    def prove_alive(self) -> None:
        """Ask for a sign of life, unless that is asked already; without one the channel is lost.

        A node that takes no more questions now is not asked: each of those has its own end.
        """
        if self._pinged is None and not self.is_full and self._lost is None:
            seconds = self._options.request_seconds
            self._pinged = self._loop.call_later(seconds, self.give_up, seconds)
            self.post(Ping()).add_done_callback(self._is_alive)

    def _is_alive(self, answer: asyncio.Future[Response]) -> None:
        if self._pinged is not None:
            self._pinged.cancel()
            self._pinged = None
        if not answer.cancelled():
            answer.exception()  # marked as seen: whatever it is, the questions get it too

    async def turn_to_ask(self, timeout_seconds: float) -> None:
        """Return when `post` may be called, at once; after `timeout_seconds` BackpressureError."""
        await self._places.next(timeout_seconds)

    def post(self, message: Any, payload: Buffer = b"") -> asyncio.Future[Response]:
        """Send now, in order; the future gets the answer. Errors of sending are in it too.

        Not while `is_full`.
        """
        future: asyncio.Future[Response] = self._loop.create_future()
        if self._lost is not None:
            future.set_exception(self._lost)
            return future
        number = self._connection.next_request_id()
        request = Request(number, VERB_OF[type(message)], message, payload)
        try:
            self._queue(self._connection.send(request))
        except ValueError as error:
            future.set_exception(_unsendable(error, len(payload)))
            self._places.hand_on()  # no answer will: whoever waits has the place of this one
            return future
        self._waiting[number] = future
        return future

    def tell(self, message: Any, payload: Sequence[Buffer] = ()) -> None:
        """Say something that is not answered; lost with the connection, silently.

        RecordTooLargeError when the other side takes no frame that long; ConfigError when no frame
        can say that.
        """
        if self._lost is not None:
            return
        try:
            self._queue(self._connection.tell(message, payload))
        except ValueError as error:
            raise _unsendable(error, sum(map(len, payload))) from error

    async def drained(self) -> None:
        """Return when the connection takes more: for those who only tell. One that takes nothing
        for too long is given up.
        """
        seconds = self._options.request_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._room.wait()
        except TimeoutError:
            self.give_up(seconds)

    def _queue(self, buffers: Sequence[Buffer]) -> None:
        if not self._out:
            self._turn.speak(self._flush)
        self._out += buffers

    def _flush(self) -> None:
        out, self._out = self._out, []
        # A closing one takes nothing more, and uvloop's says so by raising.
        if out and self._transport is not None and not self._transport.is_closing():
            write_all(self._transport, out)

    # --- asyncio's side --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where bytes are read to: those of a long answer to where they stay."""
        return self._connection.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        self._turn.run(self._take, self._connection.buffer_updated, nbytes)

    def eof_received(self) -> None:
        """The node has hung up."""
        self._take(self._connection.receive_data, b"")

    def _take(self, receive: Callable[[T], list[Event]], new: T) -> None:
        try:
            for event in receive(new):
                self._on_event(event)
        except ChronikError as error:
            self._lose(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing comes any more."""
        self._ended.set()
        self._lose(ConnectionLostError(f"the connection to {self.address} was lost: {exc}"))

    def pause_writing(self) -> None:
        """The node is slower than the questions."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._room.set()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Told) and self._on_told is not None:
            self._on_told(event.message, event.payload)
        elif isinstance(event, Response):
            future = self._waiting.pop(event.request_id)
            if not future.done():
                future.set_result(event)
        elif isinstance(event, Failure) and event.request_id != NO_REQUEST:
            future = self._waiting.pop(event.request_id)
            if not future.done():
                future.set_exception(event.error)
        elif isinstance(event, Failure):
            self._lose(event.error)
        elif isinstance(event, Closed):
            self._lose(ConnectionLostError(f"{self.address} has closed the connection"))
        else:
            self._lose(ProtocolError(f"{self.address} said what only a client says"))
        self._places.hand_on()

    def give_up(self, seconds: float) -> None:
        """An answer is late: half-open, paused or stuck, the connection is of no more use."""
        self._lose(ConnectionLostError(f"{self.address} has not answered for {seconds:g} s"))

    def _lose(self, error: ChronikError) -> None:
        if self._lost is None:
            self._fail_all(error)
            self.on_lost()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()

    def _fail_all(self, error: ChronikError) -> None:
        """From here on nothing can be asked; whoever waits for an answer gets the error."""
        self._lost = error
        self._room.set()
        self._places.open()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(error)
                future.exception()  # marked as seen: its waiter may be gone

    @property
    def backlog_bytes(self) -> int:
        """What waits to be sent."""
        unsent = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return sum(map(len, self._out)) + unsent

    def close(self) -> None:
        """Hang up; what is unanswered fails as ConnectionLostError."""
        self._flush()
        if self._lost is None and self._transport is not None:
            self._transport.close()
        self._connection.state = State.CLOSED
        if self._lost is None:  # and nobody is told: whoever closes knows
            self._fail_all(ConnectionLostError(f"the connection to {self.address} is closed"))

    async def sent(self) -> None:
        """Return when everything that was said before `close` has left, as far as this side can
        tell: what was told one way has no answer. Who does not take it for too long is cut off.
        """
        if self._transport is None or not self.backlog_bytes:
            return
        try:
            async with asyncio.timeout(self._options.request_seconds):
                await self._ended.wait()
        except TimeoutError:
            self._transport.abort()

    def abort(self) -> None:
        """Hang up without sending what waits; `on_lost` is called."""
        self._lose(ConnectionLostError(f"the connection to {self.address} was cut here"))


def _is_its_own(transport: asyncio.BaseTransport) -> bool:
    """It has met itself: of a port of this machine on which nobody listens, and which the system
    gave to this end just then.
    """
    own = transport.get_extra_info("sockname")
    return own is not None and own == transport.get_extra_info("peername")


def _may_want(options: ClientOptions) -> str:
    """Of whoever hangs up without a word, as TLS has it."""
    if options.tls is None:
        return "does it ask for TLS"
    if options.tls.certificate is None:
        return "does it ask for a client certificate"
    return "does it believe this client's certificate"


def _nobody() -> None:
    """Nobody wants to know."""


def _unsendable(error: ValueError, size_bytes: int) -> ChronikError:
    if isinstance(error, ShapeError):  # an argument, of whoever called
        return ConfigError(f"this cannot be asked: {error}", durability="not_durable")
    return RecordTooLargeError(f"cannot be sent: {error}", size_bytes=size_bytes, limit_bytes=0)
