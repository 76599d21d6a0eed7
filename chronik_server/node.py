"""What a node needs before it can serve: its directory opened, its identity read.

Place: between the verbs that serve and the backends. Promise: a node's uuid is made once, with its
directory; its boot id is new in each start. Invariant: whoever opens closes.
"""

from __future__ import annotations

import asyncio
import functools

from chronik_server.backend import Backend, NodeIdentity
from chronik_server.config import ServerConfig
from chronik_server.local_backend import LocalBackend
from chronik_store.aio import AsyncLogStore
from chronik_store.clock import SystemEntropy
from chronik_store.config import LogConfig
from chronik_store.errors import ConfigError
from chronik_store.log_store import LogStore


async def open_backend(config: ServerConfig, log_config: LogConfig, stop: asyncio.Event) -> Backend:
    """Open the data directory; a server of its own, or a node of the cluster that `peers` names.

    stop: set by the backend when the process must end (a disk that fails).
    """
    if config.peers:
        raise ConfigError("CHRONIK_PEERS is set, but this version serves one node only")
    loop = asyncio.get_running_loop()
    opener = functools.partial(LogStore.open, config.data_dir, config=log_config)
    store = AsyncLogStore(await loop.run_in_executor(None, opener))
    store_id = (await store.status()).store_id
    boot_id = SystemEntropy().token_bytes(16).hex()
    return LocalBackend(store, NodeIdentity(store_id, config.node_id, store_id, boot_id))
