"""One connection, without its socket: bytes in, events out; events in, bytes out.

Strategy: whoever owns a socket feeds what it reads to `receive_data` and writes what `send`
returns. Nothing here waits, and nothing knows the time.

Place: the top of `protocol`. Promise: whatever bytes come, `receive_data` returns events or raises
ProtocolError (FutureVersionError for a newer protocol), after which the connection is FAILED and
the only thing left is to hang up. A request that stands in a good frame but cannot be read comes
as `Unreadable` and costs the connection nothing. Invariant: each response belongs to exactly one
request in flight; the table in `states` decides what may happen when.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from chronik_server import errors
from chronik_server.errors import LocalProtocolError, ProtocolError
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
from chronik_server.protocol.frames import (
    FRAME_BYTES_MAX,
    Frame,
    FrameDecoder,
    FrameKind,
    encode_frame,
)
from chronik_server.protocol.message import ITEMS_MAX
from chronik_server.protocol.states import TRANSITIONS, Move, Side, State, moves_of
from chronik_server.protocol.table import EXCHANGES, ONE_WAY, VERB_OF
from chronik_server.protocol.verbs import Verb
from chronik_store.errors import BackpressureError, ChronikError, CorruptionError
from chronik_store.format import cbor
from chronik_store.format.checksum import Buffer

GREETING_BYTES_MAX: Final = 64 << 10
"""A frame before the greeting is done: who has not proved anything gets no more memory."""
REQUEST_ID_MAX: Final = (1 << 32) - 1
T = TypeVar("T")
ENDED: Final = frozenset((State.CLOSED, State.FAILED))
"""States in which nothing more is said."""
_VERBS: Final = {int(verb): verb for verb in Verb}


@dataclass(frozen=True, slots=True)
class Limits:
    """frame_bytes_max: of one frame, head included. in_flight_max: requests not yet answered."""

    frame_bytes_max: int = 72 << 20
    in_flight_max: int = 4096


class Connection:
    """Either end of a connection. Not thread-safe."""

    def __init__(
        self, side: Side, limits: Limits = Limits(), read_buffer: memoryview | None = None
    ) -> None:
        self.side = side
        self.limits = limits
        self.state = State.NEW
        self.in_flight: dict[int, int] = {}
        """Request id -> verb, of what has not been answered."""
        self._decoder = FrameDecoder(min(GREETING_BYTES_MAX, limits.frame_bytes_max), read_buffer)
        self._last_id = NO_REQUEST
        other = Side.CLIENT if side is Side.SERVER else Side.SERVER
        self._departures, self._arrivals = moves_of(side), moves_of(other)
        self._peer_frame_bytes_max = FRAME_BYTES_MAX
        self._received: dict[int, Callable[[Frame], Event]] = {
            FrameKind.REQUEST: self._request,
            FrameKind.RESPONSE: self._response,
            FrameKind.ERROR: self._failure,
            FrameKind.ONE_WAY: self._told,
        }

    @property
    def pending_bytes(self) -> int:
        """How much of an unfinished frame has come in."""
        return self._decoder.pending_bytes

    def set_peer_limit(self, frame_bytes_max: int) -> None:
        """The other side said how long a frame it takes: `send` refuses longer ones."""
        self._peer_frame_bytes_max = frame_bytes_max

    # --- in --------------------------------------------------------------------------------------

    def receive_data(self, data: Buffer) -> list[Event]:
        """The events that these bytes complete; no bytes: the other side has hung up."""
        if len(data):
            return self._complete(self._decoder.feed, data)
        if self.state in ENDED:
            return []
        cut = bool(self._decoder.pending_bytes)
        self._move(Move.HANG_UP)
        return [Closed(cut)]

    def get_buffer(self) -> memoryview:
        """Where the next bytes belong; for who reads into buffers, instead of `receive_data`."""
        return self._decoder.get_buffer()

    def buffer_updated(self, count: int) -> list[Event]:
        """The events that `count` bytes in that buffer complete."""
        return self._complete(self._decoder.buffer_updated, count)

    def _complete(self, take: Callable[[T], list[Frame]], new: T) -> list[Event]:
        if self.state in ENDED:
            return []
        try:
            return [self._received[frame.kind](frame) for frame in take(new)]
        except ChronikError:
            self.state = TRANSITIONS[self.state, Move.FAULT]
            raise

    def _request(self, frame: Frame) -> Event:
        greeting = frame.verb == Verb.HELLO
        self._arrive(Move.GREETING if greeting else Move.REQUEST)
        number = frame.request_id
        if number == NO_REQUEST or number in self.in_flight:
            raise ProtocolError(f"request id {number} is reserved or in use")
        is_surplus = len(self.in_flight) >= self.limits.in_flight_max
        self.in_flight[number] = frame.verb
        if is_surplus:
            most = self.limits.in_flight_max
            return Unreadable(
                number,
                BackpressureError(f"{most} requests of this connection wait for their answers, the "
                                  "most allowed: ask again when some are answered"),
            )  # fmt: skip
        exchange = EXCHANGES.get(frame.verb)
        if exchange is None or exchange.response is None:
            error = ProtocolError(
                f"verb {frame.verb} is not known here: who asks is newer; upgrade this node for it"
            )
            return Unreadable(number, error)
        try:
            message = exchange.request.decode(frame.header)
        except ProtocolError as error:
            return Unreadable(number, error)
        return Request(number, _VERBS[frame.verb], message, frame.payload, len(frame.header))

    def _response(self, frame: Frame) -> Event:
        verb = self.in_flight.get(frame.request_id)
        if verb is None or verb != frame.verb:
            raise ProtocolError(f"an answer to request {frame.request_id}, which nobody asked")
        self._arrive(Move.WELCOME if verb == Verb.HELLO else Move.RESPONSE)
        codec = EXCHANGES[verb].response
        assert codec is not None, "a request with an id has a response"
        message = codec.decode(frame.header)
        del self.in_flight[frame.request_id]
        return Response(frame.request_id, message, frame.payload)

    def _failure(self, frame: Frame) -> Event:
        number = frame.request_id
        if number == NO_REQUEST:
            self._arrive(Move.REFUSAL)
        elif number not in self.in_flight:
            raise ProtocolError(f"an error for request {number}, which nobody asked")
        else:
            greeting = self.in_flight.pop(number) == Verb.HELLO
            self._arrive(Move.REFUSAL if greeting else Move.RESPONSE)
        try:
            item = cbor.decode(frame.header, what="error", items_max=ITEMS_MAX)
            return Failure(number, errors.from_wire(item))
        except CorruptionError as error:
            raise ProtocolError(str(error)) from error

    def _told(self, frame: Frame) -> Event:
        self._arrive(Move.TOLD)
        if frame.verb not in ONE_WAY or frame.request_id != NO_REQUEST:
            raise ProtocolError(f"verb {frame.verb} is not told one way")
        message = EXCHANGES[frame.verb].request.decode(frame.header)
        return Told(_VERBS[frame.verb], message, frame.payload, len(frame.header))

    def _arrive(self, move: Move) -> None:
        state = self._arrivals.get((self.state, move))
        if state is None:
            raise ProtocolError(f"a {move.name.lower()} came while {self.state.name.lower()}")
        if state is not self.state:
            self._enter(state)

    # --- out -------------------------------------------------------------------------------------

    def next_request_id(self) -> int:
        """An id for the next request; wraps around, and skips those in flight."""
        number = self._last_id
        while True:
            number = number % REQUEST_ID_MAX + 1
            if number not in self.in_flight:
                self._last_id = number
                return number

    def send(
        self, event: Request | Response | Failure | Told, more: Sequence[Buffer] = ()
    ) -> list[Buffer]:
        """The bytes that say it, in order; `more` of a response's or a told one's payload follows
        the event's own. LocalProtocolError when it may not be said now; ValueError when a field or
        the whole is beyond what the wire takes, with nothing changed.
        """
        if isinstance(event, Response):
            return self._send_response(event, more)
        if isinstance(event, Request):
            return self._send_request(event)
        if isinstance(event, Told):
            return self.tell(event.message, [event.payload, *more] if event.payload else more)
        return self._send_failure(event)

    def tell(self, message: Any, payload: Sequence[Buffer] = ()) -> list[Buffer]:
        """`send` of a message that is told one way."""
        self._depart(Move.TOLD)
        verb = VERB_OF[type(message)]
        header = EXCHANGES[verb].request.encode(message)
        return self._frame(FrameKind.ONE_WAY, verb, 0, header, b"", payload)

    def _send_request(self, event: Request) -> list[Buffer]:
        verb = VERB_OF[type(event.message)]
        move = Move.GREETING if verb is Verb.HELLO else Move.REQUEST
        self._check(move)
        if event.request_id in self.in_flight or event.request_id == NO_REQUEST:
            raise LocalProtocolError(f"request id {event.request_id} is reserved or in use")
        header = EXCHANGES[verb].request.encode(event.message)
        buffers = self._frame(FrameKind.REQUEST, verb, event.request_id, header, event.payload)
        self._move(move)
        self.in_flight[event.request_id] = verb
        return buffers

    def _send_response(self, event: Response, more: Sequence[Buffer]) -> list[Buffer]:
        verb = self.in_flight.get(event.request_id)
        if verb is None:
            raise LocalProtocolError(f"request {event.request_id} is not in flight")
        move = Move.WELCOME if verb == Verb.HELLO else Move.RESPONSE
        self._check(move)
        codec = EXCHANGES[verb].response
        assert codec is not None, "a request with an id has a response"
        header = codec.encode(event.message)
        buffers = self._frame(
            FrameKind.RESPONSE, verb, event.request_id, header, event.payload, more
        )
        self._move(move)
        del self.in_flight[event.request_id]
        return buffers

    def _send_failure(self, event: Failure) -> list[Buffer]:
        verb = self.in_flight.get(event.request_id, 0)
        last = event.request_id == NO_REQUEST or verb == Verb.HELLO
        if not last and not verb:
            raise LocalProtocolError(f"request {event.request_id} is not in flight")
        self._depart(Move.REFUSAL if last else Move.RESPONSE)
        self.in_flight.pop(event.request_id, None)
        header = cbor.encode(errors.to_wire(event.error))
        return self._frame(FrameKind.ERROR, verb, event.request_id, header, b"")

    def _frame(
        self,
        kind: FrameKind,
        verb: int,
        number: int,
        header: bytes,
        payload: Buffer,
        more: Sequence[Buffer] = (),
    ) -> list[Buffer]:
        length = len(payload) + sum(map(len, more))
        head = encode_frame(kind, verb, number, header, length)
        size = len(head) + length
        if size > self._peer_frame_bytes_max:
            raise ValueError(
                f"a frame of {size} bytes; the other side takes {self._peer_frame_bytes_max}"
            )
        return [head, payload, *more] if len(payload) else [head, *more]

    def _depart(self, move: Move) -> None:
        state = self._departures.get((self.state, move))
        if state is None:
            self._check(move)
        elif state is not self.state:
            self._enter(state)

    def _check(self, move: Move) -> None:
        if (self.state, move) not in self._departures:
            raise LocalProtocolError(
                f"a {self.side.name.lower()} may not send a {move.name.lower()} while "
                f"{self.state.name.lower()}"
            )

    def _move(self, move: Move) -> None:
        state = TRANSITIONS[self.state, move]
        if state is not self.state:
            self._enter(state)

    def _enter(self, state: State) -> None:
        self.state = state
        if state is State.OPEN:
            self._decoder.frame_bytes_max = self.limits.frame_bytes_max
