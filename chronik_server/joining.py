"""What a new node asks of the cluster that it joins.

Place: under `node` and `raft_backend`, over `client`. Promise: the cluster's id, and where its
nodes are, from any one of them. Invariant: nothing here changes anything: a node enters by its
address being announced, once it can be greeted (`control`).
"""

from __future__ import annotations

import logging

from chronik_server.addresses import Address, parse_address
from chronik_server.client import AsyncClient, ClientOptions
from chronik_server.config import ServerConfig
from chronik_server.protocol.cluster import ClusterDescription
from chronik_store.errors import ConfigError, UnavailableError

logger = logging.getLogger("chronik_server.cluster")


async def describe(config: ServerConfig) -> ClusterDescription:
    """The cluster that `config.join` names. ConfigError: it is none; UnavailableError."""
    asked = ", ".join(map(str, config.join))
    logger.info("asks %s which cluster it is", asked)
    options = ClientOptions(token=config.auth_token, tls=config.tls)
    async with AsyncClient(config.join, options=options) as client:
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


def addresses_in(found: ClusterDescription) -> dict[str, Address]:
    """Where the nodes of a cluster are, by id."""
    return {
        node.node_id: parse_address(node.address) for node in found.nodes if node.state != "removed"
    }
