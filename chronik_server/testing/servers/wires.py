"""Connections between simulated machines: bytes in order, late, cut into pieces, or not at all.

Place: under `simulated_loop`, which connects and listens by it. Promise: what TCP promises and no
more: while both ends live and the way between them is open, bytes arrive once and in order; a
process that ends hangs up on everybody; a machine without power says nothing, and refuses what
comes once it is back; a cut way holds everything back until it is open again. Invariant: what is on
its way is bounded by WINDOW_BYTES, behind which the sender's buffer fills and `pause_writing` is
called.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from chronik_server.testing.servers.simulated_loop import SimulatedLoop

WINDOW_BYTES: Final = 256 << 10
HIGH_WATER_BYTES: Final = 64 << 10
RETRY_SECONDS: Final = 0.2
"""Between two attempts to get through."""
PIECES_CHANCE: Final = 0.05
"""That what is read at once is cut in two somewhere."""


class Wires:
    """Of one simulation.

    delays: seconds that a piece takes, one of these; may be changed at any time, as may `cut`.
    """

    def __init__(self, rng: random.Random, delays: tuple[float, ...]) -> None:
        self.delays = delays
        self.cut: set[tuple[str, str]] = set()
        """(from, to): nothing gets through in this direction."""
        self.silent: set[str] = set()
        """Hosts without power: whoever is there no more says nothing."""
        self.rng = rng
        self._listeners: dict[tuple[str, int], Listener] = {}
        self._open: set[End] = set()

    # --- what befalls them -----------------------------------------------------------------------

    def isolate(self, hosts: Iterable[str], others: Iterable[str]) -> None:
        """Nothing gets through between these and the others."""
        others = tuple(others)
        for host in hosts:
            for other in others:
                self.cut |= {(host, other), (other, host)}

    def heal(self) -> None:
        """Everything gets through."""
        self.cut.clear()

    def process_ended(self, loop: SimulatedLoop) -> None:
        """Its machine's kernel hangs up on everybody it was connected with."""
        for end in self._sorted():
            if end.loop is loop:
                end.way.reset()
                self._open.discard(end)

    def break_some(self, host: str) -> None:
        """Connections of this host break, at both ends."""
        for end in self._sorted():
            if end.loop.host == host and end.loop.owner.is_alive and self.rng.random() < 0.5:
                end.broken()
                if end.other.loop.owner.is_alive:
                    end.other.broken()

    def _sorted(self) -> list[End]:
        return sorted(self._open, key=lambda end: end.number)

    # --- for loops -------------------------------------------------------------------------------

    def listener(
        self, loop: SimulatedLoop, factory: Callable[[], Any], host: str, port: int
    ) -> Listener:
        """A place that is taken, and serves nobody yet."""
        assert host == loop.host, f"{loop.host} cannot listen as {host}"
        known = self._listeners.get((host, port))
        if known is not None and known.is_held:
            raise OSError(f"{host}:{port} is in use")
        self._listeners[host, port] = made = Listener(loop, factory, host, port)
        return made

    async def connect(
        self, loop: SimulatedLoop, factory: Callable[[], Any], host: str, port: int
    ) -> tuple[End, Any]:
        """As soon as somebody answers there; ConnectionRefusedError when the host says no."""
        await asyncio.sleep(self.rng.choice(self.delays))
        while (listener := self._reached(loop.host, host, port)) is None:  # noqa: ASYNC110 (SYNs)
            await asyncio.sleep(RETRY_SECONDS)
        end, other = End(self, loop), End(self, listener.loop)
        end.other, other.other = other, end
        self._open |= {end, other}
        protocol = factory()
        end.begin(protocol)
        listener.loop.from_outside(lambda: other.begin(listener.factory()))
        return end, protocol

    def _reached(self, source: str, host: str, port: int) -> Listener | None:
        """Who accepts there; None: nobody says anything."""
        if self.cut & {(source, host), (host, source)}:
            return None
        listener = self._listeners.get((host, port))
        if listener is not None and listener.is_serving:
            return listener
        if host in self.silent:
            return None
        raise ConnectionRefusedError(f"{host}:{port} refuses connections")

    def closed(self, end: End) -> None:
        """It is of no more interest."""
        self._open.discard(end)


class Listener:
    """What `create_server` returns, as far as the product looks at it."""

    def __init__(
        self, loop: SimulatedLoop, factory: Callable[[], Any], host: str, port: int
    ) -> None:
        self.loop, self.factory = loop, factory
        self._address = (host, port)
        self._is_open, self._is_closed = False, False

    @property
    def is_held(self) -> bool:
        """Nobody else may listen there."""
        return self.loop.owner.is_alive and not self._is_closed

    @property
    def is_serving(self) -> bool:
        """Connections are accepted, by the kernel at least."""
        return self._is_open and self.is_held

    @property
    def sockets(self) -> tuple[Listener, ...]:
        """One, which has a name."""
        return (self,)

    def getsockname(self) -> tuple[str, int]:
        """Where it listens."""
        return self._address

    async def start_serving(self) -> None:
        """From now on."""
        self._is_open = True

    def close(self) -> None:
        """Not any more; what is connected stays so."""
        self._is_closed = True


