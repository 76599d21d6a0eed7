"""TLS connections before they are connections: counted like any other, and bounded in time.

Place: between the listener of `server` and `session`. Promise: a socket counts against
`connections_max` from the moment it is accepted, whoever it is, and has `greeting_seconds` for its
handshake. Invariant: a socket is either here or a session's; above the limit it is cut without a
word, which could only be said in the clear.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import cast

from chronik_server.rarely import Rarely
from chronik_server.tls import not_believed

logger = logging.getLogger("chronik_server.server")


class Handshakes:
    """Of one listener. Belongs to the event loop.

    is_full: whether one more connection would be too many. refused: counts the reason for which
    somebody is hung up on. session: makes what a connection speaks with once it is one.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        seconds: float,
        *,
        is_full: Callable[[], bool],
        refused: Callable[[str], None],
        session: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        self._context = context
        self._seconds = seconds
        self._is_full = is_full
        self._refused = refused
        self._session = session
        self._tasks: set[asyncio.Task[None]] = set()
        self._rarely = Rarely(asyncio.get_running_loop().time)

    def __len__(self) -> int:
        return len(self._tasks)

    def accepted(self) -> asyncio.Protocol:
        """The protocol of a socket that was just accepted."""
        return _Accepted(self)

    def begin(self, transport: asyncio.Transport) -> None:
        """Shake hands with whoever connected, unless there are too many."""
        if self._is_full():
            self._refused("connections")
            transport.abort()
            return
        # The loop shakes hands with a socket that nobody reads yet, and says how it went.
        try:
            accepted = transport.get_extra_info("socket").dup()
        except OSError as error:
            self._refused("connections")
            logger.warning("no connection can be taken: %s", error)
            return
        finally:
            transport.abort()
        task = asyncio.get_running_loop().create_task(self._shake(accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _shake(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        who = _host_of(accepted)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._session, accepted, ssl=self._context, ssl_handshake_timeout=self._seconds
            )
        except ssl.SSLCertVerificationError as error:
            self._refused("greeting")
            if self._rarely.is_news(f"{who} {error.verify_code}"):
                logger.warning("hung up on a caller: %s", not_believed(who, error))
        except (ssl.SSLError, ConnectionAbortedError) as error:
            self._refused("greeting")
            logger.debug("no handshake: %s", error)
        except OSError as error:
            logger.debug("hung up during the handshake: %s", error)

    async def stop(self) -> None:
        """Hang up on whoever has not finished."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _host_of(accepted: socket.socket) -> str:
    try:
        return str(accepted.getpeername()[0])
    except OSError:
        return "somebody who is gone"


class _Accepted(asyncio.Protocol):
    """Never reads: it hands its socket on."""

    def __init__(self, handshakes: Handshakes) -> None:
        self._handshakes = handshakes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted."""
        self._handshakes.begin(cast("asyncio.Transport", transport))
