"""/live, /ready and /metrics over plain HTTP, for whoever watches the process.

Place: beside `server`, in a thread of its own, so that a stuck event loop is seen and not shared.
Promise: /live is 200 while the event loop answers; /ready is 200 while every check of the backend
holds, else 503 with the reasons; /metrics is prometheus_client's own page, with the backend's
status asked for at each scrape. Invariant: nothing here changes anything, and no secret is shown.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import json
import logging
import queue
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from chronik_server.addresses import Address
from chronik_server.backend import Check
from chronik_server.server import Server
from chronik_server.store_metrics import families
from chronik_server.workers import no_thread
from chronik_store.errors import ChronikError, ConfigError

logger = logging.getLogger("chronik_server.health")

ANSWER_SECONDS = 5.0
CONNECTIONS_MAX = 64
"""Each is a thread; who comes beyond is hung up on."""
CONNECTION_SECONDS = 10.0
"""So long each has for its question and for taking the answer, however slowly it speaks."""
StartResponse = Callable[[str, list[tuple[str, str]]], object]


class _Handler(WSGIRequestHandler):
    timeout = CONNECTION_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base's name)
        """Probes come every second: nothing is logged of them."""


class _Listener(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, time: Callable[[], float], *arguments: Any) -> None:
        self._time = time
        self._begun: dict[socket.socket, float] = {}
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._threadless: queue.SimpleQueue[tuple[Any, Any] | None] = queue.SimpleQueue()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self._begun[request] = self._time()
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            del self._begun[request]
            self._threadless.put((request, client_address))
        except BaseException:
            self._ended(request)
            raise

    def serve_threadless(self) -> None:
        """Those for whom no thread can be had, one after the other: a node that works is not to
        look dead to who would restart it.
        """
        while (taken := self._threadless.get()) is not None:
            self._begun[taken[0]] = self._time()
            self.process_request_thread(*taken)

    def server_close(self) -> None:
        """Ends `serve_threadless` as well."""
        super().server_close()
        self._threadless.put(None)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._ended(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever hangs up in the middle is no news, and no traceback."""
        logger.debug("a connection of %s failed: %s", client_address, sys.exc_info()[1])

    def _ended(self, request: socket.socket) -> None:
        del self._begun[request]
        self._places.release()

    def service_actions(self) -> None:
        """Called twice a second: cut whoever is too slow. Each single byte has a time-out, too, but
        one now and then would keep a place for ever.
        """
        now = self._time()
        for request, begun in self._begun.copy().items():
            if now - begun > CONNECTION_SECONDS:
                with contextlib.suppress(OSError):  # it has just ended
                    request.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        """Without asking a name server, on the event loop, what this machine is called."""
        TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()


class _Listener6(_Listener):
    address_family = socket.AF_INET6


class Health:
    """The HTTP side of one server."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        server.metrics.watch(self._status)
        self._metrics = server.metrics.wsgi()
        self._listener: _Listener | None = None

    def start(self, address: Address) -> Address:
        """Listen; returns the address with its port. ConfigError when it cannot be had;
        UnavailableError when there is no thread to listen with.
        """
        try:
            kind = _Listener6 if ":" in address.host else _Listener
            timed: Any = functools.partial(kind, self._loop.time)
            made: Any = make_server(address.host, address.port, self.application, timed, _Handler)
        except OSError as error:
            raise ConfigError(f"cannot listen on {address}: {error}") from error
        listener: _Listener = made
        try:
            for target in (listener.serve_threadless, listener.serve_forever):
                threading.Thread(target=target, name="chronik-health", daemon=True).start()
        except RuntimeError as error:
            listener.server_close()
            raise no_thread(error) from error
        self._listener = listener
        return Address(address.host, listener.server_port)

    def stop(self) -> None:
        """Stop listening. Idempotent. Waits for the thread, so not on the event loop."""
        if self._listener is not None:
            self._listener.shutdown()
            self._listener.server_close()
            self._listener = None

    def application(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        """WSGI."""
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return self._metrics(environ, start)
        if path == "/live":
            return _answer(start, [Check("event loop", self._loop_fault())])
        if path == "/ready":
            return _answer(start, self._checks())
        start("404 Not Found", [("Content-Type", "text/plain")])
        return [b"/live /ready /metrics\n"]

    def _loop_fault(self) -> str:
        answered: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(answered.set_result, None)
        try:
            answered.result(ANSWER_SECONDS)
        except TimeoutError:
            return f"no answer within {ANSWER_SECONDS:g} s"
        return ""

    def _status(self) -> Iterator[Any]:
        asked = asyncio.run_coroutine_threadsafe(self._server.backend.status(None), self._loop)
        try:
            return families(asked.result(ANSWER_SECONDS))
        except TimeoutError:
            asked.cancel()
        except ChronikError as error:
            logger.warning("metrics: no status: %s", error)
        return families(None)

    def _checks(self) -> list[Check]:
        if self._server.leaving:
            return [Check("server", "is stopping")]
        asked = asyncio.run_coroutine_threadsafe(self._server.backend.checks(), self._loop)
        try:
            return list(asked.result(ANSWER_SECONDS))
        except TimeoutError:
            asked.cancel()
            return [Check("server", f"no answer within {ANSWER_SECONDS:g} s")]
        except ChronikError as error:
            return [Check("store", str(error))]


def _answer(start: StartResponse, checks: list[Check]) -> list[bytes]:
    faults = [check for check in checks if check.fault]
    start("503 Service Unavailable" if faults else "200 OK", [("Content-Type", "application/json")])
    found = {check.name: check.fault or "ok" for check in checks}
    return [json.dumps(found).encode() + b"\n"]
