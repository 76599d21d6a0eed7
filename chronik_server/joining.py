"""How a node finds the others: it asks one of the cluster that it joins, or its own log.

Place: under `node` and `raft_backend`, over `client`. Promise: the cluster's id, and where its
nodes are, from any one of them; where they are, from a log whose newest marks were lost.
Invariant: nothing here changes anything: a node enters by its address being announced, once it can
be greeted (`control`).
"""

from __future__ import annotations

import contextlib
import logging

from chronik_server.addresses import Address, parse_address
from chronik_server.calling import client_of
from chronik_server.client import ClientOptions
from chronik_server.config import ServerConfig
from chronik_server.metadata import METADATA_TOPIC
from chronik_server.metadata_commands import AdmitNode, MakeTopic, MoveNode, RemoveNode, decode
from chronik_server.placement import COPIES_DEFAULT
from chronik_server.protocol.cluster import ClusterDescription
from chronik_store.conversion import found_topics, is_founder
from chronik_store.environment import Environment
from chronik_store.errors import ConfigError, FutureVersionError, UnavailableError
from chronik_store.format.entry import EntryKind
from chronik_store.format.stored_batch import StoredBatch
from chronik_store.log_store import LogStore
from chronik_store.replica import Replica

logger = logging.getLogger("chronik_server.cluster")
READ_BYTES = 1 << 20


async def describe(config: ServerConfig, env: Environment) -> ClusterDescription:
    """The cluster that `config.join` names. ConfigError: it is none; UnavailableError."""
    asked = ", ".join(map(str, config.join))
    logger.info("asks %s which cluster it is", asked)
    options = ClientOptions(token=config.auth_token, tls=config.tls)
    async with client_of(env, config.join, options, node_id=config.node_id) as client:
        try:
            found = await client.cluster()
        except UnavailableError as error:
            raise UnavailableError(
                f"{asked} does not answer, so there is no cluster to join yet: {error}"
            ) from error
    if found.alone:
        raise ConfigError(
            f"{asked} is a server of its own: stop it, make its "
            "directory the first node of a cluster (`chronik -d DIR node convert`), start it again"
        )
    return found


def topics_found(store: LogStore, node_id: str) -> tuple[MakeTopic, ...]:
    """Topics that a directory held before it was the first node of a cluster. Touches the disk."""
    if not is_founder(store):
        return ()
    return tuple(
        MakeTopic(
            topic.name,
            topic.topic_id,
            topic.log_ids,
            COPIES_DEFAULT,
            ((node_id,),) * len(topic.log_ids),
        )
        for topic in found_topics(store)
        if topic.name != METADATA_TOPIC
    )


def addresses_in(found: ClusterDescription) -> dict[str, Address]:
    """Where the nodes of a cluster are, by id; but those at addresses that nobody can connect to,
    which an older version has recorded.
    """
    addresses = {}
    for node in found.nodes:
        if node.state != "removed":
            with contextlib.suppress(ConfigError):
                addresses[node.node_id] = parse_address(node.address)
    return addresses


def addresses_told(replica: Replica) -> dict[str, Address]:
    """Where nodes are by those entries of the metadata that may not be committed. Reads the disk.

    After a crash a node knows of what was committed no more than the newest mark on its disk says;
    to learn the rest it must find the others, and be found. An address is where to look, no more:
    who is there has to prove who it is.
    """
    found: dict[str, Address] = {}
    index = replica.commit_index + 1
    while index <= replica.last_index:
        for header, payload in replica.entries(index, READ_BYTES):
            index = header.index + 1
            if header.kind == EntryKind.RECORDS:
                batch = StoredBatch(payload, header.base_offset, header.timestamp_us)
                for value in batch.values():
                    _note(found, value)
    return found


def _note(found: dict[str, Address], value: bytes) -> None:
    try:
        command = decode(value)
    except FutureVersionError:
        return  # not known to be committed; where it is, the fold says so
    if isinstance(command, RemoveNode):
        found.pop(command.node_id, None)
    elif isinstance(command, (AdmitNode, MoveNode)):
        try:
            found[command.node_id] = parse_address(command.address)
        except ConfigError:
            pass  # recorded by an older version: no connection can be made to it
