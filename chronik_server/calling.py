"""A node that asks other nodes as a client does.

Place: under whatever of a node calls others by more than Raft's messages. Promise: such a client
has the node's own clock and chance, and says whose it is: nodes keep some of their places for it.
Invariant: whoever makes one closes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from chronik_server.addresses import Address
from chronik_server.client import AsyncClient, ClientOptions
from chronik_store.environment import Environment


def client_of(
    env: Environment, servers: Sequence[Address], options: ClientOptions, *, node_id: str
) -> AsyncClient:
    """A client of these nodes, for this one. `async with` closes it."""
    client = AsyncClient(servers, options=options, clock=env.clock, entropy=env.entropy)
    client.router.node_id = node_id
    return client
