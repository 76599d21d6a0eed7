"""An HTTP proxy that makes an S3 server misbehave.

Place: shipped with the test kit; stands between a client and a real server on loopback. Promise:
requests are relayed byte for byte (Host included, so that signatures still verify) unless a fault
matches. Invariant: each accepted request is in `requests`, in order, so that a test can count
what one call cost.

    with FaultProxy("127.0.0.1", 7480) as proxy:
        proxy.add(ProxyFault("reset_after", match="^PUT"))   # the object is stored, the reply lost
        ... use proxy.url as the endpoint ...

Acts: `status` (answer `status` instead of the server), `reset_before` (the server never sees the
request), `reset_after` (it does, the client gets no answer), `hang` (no answer for `seconds`, then
a reset), `latency` (relay after `seconds`), `truncate` (the answer's body ends after `body_bytes`,
then a reset). `disappear()` closes the port and every connection, as if the machine were gone,
until `reappear()`.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

Act = Literal["status", "reset_before", "reset_after", "hang", "latency", "truncate"]
_CODES = {
    429: ("Too Many Requests", "TooManyRequests"),
    500: ("Internal Server Error", "InternalError"),
    503: ("Service Unavailable", "SlowDown"),
    409: ("Conflict", "ConditionalRequestConflict"),
    403: ("Forbidden", "AccessDenied"),
    501: ("Not Implemented", "NotImplemented"),
}
_HEAD_BYTES_MAX = 1 << 20
_Sink = Callable[[bytes], Awaitable[None]]


@dataclass(slots=True)
class ProxyFault:
    """What to do to the next `times` requests whose request line matches; None: to all."""

    act: Act
    match: str = ""
    times: int | None = 1
    status: int = 503
    seconds: float = 0.0
    body_bytes: int = 0


class FaultProxy:
    """The proxy, on its own thread and loop. A context manager."""

    def __init__(self, host: str, port: int) -> None:
        self.requests: list[str] = []
        self._upstream = (host, port)
        self._faults: list[ProxyFault] = []
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        """The endpoint to give to the client."""
        return f"http://127.0.0.1:{self.port}"

    def add(self, fault: ProxyFault) -> None:
        """Let a fault happen. The first that matches a request is taken."""
        self._faults.append(fault)

    def clear(self) -> None:
        """No more faults; forget the requests seen."""
        self._faults.clear()
        self.requests.clear()

    def disappear(self) -> None:
        """No more server: connections break, new ones are refused."""
        asyncio.run_coroutine_threadsafe(self._hide(), self._loop).result(10)

    def reappear(self) -> None:
        """It is back, on the same port."""
        asyncio.run_coroutine_threadsafe(self._show(), self._loop).result(10)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        await self._show()
        self._ready.set()
        await self._stop.wait()
        await self._hide()

    async def _show(self) -> None:
        server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, limit=_HEAD_BYTES_MAX
        )
        self.port = server.sockets[0].getsockname()[1]
        self._server = server

    async def _hide(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(_Connection(self, reader, writer).run())
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    def _take(self, line: str) -> ProxyFault | None:
        self.requests.append(line)
        for fault in self._faults:
            if fault.times != 0 and re.search(fault.match, line):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None


class _Connection:
    """One client connection: requests and answers in turn."""

    def __init__(
        self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self) -> None:
        try:
            while await self._exchange():
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # either side went away: the other one is told by the close below
        finally:
            self._writer.close()
            if self._server is not None:
                self._server[1].close()

    async def _exchange(self) -> bool:
        """One request and its answer; False ends the connection."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        line = head.split(b"\r\n", 1)[0].decode("latin-1")
        fault = self._proxy._take(line)  # noqa: SLF001 - one module, one machine
        act = fault.act if fault is not None else None
        if fault is not None and act in {"hang", "latency"}:
            await asyncio.sleep(fault.seconds)
        if act in {"reset_before", "hang"}:
            return self._reset()
        if fault is not None and act == "status":
            return await self._answer(head, line, fault.status)
        upstream = await self._connect()
        upstream[1].write(head)
        if b"100-continue" in head.lower() and not await self._relay_continue(upstream, line):
            return False
        await _relay_body(self._reader, head, _sink(upstream[1]))
        answer = await upstream[0].readuntil(b"\r\n\r\n")
        if act == "reset_after":
            return self._reset()
        await self._relay_answer(upstream, answer, line, fault)
        return True

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._server is None:
            host, port = self._proxy._upstream  # noqa: SLF001 - one module, one machine
            self._server = await asyncio.open_connection(host, port, limit=_HEAD_BYTES_MAX)
        return self._server

    async def _relay_continue(
        self, upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter], line: str
    ) -> bool:
        """True if the server wants the body; else its final answer has been relayed."""
        answer = await upstream[0].readuntil(b"\r\n\r\n")
        if _status(answer) == 100:
            self._writer.write(answer)
            return True
        await self._relay_answer(upstream, answer, line, None)
        return False

    async def _relay_answer(
        self,
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        answer: bytes,
        line: str,
        fault: ProxyFault | None,
    ) -> None:
        self._writer.write(answer)
        if not (line.startswith("HEAD ") or _status(answer) in {204, 304}):
            limit = fault.body_bytes if fault is not None and fault.act == "truncate" else None
            await _relay_body(upstream[0], answer, self._limited(limit))
        await self._writer.drain()

    def _limited(self, limit: int | None) -> _Sink:
        plain = _sink(self._writer)
        left = limit

        async def write(data: bytes) -> None:
            nonlocal left
            await plain(data if left is None else data[:left])
            if left is not None:
                left -= len(data)
                if left <= 0:
                    self._reset()
                    raise ConnectionResetError

        return write

    async def _answer(self, head: bytes, line: str, status: int) -> bool:
        if b"100-continue" not in head.lower():

            async def ignore(_data: bytes) -> None:
                pass

            await _relay_body(self._reader, head, ignore)
        reason, code = _CODES[status]
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"
        if line.startswith("HEAD "):
            body = ""
        self._writer.write(
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )
        await self._writer.drain()
        return False

    def _reset(self) -> bool:
        """Close with RST instead of FIN: what a crashed server or a firewall looks like."""
        connection = self._writer.get_extra_info("socket")
        if connection.fileno() >= 0:  # else the client has not waited for it
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._writer.transport.abort()
        return False


def _sink(writer: asyncio.StreamWriter) -> _Sink:
    async def write(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    return write


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def _relay_body(source: asyncio.StreamReader, head: bytes, sink: _Sink) -> None:
    lowered = head.lower()
    if b"\r\ntransfer-encoding: chunked" in lowered:
        await _relay_chunks(source, sink)
        return
    match = re.search(rb"\r\ncontent-length:\s*(\d+)", lowered)
    left = int(match.group(1)) if match else 0
    while left:
        data = await source.read(min(left, 1 << 16))
        if not data:
            raise ConnectionResetError
        left -= len(data)
        await sink(data)


async def _relay_chunks(source: asyncio.StreamReader, sink: _Sink) -> None:
    size = -1
    while size != 0:
        line = await source.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        await sink(line)
        if size:
            await sink(await source.readexactly(size + 2))
    trailer = b""
    while trailer != b"\r\n":
        trailer = await source.readuntil(b"\r\n")
        await sink(trailer)
