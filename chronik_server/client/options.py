"""How a client connects, proves who it is, waits and tries again.

Place: the lowest part of `client`. Promise: secrets never appear in repr. Invariant: every wait of
a client has an end that stands here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chronik_server.addresses import Address, parse_reachable
from chronik_server.tls import TlsOptions
from chronik_store.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """How a client connects and how patient it is: seconds, bytes, secrets. Frozen.

    retry_seconds: how long, from its first failure, a call goes on trying what may be tried again;
    then it raises what it met last. token and tls: as the server asks for them; never shown in
    repr.
    """

    token: str | None = field(default=None, repr=False)
    tls: TlsOptions | None = None
    connect_seconds: float = 5.0
    request_seconds: float = 30.0
    """Without an answer for so long the connection counts as lost; what may take longer has its own
    time besides, while pings are answered.
    """
    retry_seconds: float = 30.0
    backoff_seconds: float = 0.02
    """The first pause; it doubles, with jitter, up to `backoff_seconds_max`."""
    backoff_seconds_max: float = 0.25
    frame_bytes_max: int = 1 << 30

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> ClientOptions:
        """From CHRONIK_AUTH_TOKEN and CHRONIK_TLS_CERT, _KEY, _CA. ConfigError names a bad one."""
        environ = os.environ if environ is None else environ
        token = environ.get("CHRONIK_AUTH_TOKEN") or None
        return cls(token=token, tls=TlsOptions.from_env(environ))


def addresses_of(servers: object) -> tuple[Address, ...]:
    """What a client is given, as addresses. TypeError when it is neither."""
    given: Sequence[object] = (servers,)
    if isinstance(servers, Sequence) and not isinstance(servers, (str, Address)):
        given = servers
    return tuple(address for each in given for address in _addresses(each))


def _addresses(given: object) -> tuple[Address, ...]:
    if isinstance(given, str):
        return parse_servers(given)
    if isinstance(given, Address):
        return (given,)
    raise TypeError(
        "servers are given as a str, 'HOST:PORT,HOST:PORT', or as a list of such, not as "
        f"{type(given).__name__}"
    )


def parse_servers(text: str) -> tuple[Address, ...]:
    """`host:port,host:port`: any nodes of one cluster."""
    found = tuple(
        parse_reachable(part, what="a server") for part in text.split(",") if part.strip()
    )
    if not found:
        raise ConfigError("no server is named: write HOST:PORT, or several with commas between")
    return found