class End(asyncio.Transport):
    """One end of a connection, as its protocol sees it."""

    _numbers = 0

    def __init__(self, wires: Wires, loop: SimulatedLoop) -> None:
        super().__init__()
        End._numbers += 1
        self.number = End._numbers
        self.loop = loop
        self.other: End
        self.way = Way(wires, self)
        """What this end sends goes by it."""
        self._wires = wires
        self._protocol: Any = None
        self._inbox: deque[bytes] = deque()
        self._has_eof = False
        self._is_reading = True
        self._is_closing = False
        self._is_lost = False
        self._is_paused = False
        """Its protocol is to write no more."""

    def begin(self, protocol: Any) -> None:
        """In this end's own loop."""
        self._protocol = protocol
        protocol.connection_made(self)
        self._read()

    # --- asyncio's side --------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.other.loop.host if name == "peername" else default

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self.loop.call_soon(self._read)

    def get_write_buffer_size(self) -> int:
        return self.way.waiting_bytes

    def write(self, data: Any) -> None:
        if not self._is_closing and data:
            self.way.send(bytes(data))
            self.pressed()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """What was written arrives, then the end of it."""
        if not self._is_closing:
            self._is_closing = True
            self._is_reading = False
            self.way.finish()

    def abort(self) -> None:
        """At once, and nothing more arrives."""
        if not self._is_lost:
            self.way.reset()
            self._lose(None)

    # --- the wires' side -------------------------------------------------------------------------

    def pressed(self) -> None:
        """More or less waits to be sent than before."""
        waiting = self.way.waiting_bytes
        if self._is_lost or not self.loop.owner.is_alive:
            return
        if not self._is_paused and waiting > HIGH_WATER_BYTES:
            self._is_paused = True
            self._protocol.pause_writing()
        elif self._is_paused and waiting <= HIGH_WATER_BYTES // 4:
            self._is_paused = False
            self._protocol.resume_writing()

    def arrived(self, data: bytes) -> None:
        """From outside of its loop; no bytes: that was all."""
        if data:
            self._inbox.append(data)
        else:
            self._has_eof = True
        self.loop.from_outside(self._read)

    def broken(self) -> None:
        """From outside of its loop: the other end is gone."""
        self.loop.from_outside(self._lose, ConnectionResetError("connection reset by peer"))

    def all_sent(self) -> None:
        """Behind `close`: there is nothing left to do here."""
        self.loop.from_outside(self._lose, None)

    def _lose(self, error: Exception | None) -> None:
        self._is_closing = True
        if not self._is_lost:
            self._is_lost = True
            self._inbox.clear()
            self._wires.closed(self)
            self.loop.call_soon(self._tell_lost, error)

    def _tell_lost(self, error: Exception | None) -> None:
        if self._protocol is not None:
            self._protocol.connection_lost(error)

    def _read(self) -> None:
        """Hand over what has come, in pieces of any size."""
        if self._protocol is None:
            return
        rng = self._wires.rng
        while self._inbox and self._is_reading and not self._is_lost:
            data = self._inbox.popleft()
            buffer = self._protocol.get_buffer(-1)
            count = min(len(buffer), len(data))
            if count > 1 and rng.random() < PIECES_CHANCE:
                count = rng.randrange(1, count)
            buffer[:count] = data[:count]
            if count < len(data):
                self._inbox.appendleft(data[count:])
            self.other.way.taken(count)
            self._protocol.buffer_updated(count)
        if self._has_eof and not self._inbox and self._is_reading and not self._is_lost:
            self._has_eof = False
            if not self._protocol.eof_received():
                self.close()


class Way:
    """One direction of a connection."""

    def __init__(self, wires: Wires, sender: End) -> None:
        self._wires, self._sender = wires, sender
        self._scheduler = sender.loop.scheduler
        self._waiting: deque[bytes] = deque()
        self.waiting_bytes = 0
        """Written, and not on their way yet."""
        self._flying: deque[bytes] = deque()
        self._window = WINDOW_BYTES
        self._is_finished = False
        self._is_over = False
        self._is_reset = False
        self._last_arrival = 0.0

    def send(self, data: bytes) -> None:
        """Behind what was sent before."""
        if not self._is_over:
            self._waiting.append(data)
            self.waiting_bytes += len(data)
            self._pump()

    def finish(self) -> None:
        """Behind everything comes the end."""
        self._is_finished = True
        self._pump()

    def reset(self) -> None:
        """What is on its way is lost, and the other end learns that nobody is here."""
        if not self._is_reset:
            self._is_over = self._is_reset = True
            self._waiting.clear()
            self.waiting_bytes = 0
            self._flying.clear()
            self._fly(b"")

    def taken(self, count: int) -> None:
        """The receiver has read so much: as much may follow."""
        self._window += count
        if self._waiting or self._is_finished:
            self._pump()
            self._sender.loop.from_outside(self._sender.pressed)

    def _pump(self) -> None:
        while self._waiting and self._window > 0:
            data = self._waiting.popleft()
            if len(data) > self._window:
                self._waiting.appendleft(data[self._window :])
                data = data[: self._window]
            self._window -= len(data)
            self.waiting_bytes -= len(data)
            self._fly(data)
        if self._is_finished and not self._waiting and not self._is_over:
            self._is_over = True
            self._fly(b"")
            self._sender.all_sent()

    def _fly(self, data: bytes) -> None:
        self._flying.append(data)
        self._last_arrival = max(
            self._last_arrival, self._scheduler.now + self._wires.rng.choice(self._wires.delays)
        )
        self._scheduler.later(self._last_arrival - self._scheduler.now, self._arrive)

    def _arrive(self) -> None:
        """The first of what flies has come as far as the other host."""
        if not self._flying:
            return  # it was reset meanwhile
        receiver, wires = self._sender.other, self._wires
        source, target = self._sender.loop.host, receiver.loop.host
        is_there = receiver.loop.owner.is_alive
        if (source, target) in wires.cut or (not is_there and target in wires.silent):
            if self._sender.loop.owner.is_alive or source not in wires.silent:
                self._scheduler.later(RETRY_SECONDS, self._arrive)
            return
        data = self._flying.popleft()
        if not is_there:
            self._flying.clear()
            self._sender.broken()
        elif self._is_reset:
            receiver.broken()
        else:
            receiver.arrived(data)
