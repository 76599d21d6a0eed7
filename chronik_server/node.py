"""What a node needs before it can serve: its directory opened, its identity read.

Place: between the verbs that serve and the backends. Promise: a node's uuid is made once, with its
directory; its boot id is new in each start; a directory that belongs to a cluster is served as that
cluster's node, whatever the settings say of its first nodes. Invariant: whoever opens closes.

    directory          settings            served as
    new                --peers             one of the first nodes of a new cluster
    new                --join              a new node of a cluster that is there
    new, or local      neither             a server of its own
    a cluster's        any, or neither     that node: its own log knows the members
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from chronik_server.addresses import Address
from chronik_server.backend import Backend, NodeIdentity, StoppedError
from chronik_server.config import ServerConfig
from chronik_server.joining import addresses_in, describe
from chronik_server.local_backend import LocalBackend
from chronik_server.protocol.cluster import ClusterDescription
from chronik_server.turn import Turn
from chronik_store.config import LogConfig
from chronik_store.conversion import is_founder
from chronik_store.environment import Environment
from chronik_store.errors import ConfigError, UnavailableError
from chronik_store.format.checksum import content_hash
from chronik_store.log_identity import LOCAL_OWNER
from chronik_store.log_store import LogStore
from chronik_store.replicated import check_bucket, node_uuid, open_as_node, owner_of

if TYPE_CHECKING:
    from chronik_server.raft_backend import RaftBackend

T = TypeVar("T")
logger = logging.getLogger("chronik_server.node")
OnFatal = Callable[[BaseException], None]


async def open_backend(
    config: ServerConfig,
    log_config: LogConfig,
    on_fatal: OnFatal,
    *,
    env: Environment,
    stop: asyncio.Event | None = None,
) -> Backend:
    """Open the data directory; a server of its own, or a node of a cluster.

    on_fatal: called when the process must end: a disk has failed, or NodeRemovedError. stop: set
    when it is to end; StoppedError, while it still looks for the cluster that it joins. Errors: as
    `LogStore.open`; ConfigError when it cannot be what the settings ask for.
    """
    owner = await _run(owner_of, config.data_dir, env)
    if owner not in {None, LOCAL_OWNER}:
        assert owner is not None
        return await _reopen(config, log_config, on_fatal, env, owner)
    if config.peers or config.join:
        if owner == LOCAL_OWNER:
            raise ConfigError(
                f"{config.data_dir} belongs to a log of its own; `chronik -d {config.data_dir} "
                "node convert` makes it the first node of a cluster"
            )
        if log_config.object_store is None:
            raise ConfigError(
                "the nodes of a cluster share one bucket: set OBJECT_STORE_BACKEND, or "
                "--object-store"
            )
        if config.join:
            found = await _unless(stop, describe(config, env))
            return await _join(config, log_config, on_fatal, env, found)
        return await _node(
            config, log_config, on_fatal, env,
            cluster_id=cluster_id_of(config), hints=dict(config.peers), first=_first(config),
        )  # fmt: skip
    opener = functools.partial(LogStore.open, config.data_dir, config=log_config, env=env)
    alone = await _run(opener)
    store_id = (await _run(alone.status)).store_id
    identity = NodeIdentity(store_id, config.node_id, store_id, _boot_id(env))
    return LocalBackend(alone, identity, on_fatal=on_fatal)


async def _reopen(
    config: ServerConfig, log_config: LogConfig, on_fatal: OnFatal, env: Environment, owner: str
) -> RaftBackend:
    """A node that was here before."""
    cluster_id, _, node_id = owner.partition("/")
    if node_id != config.node_id:
        raise ConfigError(
            f"{config.data_dir} is node {node_id} of cluster {cluster_id}, not node "
            f"{config.node_id}: start it with --node-id {node_id}"
        )
    is_first = cluster_id_of(config) == cluster_id
    return await _node(
        config, log_config, on_fatal, env,
        cluster_id=cluster_id, hints=dict(config.peers), first=_first(config) if is_first else (),
    )  # fmt: skip


async def _unless(stop: asyncio.Event | None, asking: Coroutine[Any, Any, T]) -> T:
    """What was asked for; StoppedError when the process is asked to end first."""
    task = asyncio.ensure_future(asking)
    asked = asyncio.ensure_future(asyncio.Event().wait() if stop is None else stop.wait())
    try:
        await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise StoppedError("asked to end before a node of the cluster had answered")
        return task.result()
    finally:
        asked.cancel()
        task.cancel()


async def _join(
    config: ServerConfig,
    log_config: LogConfig,
    on_fatal: OnFatal,
    env: Environment,
    found: ClusterDescription,
) -> RaftBackend:
    """See that this node can be one of the cluster, before anything is written here."""
    own = {node.node_id: node for node in found.nodes}.get(config.node_id)
    if own is not None and own.state in {"leaving", "removed"}:
        raise ConfigError(f"node id {config.node_id} is used up: choose another")
    if own is not None and own.node_uuid is not None:
        raise ConfigError(
            f"node id {config.node_id} belongs to directory {own.node_uuid}: a node that lost its "
            "disk comes back under a new id (`chronik node remove` the old one)"
        )
    if found.bucket:
        look = functools.partial(check_bucket, log_config, found.bucket, found.bucket_url, env=env)
        try:
            await _run(look)
        except UnavailableError as error:
            logger.warning("%s; it is looked at again before anything is uploaded", error)
    return await _node(
        config, log_config, on_fatal, env,
        cluster_id=found.cluster_id, hints=addresses_in(found), first=(),
    )  # fmt: skip


async def _node(
    config: ServerConfig,
    log_config: LogConfig,
    on_fatal: OnFatal,
    env: Environment,
    *,
    cluster_id: str,
    hints: dict[str, Address],
    first: tuple[str, ...],
) -> RaftBackend:
    from chronik_server.raft_backend import RaftBackend

    turn = Turn(asyncio.get_running_loop())
    opener = functools.partial(
        open_as_node,
        config.data_dir,
        cluster_id=cluster_id,
        node_id=config.node_id,
        dispatch=turn.from_thread,
        config=log_config,
        env=env,
    )
    store = await _run(opener)
    uuid = await _run(node_uuid, store)
    if not first and await _run(is_founder, store):
        first = (config.node_id,)
    identity = NodeIdentity(cluster_id, config.node_id, uuid, _boot_id(env))
    return RaftBackend(
        config, store, identity, hints=hints, first=first, env=env, turn=turn, on_fatal=on_fatal
    )


async def _run(function: Callable[..., T], *arguments: Any) -> T:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, functools.partial(function, *arguments))


def _boot_id(env: Environment) -> str:
    return env.entropy.token_bytes(16).hex()


def _first(config: ServerConfig) -> tuple[str, ...]:
    return tuple(sorted(dict(config.peers)))


def cluster_id_of(config: ServerConfig) -> str:
    """32 hex digits that the first nodes of a cluster derive alike, from its name and their ids."""
    text = "\0".join((config.cluster_name, *sorted(dict(config.peers))))
    return content_hash(text.encode()) + content_hash(b"chronik\0" + text.encode())
