"""What a node needs before it can serve: its directory opened, its identity read.

Place: between the verbs that serve and the backends. Promise: a node's uuid is made once, with its
directory; its boot id is new in each start. Invariant: whoever opens closes.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from chronik_server.backend import Backend, NodeIdentity
from chronik_server.config import ServerConfig
from chronik_server.local_backend import LocalBackend
from chronik_store.aio import AsyncLogStore
from chronik_store.config import LogConfig
from chronik_store.environment import Environment
from chronik_store.errors import ConfigError
from chronik_store.format.checksum import content_hash
from chronik_store.log_store import LogStore
from chronik_store.replicated import node_uuid, open_as_node


async def open_backend(
    config: ServerConfig, log_config: LogConfig, on_fatal: Callable[[BaseException], None]
) -> Backend:
    """Open the data directory; a server of its own, or a node of the cluster that `peers` names.

    on_fatal: called when the process must end, since a disk has failed. Errors: as
    `LogStore.open`.
    """
    loop = asyncio.get_running_loop()
    env = Environment()
    boot_id = env.entropy.token_bytes(16).hex()
    if not config.peers:
        opener = functools.partial(LogStore.open, config.data_dir, config=log_config, env=env)
        alone = AsyncLogStore(await loop.run_in_executor(None, opener))
        store_id = (await alone.status()).store_id
        return LocalBackend(alone, NodeIdentity(store_id, config.node_id, store_id, boot_id))
    return await _open_node(config, log_config, on_fatal, env, boot_id)


async def _open_node(
    config: ServerConfig,
    log_config: LogConfig,
    on_fatal: Callable[[BaseException], None],
    env: Environment,
    boot_id: str,
) -> Backend:
    from chronik_server.raft_backend import RaftBackend

    if log_config.object_store is None:
        raise ConfigError(
            "the nodes of a cluster share one bucket: set OBJECT_STORE_BACKEND, or --object-store"
        )
    loop = asyncio.get_running_loop()
    cluster_id = cluster_id_of(config)

    def dispatch(call: Callable[[], None]) -> None:
        loop.call_soon_threadsafe(call)

    opener = functools.partial(
        open_as_node,
        config.data_dir,
        cluster_id=cluster_id,
        node_id=config.node_id,
        dispatch=dispatch,
        config=log_config,
        env=env,
    )
    store = await loop.run_in_executor(None, opener)
    uuid = await loop.run_in_executor(None, node_uuid, store)
    identity = NodeIdentity(cluster_id, config.node_id, uuid, boot_id)
    return RaftBackend(config, store, identity, env=env, on_fatal=on_fatal)


def cluster_id_of(config: ServerConfig) -> str:
    """32 hex digits that the first nodes of a cluster derive alike, from its name and their ids."""
    text = "\0".join((config.cluster_name, *sorted(dict(config.peers))))
    return content_hash(text.encode()) + content_hash(b"chronik\0" + text.encode())
