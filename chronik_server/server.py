"""The listener: connections in, sessions out, a clean end.

Place: the top of the server; owns the socket, the sessions, the sweep that hangs up on the slow.
Promise: `start` refuses to serve strangers in the clear (`ServerConfig.check_exposure`); `stop`
hands over what is led while it is served, then takes no new request, sees appends through for up to
`shutdown_seconds`, and closes everything: clients, the backend, and last the connections of other
nodes, by which it hands over the rest. Invariant: one event loop, and nothing on it blocks.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable

import chronik_store
from chronik_server.addresses import Address
from chronik_server.answer_room import AnswerBudget
from chronik_server.backend import Backend
from chronik_server.config import ServerConfig
from chronik_server.handlers import Handlers
from chronik_server.handshakes import Handshakes
from chronik_server.metrics import ServerMetrics
from chronik_server.protocol.frames import READ_BYTES, VERSION
from chronik_server.protocol.greeting import PeerIdentity, Welcome
from chronik_server.request_room import RequestBudget
from chronik_server.session import Session
from chronik_store.clock import Clock
from chronik_store.config import LogConfig
from chronik_store.errors import ConfigError, UnavailableError

logger = logging.getLogger("chronik_server.server")

SEARCH_SECONDS = LogConfig().search_deadline_seconds
SWEEP_SECONDS = 0.5
BACKLOG = 1024
"""So many may be accepted in one turn, before those that are too many can be refused."""
FAREWELL_SECONDS = 1.0
"""How long last answers may take to leave before connections are cut."""


class Server:
    """One node's RPC. Make it, `start` it and `stop` it on one event loop."""

    def __init__(
        self,
        backend: Backend,
        config: ServerConfig,
        *,
        clock: Clock,
        batch_bytes_max: int,
        search_seconds: float = SEARCH_SECONDS,
    ) -> None:
        self.backend = backend
        self.config = config
        self.metrics = ServerMetrics()
        self.handlers = Handlers(
            backend,
            clock,
            batch_bytes_max=batch_bytes_max,
            fetch_bytes_max=config.frame_bytes_max,
            search_seconds=search_seconds,
        )
        self.answers = AnswerBudget(config.answers_bytes_max)
        self.requests = RequestBudget(config.requests_bytes_max)
        self.sessions: dict[Session, None] = {}
        """In the order in which they came."""
        self.software = f"chronik {chronik_store.__version__}"
        self.nodes = 0
        """Connections of other nodes, among the sessions: their links."""
        self.asking: set[Session] = set()
        """Those by which other nodes ask as clients do, as far as there are places for it."""
        self.left_bytes = 0
        """Of appends on their way that were told by connections which have ended."""
        self.leaving = False
        """It is to end, and answers still."""
        self.stopping = False
        """It answers no more."""
        self.turn = backend.turn
        self.read_buffer = memoryview(bytearray(READ_BYTES))
        """Of all connections: each takes out what came before another one reads."""
        self._one_less = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop
        self._listener: asyncio.Server | None = None
        self._handshakes: Handshakes | None = None
        self._sweep: asyncio.TimerHandle | None = None

    async def start(self) -> Address:
        """Listen; returns the address (with the port that was free, if 0 was asked for).

        ConfigError when the listener would be exposed or cannot be had.
        """
        config = self.config
        config.check_exposure()
        self.loop = asyncio.get_running_loop()
        accepted: Callable[[], asyncio.BaseProtocol] = functools.partial(Session, self)
        if config.tls is not None:
            self._handshakes = Handshakes(
                config.tls.server_context(),
                config.greeting_seconds,
                is_full=lambda: self.is_full(self.connections),
                refused=lambda reason: self.metrics.refused.labels(reason).inc(),
                session=accepted,
            )
            accepted = self._handshakes.accepted
        try:
            self._listener = await self.loop.create_server(
                accepted,
                config.listen.host,
                config.listen.port,
                backlog=min(BACKLOG, max(16, config.connections_max // 4)),
                start_serving=False,  # nobody is heard before the backend can answer
            )
        except OSError as error:
            raise ConfigError(f"cannot listen on {config.listen}: {error}") from error
        host, port = self._listener.sockets[0].getsockname()[:2]
        address = Address(str(host), int(port))
        await self.backend.start(str(config.advertise or address))
        await self._listener.start_serving()
        self._sweep = self.loop.call_later(SWEEP_SECONDS, self._check_sessions)
        logger.info("node %s listens on %s", config.node_id, address)
        return address

    @property
    def connections(self) -> int:
        """Open now, those that still shake hands included."""
        return len(self.sessions) + (0 if self._handshakes is None else len(self._handshakes))

    @property
    def clients(self) -> int:
        """Connections that are not another node's, as far as they have said."""
        return len(self.sessions) - self.nodes - len(self.asking)

    def is_full(self, connections: int) -> bool:
        """With so many of them nobody more may come in; one that is a client is looked at once
        more when it has said so.
        """
        places = self.config.node_connections_max if self.backend.has_peers else 0
        return connections >= self.config.connections_max + places

    def admit(self, session: Session, node_id: str | None) -> None:
        """A client has greeted, or a node that asks as one: half of the places of nodes are for
        that at most, the others are for their links. UnavailableError: there is none left.
        """
        places = self.config.node_connections_max // 2 if self.backend.has_peers else 0
        if node_id is not None and len(self.asking) < places:
            self.asking.add(session)
        elif self.clients > self.config.connections_max:
            raise self.refused_as_full()

    def refused_as_full(self) -> UnavailableError:
        """What is said to one that is too many; it is counted."""
        self.metrics.refused.labels("connections").inc()
        return UnavailableError(f"{len(self.sessions)} connections are open, the most allowed")

    def welcome(self, peer: PeerIdentity | None) -> Welcome:
        """What is said to one that has greeted. peer: and to a node, of this one."""
        config, identity = self.config, self.backend.identity
        return Welcome(
            version=VERSION,
            software=self.software,
            cluster_id=identity.cluster_id,
            node_id=identity.node_id,
            boot_id=identity.boot_id,
            frame_bytes_max=config.frame_bytes_max,
            in_flight_max=config.in_flight_requests_max,
            peer=peer,
            search_ms=self.handlers.search_ms,
        )

    def _check_sessions(self) -> None:
        now = self.loop.time()
        try:
            for session in list(self.sessions):
                try:
                    session.check(now)
                except Exception:
                    logger.exception("a connection could not be looked at, and is cut")
                    self.loop.call_soon(session.abort)  # whose failure is nobody else's either
        finally:
            self._sweep = self.loop.call_later(SWEEP_SECONDS, self._check_sessions)

    async def stop(self) -> None:
        """Graceful, once. The backend is closed with it."""
        if self.leaving:
            return
        self.leaving = True
        if self._listener is not None:
            self._listener.close()
        if self._handshakes is not None:
            await self._handshakes.stop()
        await self.backend.hand_over()
        self.stopping = True
        tasks = [task for session in self.sessions for task in session.under_way.end_waits()]
        if tasks:
            await asyncio.wait(tasks, timeout=self.config.shutdown_seconds)
            await asyncio.sleep(0)  # what they answered is on its way to the sockets
        await self._see_off([each for each in self.sessions if not each.is_of_a_node])
        await self.backend.close()
        await self._see_off(list(self.sessions))
        if self._sweep is not None:
            self._sweep.cancel()
        logger.info("node %s has stopped", self.config.node_id)

    async def _see_off(self, sessions: list[Session]) -> None:
        """Return when these connections have ended; those that take nothing are cut."""
        for session in sessions:
            session.close()
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                while any(session in self.sessions for session in sessions):
                    self._one_less.clear()
                    await self._one_less.wait()
        except TimeoutError:
            for session in sessions:
                if session in self.sessions:
                    session.abort()
            await asyncio.sleep(0)

    def forget(self, session: Session) -> None:
        """A connection has ended."""
        if session in self.sessions:
            del self.sessions[session]
            self.nodes -= session.is_of_a_node
            self.asking.discard(session)
            self.metrics.connections.dec()
            self._one_less.set()
