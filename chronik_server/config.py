"""Settings of a server: one frozen value, checked once.

Place: above `errors`, `tls`, `addresses`. Promise: an unusable value is a ConfigError that names
it; argument over environment over default; secrets never appear in repr. Invariant: a listener
that others than this machine can reach has TLS and asks for a token or a certificate, unless the
configuration says `insecure` in so many words.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from chronik_server.addresses import (
    DEFAULT_PORT,
    Address,
    parse_address,
    parse_peers,
    parse_reachable,
)
from chronik_server.tls import TlsOptions
from chronik_store.config import parse_flag
from chronik_store.errors import ConfigError
from chronik_store.format.shape import NAME, Optional, ShapeError, Text

MIB = 1 << 20
DEFAULT_LISTEN = Address("127.0.0.1", DEFAULT_PORT)
_TOKEN = Optional(Text(4096))
"""What a greeting can say (`protocol.greeting`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Everything of a node but its log's own settings (`LogConfig`)."""

    data_dir: str = "data"
    node_id: str = "1"
    listen: Address = DEFAULT_LISTEN
    advertise: Address | None = None
    """What clients and nodes connect to; the listener's own address if unset."""
    health_listen: Address | None = None
    peers: tuple[tuple[str, Address], ...] = ()
    """The first nodes of a cluster by id, this one included."""
    join: tuple[Address, ...] = ()
    """Nodes of a cluster that is there; for a new node's first start."""
    cluster_name: str = "chronik"
    """Two clusters whose nodes have the same ids differ in it. Fixed once data is written."""
    tls: TlsOptions | None = None
    auth_token: str | None = field(default=None, repr=False)
    """What callers must say, and what this node says to others."""
    auth_token_also: str | None = field(default=None, repr=False)
    """Callers may say this instead, while one token takes the place of the other."""
    insecure: bool = False
    # limits
    frame_bytes_max: int = 72 * MIB
    in_flight_requests_max: int = 4096
    in_flight_bytes_max: int = 64 * MIB
    """Of requests not yet answered on one connection; above it nothing more is read from it. Of
    answers read for it and not yet taken, likewise: above it the next fetch, search, status, or
    question for topics or bundles, waits.
    """
    requests_bytes_max: int = 1024 * MIB
    """Of requests of all connections together, long ones that have begun to arrive included. Above
    it only clients that hold less than an equal share of it are read from.
    """
    answers_bytes_max: int = 1024 * MIB
    """Of answers of all connections together."""
    connections_max: int = 10_000
    node_connections_max: int = 64
    """Beyond `connections_max`, in a cluster: clients that fill that keep no node from the others.
    """
    greeting_seconds: float = 5.0
    frame_seconds: float = 30.0
    """A frame that has begun is whole after this, or its sender is hung up on."""
    write_stall_seconds: float = 30.0
    """A reader that takes neither 1 MiB nor all that waits within so long is hung up on."""
    idle_seconds: float = 300.0
    shutdown_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}; it must be between {low} and {high}")
        check_node_id(self.node_id)
        _check_token("auth_token", self.auth_token)
        _check_token("auth_token_also", self.auth_token_also)
        if self.auth_token is None and self.auth_token_also is not None:
            raise ConfigError("auth_token_also takes a second token: set auth_token, too")
        if self.peers and self.join:
            raise ConfigError(
                "CHRONIK_PEERS names the first nodes of a new cluster, CHRONIK_JOIN a cluster that "
                "is there: give one of them"
            )
        if self.peers and self.node_id not in dict(self.peers):
            raise ConfigError(f"CHRONIK_PEERS does not name this node ({self.node_id!r})")

    def check_exposure(self) -> None:
        """ConfigError when a listener would serve strangers in the clear."""
        if self.insecure or self.listen.is_loopback:
            return
        proves = self.auth_token is not None or (self.tls is not None and self.tls.ca is not None)
        if self.tls is None or not proves:
            raise ConfigError(
                f"{self.listen} can be reached from other machines: set CHRONIK_TLS_CERT and "
                "CHRONIK_TLS_KEY, and CHRONIK_AUTH_TOKEN or CHRONIK_TLS_CA (client certificates); "
                "or listen on 127.0.0.1; or say --insecure where the network itself is trusted"
            )

    def takes_token(self, said: str | None) -> bool:
        """Whether a caller who says this may come in."""
        if self.auth_token is None:
            return True
        taken = [token for token in (self.auth_token, self.auth_token_also) if token is not None]
        given = (said or "").encode()
        return any(hmac.compare_digest(token.encode(), given) for token in taken)

    def within(self, files: int) -> ServerConfig:
        """These settings for a process that may open so many files at a time: half of them are for
        the logs, the bucket, and those who are accepted before they can be refused.
        """
        places = files // 2
        nodes = max(1, min(self.node_connections_max, places // 2))
        clients = max(1, min(self.connections_max, places - nodes))
        return replace(self, connections_max=clients, node_connections_max=nodes)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **arguments: Any) -> ServerConfig:
        """Settings from the environment; keyword arguments that are not None win."""
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for name, (target, parse) in ENVIRONMENT.items():
            text = environ.get(name)
            if text:
                values[target] = parse(text)
        values["tls"] = TlsOptions.from_env(environ)
        values.update({name: value for name, value in arguments.items() if value is not None})
        return cls(**values)


def check_node_id(node_id: str) -> None:
    """ConfigError when it cannot be a node's id."""
    try:
        NAME.unpack(node_id, "a node id")
    except ShapeError as error:
        raise ConfigError(str(error)) from error
    if not node_id or any(sign in node_id for sign in "@,/"):
        raise ConfigError(f"node id {node_id!r}: use a short name without @ , or /")


def _check_token(name: str, token: str | None) -> None:
    if token is not None and not token.strip():
        raise ConfigError(f"{name} is empty, and anybody could say that: leave it out, or set one")
    try:
        _TOKEN.pack(token)
    except ShapeError as error:  # which may not be shown
        raise ConfigError(f"{name}: {error}: nobody could say that") from None


def parse_join(text: str) -> tuple[Address, ...]:
    """`host:port,host:port`: any nodes of the cluster to join."""
    parts = (part.strip() for part in text.split(","))
    found = tuple(parse_reachable(part, what="CHRONIK_JOIN") for part in parts if part)
    if not found:  # as of CHRONIK_PEERS
        raise ConfigError(f"CHRONIK_JOIN {text!r} names no node: write HOST:PORT,HOST:PORT")
    return found


def _flag(text: str) -> bool:
    try:
        return parse_flag(text)
    except ValueError as error:
        raise ConfigError(f"CHRONIK_INSECURE={text!r}: {error}") from None


ENVIRONMENT: dict[str, tuple[str, Callable[[str], Any]]] = {
    "CHRONIK_DATA_DIR": ("data_dir", str),
    "CHRONIK_NODE_ID": ("node_id", str),
    "CHRONIK_LISTEN": ("listen", lambda text: parse_address(text, what="CHRONIK_LISTEN")),
    "CHRONIK_ADVERTISE": (
        "advertise",
        lambda text: parse_reachable(text, what="CHRONIK_ADVERTISE"),
    ),
    "CHRONIK_HEALTH_LISTEN": (
        "health_listen",
        lambda text: parse_address(text, what="CHRONIK_HEALTH_LISTEN"),
    ),
    "CHRONIK_PEERS": ("peers", parse_peers),
    "CHRONIK_JOIN": ("join", parse_join),
    "CHRONIK_CLUSTER_NAME": ("cluster_name", str),
    "CHRONIK_AUTH_TOKEN": ("auth_token", str),
    "CHRONIK_AUTH_TOKEN_ALSO": ("auth_token_also", str),
    "CHRONIK_INSECURE": ("insecure", _flag),
}
"""Beside these: CHRONIK_TLS_CERT, CHRONIK_TLS_KEY, CHRONIK_TLS_CA (`tls`)."""

_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("frame_bytes_max", 64 << 10, (1 << 31) - 1),
    ("in_flight_requests_max", 1, 1 << 20),
    ("in_flight_bytes_max", 1 << 10, 1 << 40),
    ("requests_bytes_max", 1 << 20, 1 << 40),
    ("answers_bytes_max", 1 << 20, 1 << 40),
    ("connections_max", 1, 1 << 20),
    ("node_connections_max", 1, 1 << 20),
    ("greeting_seconds", 0.01, 3600),
    ("frame_seconds", 0.01, 3600),
    ("write_stall_seconds", 0.01, 3600),
    ("idle_seconds", 0.01, 1e9),
    ("shutdown_seconds", 0, 3600),
)
