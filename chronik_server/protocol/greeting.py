"""The first request of a connection, and the question that keeps it alive.

Place: in `protocol`. Promise: nothing but a greeting is accepted before a greeting, and secrets
in it never appear in a repr.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from chronik_server.protocol.message import Codec, Optioned
from chronik_store.format.shape import ID, NAME, UINT63, Integer, Optional, Text, TupleOf

Role = Literal["client", "peer"]


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Who a node says it is (protocol 12). `boot_id` is random in each start of its process."""

    cluster_id: str
    node_id: str
    node_uuid: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class Hello:
    """Who calls, and how it proves that it may. `peer` is set by nodes only, on their links; a node
    that asks as a client does says its id in `node_id`, for a place among those of nodes.
    """

    versions: tuple[int, ...]
    software: str = ""
    token: str | None = field(default=None, repr=False)
    peer: PeerIdentity | None = None
    node_id: str | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the server chose, who it is, and what it takes: bytes of a frame (head included) and
    requests in flight on one connection. search_ms: how long a search takes that names no deadline;
    None: a server that does not say.
    """

    version: int
    software: str
    cluster_id: str
    node_id: str
    boot_id: str
    frame_bytes_max: int
    in_flight_max: int
    peer: PeerIdentity | None = None
    search_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """Is somebody there?"""


@dataclass(frozen=True, slots=True)
class Pong:
    """Yes; and its wall clock, microseconds since 1970 UTC."""

    time_us: int


PEER_IDENTITY: Final = Optioned(
    PeerIdentity, {"cluster_id": NAME, "node_id": NAME, "node_uuid": ID, "boot_id": ID}
)
HELLO: Final = Codec(
    Hello,
    {
        "versions": TupleOf(Integer(1, 255), 16),
        "software": NAME,
        "token": Optional(Text(4096)),
        "peer": Optional(PEER_IDENTITY),
        "node_id": Optional(NAME),
    },
)
WELCOME: Final = Codec(
    Welcome,
    {
        "version": Integer(1, 255),
        "software": NAME,
        "cluster_id": NAME,
        "node_id": NAME,
        "boot_id": ID,
        "frame_bytes_max": UINT63,
        "in_flight_max": UINT63,
        "peer": Optional(PEER_IDENTITY),
        "search_ms": Optional(UINT63),
    },
)
PING: Final = Codec(Ping, {})
PONG: Final = Codec(Pong, {"time_us": UINT63})
