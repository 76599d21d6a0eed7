"""A server on a free port of loopback, and a client of it, for one test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from chronik_server.addresses import Address
from chronik_server.backend import NodeIdentity
from chronik_server.client import AsyncClient, ClientOptions
from chronik_server.config import ServerConfig
from chronik_server.local_backend import LocalBackend
from chronik_server.server import Server
from chronik_store.clock import SystemClock
from chronik_store.config import LogConfig
from chronik_store.log_store import LogStore

T = TypeVar("T")
LOG = LogConfig(pipeline_enabled=False, disk_reserve_bytes=0, disk_throttle_bytes=0)
QUICK = ClientOptions(connect_seconds=2.0, request_seconds=5.0, retry_seconds=3.0)
ONCE = replace(QUICK, retry_seconds=0.0)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's body; nothing takes more than twenty seconds."""

    async def bounded() -> T:
        async with asyncio.timeout(20):
            found = await main
            await asyncio.sleep(0.01)  # what was closed is gone before the loop is
            return found

    return asyncio.run(bounded())


@asynccontextmanager
async def serving(
    path: Path | str,
    *,
    log: LogConfig = LOG,
    host: str = "127.0.0.1",
    port: int = 0,
    search_seconds: float = 10.0,
    on_fatal: Callable[[BaseException], None] = lambda _: None,
    **settings: Any,
) -> AsyncIterator[tuple[Server, str]]:
    """A running server and its address as text."""
    store = await asyncio.to_thread(LogStore.open, str(path), config=log)
    identity = NodeIdentity("cluster", "1", "0" * 32, "1" * 32)
    backend = LocalBackend(store, identity, on_fatal=on_fatal)
    config = ServerConfig(listen=Address(host, port), shutdown_seconds=2.0, **settings)
    server = Server(
        backend,
        config,
        clock=SystemClock(),
        batch_bytes_max=log.batch_bytes_max,
        search_seconds=search_seconds,
    )
    address = await server.start()
    try:
        yield server, str(address)
    finally:
        await server.stop()


@asynccontextmanager
async def connected(
    path: Path | str, *, options: ClientOptions = QUICK, **settings: Any
) -> AsyncIterator[tuple[Server, AsyncClient]]:
    """A running server and a client of it."""
    async with (
        serving(path, **settings) as (server, address),
        AsyncClient(address, options=options) as client,
    ):
        yield server, client
