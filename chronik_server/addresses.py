"""HOST:PORT as people write it.

Place: under `config` and `client`. Promise: what cannot be meant is a ConfigError that shows how
to write it. Invariant: an IPv6 host stands in brackets in text, without them in the value.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from chronik_store.errors import ConfigError

DEFAULT_PORT = 7411


class Address(NamedTuple):
    """Where to connect or to listen. Port 0: any free one (listeners only)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_everywhere(self) -> bool:
        """A listener on every interface, which nobody can connect to by that name."""
        return self.host in {"0.0.0.0", "::"}  # noqa: S104 (it is recognised)

    @property
    def is_loopback(self) -> bool:
        """Reached from this machine only. A name other than localhost may be anybody's."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str, *, what: str = "an address") -> Address:
    """`host:port`, `[v6]:port`, or `host` alone for the default port."""
    text = text.strip()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest[1:] if bracket and rest.startswith(":") else ""
        bad = not bracket or (rest and not rest.startswith(":"))
    else:
        host, _, port = text.partition(":")
        bad = ":" in port
    port = port or str(DEFAULT_PORT)
    if bad or not host or not _is_port(port):
        raise ConfigError(f"{what} {text!r}: write HOST:PORT, or [IPV6]:PORT")
    try:
        host.encode("idna")  # as whoever connects will
    except UnicodeError as error:
        raise ConfigError(f"{what} {text!r}: {host!r} is no name of a host: {error}") from error
    return Address(host, int(port))


def _is_port(text: str) -> bool:
    # The length first: a number of thousands of digits is an error of `int`.
    return len(text) <= 5 and text.isascii() and text.isdigit() and int(text) <= 65535


def parse_reachable(text: str, *, what: str = "an address") -> Address:
    """`parse_address` of what others connect to."""
    address = parse_address(text, what=what)
    if not address.port:
        raise ConfigError(
            f"{what} {text!r}: nobody can connect to port 0; write the port that is listened on"
        )
    return address


def parse_peers(text: str) -> tuple[tuple[str, Address], ...]:
    """`1@host:port,2@host:port`: the nodes of a cluster by id."""
    found: dict[str, Address] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        node_id, at, address = part.partition("@")
        if not at or not node_id or node_id in found:
            raise ConfigError(
                f"CHRONIK_PEERS {part!r}: write ID@HOST:PORT,ID@HOST:PORT with each id once"
            )
        found[node_id] = parse_reachable(address, what="CHRONIK_PEERS")
    if not found:  # of a variable that is not set; alone, the node would own its directory for good
        raise ConfigError(f"CHRONIK_PEERS {text!r} names no node: write ID@HOST:PORT,ID@HOST:PORT")
    return tuple(found.items())
